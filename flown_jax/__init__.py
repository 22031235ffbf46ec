"""flown_jax: flow matching on neural network parameters (FLoWN), in JAX."""

__version__ = "0.1.0"

"""Weights as data: vectors with the record of what they mean, and zoos of them on disk."""

from flown_jax.weights import zoo
from flown_jax.weights.spec import Entry, WeightSpec
from flown_jax.weights.zoo import Zoo

__all__ = ["Entry", "WeightSpec", "Zoo", "zoo"]

"""Velocity networks: `velocity(x, t, condition) -> v`. Import each from its own file."""

from flown_jax.velocity.dataset_condition import ConditionedUNet, DatasetCondition
from flown_jax.velocity.mlp import MLPVelocity
from flown_jax.velocity.unet import UNet

__all__ = ["ConditionedUNet", "DatasetCondition", "MLPVelocity", "UNet"]

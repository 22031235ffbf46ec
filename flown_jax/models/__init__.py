"""Base models: the networks whose weights are generated, and their backbones."""

from flown_jax.models import heads
from flown_jax.models.heads import FeatureTransform
from flown_jax.models.resnet12 import ResNet12

__all__ = ["FeatureTransform", "ResNet12", "heads"]

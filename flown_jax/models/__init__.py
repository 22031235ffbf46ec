"""Base models: the networks whose weights are generated, and their backbones."""

from flown_jax.models import heads, registry
from flown_jax.models.activations import get_activation
from flown_jax.models.cnn import CNN, cnn_medium, cnn_small
from flown_jax.models.convnext import ConvNeXt
from flown_jax.models.heads import FeatureTransform
from flown_jax.models.initialise import initialise_cnn
from flown_jax.models.mlp import MLP
from flown_jax.models.resnet import ResNet18
from flown_jax.models.resnet12 import ResNet12
from flown_jax.models.subsets import last_norms
from flown_jax.models.vit import VisionTransformer

__all__ = [
    "CNN",
    "MLP",
    "ConvNeXt",
    "FeatureTransform",
    "ResNet12",
    "ResNet18",
    "VisionTransformer",
    "cnn_medium",
    "cnn_small",
    "get_activation",
    "heads",
    "initialise_cnn",
    "last_norms",
    "registry",
]

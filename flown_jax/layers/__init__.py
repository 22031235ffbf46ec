"""Building blocks of the networks."""

from flown_jax.layers.attention import MultiHeadAttention, SingleHeadAttention
from flown_jax.layers.conv import Conv, conv2d
from flown_jax.layers.conv1d import ConvTranspose1d
from flown_jax.layers.dense import Dense
from flown_jax.layers.embeddings import sinusoidal_embedding
from flown_jax.layers.initializers import torch_kernel, torch_uniform
from flown_jax.layers.normalization import GroupNorm, InstanceNorm1d
from flown_jax.layers.resampling import Downsample, Upsample, mean_pool, upsample_nearest
from flown_jax.layers.residual import ResidualBlock, TimeResidualBlock

__all__ = [
    "Conv",
    "ConvTranspose1d",
    "Dense",
    "Downsample",
    "GroupNorm",
    "InstanceNorm1d",
    "MultiHeadAttention",
    "ResidualBlock",
    "SingleHeadAttention",
    "TimeResidualBlock",
    "Upsample",
    "conv2d",
    "mean_pool",
    "sinusoidal_embedding",
    "torch_kernel",
    "torch_uniform",
    "upsample_nearest",
]

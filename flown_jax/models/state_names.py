"""PyTorch's names of a layer's tensors, and the paths of the same tensors in linen."""

from __future__ import annotations


def layer(torch: str, ours: str) -> dict[str, str]:
    """Weight and bias of a convolution or a linear layer."""
    return {f"{torch}.weight": f"params/{ours}/kernel", f"{torch}.bias": f"params/{ours}/bias"}


def norm(torch: str, ours: str) -> dict[str, str]:
    """Weight and bias of a normalisation."""
    return {f"{torch}.weight": f"params/{ours}/scale", f"{torch}.bias": f"params/{ours}/bias"}


def conv_norm(torch_conv: str, torch_norm: str, conv: str, batch_norm: str) -> dict[str, str]:
    """A convolution without bias and its BatchNorm; `num_batches_tracked` is left out."""
    return {
        f"{torch_conv}.weight": f"params/{conv}/kernel",
        **norm(torch_norm, batch_norm),
        f"{torch_norm}.running_mean": f"batch_stats/{batch_norm}/mean",
        f"{torch_norm}.running_var": f"batch_stats/{batch_norm}/var",
    }

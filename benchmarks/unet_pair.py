"""The UNet of the flow benchmarks twice, in JAX and in PyTorch, with the same parameters."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import torch_twins
from benchmarks.harness import available_cores
from flown_jax.torch_import import convert
from flown_jax.torch_import.unet import module_from_config
from flown_jax.velocity.unet import UNet

SIDE, CHANNELS = 8, 4
TOLERANCE = 1e-4  # float32 sums in another order
LAYOUTS = {"torch": torch.contiguous_format, "torch channels_last": torch.channels_last}


@dataclass
class Pair:
    """Both networks.

    Attributes:
      module, variables: ours. twins: PyTorch's by the name of the memory layout.
      device: PyTorch's. difference: largest velocity difference over the largest velocity.
      multiply_adds: of one evaluation of one map.
    """

    module: UNet
    variables: dict[str, Any]
    twins: dict[str, torch_twins.UNet]
    device: torch.device
    difference: float
    multiply_adds: float


def build(
    model_channels: int,
    *,
    channel_mult: tuple[int, ...] = (1, 2, 2),
    num_res_blocks: int = 2,
    seed: int = 0,
) -> Pair:
    """Two networks of equal random parameters that were seen to compute the same velocity.

    Args:
      model_channels, channel_mult, num_res_blocks: of the UNet. seed: of the parameters.
    Raises:
      RuntimeError: the velocities differ by more than `TOLERANCE`.
    """
    device = torch_device()
    torch.manual_seed(seed)
    twin = torch_twins.UNet(CHANNELS, model_channels, channel_mult, num_res_blocks)
    config = {
        "model_channels": model_channels,
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "channel_mult": channel_mult,
        "num_res_blocks": num_res_blocks,
        "attention_resolutions": (),
    }
    state = {name: value.numpy() for name, value in twin.state_dict().items()}
    pair = Pair(
        module=module_from_config(config),
        variables=jax.tree.map(jnp.asarray, convert("unet", state, config)),
        twins={name: _copy(twin, layout).to(device) for name, layout in LAYOUTS.items()},
        device=device,
        difference=0.0,
        multiply_adds=torch_twins.multiply_adds(
            twin, torch.zeros(1, CHANNELS, SIDE, SIDE), torch.zeros(1)
        ),
    )
    pair.difference = _difference(pair, seed)
    if not pair.difference < TOLERANCE:
        raise RuntimeError(
            f"the twin UNets of width {model_channels} differ by {pair.difference:.1e} "
            f"(at most {TOLERANCE:.0e} expected): they are not the same network."
        )
    return pair


def torch_device() -> torch.device:
    """PyTorch's device beside JAX's, with all cores and the same matrix-product precision."""
    torch.set_num_threads(available_cores())
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        # XLA multiplies float32 in TF32 by default; the twin may do the same.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda")
    return torch.device("cpu")


def wait(device: torch.device) -> None:
    """Returns when PyTorch's work on the device is finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def to_torch(x: np.ndarray, layout: str, device: torch.device) -> torch.Tensor:
    """Maps (B, H, W, C) as PyTorch's (B, C, H, W) in the named layout."""
    tensor = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    return tensor.to(device).to(memory_format=LAYOUTS[layout])


def _copy(twin: torch_twins.UNet, layout: Any) -> torch_twins.UNet:
    same: Any = copy.deepcopy(twin)
    return same.to(memory_format=layout)


def _difference(pair: Pair, seed: int) -> float:
    """Largest difference of velocities over the largest velocity, at full float32 precision."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4, SIDE, SIDE, CHANNELS)).astype(np.float32)
    t = rng.uniform(size=4).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(jax.jit(pair.module.apply)(pair.variables, x, t))
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    largest = 0.0
    for layout, twin in pair.twins.items():
        with torch.no_grad():
            v = twin(to_torch(x, layout, pair.device), torch.from_numpy(t).to(pair.device))
        theirs = v.cpu().permute(0, 2, 3, 1).numpy()
        largest = max(largest, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    if pair.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    return largest

"""Trajectories of a narrow ResNet-18, as Neural Network Diffusion writes them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flown_jax.torch_import.files import write_state_dict
from flown_jax.weights.importers import networks

SIZES = {"width": 2, "num_classes": 10}
SUBSET = [f"layer4.1.bn{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]


@functools.cache
def resnet() -> networks.Network:
    """Its layout."""
    return networks.network("resnet18", SIZES, {})


def whole_state(seed: int) -> dict[str, np.ndarray]:
    """A state dict of a narrow ResNet-18 with its statistics and counters."""
    layout = resnet()
    rng = np.random.default_rng(seed)
    entries = (*layout.spec.entries, *layout.buffers_spec.entries)
    state = {e.name: rng.uniform(0.5, 1, e.shape).astype(np.float32) for e in entries}
    return {**state, "bn1.num_batches_tracked": np.asarray(9)}


def write(
    folder: Path, states: Sequence[Mapping[str, np.ndarray]], tag: str = "cifar100_resnet18"
) -> Path:
    """The folder, with a file for each state; accuracies are 0.7000, 0.7001, ...."""
    (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    for i, state in enumerate(states):
        name = f"{i:04d}_acc0.7{i:03d}_seed0042_{tag}.pth"
        write_state_dict(folder / "checkpoint" / name, state)
    return folder


def part(seed: int) -> dict[str, np.ndarray]:
    """The four tensors of its last two normalisations."""
    return {name: whole_state(seed)[name] for name in SUBSET}

"""The devices of this process and of the others."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import jax

from flown_jax.errors import UserError


def local_device_count() -> int:
    """Number of devices that this process can use by itself."""
    return jax.local_device_count()


def describe_devices() -> dict[str, Any]:
    """Backend and kinds of the devices of all processes, as JSON values."""
    found: dict[str, Any] = {
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
    }
    if jax.process_count() > 1:
        found["processes"] = jax.process_count()
    return found


def peak_device_memory_gib() -> float | None:
    """Largest memory in use of any local device so far, in GiB; None where devices do not tell."""
    every = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in every if "peak_bytes_in_use" in found]
    return max(peaks) / 2**30 if peaks else None


def on_cpu() -> bool:
    """Whether the devices are processor cores."""
    return jax.default_backend() == "cpu"


def use_all_cores() -> None:
    """Let each processor core be a device of its own, where the processor is the device.

    One small model keeps one core busy at most. Must be called before the first array is made;
    later it does nothing.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores or 1)


def local(devices: int | None) -> list[jax.Device]:
    """The first devices of this process.

    Args:
      devices: how many; None for all.
    Raises:
      UserError: there are fewer.
    """
    present = jax.local_devices()
    if devices is None:
        return present
    if not 1 <= devices <= len(present):
        raise UserError(f"devices must be between 1 and {len(present)}, not {devices}")
    return present[:devices]


def every() -> list[jax.Device]:
    """The devices of all processes, those of one process together, in the order of processes."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))

"""What the processes of one run tell each other.

Every process runs the same program and goes through the same stages; collectives and what is here
must be called by all of them, in one order. Process 0 leads: it alone writes files, and where
processes could come to different ends (a clock, a file that is not seen yet, a rounded score), its
word counts. Everything here does nothing where there is one process.

    join("10.0.0.1:1234", count=2, index=0)   # before anything else of JAX; or join() on a cluster
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from flown_jax.errors import UserError

T = TypeVar("T")
_BLOCK = 4096  # bytes of a message that go at once; a shape is compiled once
JOINING = 300  # seconds in which the others must come


def join(address: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Make this process one of a run of several. Must come before any other use of JAX.

    Args:
      address: HOST:PORT of process 0. count: of processes. index: of this one, from 0. All None:
        JAX finds them by itself (SLURM, Open MPI, TPU pods, Kubernetes).
    Raises:
      UserError: they cannot be found, some of the three are missing, or the others do not come.
    """
    given = (address, count, index)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise UserError(
            "of several processes, coordinator_address, num_processes and process_id must be "
            "given together, or none of them on a cluster that JAX knows."
        )
    if count is not None and index is not None and not 0 <= index < count:
        raise UserError(f"process_id is {index}; of {count} processes it is 0 to {count - 1}.")
    if address is not None:
        host, port = _parsed(address)
        if index:  # the runtime ends the process where nobody listens
            _wait_for(host, port)
    # It takes SIGTERM for itself, which ends a process no longer then; see `stopping`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=count,
            process_id=index,
            initialization_timeout=JOINING,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            "the processes of this run were not found: give --coordinator_address=HOST:PORT, "
            f"--num_processes and --process_id ({_first_line(error)})."
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"the processes of this run did not come together: {_first_line(error)}."
        ) from error


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"coordinator_address is {address!r}; it is HOST:PORT, like 10.0.0.1:1234.")
    return host, int(port)


def _wait_for(host: str, port: int) -> None:
    end = time.monotonic() + JOINING
    while True:
        try:
            socket.create_connection((host, port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"nobody listens at {host}:{port} after {JOINING} s ({error.strerror or error})"
                    ": process 0 must run there."
                ) from error
        time.sleep(0.2)


def joined() -> bool:
    """Whether this process is one of several, and `join` has been called."""
    return jax.distributed.is_initialized()


def process_count() -> int:
    """Number of processes of this run."""
    return jax.process_count()


def process_index() -> int:
    """Of this process, from 0."""
    return jax.process_index()


def leads() -> bool:
    """Whether this process writes the files of the run."""
    return jax.process_index() == 0


def agree(value: Any) -> Any:
    """The value that process 0 gave, of all processes; waits for all.

    Args:
      value: JSON values; what other processes give does not matter.
    """
    if jax.process_count() == 1:
        return value
    return json.loads(_told(json.dumps(value).encode() if leads() else b""))


def lead(function: Callable[[], T]) -> T:
    """What the function gives in process 0, which calls it alone; the others wait for it.

    Args:
      function: gives JSON values.
    Raises:
      UserError: the function raised it, in all processes.
    """
    if jax.process_count() == 1:
        return function()
    if not leads():
        told: Any = agree(None)
        if "error" in told:
            raise UserError(told["error"])
        return told["value"]
    try:
        value = function()
    except UserError as error:
        agree({"error": str(error)})
        raise
    except BaseException as error:
        agree({"error": f"process 0 fails: {type(error).__name__}"})
        raise
    agree({"value": value})
    return value


def gather(array: np.ndarray) -> np.ndarray:
    """The arrays (n, ...) of all processes one behind the other, in each of them.

    Args:
      array: of the same shape and type in all processes.
    """
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    # 64 bits would be cut to 32 on the way: bytes are not.
    data = np.ascontiguousarray(array)
    flat = data.reshape(len(data), -1).view(np.uint8)
    found = np.asarray(multihost_utils.process_allgather(flat, tiled=True))
    return np.ascontiguousarray(found).view(data.dtype).reshape(-1, *data.shape[1:])


def lost_another(error: BaseException) -> bool:
    """Whether an error comes from another process that has ended."""
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return False
    words = ("Gloo", "peer", "coordination", "Coordination", "NCCL", "heartbeat", "distributed")
    return any(word in str(error) for word in words)


def _told(message: bytes) -> bytes:
    from jax.experimental import multihost_utils

    head = np.frombuffer(np.int64(len(message)).tobytes(), np.uint8)
    data = np.concatenate([head, np.frombuffer(message, np.uint8)])

    def block(number: int) -> np.ndarray:
        part = np.zeros(_BLOCK, np.uint8)
        own = data[number * _BLOCK : (number + 1) * _BLOCK]
        part[: len(own)] = own
        return np.asarray(multihost_utils.broadcast_one_to_all(part)).astype(np.uint8)

    blocks = [block(0)]
    size = int(np.frombuffer(blocks[0][:8].tobytes(), np.int64)[0])
    blocks += [block(number) for number in range(1, -(-(size + 8) // _BLOCK))]
    return np.concatenate(blocks).tobytes()[8 : 8 + size]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

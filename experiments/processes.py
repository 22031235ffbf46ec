"""The processes of a command that runs on several machines, or several times on one."""

from __future__ import annotations

import os
import sys
import threading
import time

from absl import flags

# What knows JAX is imported when it is needed: a command line is read without it.
FLAGS = ("distributed", "coordinator_address", "num_processes", "process_id")
LOST = "another process of this run has ended; the same command goes on from here."
STATUS = 3  # of a process whose run another one has left
_TOLD = 10.0  # seconds after which the user is told what is waited for
_WAIT = 1.0  # seconds in which the others hear of an end: process 0 takes their connections with it


def define(values: flags.FlagValues) -> None:
    """The flags of a command."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "This is one process of several, started alike, which JAX finds by itself: under SLURM "
        "or Open MPI, on a TPU pod, on Kubernetes.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "HOST:PORT of process 0, where JAX cannot find the processes; with the next two.",
        flag_values=values,
    )
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", flag_values=values)


def join(values: flags.FlagValues) -> None:
    """Go together with the other processes, if there are any; the first alone shows results."""
    address, count, index = (values[name].value for name in FLAGS[1:])
    if not values["distributed"].value and (address, count, index) == (None, None, None):
        return
    from flown_jax.training import parallel

    waiting = threading.Timer(
        _TOLD, lambda: print("waiting for the other processes of this run", file=sys.stderr)
    )
    waiting.daemon = True
    waiting.start()
    try:
        parallel.join(address, count, index)
    finally:
        waiting.cancel()
    if not parallel.leads():
        # Files and tables are process 0's; sentences of errors go to standard error.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def lost(error: BaseException) -> bool:
    """Whether an error comes from another process that has ended."""
    if "jax" not in sys.modules:
        return False
    from flown_jax.training import parallel

    return parallel.lost_another(error)


def linger() -> None:
    """Before process 0 of several ends otherwise than well: let the others end by themselves."""
    if "flown_jax.training.parallel" not in sys.modules:
        return
    from flown_jax.training import parallel

    if parallel.joined() and parallel.leads():
        time.sleep(_WAIT)

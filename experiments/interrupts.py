"""Ctrl-C and SIGTERM in a command: one sentence at once, the exit status of the signal, no more.

Left to Python, a signal ends in a traceback while modules are imported, waits for whatever runs
outside of Python (compilation takes minutes), and ends in the interpreter's shutdown, which takes
XLA's threads away while they compute: a segmentation fault. Here the sentence is written when the
signal comes, what is open is closed by a KeyboardInterrupt, and the process leaves without the
shutdown; if that takes too long or a second signal comes, it leaves as it is. Nothing finished is
lost by that, since files are whole or absent and a lock ends with its process. On SIGTERM, which
schedulers send some time before they kill, a training saves first.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import NoReturn

from experiments import processes

SENTENCE = "stopped; the same command goes on from here."
INTERRUPTED = 128 + signal.SIGINT  # what a shell reports of a process that an interrupt ended
TERMINATED = 128 + signal.SIGTERM
PIPE = 128 + 13  # SIGPIPE, which not every system has
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 2.0  # seconds in which what is open is closed
_SAVING = 25.0  # seconds in which a training saves; SLURM kills after 30

# unwind: a signal may raise KeyboardInterrupt now. status: of the signal that came, or 0.
_state = types.SimpleNamespace(installed=False, unwind=False, status=0, told=False)
# Whoever comes second waits until the sentence is written; a handler may interrupt itself.
_telling = threading.RLock()


def install() -> None:
    """Handle the signals of this process, a command; one that is ignored stays so."""
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    threading.Thread(target=_watch, args=(receiver,), daemon=True).start()
    _state.installed = True


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """A context that the first signal leaves by KeyboardInterrupt, and then the process.

    Outside of it a signal leaves the process at once.
    """
    try:
        _state.unwind = True
        yield
    except BaseException:
        # Not KeyboardInterrupt alone: what calls back from outside of Python turns it into others.
        if _state.status:
            leave(_state.status)
        raise
    finally:
        _state.unwind = False


def leave(status: int) -> NoReturn:
    """End the process; in a command without the interpreter's shutdown."""
    if not _state.installed:
        raise SystemExit(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if status:
        processes.linger()
    os._exit(status)


def _handle(number: int, frame: types.FrameType | None) -> None:
    """The handler in the main thread, which comes when that is back in Python."""
    _tell()
    _state.status = 128 + number
    if not _state.unwind:
        leave(_state.status)
    if _saves(number):
        return
    _state.unwind = False
    raise KeyboardInterrupt


def _watch(receiver: int) -> None:
    """The thread that sees signals wherever the main thread is."""
    number = 0
    while number not in _SIGNALS:
        number = os.read(receiver, 1)[0]
    _tell()
    select.select([receiver], [], [], _SAVING if _saves(number) else _GRACE)  # or a second signal
    os._exit(128 + number)


def _saves(number: int) -> bool:
    """Whether a training saves before it ends, by itself, for a signal."""
    stopping = sys.modules.get("flown_jax.training.stopping")
    return number == signal.SIGTERM and stopping is not None and stopping.request()


def _tell() -> None:
    """Write the sentence, once; nothing is written behind it, such as others' tracebacks."""
    with _telling:
        if _state.told:
            return
        _state.told = True
        # A progress bar hides the cursor and ends without a new line.
        clear = "\r\x1b[?25h\n" if os.isatty(2) else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{clear}error: {SENTENCE}\n".encode())
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

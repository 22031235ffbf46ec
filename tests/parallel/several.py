"""Programs on fake devices and in several processes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
UNTIL = 150  # seconds, on a busy machine
# What the libraries say of their connections.
NOISE = re.compile(r"\[Gloo\]|^[EWI]\d{4} |^\s+@ |^\*\*\*|^$|Compiling module|Very slow compile")


def start(
    arguments: list[str],
    devices: int = 1,
    stdout: IO[str] | int = subprocess.PIPE,
    stderr: IO[str] | int = subprocess.PIPE,
) -> subprocess.Popen:
    """A Python program with so many fake devices."""
    flags = f"--xla_force_host_platform_device_count={devices} {os.environ.get('XLA_FLAGS', '')}"
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": flags,
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": "1",
        },
        stdout=stdout,
        stderr=stderr,
        text=True,
    )


def address() -> str:
    """HOST:PORT that is free."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def flags(count: int) -> list[list[str]]:
    """The flags of each process of a command."""
    where = address()
    return [
        [f"--coordinator_address={where}", f"--num_processes={count}", f"--process_id={index}"]
        for index in range(count)
    ]


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, list[str], list[str]]]:
    """Exit status, lines of standard output and of standard error of each, without noise."""
    found = []
    try:
        for process in processes:
            told = process.communicate(timeout=UNTIL)
            lines = [
                [line for line in text.splitlines() if not NOISE.search(line)] for text in told
            ]
            found.append((process.returncode, *lines))
    finally:
        for process in processes:
            process.kill()
    return found

"""How programs are compiled in tests, which are many, tiny and run a few times; the fast tests."""

from __future__ import annotations

import gc
import os
import pathlib
import re
import shutil
import tempfile
from importlib.metadata import version

import pytest

# Compilation is most of the suite's time and optimising most of compilation. Subprocesses inherit
# it. Flags that are set already stay: `XLA_FLAGS= pytest` tests the programs that users run, which
# .ci/run does for flow, parity and training.
UNOPTIMISED = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # XLA stops at flags that it does not know
    UNOPTIMISED += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", UNOPTIMISED)


def pytest_configure(config: pytest.Config) -> None:
    """What one test has compiled, others of all processes find: never in the user's folder."""
    if hasattr(config, "workerinput") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


FAST = re.compile(r"\bpytest\.mark\.fast\b")


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """`pytest -m fast` imports no file without a fast test: importing all takes half a minute."""
    wanted = config.option.markexpr != "fast" or not collection_path.name.startswith("test_")
    return None if wanted or FAST.search(collection_path.read_text()) else True


def pytest_collection_finish() -> None:
    """What was imported stays: the collector of garbage need not look through it again."""
    gc.collect()
    gc.freeze()

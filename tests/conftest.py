"""How programs are compiled in tests: they are many, tiny and run a few times."""

from __future__ import annotations

import os
from importlib.metadata import version

# Compilation is most of the suite's time and optimising most of compilation. Subprocesses inherit
# it. Flags that are set already stay: `XLA_FLAGS= pytest` tests the programs that users run, which
# .ci/run does for flow, parity and training.
UNOPTIMISED = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # XLA stops at flags that it does not know
    UNOPTIMISED += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", UNOPTIMISED)

"""Devices and processes: the one place that knows them.

`steps` has training steps whose batch several devices share, `models` functions of many independent
models, `sharing` other work, `processes` what the processes of one run tell each other, `devices`
what there is.
"""

from flown_jax.training.parallel.devices import (
    describe_devices,
    local_device_count,
    on_cpu,
    peak_device_memory_gib,
    use_all_cores,
)
from flown_jax.training.parallel.models import OverModels
from flown_jax.training.parallel.processes import (
    agree,
    gather,
    join,
    joined,
    lead,
    leads,
    lost_another,
    process_count,
    process_index,
)
from flown_jax.training.parallel.sharing import share_out, spread
from flown_jax.training.parallel.steps import (
    CompiledStep,
    Footprint,
    compile_step,
    replicate,
    shares,
    unreplicate,
)

__all__ = [
    "CompiledStep",
    "Footprint",
    "OverModels",
    "agree",
    "compile_step",
    "describe_devices",
    "gather",
    "join",
    "joined",
    "lead",
    "leads",
    "local_device_count",
    "lost_another",
    "on_cpu",
    "peak_device_memory_gib",
    "process_count",
    "process_index",
    "replicate",
    "share_out",
    "shares",
    "spread",
    "unreplicate",
    "use_all_cores",
]

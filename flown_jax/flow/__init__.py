"""Flow matching on arrays: paths, couplings, sources, losses, samplers, and the diffusion twin.

Usable alone with any `velocity(x, t, condition) -> v`; needs jax and diffrax (POT and scipy for
optimal transport, imported when it is used).
"""

from flown_jax.flow.adjoint_matching import (
    adjoint_matching_loss,
    adjoint_targets,
    drawn_steps,
    lean_adjoint,
    memoryless_sample,
)
from flown_jax.flow.couplings import (
    entropic_ot,
    exact_ot,
    get_coupling,
    independent,
    ot_cost,
    ot_pair,
    ot_plan,
    wasserstein,
)
from flown_jax.flow.diffusion import (
    Schedule,
    ddpm_loss,
    iddpm_linear_schedule,
    ldm_schedule,
    linear_schedule,
    respace,
    sample_ddpm,
    space_timesteps,
)
from flown_jax.flow.guidance import drop_condition, guided_velocity
from flown_jax.flow.likelihood import log_likelihood, path_statistics, rademacher
from flown_jax.flow.matching import cfm_loss, score_loss, sf2m_loss, skewed_time, uniform_time
from flown_jax.flow.paths import (
    AffinePath,
    LinearPath,
    Path,
    SchrodingerBridgePath,
    TargetPath,
    VariancePreservingPath,
)
from flown_jax.flow.sampling import Solution, sample
from flown_jax.flow.schedulers import VP, CondOT, Cosine, LinearVP, Polynomial, Scheduler
from flown_jax.flow.solvers import SOLVERS
from flown_jax.flow.sources import Source, get_source

__all__ = [
    "SOLVERS",
    "VP",
    "AffinePath",
    "CondOT",
    "Cosine",
    "LinearPath",
    "LinearVP",
    "Path",
    "Polynomial",
    "Schedule",
    "Scheduler",
    "SchrodingerBridgePath",
    "Solution",
    "Source",
    "TargetPath",
    "VariancePreservingPath",
    "adjoint_matching_loss",
    "adjoint_targets",
    "cfm_loss",
    "ddpm_loss",
    "drawn_steps",
    "drop_condition",
    "entropic_ot",
    "exact_ot",
    "get_coupling",
    "get_source",
    "guided_velocity",
    "iddpm_linear_schedule",
    "independent",
    "ldm_schedule",
    "lean_adjoint",
    "linear_schedule",
    "log_likelihood",
    "memoryless_sample",
    "ot_cost",
    "ot_pair",
    "ot_plan",
    "path_statistics",
    "rademacher",
    "respace",
    "sample",
    "sample_ddpm",
    "score_loss",
    "sf2m_loss",
    "skewed_time",
    "space_timesteps",
    "uniform_time",
    "wasserstein",
]

"""Training: steps, devices, checkpoints, stages, records."""

from flown_jax.training.checkpoints import Checkpoints, load_tree, save_tree
from flown_jax.training.loop import fit
from flown_jax.training.optimizers import adam, adamw, sgd
from flown_jax.training.parallel import compile_step
from flown_jax.training.records import Records
from flown_jax.training.stages import StageContext, StageResult, stage
from flown_jax.training.state import TrainState, averaged
from flown_jax.training.step import make_step
from flown_jax.training.workdir import Workdir

__all__ = [
    "Checkpoints",
    "Records",
    "StageContext",
    "StageResult",
    "TrainState",
    "Workdir",
    "adam",
    "adamw",
    "averaged",
    "compile_step",
    "fit",
    "load_tree",
    "make_step",
    "save_tree",
    "sgd",
    "stage",
]

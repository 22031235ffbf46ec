"""One training run of a network, from its recipe to its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from flown_jax.errors import UserError
from flown_jax.training import optimizers
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.loop import fit
from flown_jax.training.parallel import compile_step, shares
from flown_jax.training.stages import StageContext
from flown_jax.training.state import TrainState
from flown_jax.training.step import Loss


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
      steps, batch: length of the run, examples a step.
      learning_rate, weight_decay, schedule, warmup, clip: as in `optimizers.adamw`.
      milestones, gamma, floor: of the schedule, as in `optimizers.rate`.
      optimizer: `adamw`, `adam` (coupled decay) or `sgd` (then with `momentum` and `nesterov`).
      ema_decay: of the average of the parameters; None keeps none.
      save_every: steps between checkpoints. log_every: steps between records.
      validate_every: steps between validations; None validates nothing.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: int = 0
    clip: float | None = None
    optimizer: str = "adamw"
    momentum: float = 0.9
    nesterov: bool = True
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    floor: float = 0.0
    ema_decay: float | None = None
    save_every: int = 200
    log_every: int = 50
    validate_every: int | None = None

    def chain(self) -> optax.GradientTransformation:
        """The optimizer.

        Raises:
          UserError: an unknown one.
        """
        common: dict[str, Any] = {
            "weight_decay": self.weight_decay,
            "steps": self.steps,
            "schedule": self.schedule,
            "warmup": self.warmup,
            "clip": self.clip,
            "milestones": self.milestones,
            "gamma": self.gamma,
            "floor": self.floor,
        }
        if self.optimizer == "adamw":
            return optimizers.adamw(self.learning_rate, **common)
        if self.optimizer == "adam":
            return optimizers.adam(self.learning_rate, **common)
        if self.optimizer == "sgd":
            return optimizers.sgd(
                self.learning_rate, momentum=self.momentum, nesterov=self.nesterov, **common
            )
        raise UserError(f"optimizer is {self.optimizer!r}; it must be 'adamw', 'adam' or 'sgd'.")


def train(
    context: StageContext,
    recipe: Recipe,
    params: Any,
    loss_fn: Loss,
    batch_at: Callable[[int], Any],
    *,
    seed: int,
    extra: Any = None,
    frozen: Any = None,
    validate: Callable[[TrainState], float] | None = None,
    name: str | None = None,
    whole: bool = False,
) -> TrainState:
    """The state at the end of a run (the best validated one if there is a validation).

    The run is resumed from its checkpoints in the stage's folder, and uses all local devices.

    Args:
      context: of the stage that the run belongs to.
      params, extra: where it starts. frozen: as in `parallel.compile_step`.
      loss_fn: as in `step.make_step`. batch_at: as in `loop.fit`.
      seed: of the keys of the steps.
      validate: as in `loop.fit`; used every `recipe.validate_every` steps.
      name: of the run where a stage has several.
      whole: the loss is no mean over its batch, which stays on one device therefore.
    Raises:
      UserError: the devices cannot share the batch equally.
    """
    devices = 1 if whole else None
    shares(recipe.batch, what=name or context.name, devices=devices)
    optimizer = recipe.chain()
    step = compile_step(
        loss_fn,
        optimizer,
        seed=seed,
        ema_decay=recipe.ema_decay,
        devices=devices,
        frozen=frozen,
    )
    state = TrainState.create(params, optimizer, ema=recipe.ema_decay is not None, extra=extra)
    return fit(
        state,
        step,
        batch_at,
        steps=recipe.steps,
        name=name or context.name,
        records=context.records,
        checkpoints=Checkpoints(context.directory / (name or "run")),
        save_every=recipe.save_every,
        log_every=recipe.log_every,
        validate=validate if recipe.validate_every else None,
        validate_every=recipe.validate_every,
        batch=recipe.batch,
    )

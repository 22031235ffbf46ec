"""Few-shot tasks over the features of an image encoder, and CAML, which is trained on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.features import marks, seed_of
from experiments.settings import settings
from experiments.stages import Stages, recipe
from flown_jax.conditioning import CAML
from flown_jax.few_shot.batches import episode_batches
from flown_jax.few_shot.tasks import TaskTable, draw_tasks
from flown_jax.meta_model.build import CAML_SIZES
from flown_jax.meta_model.caml_training import train_caml
from flown_jax.meta_model.condition import Conditioner, fit_conditioner
from flown_jax.models.heads import FeatureTransform
from flown_jax.training.fingerprints import digest
from flown_jax.training.stages import StageContext, StageResult

IN_DISTRIBUTION = "in_distribution"


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tasks of a run.

    Attributes:
      transform: of the features.
      train: for each trained number of support images a class.
      held_out: of validation classes, with the ways and shots of the training tasks.
      validation: for each setting, by its name.
      test: set name -> for each setting.
      images: set name -> fingerprint of the images that test tasks are drawn from.
    """

    transform: FeatureTransform
    train: dict[int, TaskTable]
    held_out: dict[int, TaskTable]
    validation: dict[str, TaskTable]
    test: dict[str, dict[str, TaskTable]]
    images: dict[str, str]

    def unit(self, name: str, setting: str) -> str:
        """Fingerprint of the test tasks of a set: of images and draws, whatever sees them."""
        return digest({"images": self.images[name], "drawn": self.test[name][setting].drawn})


def draw_tables(
    config: ConfigDict, found: StageResult, raw: Mapping[str, list[np.ndarray]]
) -> Tables:
    """The transform of features and the tasks of every set; drawn again, not stored.

    Args:
      config: with `tasks`, `transform`, `targets.shots` and `seed`.
      found: the stage `data`. raw: features by class, of `classes` and every foreign set.
    """
    tasks, shown = config.tasks, settings(config.tasks.settings)
    split = {name: [raw["classes"][c] for c in ids] for name, ids in found.values["split"].items()}
    transform = FeatureTransform.fit(
        jnp.asarray(np.concatenate(split["train"])),
        scale=split["train"][0].shape[-1] ** 0.5,
        unit_first=config.transform.unit_first,
    )
    sets = {"train": split["train"], "validation": split["validation"]}
    sets |= {IN_DISTRIBUTION: split["test"]}
    sets |= {name: raw[name] for name in found.values["foreign"]}
    features = {name: _by_class(transform, classes) for name, classes in sets.items()}
    drawn = jax.random.split(jax.random.key(seed_of(tasks, config.seed)), len(features))
    keys = dict(zip(features, drawn, strict=True))

    def draw(name: str, index: int, **sizes: Any) -> TaskTable:
        key = jax.random.fold_in(keys[name], index) if index else keys[name]
        classes = features[name]
        return draw_tasks(key, classes, np.arange(len(classes)), query=tasks.query, **sizes)

    def of(name: str, count: int) -> dict[str, TaskTable]:
        return {
            s.name: draw(name, i, way=s.way, shot=s.shot, count=count) for i, s in enumerate(shown)
        }

    way, shots = tasks.way, list(enumerate(tasks.shots))
    train = {
        shot: draw(
            "train",
            i,
            way=way,
            shot=shot,
            count=tasks.train // len(shots),
            target_shots=max(shot, config.targets.shots),
        )
        for i, shot in shots
    }
    held_out = {
        shot: draw("validation", 100 + i, way=way, shot=shot, count=tasks.validation)
        for i, shot in shots
    }
    test = [IN_DISTRIBUTION, *found.values["foreign"]]
    images = {IN_DISTRIBUTION: "classes"} | {name: name for name in found.values["foreign"]}
    return Tables(
        transform,
        train,
        held_out,
        of("validation", tasks.validation),
        {name: of(name, tasks.test) for name in test},
        {name: marks(found)[mark] for name, mark in images.items()},
    )


def caml_stage(stages: Stages, config: ConfigDict, tables: Tables) -> StageResult:
    """CAML on meta-train episodes; the best checkpoint on validation tasks of the main setting.

    Args:
      config: with `caml`, `tasks` and `seed`.
    """
    main = settings(config.tasks.settings)[0]
    inputs = {
        # Of the evaluation's own choice nothing depends here.
        "caml": ConfigDict({k: v for k, v in config.caml.items() if k != "base_weights"}),
        "seed": config.seed,
        "train": tables.train,
        "validation": tables.validation[main.name],
    }
    return stages("caml", inputs, _train_caml)


def _train_caml(context: StageContext) -> dict[str, Any]:
    given, config = context.inputs, context.inputs.caml
    sizes = {name: config[name] for name in CAML_SIZES}
    batch_at = episode_batches(
        list(given.train.values()), seed=given.seed, batch=config.recipe.batch, query=config.query
    )
    variables = train_caml(
        context,
        CAML(**sizes),
        batch_at,
        recipe(config),
        seed=given.seed,
        noise=config.noise,
        validate=(given.validation.support(), given.validation.query()),
    )
    return {"variables": variables, "sizes": sizes}


def caml_of(trained: StageResult) -> tuple[CAML, Any]:
    """Module and variables of the stage."""
    variables = jax.tree.map(jnp.asarray, trained.values["variables"])
    return CAML(**trained.values["sizes"]), variables


def conditioner_of(
    condition: ConfigDict, train: Mapping[int, TaskTable], trained: StageResult | None
) -> Conditioner:
    """The condition of a task; made again, not stored.

    Args:
      condition: with `entries` and `slot_tasks`.
      train: training tasks, of which so many tell CAML's slot statistics.
      trained: CAML's stage; None where the entries do not have it.
    """
    entries = tuple(condition.entries)
    module, variables = (None, None) if trained is None else caml_of(trained)
    first = slice(0, condition.slot_tasks)
    supports = (jnp.asarray(table.support(first)) for table in train.values())
    return fit_conditioner(entries, supports, module, variables)


def _by_class(transform: FeatureTransform, classes: list[np.ndarray]) -> Any:
    """Transformed features, as one array where all classes have equally many images."""
    rows = [np.asarray(transform.apply(jnp.asarray(part))) for part in classes]
    return np.stack(rows) if len({len(part) for part in rows}) == 1 else rows

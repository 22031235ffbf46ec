"""The trained parts of the few-shot meta-model, each a function of what was made before it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flown_jax.conditioning import CAML, SlotStandardizer, caml_loss, class_embeddings, predict
from flown_jax.few_shot import losses
from flown_jax.few_shot.codec import HeadCodec, Standardiser
from flown_jax.few_shot.generator import Conditioner, LatentSpace
from flown_jax.few_shot.space import HeadSpace
from flown_jax.few_shot.tasks import BatchAt, TaskTable, alternate, make_batches
from flown_jax.models import heads as linear
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import TrainState, averaged


@dataclasses.dataclass(frozen=True)
class Examples:
    """Training tasks of one number of support images a class, with their target heads.

    Attributes:
      table: of T tasks.
      heads: (T, n, F + 1).
    """

    table: TaskTable
    heads: np.ndarray


def fit_heads(
    table: TaskTable,
    *,
    length: float,
    chunk: int = 2000,
    report: Callable[[int], None] | None = None,
    **probe: Any,
) -> np.ndarray:
    """Linear heads (T, n, F + 1) of all tasks by AdamW (paper section 3.2).

    AdamW's first steps have a fixed size, so that a head depends on the length of the features
    it is fitted on. It is returned as a head of the table's own features.

    Args:
      table: of T tasks; a head is fitted on its target images.
      length: of the features while a head is fitted.
      chunk: tasks a program call. report: called with the number of finished tasks.
      probe: as in `models.heads.fit_adamw`.
    """
    chunk = min(chunk, len(table))
    heads = []
    for start in range(0, len(table), chunk):
        images = table.target_images(slice(start, start + chunk))
        factor = length / np.linalg.norm(images[0, 0, 0])
        # One shape, one compilation: the last chunk is padded.
        padded = np.concatenate([images, np.repeat(images[-1:], chunk - len(images), axis=0)])
        found = np.array(_fit_adamw(padded * factor, **probe))[: len(images)]
        found[..., :-1] *= factor
        heads.append(found)
        if report is not None:
            report(start + len(images))
    return np.concatenate(heads)


_fit_adamw = jax.jit(
    linear.fit_adamw, static_argnames=("steps", "learning_rate", "weight_decay", "use_bias")
)


def fit_lda(table: TaskTable, *, shrinkage: float) -> np.ndarray:
    """Linear discriminant heads (T, n, F + 1), with the within-class covariance of all classes.

    Args:
      table: of T tasks over equally many images a class.
      shrinkage: of the covariance, see `models.heads.lda`.
    """
    classes = np.unique(table.episodes.classes)
    features = jnp.asarray(np.asarray(table.features)[classes])
    within = linear.within_class_covariance(features)
    centre = features.mean((0, 1))
    return np.asarray(
        linear.lda(jnp.asarray(table.target_images()), within, centre, shrinkage=shrinkage)
    )


def best_head_temperature(heads: np.ndarray, query: np.ndarray, grid: Sequence[float]) -> float:
    """The divisor of heads with the least query cross-entropy; no accuracy changes by it."""
    scores = [
        float(losses.query_cross_entropy(jnp.asarray(heads) / t, jnp.asarray(query))) for t in grid
    ]
    return grid[int(np.argmin(scores))]


def best_base_scale(prototypes: np.ndarray, query: np.ndarray, grid: Sequence[float]) -> float:
    """The scale of the class-mean base head with the least query cross-entropy."""
    space = HeadSpace(jnp.ones(1), jnp.ones(prototypes.shape[-1] + 1), (1,), True)
    unit = space.base(jnp.asarray(prototypes), 1)
    scores = [float(losses.query_cross_entropy(s * unit, jnp.asarray(query))) for s in grid]
    return grid[int(np.argmin(scores))]


def excess_sharpness(
    training: tuple[np.ndarray, np.ndarray], held_out: tuple[np.ndarray, np.ndarray]
) -> float:
    """How much larger logits are best on training tasks than on tasks of new classes, at least 1.

    Measured with class-mean heads alone: the ratio of their two best scales.

    Args:
      training, held_out: (prototypes (T, n, F), query (T, n, q, F)) of each.
    """
    grid = np.geomspace(0.05, 10.0, 100)
    seen, new = (best_base_scale(*part, tuple(grid)) for part in (training, held_out))
    return max(1.0, float(seen / new))


def train_codec(
    context: StageContext,
    codec: HeadCodec,
    space: HeadSpace,
    examples: Sequence[Examples],
    recipe: Recipe,
    *,
    seed: int,
    query: int,
    **loss: Any,
) -> Any:
    """Variables of the weight autoencoder.

    Args:
      examples: training tasks and their heads, one table a step in turn.
      query: query images a class a step, for the task loss.
      loss: as in `losses.codec_loss`.
    """
    settings: dict[str, Any] = {"seed": seed, "batch": recipe.batch, "query": query}
    # Without the support images all shots have batches of one shape: one compilation.
    settings |= {"permute": True, "prepare": _without_support}
    batch_at = alternate([make_batches(e.table, {"heads": e.heads}, **settings) for e in examples])
    variables = jax.jit(codec.init)(jax.random.key(seed), jnp.asarray(examples[0].heads[:1]))

    def loss_fn(params, key, batch, extra):
        value, metrics = losses.codec_loss(codec, params, key, batch, batch["frozen"], **loss)
        return value, (metrics, extra)

    state = train(context, recipe, variables, loss_fn, batch_at, seed=seed, frozen=space)
    return averaged(state)


def _without_support(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in batch.items() if name != "support"}


def fit_latent_statistics(
    codec: HeadCodec,
    variables: Any,
    space: HeadSpace,
    examples: Sequence[Examples],
    chunk: int = 500,
) -> Standardiser:
    """Statistics of the posterior means of training heads: per entry, or per code dimension."""

    @jax.jit
    def encode(variables: Any, space: HeadSpace, heads: Any, prototypes: Any, shot: Any) -> Any:
        x1 = space.normalise(heads, space.base(prototypes, shot))
        return codec.apply(variables, x1, method="encode").mode()

    means = [
        np.asarray(encode(variables, space, e.heads[part], e.table.prototypes(part), e.table.shot))
        for e in examples
        for part in _chunks(len(e.heads), chunk)
    ]
    return Standardiser.fit(jnp.concatenate(means), (0, 1) if codec.by_class else (0,))


def train_caml(
    context: StageContext,
    module: CAML,
    tables: Sequence[TaskTable],
    recipe: Recipe,
    *,
    seed: int,
    query: int,
    noise: float,
    validate: TaskTable | None = None,
) -> Any:
    """Variables of CAML, trained on meta-train episodes over frozen features, way-agnostic.

    Args:
      tables: of training tasks, one a step in turn.
      query: query images a class an episode. noise: on the support features while training.
      validate: tasks whose accuracy chooses the checkpoint.
    """
    settings: dict[str, Any] = {"seed": seed, "batch": recipe.batch, "query": query}
    settings["permute"] = True
    batch_at = alternate([make_batches(table, {}, **settings) for table in tables])
    first = batch_at(0)
    way, shot = first["support"].shape[1:3]
    variables = jax.jit(module.init)(
        jax.random.key(seed),
        first["support"][:1].reshape(1, way * shot, -1),
        jnp.repeat(jnp.arange(way), shot),
        first["query"][:1, 0],
    )

    def loss_fn(params, key, batch, extra):
        key_noise, key_names = jax.random.split(key)
        support = batch["support"]
        support = support + noise * jax.random.normal(key_noise, support.shape)
        value, metrics = caml_loss(module, params, key_names, support, batch["query"])
        return value, (metrics, extra)

    def score(state: TrainState) -> float:
        assert validate is not None
        log_probs = caml_log_probs(module, averaged(state), validate)
        labels = np.repeat(np.arange(way), log_probs.shape[1] // way)
        return float((log_probs.argmax(-1) == labels).mean())

    state = train(
        context,
        recipe,
        variables,
        loss_fn,
        batch_at,
        seed=seed,
        validate=score if validate is not None else None,
    )
    return averaged(state)


def caml_log_probs(module: CAML, variables: Any, table: TaskTable, chunk: int = 25) -> np.ndarray:
    """CAML's log-probabilities (T, n q, n) of the query images of all tasks."""
    support, query = table.support(), table.query()
    out = []
    for start in range(0, len(table), chunk):
        s, q = support[start : start + chunk], query[start : start + chunk]
        pad = [(0, chunk - len(s))] + [(0, 0)] * 3
        log_probs = _predict(module, variables, np.pad(s, pad, "edge"), np.pad(q, pad, "edge"))
        out.append(np.asarray(log_probs)[: len(s)])
    return np.concatenate(out)


_predict = jax.jit(predict, static_argnums=0)


def fit_conditioner(
    entries: tuple[str, ...],
    tables: Sequence[TaskTable],
    caml: CAML | None,
    variables: Any,
    count: int,
) -> Conditioner:
    """The conditioner with slot statistics over the first `count` tasks of each training table."""
    if "caml" not in entries or caml is None:
        return Conditioner(None, None, None, entries)
    embed = jax.jit(lambda v, s: class_embeddings(caml, v, s, query_source="support", chunk=250))
    embeddings = [embed(variables, table.support(slice(0, count))) for table in tables]
    return Conditioner(SlotStandardizer.fit(jnp.concatenate(embeddings)), variables, caml, entries)


def generator_batches(
    examples: Sequence[Examples],
    conditioner: Conditioner,
    latents: LatentSpace,
    *,
    seed: int,
    batch: int,
    query: int,
    permute: bool,
) -> Callable[[int], dict[str, Any]]:
    """Batches for flow, diffusion and regression: heads, latents, conditions, queries.

    Args:
      examples: training tasks and their heads, one table a step in turn.
      permute: give the classes of each task a random order at every step; conditions and latents
        are then computed for that order, else once for all tasks.
    """
    encode = functools.partial(jax.jit(_encode), latents)
    condition = functools.partial(jax.jit(Conditioner.__call__), conditioner)

    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        support = batch.pop("support")
        batch["condition"] = condition(support)
        batch["latent"] = encode(batch["heads"], batch["prototypes"], batch["shot"])
        return batch

    def of_table(part: Examples) -> BatchAt:
        settings: dict[str, Any] = {"seed": seed, "batch": batch, "query": query}
        if permute:
            arrays = {"heads": part.heads}
            return make_batches(part.table, arrays, prepare=prepare, permute=True, **settings)
        chunks = _chunks(len(part.heads), 1000)
        known = [jax.tree.map(np.asarray, condition(part.table.support(c))) for c in chunks]
        latent = [
            np.asarray(encode(part.heads[c], part.table.prototypes(c), part.table.shot))
            for c in chunks
        ]
        arrays = {
            "latent": np.concatenate(latent),
            "condition": jax.tree.map(lambda *parts: np.concatenate(parts), *known),
        }
        return make_batches(part.table, arrays, **settings)

    return alternate([of_table(part) for part in examples])


def _encode(latents: LatentSpace, heads: Any, prototypes: Any, shot: Any) -> jax.Array:
    return latents.encode(heads, latents.space.base(prototypes, shot))


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def train_generator(
    context: StageContext,
    network: nn.Module,
    loss: Callable[[Any, jax.Array, Any, LatentSpace], tuple[jax.Array, dict[str, jax.Array]]],
    batch_at: Callable[[int], dict[str, Any]],
    latents: LatentSpace,
    recipe: Recipe,
    *,
    seed: int,
    input_shape: tuple[int, ...],
    params: Any = None,
    name: str | None = None,
) -> Any:
    """Parameters of a flow, diffusion or regression network (the average, where one is kept).

    Args:
      loss: (params, key, batch, latents) -> (loss, metrics).
      batch_at: as `generator_batches` makes it.
      input_shape: of one x that the network takes.
      params: where to start; None initialises.
      name: of the run where a stage has several.
    """
    if params is None:
        first = batch_at(0)["condition"]
        condition = jax.tree.map(lambda a: jnp.asarray(a[:1]), first)
        key = jax.random.key(seed)
        params = jax.jit(network.init)(key, jnp.zeros((1, *input_shape)), jnp.zeros(()), condition)

    def loss_fn(params, key, batch, extra):
        value, metrics = loss(params, key, batch, batch["frozen"])
        return value, (metrics, extra)

    state = train(context, recipe, params, loss_fn, batch_at, seed=seed, frozen=latents, name=name)
    return averaged(state)

"""A generator of networks adapted to a new data set (paper, section 3.1, A.4.4, Table 9).

Networks are drawn, their cross-entropy on the new images is taken, and its gradient goes back
through the decoder and, where the velocity is trained, through the solver down to t'. What is
trained are named parts; the generator itself stays as it is:

- `velocity`, the paper's. A frozen decoder bounds it: where the decoder cannot make the networks
  that the new images need, no latent can ask for them, and what it draws becomes one network.
- `residual`, one standardised vector that is added to whatever is decoded: the networks move
  together, and their differences stay.
- `decoder`, with a term that keeps its networks apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from flown_jax.errors import UserError
from flown_jax.flow.adjoint_matching import adjoint_matching_loss, adjoint_targets, drawn_steps
from flown_jax.flow.sampling import sample, time_grid
from flown_jax.flow.sources import Source, get_source
from flown_jax.meta_model.build import Parts
from flown_jax.meta_model.latents import LatentSpace
from flown_jax.meta_model.mixing import shortfall
from flown_jax.meta_model.sampling import as_velocity, each_row
from flown_jax.networks.space import OfSet
from flown_jax.weights.spec import WeightSpec

VELOCITY, RESIDUAL, DECODER = PARTS = ("velocity", "residual", "decoder")
Trained = dict[str, Any]


@struct.dataclass
class Generator:
    """What draws networks of one data set; a pytree, so that a compiled function can take it.

    Attributes:
      latents: latents to weights.
      velocity, params: the flow.
      condition: named arrays (1, n, E) that the velocity sees, or None.
      residual: (D,), added to every standardised vector; None adds nothing.
      context: whose networks they are.
      source: of the flow. latent_shape: of one latent.
      solver, steps: as in `flow.sampling.sample`.
    """

    latents: LatentSpace
    params: Any
    condition: Any = None
    residual: Array | None = None
    velocity: nn.Module = struct.field(pytree_node=False, kw_only=True)
    context: OfSet = struct.field(pytree_node=False, kw_only=True)
    source: Source = struct.field(pytree_node=False, kw_only=True)
    latent_shape: tuple[int, ...] = struct.field(pytree_node=False, kw_only=True)
    solver: str = struct.field(pytree_node=False, default="euler")
    steps: int = struct.field(pytree_node=False, default=10)

    def start(self, key: Array, count: int) -> Array:
        """Draws x0 (count, ...) of the source, a key for each."""
        return each_row(self.source)(key, (count, *self.latent_shape))

    def conditions(self, count: int) -> Any:
        """The condition, so many times."""
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape[1:])), self.condition)

    def flow(self, x0: Array, gradient_from: float = 0.0) -> Array:
        """Standardised latents (S, ...) of draws x0.

        Args:
          gradient_from: t', before which nothing gets a gradient.
        """
        return sample(
            as_velocity(self.velocity, self.params),
            x0,
            self.conditions(len(x0)),
            solver=self.solver,
            steps=self.steps,
            gradient_from=gradient_from,
        ).x1

    def targets(self, z: Array) -> Array:
        """Standardised vectors (S, D) of latents."""
        x1 = self.latents.targets(z)
        return x1 if self.residual is None else x1 + self.residual

    def weights(self, x1: Array) -> Array:
        """Weight vectors (S, D of the set) of standardised ones."""
        return self.latents.target.restore(x1, self.context)

    def draw(self, key: Array, count: int) -> Array:
        """New networks (count, D of the set)."""
        return self.weights(self.targets(self.flow(self.start(key, count))))


def generator_of(
    model: Parts,
    condition: Any,
    context: OfSet,
    *,
    solver: str | None = None,
    steps: int | None = None,
) -> Generator:
    """The generator of a trained meta-model of whole networks, such as `MetaModel.parts`.

    Args:
      condition, context: as `meta_model.support.shown` gives them.
      solver, steps: None takes what the meta-model was made with.
    """
    known = model.description
    sampling = known["sampling"]
    return Generator(
        model.latents,
        model.velocity_params,
        condition,
        velocity=model.velocity,
        context=context,
        source=get_source(known["source"]).trained_on(known["latent_shape"]),
        latent_shape=model.latents.latent_shape(tuple(known["latent_shape"]), condition),
        solver=sampling["solver"] if solver is None else solver,
        steps=sampling["steps"] if steps is None else steps,
    )


def parts_of(generator: Generator, names: Sequence[str]) -> Trained:
    """The named parts as they are: where an adaptation starts.

    Raises:
      UserError: an unknown name, none, or one that comes twice.
    """
    if not names or len(set(names)) < len(names) or not set(names) <= set(PARTS):
        raise UserError(
            f"what is adapted is one or more of {', '.join(PARTS)}, not "
            f"{', '.join(map(str, names)) or 'nothing'}."
        )
    found: Trained = {}
    if VELOCITY in names:
        found[VELOCITY] = generator.params
    if RESIDUAL in names:
        found[RESIDUAL] = (
            jnp.zeros(generator.latents.target.shape)
            if generator.residual is None
            else generator.residual
        )
    if DECODER in names:
        every = flatten_dict(dict(generator.latents.variables["params"]))
        found[DECODER] = unflatten_dict({path: every[path] for path in _decoding(generator)})
    return found


def adapted(generator: Generator, trained: Mapping[str, Any]) -> Generator:
    """The generator with trained parts in the place of its own.

    Raises:
      UserError: parts of another name or shape than the generator's.
    """
    if not trained:
        return generator
    own = jax.eval_shape(lambda: parts_of(generator, list(trained)))
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (dict(trained), own)]
    if shapes[0] != shapes[1]:
        raise UserError("what was trained is not of this generator: names or shapes differ.")
    found = generator
    if VELOCITY in trained:
        found = dataclasses.replace(found, params=trained[VELOCITY])
    if RESIDUAL in trained:
        found = dataclasses.replace(found, residual=trained[RESIDUAL])
    if DECODER in trained:
        variables = dict(found.latents.variables)
        every = flatten_dict(dict(variables["params"])) | flatten_dict(dict(trained[DECODER]))
        variables["params"] = unflatten_dict(every)
        latents = dataclasses.replace(found.latents, variables=variables)
        found = dataclasses.replace(found, latents=latents)
    return found


def adaptation_loss(
    trained: Trained,
    key: Array,
    batch: Mapping[str, Any],
    generator: Generator,
    *,
    networks: int,
    gradient_from: float = 0.4,
    diversity_weight: float = 1.0,
    diversity_target: float = 0.7,
) -> tuple[Array, dict[str, Array]]:
    """Mean cross-entropy of drawn networks on images, and what keeps the networks apart.

    Args:
      trained: parts of the generator, as `parts_of` gives them, which get the gradient.
      batch: `images` (b, H, W, C), preprocessed, and `labels` (b,).
      generator: in which they stand for its own parts.
      networks: drawn anew for every step.
      gradient_from: t' of the velocity's gradient; where the velocity is not trained, no gradient
        enters the solver.
      diversity_weight: of the squared shortfall of the networks' distances.
      diversity_target: the distance that is wanted, in mean distances of two training networks.
    Returns:
      The loss, and `task`, in nats, and `diversity`, the mean distance in the same unit.
    Raises:
      UserError: images of another shape than the networks take.
    """
    now = adapted(generator, trained)
    x0 = now.start(key, networks)
    if VELOCITY in trained:
        z = now.flow(x0, gradient_from)
    else:
        z = jax.lax.stop_gradient(now.flow(x0))
    return decoded_loss(now, z, batch, diversity_weight, diversity_target)


def decoded_loss(
    generator: Generator,
    z: Array,
    batch: Mapping[str, Any],
    diversity_weight: float = 0.0,
    diversity_target: float = 0.7,
) -> tuple[Array, dict[str, Array]]:
    """The loss of `adaptation_loss` at given latents z (S, ...)."""
    target, context = generator.latents.target, generator.context
    _check_images(target.network(context)[0], batch["images"])
    x1 = generator.targets(z)
    given = {**batch, "context": context}
    task = jnp.mean(target.task_loss(generator.weights(x1), given))
    apart = x1 / target.unit(context)
    loss, metrics = task, {"task": task, "diversity": _mean_distance(apart)}
    if diversity_weight:
        loss = loss + diversity_weight * shortfall(apart, diversity_target)
    return loss, metrics


def adjoint_loss(
    trained: Trained,
    key: Array,
    batch: Mapping[str, Any],
    generator: Generator,
    *,
    networks: int,
    steps: int = 40,
    strength: float = 1.0,
    last: int = 10,
    others: int = 10,
    largest: float | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Adjoint matching of the velocity to the networks' cross-entropy as a reward.

    The reward is minus the cross-entropy on the batch, times `strength`; the samples then follow
    those of the generator, weighted by its exponential.

    Args:
      trained: the velocity's parameters alone. networks: paths of a step.
      steps, last, others, largest: as in `flow.adjoint_matching`.
    Raises:
      UserError: a source that is not Gaussian, other parts.
    """
    if set(trained) != {VELOCITY}:
        raise UserError(f"adjoint matching trains the {VELOCITY}, and nothing beside it.")
    if not generator.source.is_gaussian:
        raise UserError(
            f"adjoint matching needs a Gaussian source, and this flow's is {generator.source.name}."
        )
    key_start, key_path, key_steps = jax.random.split(key, 3)
    x0 = generator.start(key_start, networks)
    now = as_velocity(generator.velocity, trained[VELOCITY])
    condition = generator.conditions(networks)
    targets = adjoint_targets(
        now,
        as_velocity(generator.velocity, generator.params),
        lambda z: strength * rewards(generator, z, batch),
        key_path,
        x0,
        condition,
        steps=steps,
        temperature=generator.source.std(x0.shape),
    )
    chosen = drawn_steps(key_steps, steps, last, others)
    loss = adjoint_matching_loss(now, targets, condition, chosen=chosen, largest=largest)
    return loss, {"task": -targets.reward / strength}


def gradient_norms(
    generator: Generator, key: Array, batch: Mapping[str, Any], networks: int
) -> Array:
    """Norms (steps + 1,) of the cross-entropy's gradient at the states of the solver, by time.

    Of the mean cross-entropy of so many networks, at all their states at a time together.
    """
    x0, condition = generator.start(key, networks), generator.conditions(networks)
    grid = time_grid(generator.steps)

    def loss(moved: Array) -> Array:
        # What is added to a state, nothing, has the gradient of that state.
        x = x0 + moved[0]
        velocity = as_velocity(generator.velocity, generator.params)
        for number, by in enumerate(moved[1:]):
            times = grid[number : number + 2]
            x = sample(velocity, x, condition, solver=generator.solver, ts=times).x1 + by
        return decoded_loss(generator, x, batch)[0]

    gradient = jax.grad(loss)(jnp.zeros((len(grid), *x0.shape)))
    return jnp.sqrt(jnp.sum(jnp.square(gradient), tuple(range(1, gradient.ndim))))


def rewards(generator: Generator, z: Array, batch: Mapping[str, Any]) -> Array:
    """Minus the mean cross-entropy (S,) of the networks of latents z (S, ...) on a batch."""
    target = generator.latents.target
    given = {**batch, "context": generator.context}
    return -target.task_loss(generator.weights(generator.targets(z)), given).mean(-1)


def refine_loss(
    trained: Trained, key: Array, batch: Mapping[str, Any], generator: Generator
) -> tuple[Array, dict[str, Array]]:
    """The loss of latents, each trained by itself behind the frozen decoder.

    No velocity can do better than the best of them: it is the ceiling of its adaptation.

    Args:
      trained: {"latent": (S, ...)}, standardised.
    """
    del key
    loss, metrics = decoded_loss(generator, trained["latent"], batch)
    # The gradient of a sum is each latent's own.
    return loss * len(trained["latent"]), metrics


def _check_images(spec: WeightSpec, images: Array) -> None:
    known = spec.inputs_dict
    if not known:
        return
    wanted = (known["size"], known["size"], known["channels"])
    if jnp.shape(images)[1:] != wanted:
        raise UserError(
            f"the networks take images {wanted}, preprocessed, not {jnp.shape(images)[1:]}."
        )


def _decoding(generator: Generator) -> list[tuple[str, ...]]:
    """Paths of the parameters that decoding uses."""
    codec = generator.latents.codec
    z = jax.ShapeDtypeStruct((1, *generator.latent_shape), jnp.float32)
    used = jax.eval_shape(lambda z: codec.init(jax.random.key(0), z, method="decode"), z)
    return sorted(flatten_dict(dict(used["params"])))


def _mean_distance(x: Array) -> Array:
    """Of two rows of x (S, D); 0 of a single row."""
    squares = jnp.sum((x[:, None] - x[None]) ** 2, -1)
    others = ~jnp.eye(len(x), dtype=bool)
    distance = jnp.where(others, jnp.sqrt(jnp.where(others, squares, 1.0)), 0.0)
    return distance.sum() / jnp.maximum(others.sum(), 1)

"""A meta-model of whole networks adapted to images at hand, in one call (paper, section 3.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flown_jax.data.pictures import Pictures
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.meta_model import support
from flown_jax.meta_model.build import Parts
from flown_jax.meta_model.given import classes_of
from flown_jax.networks.adaptation import (
    DECODER,
    PARTS,
    RESIDUAL,
    VELOCITY,
    Generator,
    Trained,
    adaptation_loss,
    adapted,
    generator_of,
    parts_of,
)
from flown_jax.networks.class_order import by_name, by_number
from flown_jax.networks.space import NetworkSpace
from flown_jax.training.loop import fit
from flown_jax.training.parallel import compile_step
from flown_jax.training.recipe import Recipe
from flown_jax.training.state import TrainState

# Learning rates that did well on images to choose by.
RATES = {VELOCITY: 3e-4, RESIDUAL: 0.06, DECODER: 1e-3}
_LARGEST = 2**32


def adapt(
    generator: Generator,
    pictures: Pictures,
    part: str = DECODER,
    *,
    steps: int = 1000,
    networks: int = 8,
    batch: int = 32,
    learning_rate: float | None = None,
    gradient_from: float = 0.4,
    diversity_weight: float = 1.0,
    diversity_target: float = 0.7,
    seed: int = 0,
) -> Trained:
    """One part of a generator, trained by AdamW on the cross-entropy of drawn networks.

    Args:
      pictures: to adapt to; labels are numbers of outputs.
      part: of `PARTS`.
      networks: drawn anew at each step. batch: images a step.
      learning_rate: at the start of its cosine; None for that of `RATES`.
      gradient_from, diversity_weight, diversity_target: as in `adaptation_loss`; the diversity is
        that of the decoder alone.
    Raises:
      UserError: an unknown part, or the loss is no longer finite; its step is named.
    """
    start = parts_of(generator, [part])
    rate = RATES[part] if learning_rate is None else learning_rate
    how = Recipe(steps=steps, batch=batch, learning_rate=rate, clip=1.0)
    options: dict[str, Any] = {
        "networks": networks,
        "gradient_from": gradient_from,
        "diversity_weight": diversity_weight if part == DECODER else 0.0,
        "diversity_target": diversity_target,
    }

    def loss(params: Any, key: jax.Array, batch: Any, extra: Any) -> Any:
        frozen = batch["frozen"]
        value, metrics = adaptation_loss(params, key, batch, frozen, **options)
        return value, (metrics, extra)

    optimizer = how.chain()
    step = compile_step(loss, optimizer, seed=seed, devices=1, frozen=generator)
    state = TrainState.create(start, optimizer)
    batches = image_batches(pictures, seed, batch)
    return fit(state, step, batches, steps=steps, name=f"the adaptation of the {part}").params


def adapted_model(
    model: Parts,
    arrays: Mapping[str, Any],
    images: np.ndarray,
    labels: Sequence[Hashable],
    part: str = DECODER,
    *,
    class_names: Sequence[Hashable] | None = None,
    like: str | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and arrays of a meta-model, adapted to images; see `MetaModel.adapt`.

    Raises:
      UserError: a meta-model of heads, images or labels that `MetaModel.generate` refuses, another
        number of classes than the networks have outputs, an unknown part.
    """
    if not isinstance(model.target, NetworkSpace):
        raise UserError(f"what can be adapted are whole networks; this makes {model.target.what}.")
    if part not in PARTS:
        raise UserError(f"part is {part!r}; it must be one of {', '.join(PARTS)}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _LARGEST:
        raise UserError(f"seed is {seed!r}; it must be a whole number from 0 below 2**32.")
    found = support.checked(model, images)
    listed, place = classes_of(labels, class_names, len(found))
    way = model.target.way
    if len(listed) != way:
        raise UserError(f"the images have {len(listed)} classes; the networks tell {way} apart.")
    if class_names is None and set(listed) == set(range(way)):
        # Numbers stand for outputs, whichever comes first.
        listed, place = classes_of(labels, range(way), len(found))
    numbers = np.asarray(place)
    if model.conditional:
        _, context, _ = support.shown(model, found, numbers, None, like)
    else:
        context, _ = model.target.unshown(like)
    known = dict(model.target.class_names).get(context.name, ())
    texts = [str(name) for name in listed]
    order = by_name(known, texts) if len(known) == way else by_number(way)
    outputs = order.outputs(numbers)
    condition = None
    if model.conditional:  # classes in the order of the outputs
        condition, _, _ = support.shown(model, found, outputs, None, context.name)
    generator = generator_of(model, condition, context)
    spec = generator.latents.target.network(context)[0]
    whole = found if found.dtype == np.uint8 else np.round(255 * found).astype(np.uint8)
    pictures = Pictures(whole, outputs, Preprocessing.from_dict(spec.inputs_dict))
    trained = adapt(generator, pictures, part, seed=seed, **options)
    names = tuple(listed[c] for c in order.classes)
    words = f"Its {part} adapted to {len(outputs):,} images."
    return described(model.description, arrays, adapted(generator, trained), names, words)


def described(
    description: Mapping[str, Any],
    arrays: Mapping[str, Any],
    generator: Generator,
    class_names: Sequence[Hashable],
    words: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and arrays of a meta-model with an adapted generator in the place of its own.

    Args:
      description, arrays: of the meta-model. generator: its own, adapted.
      class_names: in the order of the outputs. words: what was adapted to what.
    """
    latents = generator.latents
    names = {**dict(latents.target.class_names), generator.context.name: tuple(class_names)}
    target = dataclasses.replace(latents.target, class_names=tuple(names.items()))
    if generator.residual is not None:
        # What is added behind the decoder is a shift of where standardised vectors are put.
        target = dataclasses.replace(target, mean=target.mean + target.scale * generator.residual)
    about, target_arrays = target.describe()
    return (
        {
            **description,
            "target": {"kind": "networks", **about},
            "trained_on": f"{description.get('trained_on', '')} {words}".strip(),
        },
        {
            **arrays,
            "target": target_arrays,
            "codec": latents.variables,
            "velocity": generator.params,
        },
    )


def image_batches(
    pictures: Pictures, seed: int, batch: int
) -> Callable[[int], dict[str, np.ndarray]]:
    """Batches of images by the index of the step: epochs of all, each in an order of its own."""
    count = len(pictures.labels)
    epoch = max(count // batch, 1)

    def batch_at(i: int) -> dict[str, np.ndarray]:
        order = np.random.default_rng((seed, i // epoch)).permutation(count)
        rows = np.resize(order, epoch * batch)[(i % epoch) * batch :][:batch]
        return {
            "images": pictures.preprocessing.apply(pictures.images[rows]),
            "labels": pictures.labels[rows],
        }

    return batch_at

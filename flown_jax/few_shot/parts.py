"""The parts of a few-shot meta-model: built from a plain description and a tree of arrays.

The description and the arrays are all that a meta-model is; training fills them in, and
`MetaModel` and the evaluation read them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from flown_jax.conditioning import CAML, SlotStandardizer
from flown_jax.few_shot.codec import HeadCodec, Standardiser, make_codec
from flown_jax.few_shot.generator import Conditioner, LatentSpace, sample_flow
from flown_jax.few_shot.networks import make_velocity
from flown_jax.few_shot.space import HeadSpace
from flown_jax.flow.sources import get_source
from flown_jax.image_encoders import encoder as image_encoder
from flown_jax.image_encoders.encoder import ImageEncoder
from flown_jax.models.heads import FeatureTransform


@struct.dataclass
class Parts:
    """A trained few-shot meta-model; a pytree, so that a compiled function can take it.

    Attributes:
      text: the description as JSON text.
      encoder: images to features.
      transform: features to the features that heads work on.
      conditioner: support features to the condition.
      latents: latents to heads.
      velocity, velocity_params: the flow.
    """

    text: str = struct.field(pytree_node=False)
    encoder: ImageEncoder
    transform: FeatureTransform
    conditioner: Conditioner
    latents: LatentSpace
    velocity: nn.Module = struct.field(pytree_node=False)
    velocity_params: Any

    @property
    def description(self) -> dict[str, Any]:
        """What `build` was given."""
        return json.loads(self.text)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one latent."""
        return tuple(self.description["latent_shape"])

    def sample(
        self,
        key: jax.Array,
        support: jax.Array,
        *,
        samples: int,
        solver: str | None = None,
        steps: int | None = None,
        temperature: float | jax.Array | None = None,
        condition: Mapping[str, jax.Array] | None = None,
        shot: jax.Array | float | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Heads (S, T, n, F + 1) for support features (T, n, k, F), and the mean evaluations.

        Args:
          solver, steps, temperature: None takes the values chosen when the model was trained.
          condition: None makes it from the support.
          shot: images a class that the support stands for; None for its k.
        """
        sampling = self.description["sampling"]
        prototypes = support.mean(axis=2)
        shape = self.latent_shape
        if self.latents.codec.by_class:
            # One code a class: any number of classes will do.
            shape = (support.shape[1], *shape[1:])
        return sample_flow(
            key,
            self.velocity,
            self.velocity_params,
            self.latents,
            self.conditioner(support) if condition is None else condition,
            self.latents.space.base(prototypes, support.shape[2] if shot is None else shot),
            source=get_source(self.description["source"]),
            latent_shape=shape,
            samples=samples,
            solver=sampling["solver"] if solver is None else solver,
            steps=sampling["steps"] if steps is None else steps,
            temperature=sampling["temperature"] if temperature is None else temperature,
        )


def build(description: Mapping[str, Any], arrays: Mapping[str, Any]) -> Parts:
    """The meta-model of a description and its arrays.

    Args:
      description: `way`, `shots` (trained with), `image_shape`, `encoder` (as
        `ImageEncoder.describe` gives it), `unit_first` (of the transform), `codec` {form, sizes},
        `caml` (sizes, or None), `condition` (entries), `velocity` {kind, sizes},
        `latent_shape`, `source`, `sampling` {solver, steps, temperature}, `centred`.
      arrays: `encoder` (but of a function), `transform`, `space`, `codec`, `latents`, `velocity`
        and, with CAML, `caml` and `slots`.
    """
    arrays = jax.tree.map(jnp.asarray, arrays)
    transform = FeatureTransform(**arrays["transform"], unit_first=description["unit_first"])
    codec = build_codec(description, transform.mean.shape[0])
    caml = None if description["caml"] is None else CAML(**description["caml"])
    return Parts(
        text=json.dumps(description, sort_keys=True),
        encoder=image_encoder.build(description["encoder"], arrays.get("encoder", {})),
        transform=transform,
        conditioner=Conditioner(
            None if caml is None else SlotStandardizer(**arrays["slots"]),
            None if caml is None else arrays["caml"],
            caml,
            tuple(description["condition"]),
        ),
        latents=LatentSpace(
            HeadSpace(
                **arrays["space"],
                shots=tuple(description["shots"]),
                centred=description["centred"],
            ),
            arrays["codec"],
            Standardiser(**arrays["latents"]),
            codec,
        ),
        velocity=make_velocity(
            description["velocity"]["kind"],
            tuple(description["latent_shape"]),
            **tuples(description["velocity"]["sizes"]),
        ),
        velocity_params=arrays["velocity"],
    )


def build_codec(description: Mapping[str, Any], feature_dim: int) -> HeadCodec:
    """The codec of a description."""
    codec = description["codec"]
    return make_codec(codec["form"], description["way"], feature_dim, **tuples(codec["sizes"]))


def tuples(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes with lists as tuples: modules are hashable, JSON knows lists only."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}

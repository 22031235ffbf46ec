"""A meta-model: built from a plain description and a tree of arrays, which are all that it is.

Training fills the two in; `MetaModel` and the evaluation read them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from flown_jax import image_encoders
from flown_jax.conditioning import CAML, SlotStandardizer
from flown_jax.encoders.codecs import make_codec, tuples
from flown_jax.errors import UserError
from flown_jax.flow.sources import get_source
from flown_jax.image_encoders import ImageEncoder
from flown_jax.meta_model.condition import Conditioner
from flown_jax.meta_model.latents import LatentSpace, Standardiser, by_class
from flown_jax.meta_model.sampling import sample_flow, several
from flown_jax.meta_model.targets import registered
from flown_jax.models.heads import FeatureTransform
from flown_jax.velocity.make import make_velocity

_FIELDS = {
    "target",
    "image_shape",
    "encoder",
    "unit_first",
    "codec",
    "caml",
    "condition",
    "velocity",
    "latent_shape",
    "source",
    "sampling",
}


@struct.dataclass
class Parts:
    """A trained meta-model; a pytree, so that a compiled function can take it.

    Attributes:
      text: the description as JSON text.
      encoder: images to features; None where nothing is shown, as are the next two.
      transform: features to the features that the condition is made of.
      conditioner: support features to the condition.
      latents: latents to weights.
      velocity, velocity_params: the flow.
    """

    text: str = struct.field(pytree_node=False)
    encoder: ImageEncoder | None
    transform: FeatureTransform | None
    conditioner: Conditioner | None
    latents: LatentSpace
    velocity: nn.Module = struct.field(pytree_node=False)
    velocity_params: Any

    @property
    def description(self) -> dict[str, Any]:
        """What `build` was given."""
        return json.loads(self.text)

    @property
    def target(self) -> Any:
        """The target space."""
        return self.latents.target

    @property
    def conditional(self) -> bool:
        """Whether it generates for images that it is shown."""
        return self.conditioner is not None

    @property
    def any_way(self) -> bool:
        """Whether it makes weights for any number of classes: one code, one condition a class."""
        if self.conditioner is None:
            return False
        return by_class(self.latents.codec) and self.conditioner.caml is None

    def sample(
        self,
        key: jax.Array,
        condition: Mapping[str, jax.Array] | None,
        context: Any,
        *,
        samples: int,
        solver: str | None = None,
        steps: int | None = None,
        temperature: float | jax.Array | None = None,
    ) -> tuple[Any, jax.Array]:
        """Weights (S, B, ...) for B conditions, and the mean number of evaluations of each.

        Args:
          condition: named arrays (B, n, E), or None for one (B = 1) without any.
          context: of the targets, B each.
          solver, steps, temperature: None takes the values chosen when the model was trained.
        """
        known = self.description
        sampling = known["sampling"]
        options: dict[str, Any] = {
            # As it was trained, though latents of other numbers of classes have another fan.
            "source": get_source(known["source"]).trained_on(known["latent_shape"]),
            "latent_shape": self.latents.latent_shape(tuple(known["latent_shape"]), condition),
            "solver": sampling["solver"] if solver is None else solver,
            "steps": sampling["steps"] if steps is None else steps,
            "temperature": sampling["temperature"] if temperature is None else temperature,
            "count": None if condition else 1,
        }

        def draw(key: jax.Array) -> tuple[Any, jax.Array]:
            z, nfe = sample_flow(key, self.velocity, self.velocity_params, condition, **options)
            return self.latents.decode(z, context), nfe

        return several(draw, key, samples)


def build(description: Mapping[str, Any], arrays: Mapping[str, Any]) -> Parts:
    """The meta-model of a description and its arrays.

    Args:
      description: `target` {kind, and what the target describes}, `image_shape`, `encoder` (as
        `ImageEncoder.describe` gives it; None for a model without a condition), `unit_first` (of
        the transform), `codec` {form, sizes, encoder, graph}, `caml` (sizes, or None), `condition`
        (entries), `velocity` {kind, sizes}, `latent_shape`, `source`, `sampling` {solver, steps,
        temperature, samples}; `trained_on`, a few words.
      arrays: `target`, `codec`, `latents`, `velocity` and, with a condition, `encoder` (but of a
        function), `transform` and, with CAML, `caml` and `slots`.
    Raises:
      UserError: fields that are missing or unknown, a kind of target that nobody registered, or
        parts that do not fit.
    """
    if set(description) - {"trained_on"} != _FIELDS:
        raise UserError(
            f"a meta-model's description has the fields {', '.join(sorted(_FIELDS))}, not "
            f"{', '.join(sorted(map(str, description))) or 'none'}."
        )
    get_source(description["source"]).trained_on(description["latent_shape"])
    arrays = jax.tree.map(jnp.asarray, arrays)
    about = dict(description["target"])
    target = registered(about.pop("kind")).build(about, arrays["target"])
    return Parts(
        text=json.dumps(description, sort_keys=True),
        **_sight(description, arrays),
        latents=latent_space(target, arrays["codec"], arrays["latents"], description["codec"]),
        velocity=velocity_of(description["velocity"], description["latent_shape"]),
        velocity_params=arrays["velocity"],
    )


def _sight(description: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a condition of images, or nothing."""
    if description["encoder"] is None:
        if description["condition"] or description["caml"]:
            raise UserError("a meta-model without an image encoder can have no condition.")
        return {"encoder": None, "transform": None, "conditioner": None}
    caml = None if description["caml"] is None else CAML(**description["caml"])
    return {
        "encoder": image_encoders.build(description["encoder"], arrays.get("encoder", {})),
        "transform": FeatureTransform(**arrays["transform"], unit_first=description["unit_first"]),
        "conditioner": Conditioner(
            None if caml is None else SlotStandardizer(**arrays["slots"]),
            None if caml is None else arrays["caml"],
            caml,
            tuple(description["condition"]),
        ),
    }


def latent_space(
    target: Any, variables: Any, statistics: Mapping[str, Any], codec: Mapping[str, Any]
) -> LatentSpace:
    """The latent space of stored arrays.

    Args:
      variables: of the codec. statistics: `mean` and `std`. codec: as `codec_of` takes it.
    """
    variables, statistics = jax.tree.map(jnp.asarray, (variables, dict(statistics)))
    return LatentSpace(target, variables, Standardiser(**statistics), codec_of(codec, target))


def codec_of(codec: Mapping[str, Any], target: Any) -> nn.Module:
    """The weight autoencoder of a description, for a target.

    Args:
      codec: {form, sizes, encoder, graph, chunk}; one without the last three has the encoder `vae`
        of whole vectors.
    Raises:
      UserError: as `make_codec`, or a target that is no graph.
    """
    more: dict[str, Any] = {"chunk": codec.get("chunk", 0)}
    if codec.get("encoder", "vae") != "vae":
        more |= {"encoder": codec["encoder"], "graph": codec["graph"], "spec": target.spec}
    return make_codec(codec["form"], target.shape, **more, **tuples(codec["sizes"]))


def velocity_of(velocity: Mapping[str, Any], latent_shape: Sequence[int]) -> nn.Module:
    """The network of {kind, sizes}, for latents of a shape."""
    return make_velocity(velocity["kind"], tuple(latent_shape), **tuples(velocity["sizes"]))


def describe(
    kind: str,
    encoder: ImageEncoder | None,
    transform: FeatureTransform | None,
    conditioner: Conditioner | None,
    latents: LatentSpace,
    velocity_params: Any,
    **more: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and arrays that `build` makes the same meta-model of.

    Args:
      kind: name of the registered target.
      encoder, transform, conditioner: None, all three, of a model without a condition.
      more: what the parts do not tell: `codec`, `velocity`, `latent_shape`, `image_shape`,
        `source`, `sampling`, `trained_on`.
    """
    target, target_arrays = latents.target.describe()
    description = {
        "target": {"kind": kind, **target},
        "encoder": None,
        "unit_first": False,
        "caml": None,
        "condition": [],
        **more,
    }
    arrays = {
        "target": target_arrays,
        "codec": latents.variables,
        "latents": {"mean": latents.statistics.mean, "std": latents.statistics.std},
        "velocity": velocity_params,
    }
    if encoder is None or transform is None or conditioner is None:
        return description, arrays
    caml, statistics = conditioner.caml, conditioner.statistics
    description |= {
        "encoder": encoder.describe(),
        "unit_first": transform.unit_first,
        "caml": None if caml is None else caml_sizes(caml),
        "condition": list(conditioner.entries),
    }
    arrays["transform"] = {"mean": transform.mean, "scale": transform.scale}
    if encoder.variables:
        arrays["encoder"] = encoder.variables
    if caml is not None:
        arrays["caml"] = conditioner.variables
        arrays["slots"] = {"mean": statistics.mean, "std": statistics.std}
    return description, arrays


CAML_SIZES = ("num_classes", "label_dim", "num_layers", "num_heads", "mlp_dim")


def caml_sizes(caml: CAML) -> dict[str, Any]:
    """The fields of CAML that a config has."""
    return {name: getattr(caml, name) for name in CAML_SIZES}

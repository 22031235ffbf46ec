"""The autoencoders of one zoo: each learns from the same networks, in as many steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.codec import counted, described
from experiments.one_zoo import Networks
from experiments.stages import Stages, recipe
from flown_jax.encoders import pca
from flown_jax.encoders.codecs import tuples
from flown_jax.encoders.losses import reconstruction_loss
from flown_jax.meta_model.build import codec_of
from flown_jax.meta_model.losses import LossAndMetrics
from flown_jax.meta_model.training import train_codec
from flown_jax.networks.batches import ZooExamples, zoo_batches
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training.records import peak_memory_gib
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.graph_symmetries import shuffled
from flown_jax.weights.graphs import topology
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import WeightSpec

GRAPHS = ("graph", "graph_pna", "shuffled")
ZOO = OfSet("zoo")
_ORDERS = 10  # of a training network, that the shuffled ones' statistics are of


def codec_config(config: ConfigDict, method: str) -> ConfigDict:
    """The codec of a method that is trained, as the other commands' configs have it."""
    codec = config.codec.copy_and_resolve_references()
    codec.unlock()
    codec.encoder = "graph" if method in GRAPHS else "vae"
    codec.graph.backbone = "pna" if method == "graph_pna" else "transformer"
    return codec


def fit(stages: Stages, config: ConfigDict, networks: Networks) -> dict[str, StageResult]:
    """Method -> its stage, which sees training networks alone."""
    given = {"spec": networks.spec, "weights": networks.train}
    found = {}
    for method in dict.fromkeys(config.methods):
        if method == "pca":
            shape = tuple(config.codec.sizes.latent_shape)
            found[method] = stages(method, {**given, "latent_shape": shape}, _components)
            continue
        more = {"codec": counted(codec_config(config, method)), "seed": config.seed}
        function = _train_shuffled if method == "shuffled" else _train
        found[method] = stages(method, {**given, **more}, function)
    return found


def _train(context: StageContext) -> dict[str, Any]:
    return _trained(context, context.inputs.weights, lambda batch, step: batch)


def _train_shuffled(context: StageContext) -> dict[str, Any]:
    """Every batch has its networks in new orders, and these orders are to be decoded."""
    given, graph = context.inputs, topology(context.inputs.spec)

    def reorder(weights: np.ndarray, step: int) -> np.ndarray:
        return shuffled(graph, weights, np.random.default_rng((given.seed, step, 1)))

    rng = np.random.default_rng((given.seed, 2))
    every = [shuffled(graph, given.weights, rng) for _ in range(_ORDERS)]
    return _trained(context, np.concatenate(every), reorder)


def _trained(
    context: StageContext,
    standard: np.ndarray,
    reorder: Callable[[np.ndarray, int], np.ndarray],
) -> dict[str, Any]:
    """An autoencoder, trained.

    Args:
      standard: networks that the standardisation is of.
      reorder: networks of a batch and its step -> those that are learned from.
    """
    given, part = context.inputs, context.inputs.codec
    target, form, how = _space(given.spec, standard), described(part), recipe(part)
    examples = {ZOO.name: ZooExamples(given.weights)}
    plain = zoo_batches(examples, seed=given.seed, networks=how.batch, images=0)

    def batch_at(step: int) -> dict[str, Any]:
        batch = plain(step)["parts"][ZOO.name]
        return {**batch, "weights": reorder(batch["weights"], step)}

    variables = train_codec(
        context,
        codec_of(form, target),
        target,
        batch_at,
        how,
        seed=given.seed,
        loss=_loss,
        reconstruction=part.reconstruction,
    )
    return _values(target, form, variables)


def _loss(
    codec: Any, variables: Any, key: jax.Array, batch: Any, target: Any, *, reconstruction: str
) -> LossAndMetrics:
    """That of the posteriors' means: nothing is drawn, so that encoders alone are compared."""
    x = target.normalise(batch["weights"], batch["context"])
    latent = codec.apply(variables, x, method="encode").mode()
    found = codec.apply(variables, latent, method="decode")
    return reconstruction_loss(reconstruction, x, found), {}


def _components(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    target, shape = _space(given.spec, given.weights), given.latent_shape
    found = pca.fit(np.asarray(target.normalise(given.weights, ZOO)), shape, pad=True)
    arrays = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    del arrays["latent_shape"]
    return _values(target, {"form": "pca", "sizes": {"latent_shape": list(shape)}}, arrays)


def _space(spec: WeightSpec, weights: np.ndarray) -> NetworkSpace:
    return NetworkSpace.fit(JointSpace.of({ZOO.name: spec}), {ZOO.name: weights})


def _values(target: NetworkSpace, form: Mapping[str, Any], variables: Any) -> dict[str, Any]:
    description, arrays = target.describe()
    return {
        "module": form,
        "target": {"description": description, "arrays": arrays},
        "variables": variables,
        "peak_memory_gib": round(peak_memory_gib(), 2),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Autoencoder:
    """A finished method.

    Attributes:
      target: weights to standardised vectors and back.
      codec, variables: standardised vectors to latents and back.
    """

    target: NetworkSpace
    codec: Any
    variables: Any

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Autoencoder:
        """That of a stage's values."""
        about, arrays = values["target"]["description"], values["target"]["arrays"]
        target = NetworkSpace.build(about, jax.tree.map(jnp.asarray, arrays))
        form, variables = values["module"], jax.tree.map(jnp.asarray, values["variables"])
        if form["form"] != "pca":
            return cls(target, codec_of(form, target), variables)
        return cls(target, pca.PCAModule(), pca.PCACodec(**variables, **tuples(form["sizes"])))

    def standardised(self, weights: np.ndarray) -> np.ndarray:
        """(N, D), of the training networks with mean 0."""
        return np.asarray(self.target.normalise(jnp.asarray(weights), ZOO))

    def decoded(self, x: np.ndarray, at_a_time: int = 20) -> np.ndarray:
        """Standardised vectors (N, D) of the latents' means of standardised vectors (N, D)."""
        # Of one size, so that a program is compiled once.
        index = np.arange(-(-len(x) // at_a_time) * at_a_time) % len(x)
        parts = [
            np.asarray(_through(self.codec, self.variables, x[rows]))
            for rows in index.reshape(-1, at_a_time)
        ]
        return np.concatenate(parts)[: len(x)]

    def weights(self, x: np.ndarray) -> np.ndarray:
        """Weights (N, D) of standardised vectors (N, D)."""
        return np.asarray(self.target.restore(jnp.asarray(x), ZOO))


@partial(jax.jit, static_argnums=0)
def _through(codec: Any, variables: Any, x: jax.Array) -> jax.Array:
    latent = codec.apply(variables, x, method="encode").mode()
    return codec.apply(variables, latent, method="decode")

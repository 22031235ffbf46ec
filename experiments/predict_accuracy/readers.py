"""Readers of accuracies: each learns from the same networks and chooses by the same others.

All predict log odds of the accuracy and are judged by squared errors of these while they are
chosen. A reader's stage sees the networks to learn from and to choose by, never those of the test.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from ml_collections import ConfigDict

from experiments.predict_accuracy.networks import Networks, Parts
from experiments.stages import Stages, recipe
from flown_jax.encoders.codecs import tuples
from flown_jax.evaluation.classification import index_of_best
from flown_jax.training.recipe import train
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.training.state import averaged
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.statistics import features
from flown_jax.weights.symmetries import permuted

_SURE = 1e-3  # accuracies are taken from here to as much below 1


class VectorReader(nn.Module):
    """An MLP on vectors, every weight standardised by itself.

    Attributes:
      hidden: widths.
    """

    hidden: Sequence[int]

    @nn.compact
    def __call__(self, w: Array) -> Array:
        """(B, D) -> (B, 1)."""
        size = (w.shape[-1],)
        mean = self.variable("constants", "mean", jnp.zeros, size).value
        scale = self.variable("constants", "scale", jnp.ones, size).value
        x = (w - mean) / scale
        for width in self.hidden:
            x = nn.silu(nn.Dense(width)(x))
        return nn.Dense(1)(x)

    def fit(self, variables: Mapping[str, Any], w: Any) -> dict[str, Any]:
        """The variables with mean and deviation of networks (N, D)."""
        mean, scale = _standard(np.asarray(w))
        return {**variables, "constants": {"mean": mean, "scale": scale}}


def fit_readers(stages: Stages, config: ConfigDict, parts: Parts) -> dict[str, StageResult]:
    """The readers of a config, fitted, by method."""
    given = {"spec": parts.spec, "learn": parts.learn, "choose": parts.choose}
    trained = {**given, "seeds": [config.seed + i for i in range(config.runs)]}
    epoch = {"learn": parts.learn}
    statistics = {**given, "penalties": config.statistics.penalties}
    found = {
        "epoch": stages("epoch", epoch, _fit_epoch),
        "statistics": stages("statistics", statistics, _fit_statistics),
    }
    for method, reader in trained_readers(config).items():
        found[method] = stages(method, {**trained, "reader": reader}, _fit_trained)
    return found


def trained_readers(config: ConfigDict) -> dict[str, ConfigDict]:
    """Method -> what its network is and how it is trained."""
    mlp, encoder = config.mlp.to_dict(), config.encoder.to_dict()
    found = {"mlp": {**mlp, "permute": False}, "mlp_permuted": {**mlp, "permute": True}}
    for backbone in encoder.pop("backbones"):
        found[f"graph_{backbone}"] = {**encoder, "backbone": backbone, "permute": False}
    return {method: ConfigDict(reader) for method, reader in found.items()}


def predict(
    method: str, fitted: Mapping[str, Any], reader: Any, spec: WeightSpec, networks: Networks
) -> np.ndarray:
    """Predicted accuracies (R, N), of each run of a reader.

    Args:
      fitted: the values of the reader's stage. reader: of `trained_readers`, None of others.
    """
    if method == "epoch":
        found = np.interp(networks.epoch, fitted["epochs"], fitted["means"])[None]
    elif method == "statistics":
        x = (features(networks.weights, spec) - fitted["mean"]) / fitted["scale"]
        found = (x @ fitted["coefficients"] + fitted["intercept"])[None]
    else:
        run = _applied(module(spec, reader), reader.recipe.batch)
        found = np.stack(
            [run(variables, networks.weights) for variables in fitted["runs"].values()]
        )
        found = found * fitted["target"]["scale"] + fitted["target"]["mean"]
    return 1 / (1 + np.exp(-np.asarray(found, np.float64)))


def module(spec: WeightSpec, reader: ConfigDict) -> Any:
    """The network of a trained reader, (B, D) -> (B, 1), with `fit` for its standardisation."""
    if "graph" not in reader:
        return VectorReader(**tuples(reader.sizes.to_dict()))
    from flown_jax.encoders.graph_encoder import GraphEncoder
    from flown_jax.weights.graphs import topology

    sizes = tuples(reader.graph.to_dict())
    graph = topology(spec, flattening=sizes.pop("flattening"))
    return GraphEncoder(topology=graph, d_out=1, backbone=reader.backbone, **sizes)


def log_odds(accuracy: np.ndarray) -> np.ndarray:
    """What is predicted of an accuracy."""
    share = np.clip(accuracy, _SURE, 1 - _SURE)
    return np.log(share / (1 - share))


def _fit_epoch(context: StageContext) -> dict[str, Any]:
    """The mean at each epoch, whatever the weights are."""
    learn = context.inputs.learn
    epochs, y = np.unique(learn.epoch), log_odds(learn.accuracy)
    return {
        "epochs": epochs,
        "means": np.asarray([y[learn.epoch == epoch].mean() for epoch in epochs]),
    }


def _fit_statistics(context: StageContext) -> dict[str, Any]:
    """Ridge regression on statistics of the tensors, with the best penalty of the grid."""
    from sklearn.linear_model import Ridge

    given = context.inputs
    x = features(given.learn.weights, given.spec)
    mean, scale = _standard(x)
    other = (features(given.choose.weights, given.spec) - mean) / scale
    y, wanted = log_odds(given.learn.accuracy), log_odds(given.choose.accuracy)
    models = [Ridge(penalty).fit((x - mean) / scale, y) for penalty in given.penalties]
    errors = [float(np.square(model.predict(other) - wanted).mean()) for model in models]
    best = index_of_best(errors, smallest=True)
    return {
        "mean": mean,
        "scale": scale,
        "coefficients": models[best].coef_,
        "intercept": float(models[best].intercept_),
        "penalty": given.penalties[best],
    }


def _fit_trained(context: StageContext) -> dict[str, Any]:
    """Networks from several seeds, each at the best validated step."""
    given = context.inputs
    y = log_odds(given.learn.accuracy)
    mean, scale = float(y.mean()), float(y.std()) or 1.0
    runs = {}
    for i, seed in enumerate(given.seeds):
        name = f"{context.name}_{i}"
        runs[name] = _fit_one(context, (y - mean) / scale, (mean, scale), seed, name)
    return {"runs": runs, "target": {"mean": mean, "scale": scale}}


def _fit_one(
    context: StageContext, y: np.ndarray, target: tuple[float, float], seed: int, name: str
) -> dict[str, Any]:
    given = context.inputs
    learn, reader = given.learn, given.reader
    network, how = module(given.spec, reader), recipe(reader)
    variables = jax.jit(network.init)(jax.random.key(seed), jnp.zeros((1, given.spec.size)))
    variables = flax.core.unfreeze(network.fit(variables, learn.weights))
    constants = {kind: part for kind, part in variables.items() if kind != "params"}
    run = _applied(network, how.batch)
    wanted = (log_odds(given.choose.accuracy) - target[0]) / target[1]

    def batch_at(step: int) -> dict[str, Any]:
        rng = np.random.default_rng((seed, step))
        rows = rng.choice(len(y), min(how.batch, len(y)), replace=False)
        w = learn.weights[rows]
        if reader.permute:
            w = permuted(given.spec, w, rng)
        return {"w": w, "y": y[rows].astype(np.float32)}

    def loss_fn(params: Any, key: Array, batch: Any, extra: Any) -> Any:
        found = network.apply({"params": params, **batch["frozen"]}, batch["w"])[:, 0]
        return jnp.square(found - batch["y"]).mean(), ({}, extra)

    def validate(state: Any) -> float:
        found = run({"params": averaged(state), **constants}, given.choose.weights)
        return -float(np.square(found - wanted).mean())

    state = train(
        context,
        how,
        variables["params"],
        loss_fn,
        batch_at,
        seed=seed,
        frozen=constants,
        validate=validate,
        name=name,
    )
    return jax.tree.map(np.asarray, {"params": averaged(state), **constants})


@functools.lru_cache(maxsize=4)
def _applied(network: Any, batch: int) -> Callable[[Any, np.ndarray], np.ndarray]:
    """(variables, (N, D)) -> (N,), in batches of one size; compiled once for all runs."""
    apply = jax.jit(lambda variables, w: network.apply(variables, w)[:, 0])

    def run(variables: Any, weights: np.ndarray) -> np.ndarray:
        index = np.arange(-(-len(weights) // batch) * batch) % len(weights)
        parts = [apply(variables, weights[rows]) for rows in index.reshape(-1, batch)]
        return np.concatenate([np.asarray(part) for part in parts])[: len(weights)]

    return run


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column; 1 where nothing deviates."""
    scale = values.std(0)
    return values.mean(0), np.where(scale > 0, scale, 1.0).astype(values.dtype)

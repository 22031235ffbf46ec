"""The prior of another data set (paper, A.4.2 and Figure 2): a flow that starts at its networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.codec import counted
from experiments.designs import PCA
from experiments.retrieval.designs import Design
from experiments.retrieval.prior_flows import draw_both, train_flow, train_mended
from experiments.retrieval.zoos import Data, Weights
from experiments.stages import Stages
from flown_jax.data import image_sets
from flown_jax.data.catalogue import EMBEDDED
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.models import many, registry
from flown_jax.models.initialise import initialise_cnn
from flown_jax.networks.prior_training import curves
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.training.zoos import Plan, train_zoo
from flown_jax.weights.spec import WeightSpec

_NETWORKS = ("networks", "epochs", "learning_rate", "batch")


@dataclasses.dataclass(frozen=True, eq=False)
class PriorResult:
    """What a prior of another data set comes to.

    Attributes:
      weights: method -> set -> networks (S, D of the set).
      curves: `steps` and `loss_prior`, `loss_gaussian`, `loss_mended`, arrays of one length: means
        of the flow's training loss over the steps before each.
      facts: numbers that explain the rest: `prior_train_accuracy`, and see `prior_facts`.
      remark: why there is nothing of this, or None.
    """

    weights: dict[str, Weights] = dataclasses.field(default_factory=dict)
    curves: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    facts: dict[str, float] = dataclasses.field(default_factory=dict)
    remark: str | None = None


def prior(stages: Stages, config: ConfigDict, data: Data, design: Design) -> PriorResult:
    """Networks of a flow that starts at networks of another data set, in two forms.

    Args:
      design: whose autoencoder and targets the flow has; the paper's objective has weights alone.
    Raises:
      UserError: a data set that there is not.
    """
    part = config.prior
    image_sets.facts(part.dataset)
    if part.dataset not in EMBEDDED:
        try:
            image_sets.finished(part.dataset, config.data.dir)
        except UserError as error:
            return PriorResult(remark=f"The prior of {part.dataset} is left out: {error}")
    if design.codec.values["module"]["form"] == PCA:
        raise UserError("a prior of another data set needs an autoencoder that is trained.")
    networks = _networks_stage(stages, config, data)
    shown = {k: v for k, v in design.config.flow.items() if k not in ("recipe", "source")}
    inputs = {
        **design.learned_from(),
        "flow": ConfigDict(shown),
        "prior": ConfigDict({"noise": part.noise, "recipe": part.recipe}),
        "networks": networks,
        "weights": design.weights,
    }
    flow = stages("prior-flow", inputs, train_flow)
    codec = counted(design.config.codec)
    more = {
        "codec_config": codec,
        "weight": part.weight,
        "images": data.pictures("train") if codec.task_weight else None,
    }
    mended = stages("prior-mended", {**inputs, **more}, train_mended)
    drawn = {
        **{
            k: inputs[k] for k in ("codec", "conditions", "velocity", "networks", "weights", "seed")
        },
        "noise": part.noise,
        "sampling": {name: config.sampling[name] for name in ("solver", "steps")},
        "samples": config.sampling.samples,
        "source": "gaussian",  # not used: the starts are given
        "flow": flow,
        "mended": mended,
    }
    found = stages("samples-prior", drawn, draw_both, version=2).values
    steps = {
        "loss_prior": flow.values["loss_prior"],
        "loss_gaussian": flow.values["loss_gaussian"],
        "loss_mended": mended.values["loss_mended"],
    }
    accuracy = float(networks.values["train_accuracy"][-1].mean())
    facts = {"prior_train_accuracy": accuracy, **found["facts"]}
    return PriorResult(found["weights"], curves(steps), facts)


def _networks_stage(stages: Stages, config: ConfigDict, data: Data) -> StageResult:
    """Networks of the prior's data set: those of the zoo with most channels, but for classes."""
    images = image_sets.load(config.prior.dataset, "train", config.data.dir)
    like = data.joint.spec(data.joint.widest)
    inputs = Preprocessing.from_dict(like.inputs_dict)
    classes = int(images.labels.max()) + 1
    module = registry.build(str(like.model), {**like.sizes_dict, "num_classes": classes})
    shown = jnp.zeros((1, inputs.size, inputs.size, inputs.channels))
    shapes = jax.eval_shape(module.init, jax.random.key(0), shown)
    given = {
        "prior": ConfigDict({name: config.prior[name] for name in _NETWORKS}),
        "spec": WeightSpec.from_module(module, shapes, inputs=inputs.to_dict()).to_json(),
        "images": images,
    }
    return stages.common("prior-networks", given, _train_networks)


def _train_networks(context: StageContext) -> dict[str, Any]:
    """`weights` (P, D), `train_accuracy` (epochs, P), and the spec as JSON."""
    part, images = context.inputs.prior, context.inputs.images
    spec = WeightSpec.from_json(context.inputs.spec)
    module, inputs = spec.module(), Preprocessing.from_dict(spec.inputs_dict)
    shape = (inputs.size, inputs.size, inputs.channels)
    steps = part.epochs * -(-len(images.labels) // part.batch)
    found = train_zoo(
        context,
        Plan(tuple(range(part.networks)), part.epochs, tuple(range(1, part.epochs + 1))),
        initialise=lambda key: initialise_cnn(key, module, shape, "kaiming_uniform"),
        flatten=lambda params: spec.flatten({"params": params}),
        logits=many.logits(module),
        optimizer=Recipe(steps, part.batch, part.learning_rate, optimizer="adam").chain(),
        images=inputs.apply(images.images),
        labels=images.labels,
        batch=part.batch,
    )
    return {
        "weights": found["weights"][-1],
        "train_accuracy": found["train_accuracy"],
        "spec": context.inputs.spec,
    }

"""The prior of another data set in the retrieval experiment (paper, A.4.2 and Figure 2)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.fewshot_stages import recipe
from experiments.retrieval_generators import (
    Design,
    Generators,
    Weights,
    draw_key,
    loss_options,
)
from experiments.retrieval_stages import Retrieval, banks
from flown_jax.data import image_sets
from flown_jax.data.catalogue import EMBEDDED
from flown_jax.errors import UserError
from flown_jax.few_shot.codec import Standardiser
from flown_jax.flow import paths
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sources import get_source
from flown_jax.models import many, registry
from flown_jax.models.initialise import initialise_cnn
from flown_jax.networks import losses, training
from flown_jax.networks.generator import ZooLatents, sample_flow
from flown_jax.networks.prior import (
    Prior,
    PriorSource,
    curves,
    encoder_part,
    prior_flow_loss,
    train_mended_codec,
    train_recorded,
)
from flown_jax.networks.training import ZooExamples
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.training.zoos import Plan, train_zoo
from flown_jax.weights.spec import WeightSpec


@dataclasses.dataclass(frozen=True, eq=False)
class PriorResult:
    """What a prior of another data set comes to.

    Attributes:
      weights: method -> set -> networks (S, D of the set).
      curves: `steps` and `loss_prior`, `loss_gaussian`, `loss_mended`, arrays of one length: means
        of the flow's training loss over the steps before each.
      facts: numbers that explain the rest, see `_facts`.
      remark: why there is nothing of this, or None.
      stage: the stages that all of it came from.
    """

    weights: dict[str, Weights]
    curves: dict[str, np.ndarray]
    facts: dict[str, float]
    remark: str | None
    stage: tuple[StageResult, ...]


def prior(job: Retrieval, generators: Generators, design: Design) -> PriorResult:
    """Networks of a flow that starts at networks of another data set, in two forms.

    Args:
      design: whose autoencoder and targets the flow has; the paper's objective has weights alone.
    Raises:
      UserError: a data set that there is not.
    """
    config = job.config.prior
    image_sets.facts(config.dataset)
    if config.dataset not in EMBEDDED:
        try:
            image_sets.finished(config.dataset, job.config.data.dir)
        except UserError as error:
            remark = f"The prior of {config.dataset} is left out: {error}"
            return PriorResult({}, {}, {}, remark, ())
    spec = network_spec(job)
    networks = train_networks(job, spec)
    source = PriorSource(
        Prior.of(job.joint, spec, networks.values["weights"]),
        design.latents.space,
        design.latents.statistics,
    )
    runs = _Runs(job, generators, design, source, networks)
    flow, mended = runs.flow(), runs.mended()
    values = jax.tree.map(jnp.asarray, mended.values)
    mended_latents = ZooLatents(
        source.space,
        values["variables"],
        Standardiser(**values["statistics"]),
        design.latents.codec,
    )
    weights = {
        # The decoder and its latents' statistics are the design's: only the encoder has learned.
        "flown_prior": runs.sampled(design.latents, flow.values["params"], flow.values["encoder"]),
        "flown_prior_mended": runs.sampled(
            mended_latents, mended.values["params"], mended.values["variables"]
        ),
    }
    losses_of = {
        "loss_prior": flow.values["loss_prior"],
        "loss_gaussian": flow.values["loss_gaussian"],
        "loss_mended": mended.values["loss_mended"],
    }
    facts = _facts(runs, networks, flow, mended_latents)
    return PriorResult(weights, curves(losses_of), facts, None, (networks, flow, mended))


def network_spec(job: Retrieval) -> WeightSpec:
    """The networks of the prior: those of the zoo with most channels, but for their classes."""
    like = job.joint.spec(job.joint.widest)
    inputs = job.images(job.joint.widest).preprocessing
    labels = _images(job).labels
    module = registry.build(
        str(like.model), {**like.sizes_dict, "num_classes": int(labels.max()) + 1}
    )
    images = jnp.zeros((1, inputs.size, inputs.size, inputs.channels))
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    return WeightSpec.from_module(module, shapes, inputs=inputs.to_dict())


def train_networks(job: Retrieval, spec: WeightSpec) -> StageResult:
    """Networks of the prior's data set: `weights` (P, D), `train_accuracy` (epochs, P)."""
    config = job.config.prior
    module, found = spec.module(), _images(job)
    inputs = job.images(job.joint.widest).preprocessing
    shape = (inputs.size, inputs.size, inputs.channels)

    def function(context: StageContext) -> dict[str, Any]:
        steps = config.epochs * -(-len(found.labels) // config.batch)
        optimizer = Recipe(steps, config.batch, config.learning_rate, optimizer="adam").chain()
        values = train_zoo(
            context,
            Plan(tuple(range(config.networks)), config.epochs, tuple(range(1, config.epochs + 1))),
            initialise=lambda key: initialise_cnn(key, module, shape, "kaiming_uniform"),
            flatten=lambda params: spec.flatten({"params": params}),
            logits=many.logits(module),
            optimizer=optimizer,
            images=inputs.apply(found.images),
            labels=found.labels,
            batch=config.batch,
        )
        return {"weights": values["weights"][-1], "train_accuracy": values["train_accuracy"]}

    names = ("dataset", "networks", "epochs", "learning_rate", "batch")
    stage_inputs = {
        "prior": {name: config[name] for name in names},
        "network": spec.to_json(),
        "images": found.fingerprint(),
    }
    return job.common("prior-networks", stage_inputs, function)


class _Runs:
    """The flows of one prior, on the batches of the design's own flow."""

    def __init__(
        self,
        job: Retrieval,
        generators: Generators,
        design: Design,
        source: PriorSource,
        networks: StageResult,
    ) -> None:
        if design.latents.codec is None:
            raise UserError("a prior of another data set needs an autoencoder that is trained.")
        self.job, self.generators, self.design, self.source = job, generators, design, source
        self.config, self.seed = job.config.prior, design.config.seed
        self.codec: nn.Module = design.latents.codec
        self.velocity = generators.network(design)
        self.weights = generators.weights(design.config)
        self.inputs = {
            "prior": self.config,
            "networks": networks,
            "latents": design.source,
            "conditions": generators.known,
            "velocity": design.config.velocity,
            "flow": {k: v for k, v in design.config.flow.items() if k not in ("recipe", "source")},
            "seed": self.seed,
        }

    def flow(self) -> StageResult:
        """As the paper did it, and the same flow from Gaussian noise for its loss."""

        def function(context: StageContext) -> dict[str, Any]:
            frozen = {"source": self.source}
            params = {
                "velocity": self._initial(),
                "encoder": self._encoder(self.design.latents.variables),
            }
            found, loss_prior = self._train(
                context, "prior-flow", params, self._prior_loss(True), self._weights_at(), frozen
            )
            loss = partial(
                losses.flow_loss, self.velocity, source=get_source("gaussian"), **self._path()
            )
            latents_at = self._batches(self.design.means, self.design.latents.statistics)
            _, loss_gaussian = self._train(
                context, "prior-gaussian", self._initial(), loss, latents_at
            )
            return {
                "params": found["velocity"],
                "encoder": found["encoder"],
                "loss_prior": loss_prior,
                "loss_gaussian": loss_gaussian,
            }

        return self.job.stage("prior-flow", self.inputs, function)

    def mended(self) -> StageResult:
        """The autoencoder that knows the prior, too, and the flow in its latents."""
        part = self.design.config.codec

        def function(context: StageContext) -> dict[str, Any]:
            examples = self._examples()
            batch_at = training.codec_batches(
                self.source.space,
                examples,
                seed=self.seed,
                networks=part.networks,
                images=part.images if part.task_weight else 0,
            )
            variables = train_mended_codec(
                context,
                self.codec,
                self.source,
                batch_at,
                recipe(part),
                seed=self.seed,
                name="prior-mended-codec",
                noise=self.config.noise,
                count=part.networks,
                weight=self.config.weight,
                **loss_options(part, self.job.joint, examples),
            )
            _, statistics = training.fit_latent_statistics(
                self.codec, variables, self.source.space, examples
            )
            frozen = {
                "source": dataclasses.replace(self.source, statistics=statistics),
                "encoder": self._encoder(variables),
            }
            params = {"velocity": self._initial()}
            found, loss = self._train(
                context,
                "prior-mended-flow",
                params,
                self._prior_loss(False),
                self._weights_at(),
                frozen,
            )
            return {
                "variables": variables,
                "statistics": {"mean": statistics.mean, "std": statistics.std},
                "params": found["velocity"],
                "loss_mended": loss,
            }

        return self.job.stage("prior-mended", {**self.inputs, "codec": part}, function)

    def sampled(self, latents: ZooLatents, params: Any, encoder: Any) -> Weights:
        """Networks (S, D of the set) of every set, each from its own support draw."""
        sampling, found = self.job.config.sampling, {}
        for name in self.job.names:
            key = draw_key(self.seed, self.job.names.index(name))
            z, _ = sample_flow(
                key,
                self.velocity,
                jax.tree.map(jnp.asarray, params),
                self.generators.condition(name, None),
                source=get_source("gaussian"),  # not used: x0 is given
                latent_shape=self.design.latent_shape,
                solver=sampling.solver,
                steps=sampling.steps,
                x0=self.start(latents, encoder, key, sampling.samples),
            )
            found[name] = np.asarray(latents.decode(name, z))
        return found

    def start(self, latents: ZooLatents, encoder: Any, key: jax.Array, count: int) -> jax.Array:
        """Standardised latents (count, ...) of fresh networks of the prior."""
        source = dataclasses.replace(self.source, statistics=latents.statistics)
        encoder = jax.tree.map(jnp.asarray, encoder)
        return source.latents(key, self.codec, encoder, self.config.noise, count)

    def _initial(self) -> Any:
        """The velocity's parameters at the start, those of the design's own flow."""
        first = self._weights_at()(0)
        condition = jax.tree.map(lambda a: jnp.asarray(a[:1]), first["condition"])
        x = jnp.zeros((1, *self.design.latent_shape))
        return jax.jit(self.velocity.init)(jax.random.key(self.seed), x, jnp.zeros(()), condition)

    def _encoder(self, variables: Any) -> Any:
        return encoder_part(self.codec, variables, self.job.joint.size)

    def _train(self, *run: Any) -> tuple[Any, np.ndarray]:
        return train_recorded(*run, recipe=recipe(self.config), seed=self.seed)

    def _prior_loss(self, trained: bool) -> Any:
        """(params, key, batch) -> loss; the encoder is in the parameters or in what is frozen."""

        def loss(params: Any, key: jax.Array, batch: Any) -> losses.LossAndMetrics:
            frozen = batch["frozen"]
            return prior_flow_loss(
                self.velocity,
                self.codec,
                params["velocity"],
                params["encoder"] if trained else frozen["encoder"],
                key,
                {name: batch[name] for name in ("latent", "condition", "group")},
                frozen["source"],
                noise=self.config.noise,
                trained=trained,
                **self._path(),
            )

        return loss

    def _path(self) -> dict[str, Any]:
        flow = self.design.config.flow
        return {
            "path": paths.LinearPath(flow.sigma),
            "coupling": get_coupling(flow.coupling),
            "condition_noise": flow.condition_noise,
        }

    def _weights_at(self) -> training.BatchAt:
        """Batches as those of latents, of the standardised weights that the latents came from."""
        space = self.source.space
        x = {name: np.asarray(space.normalise(name, w)) for name, w in self.weights.items()}
        return self._batches(x, Standardiser(jnp.zeros(()), jnp.ones(())))

    def _batches(self, values: Weights, statistics: Standardiser) -> training.BatchAt:
        flow = self.design.config.flow
        return training.generator_batches(
            values,
            statistics,
            banks(self.generators.known, "train", self.job.names),
            seed=self.seed,
            batch=self.config.recipe.batch,
            target=flow.target,
            members=flow.members,
            concentration=flow.concentration,
            noise=flow.noise,
        )

    def _examples(self) -> dict[str, ZooExamples]:
        found = {}
        for name, weights in self.weights.items():
            images, labels = np.zeros((0, 1, 1, 1)), np.zeros(0, np.int32)
            if self.design.config.codec.task_weight:
                own = self.job.images(name)
                images, labels = own.train_inputs, own.train[1]
            found[name] = ZooExamples(weights, images, labels)
        return found


def _images(job: Retrieval) -> image_sets.ImageSet:
    return image_sets.load(job.config.prior.dataset, "train", job.config.data.dir)


def _facts(
    runs: _Runs, networks: StageResult, flow: StageResult, mended: ZooLatents
) -> dict[str, float]:
    """Accuracy of the prior's networks on their training images, standard deviations of targets'
    and the prior's latents in both forms (that of the targets is 1 before the encoder has learned),
    and the share of the targets' spread that the two decoders do not reconstruct."""
    source, found = runs.source, {}
    x = {name: source.space.normalise(name, w) for name, w in runs.weights.items()}
    every = jnp.concatenate(list(x.values()))
    encoder = jax.tree.map(jnp.asarray, flow.values["encoder"])
    design, key = runs.design.latents, draw_key(runs.seed, len(x))
    found["prior_train_accuracy"] = networks.values["train_accuracy"][-1].mean()
    found["targets_std"] = source.encode(runs.codec, encoder, every).std()
    found["prior_std"] = runs.start(design, encoder, key, 200).std()
    found["prior_std_mended"] = runs.start(mended, mended.variables, key, 200).std()
    for name, latents in (("residual", design), ("residual_mended", mended)):
        back = latents.vectors(
            jnp.concatenate([latents.encode(n, w) for n, w in runs.weights.items()])
        )
        found[name] = jnp.mean((back - every) ** 2) / jnp.mean(every**2)
    return {name: float(value) for name, value in found.items()}

"""The trained stages of the retrieval experiment: autoencoders, flows, a DDPM, samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from experiments.fewshot_stages import recipe
from experiments.retrieval_stages import Retrieval, banks
from flown_jax.encoders import pca
from flown_jax.encoders.autoencoder_kl import AutoencoderKL
from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.errors import UserError
from flown_jax.few_shot.codec import Standardiser
from flown_jax.few_shot.networks import make_velocity
from flown_jax.few_shot.parts import tuples
from flown_jax.flow import density, diffusion, paths
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sources import get_source
from flown_jax.networks import losses, training
from flown_jax.networks.generator import ZooLatents, sample_diffusion, sample_flow
from flown_jax.networks.space import ZooSpace
from flown_jax.networks.training import ZooExamples
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.joint import JointSpace

_CODEC_LOSS = (
    "reconstruction",
    "weights_weight",
    "kl_weight",
    "sigma_in",
    "sigma_lat",
    "task_weight",
    "mixes",
    "members",
    "concentration",
    "anchor",
    "diversity_weight",
    "diversity_target",
)
Weights = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """An autoencoder of the zoos and what a flow needs to learn its latents.

    Attributes:
      name: "" for the main design; else it is appended to the stages' names.
      config: the run's, with what this design changes.
      codec: finished stage; None where PCA stands in for it.
      weights: the training networks of each set, as they are learned from.
      latents: to networks. means: of each set, posterior means (N, ...), not standardised.
      source: what the latents depend on, for fingerprints.
    """

    name: str
    config: ConfigDict
    codec: StageResult | None
    weights: Weights
    latents: ZooLatents
    means: Weights
    source: Any

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one latent."""
        return next(iter(self.means.values())).shape[1:]

    def stage_name(self, part: str) -> str:
        """The name of a stage of this design."""
        return f"{part}-{self.name}" if self.name else part


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """The run's config with some of its fields changed, as nested dictionaries name them.

    Raises:
      UserError: a change of a field that there is not.
    """
    found = config.copy_and_resolve_references()
    found.unlock()
    _change(found, changes, "")
    return found


def _change(config: ConfigDict, changes: Mapping[str, Any], where: str) -> None:
    for field, value in changes.items():
        if field not in config:
            raise UserError(f"beside changes {where}{field}, and there is no such field.")
        if isinstance(value, Mapping) and isinstance(config[field], ConfigDict):
            _change(config[field], value, f"{where}{field}.")
        else:
            config[field] = value


def build_codec(config: ConfigDict, weight_dim: int) -> nn.Module:
    """The autoencoder of joint vectors.

    Raises:
      UserError: an unknown form.
    """
    sizes = tuples(config.codec.sizes.to_dict())
    if config.codec.form == "mlp":
        return MLPVAE(in_dim=weight_dim, **sizes)
    if config.codec.form == "autoencoder_kl":
        return AutoencoderKL(in_dim=weight_dim, **sizes)
    raise UserError(f"codec.form is {config.codec.form!r}; it must be 'mlp' or 'autoencoder_kl'.")


def loss_options(
    part: ConfigDict, joint: JointSpace, examples: Mapping[str, ZooExamples]
) -> dict[str, Any]:
    """What `losses.codec_loss` takes of a codec's config."""
    found = {field: part[field] for field in _CODEC_LOSS}
    if part.task_weight and part.task_balance:
        found["task_scales"] = training.task_scales(joint, examples, part.task_balance)
    return found


class Generators:
    """Makes and trains designs on the same zoos and conditions."""

    def __init__(self, job: Retrieval, aligned: StageResult, known: StageResult) -> None:
        self.job, self.aligned, self.known = job, aligned, known

    def weights(self, config: ConfigDict) -> Weights:
        """The training networks of every set as a design takes them, aligned or raw."""
        if config.alignment.encode:
            return dict(self.aligned.values["train"])
        return {name: self.job.part(name).weights for name in self.job.names}

    def _examples(self, config: ConfigDict, images: bool) -> dict[str, ZooExamples]:
        found = {}
        for name, weights in self.weights(config).items():
            if images:
                own = self.job.images(name)
                found[name] = ZooExamples(weights, own.train_inputs, own.train[1])
            else:
                found[name] = ZooExamples(weights, np.zeros((0, 1, 1, 1)), np.zeros(0, np.int32))
        return found

    def design(self, name: str, changes: Mapping[str, Any] | None = None) -> Design:
        """A design with its weight autoencoder, trained."""
        config = changed(self.job.config, changes or {})
        part, seed = config.codec, config.seed
        weights = self.weights(config)
        space = ZooSpace.fit(self.job.joint, weights)
        module = build_codec(config, self.job.joint.size)

        def function(context: StageContext) -> dict[str, Any]:
            task = bool(part.task_weight)
            examples = self._examples(config, images=task)
            batch_at = training.codec_batches(
                space,
                examples,
                seed=seed,
                networks=part.networks,
                images=part.images if task else 0,
            )
            variables = training.train_codec(
                context,
                module,
                space,
                batch_at,
                recipe(part),
                seed=seed,
                **loss_options(part, self.job.joint, examples),
            )
            means, statistics = training.fit_latent_statistics(module, variables, space, examples)
            return {
                "variables": variables,
                "means": means,
                "statistics": {"mean": statistics.mean, "std": statistics.std},
            }

        inputs = {"codec": part, "seed": seed, "encode": config.alignment.encode}
        inputs |= {"aligned": self.aligned}
        codec = self.job.stage(f"codec-{name}" if name else "codec", inputs, function)
        values = jax.tree.map(jnp.asarray, codec.values)
        latents = ZooLatents(
            space, values["variables"], Standardiser(**values["statistics"]), module
        )
        return Design(name, config, codec, weights, latents, dict(codec.values["means"]), codec)

    def principal_components(self, like: Design) -> Design:
        """The design with PCA of the same latent size in the place of the autoencoder."""
        weights = self.weights(like.config)
        space = ZooSpace.fit(self.job.joint, weights)
        x = {name: np.asarray(space.normalise(name, w)) for name, w in weights.items()}
        codec = pca.fit(np.concatenate(list(x.values())), like.latent_shape, pad=True)
        means = {name: np.asarray(codec.encode(jnp.asarray(v)).mode()) for name, v in x.items()}
        every = jnp.asarray(np.concatenate(list(means.values())))
        latents = ZooLatents(space, codec, Standardiser.fit(every, (0,)), None)
        source = {"pca": list(like.latent_shape), "encode": like.config.alignment.encode}
        source["of"] = self.aligned
        return Design("pca", like.config, None, weights, latents, means, source)

    def network(self, design: Design) -> nn.Module:
        velocity = design.config.velocity
        sizes = tuples(velocity.sizes.to_dict())
        return make_velocity(velocity.kind, design.latent_shape, **sizes)

    def _batches(self, design: Design, part: ConfigDict) -> training.BatchAt:
        flow = design.config.flow
        return training.generator_batches(
            design.means,
            design.latents.statistics,
            banks(self.known, "train", self.job.names),
            seed=design.config.seed,
            batch=part.recipe.batch,
            target=flow.target,
            members=flow.members,
            concentration=flow.concentration,
            noise=flow.noise,
        )

    def _inputs(self, design: Design) -> dict[str, Any]:
        return {
            "latents": design.source,
            "conditions": self.known,
            "velocity": design.config.velocity,
            "flow": design.config.flow,
            "seed": design.config.seed,
        }

    def flow(self, design: Design) -> StageResult:
        """The velocity's parameters."""
        part = design.config.flow
        loss = partial(
            losses.flow_loss,
            path=paths.LinearPath(part.sigma),
            coupling=get_coupling(part.coupling),
            source=get_source(part.source),
            condition_noise=part.condition_noise,
        )
        return self._generator(design, "flow", part, loss, self._inputs(design))

    def ddpm(self, design: Design) -> StageResult:
        """The rival of the flow in the same latents: parameters of the noise predictor."""
        part = design.config.ddpm
        loss = partial(
            losses.diffusion_loss,
            schedule=_schedule(part),
            condition_noise=design.config.flow.condition_noise,
        )
        inputs = {**self._inputs(design), "ddpm": part}
        return self._generator(design, "ddpm", part, loss, inputs)

    def _generator(
        self, design: Design, kind: str, part: ConfigDict, loss: Any, inputs: dict[str, Any]
    ) -> StageResult:
        """A stage: the parameters of a network of latents, by `loss(network, params, ...)`."""

        def function(context: StageContext) -> dict[str, Any]:
            network = self.network(design)
            params = training.train_generator(
                context,
                network,
                partial(loss, network),
                self._batches(design, part),
                recipe(part),
                seed=design.config.seed,
            )
            return {"params": params}

        return self.job.stage(design.stage_name(kind), inputs, function)

    def networks(self, design: Design, name: str, z: np.ndarray) -> np.ndarray:
        """A set's networks (S, D of the set) of standardised latents."""
        return np.asarray(design.latents.decode(name, jnp.asarray(z)))

    def sampled(
        self, design: Design, flow: StageResult, name: str, count: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Standardised latents (S, ...) for a set's support draws of validation images, and
        joint vectors (S, D) of them."""
        config = design.config
        z, _ = sample_flow(
            draw_key(config.seed, self._number(name)),
            self.network(design),
            jax.tree.map(jnp.asarray, flow.values["params"]),
            self.condition(name, count),
            source=get_source(config.flow.source),
            latent_shape=design.latent_shape,
            solver=config.sampling.solver,
            steps=config.sampling.steps,
        )
        return np.asarray(z), np.asarray(design.latents.vectors(z))

    def sampled_ddpm(self, design: Design, ddpm: StageResult, name: str) -> np.ndarray:
        """Standardised latents (S, ...)."""
        part = design.config.ddpm
        z, _ = sample_diffusion(
            draw_key(design.config.seed, self._number(name)),
            self.network(design),
            jax.tree.map(jnp.asarray, ddpm.values["params"]),
            self.condition(name, None),
            schedule=_schedule(part),
            latent_shape=design.latent_shape,
            steps=part.steps,
        )
        return np.asarray(z)

    def density(self, design: Design, name: str, sets: list[str]) -> np.ndarray:
        """Standardised latents (S, ...) by kernel density, of the sets that retrieval names."""
        key = draw_key(design.config.seed, self._number(name))
        found = []
        for i, chosen in enumerate(sets):
            latents = design.latents.statistics.apply(jnp.asarray(design.means[chosen]))
            draw = density.sample(
                jax.random.fold_in(key, i), latents, self.job.config.rivals.kde_bandwidth
            )
            found.append(np.asarray(draw))
        return np.stack(found)

    def condition(self, name: str, count: int | None) -> dict[str, jax.Array]:
        count = self.job.config.sampling.samples if count is None else count
        bank = self.known.values["validation"][name]
        return {key: jnp.asarray(value[:count]) for key, value in bank.items()}

    def _number(self, name: str) -> int:
        return list(self.known.values["validation"]).index(name)


def _schedule(part: ConfigDict) -> diffusion.Schedule:
    return diffusion.linear_schedule(part.timesteps, part.beta_start, part.beta_end)


def draw_key(seed: int, number: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), 1000 + number)

"""A third kind of target is one class and no other change: coefficients of curves on images."""

from functools import partial

import jax
import numpy as np
from flax import struct

from flown_jax import MetaModel, flow
from flown_jax.encoders.codecs import make_codec, tuples
from flown_jax.image_encoders import from_function
from flown_jax.meta_model import build, condition, latents, losses, targets, training
from flown_jax.models.heads import FeatureTransform
from flown_jax.training import Records, StageContext
from flown_jax.velocity.make import make_velocity

BASIS = np.stack([np.linspace(-1, 1, 8) ** p for p in range(3)]).astype(np.float32)


@struct.dataclass
class Curves(targets.Target):
    """Coefficients (B, 3) of parabolas; an image is a row of 8 values."""

    std: jax.Array
    shape = (3,)

    def normalise(self, weights, context):
        return weights / self.std

    def restore(self, x1, context):
        return x1 * self.std

    def task_loss(self, weights, batch):
        return (weights @ BASIS - batch["values"]) ** 2

    def describe(self):
        return {}, {"std": self.std}


targets.register("curves", Curves)


def pixels(images):
    return images.reshape(len(images), -1)


def test_a_new_kind_of_target_is_trained_sampled_exported_and_used(tmp_path):
    weights = np.random.default_rng(0).uniform(-0.25, 0.25, (500, 3)).astype(np.float32)
    values, target = weights @ BASIS, Curves(weights.std(0))
    transform = FeatureTransform.fit((1 + values) / 2, scale=8**0.5)
    known = {"features": np.asarray(transform.apply((1 + values) / 2))[:, None]}
    data = {"weights": weights, "context": {}, "values": values, "condition": known}
    stage = StageContext("toy", tmp_path, Records(tmp_path))
    recipe, sizes = training.Recipe(400, 64, 3e-3), {"latent_shape": [1, 1, 3], "hidden_dim": 32}
    codec, velocity = make_codec("mlp", (3,), **tuples(sizes)), make_velocity("mlp", (1, 1, 3))

    def batch_at(step):
        chosen = np.random.default_rng(step).integers(0, 500, 64)
        return jax.tree.map(lambda array: array[chosen], data)

    how = {"reconstruction": "mse", "kl_weight": 0, "sigma_in": 0, "sigma_lat": 0, "task_weight": 1}
    variables = training.train_codec(stage, codec, target, batch_at, recipe, seed=0, **how)
    means = latents.posterior_means(codec, variables, target, weights, {})
    statistics = latents.fit_latent_statistics(codec, [means])
    space = latents.LatentSpace(target, variables, statistics, codec)
    data["latent"] = np.asarray(statistics.apply(means))
    path, source = flow.LinearPath(), flow.get_source("gaussian")
    loss = partial(losses.flow_loss, velocity, path=path, coupling=flow.independent, source=source)
    params = training.train_generator(stage, velocity, loss, batch_at, recipe, seed=0, name="flow")
    conditioner = condition.Conditioner(None, None, None, ("features",))
    encoder = from_function(f"{__name__}:pixels", side=0, mirror=False)
    more = {"source": "gaussian", "latent_shape": [1, 1, 3], "image_shape": [1, 8, 1]}
    more |= {"codec": {"form": "mlp", "sizes": sizes}, "velocity": {"kind": "mlp", "sizes": {}}}
    more |= {"sampling": {"solver": "euler", "steps": 10, "temperature": 1.0}}
    about, arrays = build.describe("curves", encoder, transform, conditioner, space, params, **more)
    folder = MetaModel(build.build(about, arrays), arrays).export(tmp_path / "model")
    model = MetaModel.load(folder, allow_functions=True)
    shown = np.asarray([[0.2, 0.1, -0.2], [-0.1, -0.2, 0.2]]) @ BASIS
    for one, other in (shown, shown[::-1]):
        made = model.generate(((1 + one) / 2)[None, None], ["a"], samples=20).weights @ BASIS
        assert np.abs(made - one).mean() < 0.5 * np.abs(made - other).mean()

"""Losses of head generators against hand-computed values."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax import flow
from flown_jax.encoders.losses import vae_loss
from flown_jax.few_shot import losses
from flown_jax.few_shot.generator import as_velocity, regress
from tests.few_shot import small
from tests.layers.helpers import quick_jit

PARTS = small.parts()
TABLE = small.table()


def _batch() -> dict:
    support = jnp.asarray(TABLE.support())
    prototypes = support.mean(2)
    heads = jax.random.normal(jax.random.key(3), (len(TABLE), small.WAY, small.WIDTH + 1))
    # Images a class differ from task to task: the base heads do, too.
    shot = jnp.asarray([1.0, 4.0, 2.0] * 2)
    base = PARTS.latents.space.base(prototypes, shot)
    return {
        "heads": heads,
        "prototypes": prototypes,
        "shot": shot,
        "query": jnp.asarray(TABLE.query()),
        "condition": PARTS.conditioner(support),
        "latent": PARTS.latents.encode(heads, base),
    }


BATCH = _batch()
BASE = PARTS.latents.space.base(BATCH["prototypes"], BATCH["shot"])


def test_query_cross_entropy_is_the_mean_over_tasks_classes_and_images():
    found = losses.query_cross_entropy(BATCH["heads"], BATCH["query"])
    total, count = 0.0, 0
    for head, images in zip(np.asarray(BATCH["heads"]), np.asarray(BATCH["query"]), strict=True):
        for label, of_class in enumerate(images):
            for image in of_class:
                scores = head[:, :-1] @ image + head[:, -1]
                total += np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[label]
                count += 1
    assert float(found) == pytest.approx(total / count, rel=1e-5)


def _flow_loss(task_weight: float, noise: float = 0.0):
    return losses.flow_loss(
        PARTS.velocity,
        PARTS.velocity_params,
        jax.random.key(5),
        BATCH,
        PARTS.latents,
        path=flow.LinearPath(),
        coupling=flow.independent,
        source=flow.get_source("gaussian"),
        condition_noise=noise,
        task_weight=task_weight,
    )


def test_the_flow_loss_without_task_loss_is_flow_matching():
    _, key_flow = jax.random.split(jax.random.key(5))
    expected, aux = flow.cfm_loss(
        as_velocity(PARTS.velocity, PARTS.velocity_params),
        key_flow,
        BATCH["latent"],
        BATCH["condition"],
        path=flow.LinearPath(),
        coupling=flow.independent,
        source=flow.get_source("gaussian"),
    )
    value, metrics = _flow_loss(0.0)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert set(metrics) == {"cfm"}
    weighted, metrics = _flow_loss(2.0)
    heads = PARTS.latents.decode(aux["x1_hat"], BASE)
    task = losses.query_cross_entropy(heads, BATCH["query"])
    assert float(metrics["task"]) == pytest.approx(float(task), rel=1e-5)
    assert float(weighted) == pytest.approx(float(expected + 2.0 * task), rel=1e-5)


def test_the_latent_of_a_head_is_that_of_its_correction_to_its_own_base_head():
    latents = PARTS.latents
    x1 = latents.space.normalise(BATCH["heads"], BASE)
    code = latents.codec.apply(latents.variables, x1, method="encode").mode()
    np.testing.assert_allclose(BATCH["latent"], latents.statistics.apply(code), atol=1e-5)
    # 4 images a class weigh more in the base head than 1.
    sizes = jnp.linalg.norm(BASE[..., :-1], axis=(1, 2))
    assert sizes[1] > 1.2 * sizes[0]


def test_noise_changes_the_condition_and_nothing_else():
    key = jax.random.key(0)
    noisy = losses.noisy_condition(key, {"features": jnp.zeros((400, 5, 8))}, 0.3)["features"]
    assert float(noisy.std()) == pytest.approx(0.3, rel=0.03)
    clean = losses.noisy_condition(key, BATCH["condition"], 0.0)
    np.testing.assert_array_equal(clean["features"], BATCH["condition"]["features"])
    assert float(_flow_loss(0.0, noise=0.5)[0]) != float(_flow_loss(0.0)[0])


def test_the_noise_of_a_mean_falls_with_its_images_and_their_number_has_none():
    zeros, counts = jnp.zeros((3, 40, 50)), jnp.asarray([0.0, 1.0, 4.0])[:, None, None]
    condition = {"features": zeros, "caml": zeros, "shots": jnp.broadcast_to(counts, (3, 40, 1))}
    shot = jnp.asarray([1.0, 2.0, 16.0])
    noisy = losses.noisy_condition(jax.random.key(1), condition, 0.4, shot)
    np.testing.assert_array_equal(noisy["shots"], condition["shots"])
    for name in ("features", "caml"):
        np.testing.assert_allclose(noisy[name].std((1, 2)), 0.4 / np.sqrt(shot), rtol=0.06)
        np.testing.assert_allclose(noisy[name].mean((1, 2)), 0.0, atol=0.05)
    correlation = jnp.corrcoef(noisy["features"][0].ravel(), noisy["caml"][0].ravel())[0, 1]
    assert abs(float(correlation)) < 0.1


def test_the_losses_take_the_noise_of_each_tasks_shot():
    many = {**BATCH, "shot": jnp.full(6, 1e6)}
    arguments = (PARTS.velocity, PARTS.velocity_params, jax.random.key(2))
    settings = {"task_weight": 0.0}
    noisy, clean = (
        losses.regression_loss(*arguments, many, PARTS.latents, condition_noise=n, **settings)[0]
        for n in (0.5, 0.0)
    )
    assert float(noisy) == pytest.approx(float(clean), rel=1e-2)
    few, _ = losses.regression_loss(
        *arguments, BATCH, PARTS.latents, condition_noise=0.5, **settings
    )
    assert abs(float(few - clean)) > 2 * abs(float(noisy - clean))


def test_one_member_of_the_ensemble_loss_is_a_plain_cross_entropy():
    arguments = (PARTS.velocity, PARTS.velocity_params, jax.random.key(1), BATCH, PARTS.latents)
    settings = {"source": flow.get_source("gaussian"), "condition_noise": 0.0, "steps": 2}
    one, _ = losses.ensemble_loss(*arguments, members=1, **settings)
    _, key_source = jax.random.split(jax.random.key(1))
    x0 = settings["source"](jax.random.split(key_source, 1)[0], BATCH["latent"].shape)
    end = flow.sample(
        as_velocity(PARTS.velocity, PARTS.velocity_params), x0, BATCH["condition"], steps=2
    )
    heads = PARTS.latents.decode(end.x1, BASE)
    expected = losses.query_cross_entropy(heads, BATCH["query"])
    assert float(one) == pytest.approx(float(expected), rel=1e-4)


def test_the_ensemble_loss_reaches_the_parameters_through_the_solver():
    def loss(params):
        return losses.ensemble_loss(
            PARTS.velocity,
            params,
            jax.random.key(1),
            BATCH,
            PARTS.latents,
            source=flow.get_source("gaussian"),
            condition_noise=0.0,
            members=2,
            steps=2,
        )[0]

    gradient = quick_jit(jax.grad(loss))(PARTS.velocity_params)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradient["params"]["out"]))


def test_regression_fits_the_latent_or_the_queries():
    arguments = (PARTS.velocity, PARTS.velocity_params, jax.random.key(2), BATCH, PARTS.latents)
    _, squared = losses.regression_loss(*arguments, condition_noise=0.0, task_weight=0.0)
    _, task = losses.regression_loss(*arguments, condition_noise=0.0, task_weight=1.0)
    assert set(squared) == {"mse"} and set(task) == {"task"}
    zeros = jnp.zeros_like(BATCH["latent"])
    out = PARTS.velocity.apply(PARTS.velocity_params, zeros, jnp.zeros(()), BATCH["condition"])
    assert float(squared["mse"]) == pytest.approx(
        float(jnp.mean((out - BATCH["latent"]) ** 2)), rel=1e-5
    )


def test_the_codec_loss_restores_heads_on_the_base_head_of_their_shot():
    codec, variables, space = PARTS.latents.codec, PARTS.latents.variables, PARTS.latents.space
    settings = {"reconstruction": "mse", "kl_weight": 0.1, "sigma_in": 0.0, "sigma_lat": 0.5}
    key = jax.random.key(3)
    plain, aux = vae_loss(
        lambda x1: codec.apply(variables, x1, method="encode"),
        lambda z: codec.apply(variables, z, method="decode"),
        key,
        space.normalise(BATCH["heads"], BASE),
        **settings,
    )
    task = losses.query_cross_entropy(space.restore(aux["w_hat"], BASE), BATCH["query"])
    found, metrics = losses.codec_loss(
        codec, variables, key, BATCH, space, **settings, task_weight=2.0
    )
    assert float(metrics["task"]) == pytest.approx(float(task), rel=1e-5)
    assert float(found) == pytest.approx(float(plain + 2.0 * task), rel=1e-5)


def test_task_losses_are_those_of_sharper_heads():
    """A head that is right for new classes is judged on training classes with sharper logits."""
    count = len(PARTS.latents.space.shots)
    sharper = dataclasses.replace(
        PARTS.latents,
        space=dataclasses.replace(PARTS.latents.space, sharpness=jnp.full(count, 1.7)),
    )
    condition, shape = BATCH["condition"], BATCH["latent"].shape[1:]
    heads = regress(PARTS.velocity, PARTS.velocity_params, PARTS.latents, condition, BASE, shape)
    loss, _ = losses.regression_loss(
        PARTS.velocity,
        PARTS.velocity_params,
        jax.random.key(2),
        BATCH,
        sharper,
        condition_noise=0.0,
        task_weight=1.0,
    )
    expected = losses.query_cross_entropy(1.7 * heads, BATCH["query"])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss) != pytest.approx(
        float(losses.query_cross_entropy(heads, BATCH["query"])), rel=1e-3
    )

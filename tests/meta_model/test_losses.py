"""Losses of autoencoders and generators against hand-computed values."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax import flow
from flown_jax.encoders.losses import vae_loss
from flown_jax.few_shot.target_heads import query_cross_entropy
from flown_jax.flow import diffusion
from flown_jax.meta_model import losses
from flown_jax.meta_model.sampling import as_noise_model, as_velocity, regress
from tests.few_shot import small
from tests.layers.helpers import quick_jit


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global PARTS, TABLE, BATCH, CONTEXT, SPACE
    PARTS = small.parts()
    TABLE = small.table()
    BATCH = _batch()
    CONTEXT, SPACE = BATCH["context"], PARTS.latents.target


def _batch() -> dict:
    support = jnp.asarray(TABLE.support())
    prototypes = support.mean(2)
    heads = jax.random.normal(jax.random.key(3), (len(TABLE), small.WAY, small.WIDTH + 1))
    # Images a class differ from task to task: the base heads do, too.
    shot = jnp.asarray([1.0, 4.0, 2.0] * 2)
    context = {"prototypes": prototypes, "shot": shot}
    return {
        "weights": heads,
        "context": context,
        "shot": shot,
        "query": jnp.asarray(TABLE.query()),
        "condition": PARTS.conditioner(support),
        "latent": PARTS.latents.encode(heads, context),
    }


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
    heads = PARTS.latents.decode(aux["x1_hat"], CONTEXT)
    task = query_cross_entropy(heads, BATCH["query"])
    assert float(metrics["task"]) == pytest.approx(float(task), rel=1e-5)
    assert float(weighted) == pytest.approx(float(expected + 2.0 * task), rel=1e-5)


def test_the_latent_of_a_head_is_that_of_its_correction_to_its_own_base_head():
    latents = PARTS.latents
    x1 = SPACE.normalise(BATCH["weights"], CONTEXT)
    code = latents.codec.apply(latents.variables, x1, method="encode").mode()
    np.testing.assert_allclose(BATCH["latent"], latents.statistics.apply(code), atol=1e-5)
    # 4 images a class weigh more in the base head than 1.
    sizes = jnp.linalg.norm(SPACE.base(CONTEXT)[..., :-1], axis=(1, 2))
    assert sizes[1] > 1.2 * sizes[0]


def test_noise_changes_the_loss():
    assert float(_flow_loss(0.0, noise=0.5)[0]) != float(_flow_loss(0.0)[0])


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
    heads = PARTS.latents.decode(end.x1, CONTEXT)
    expected = query_cross_entropy(heads, BATCH["query"])
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
    codec, variables = PARTS.latents.codec, PARTS.latents.variables
    settings = {"reconstruction": "mse", "kl_weight": 0.1, "sigma_in": 0.0, "sigma_lat": 0.5}
    key = jax.random.key(3)
    plain, aux = vae_loss(
        lambda x1: codec.apply(variables, x1, method="encode"),
        lambda z: codec.apply(variables, z, method="decode"),
        key,
        SPACE.normalise(BATCH["weights"], CONTEXT),
        **settings,
    )
    task = query_cross_entropy(SPACE.restore(aux["w_hat"], CONTEXT), BATCH["query"])
    found, metrics = losses.codec_loss(
        codec, variables, key, BATCH, SPACE, **settings, task_weight=2.0
    )
    assert float(metrics["task"]) == pytest.approx(float(task), rel=1e-5)
    assert float(found) == pytest.approx(float(plain + 2.0 * task), rel=1e-5)


def test_task_losses_are_those_of_sharper_heads():
    """A head that is right for new classes is judged on training classes with sharper logits."""
    target = dataclasses.replace(SPACE, sharpness=jnp.full(len(SPACE.shots), 1.7))
    sharper = dataclasses.replace(PARTS.latents, target=target)
    condition, shape = BATCH["condition"], BATCH["latent"].shape[1:]
    z = regress(PARTS.velocity, PARTS.velocity_params, condition, shape)
    heads = PARTS.latents.decode(z, CONTEXT)
    loss, _ = losses.regression_loss(
        PARTS.velocity,
        PARTS.velocity_params,
        jax.random.key(2),
        BATCH,
        sharper,
        condition_noise=0.0,
        task_weight=1.0,
    )
    expected = query_cross_entropy(1.7 * heads, BATCH["query"])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss) != pytest.approx(float(query_cross_entropy(heads, BATCH["query"])), rel=1e-3)


class Still:
    """A network without a velocity: the flow's loss is the mean squared distance of its pairs."""

    @staticmethod
    def apply(params, x, t, condition):
        return jnp.zeros_like(x)


def test_optimal_transport_pairs_within_groups_and_is_refused_without():
    starts = jnp.asarray([[11.0], [1.0], [10.0], [0.0]])
    ends = jnp.asarray([[0.0], [1.0], [10.0], [11.0]])
    batch = {"latent": ends, "condition": {"features": jnp.zeros((4, 1, 1))}}

    def loss(coupling, **group):
        options = {"path": flow.LinearPath(), "source": lambda key, shape: starts}
        found = losses.flow_loss(
            Still, {}, jax.random.key(0), {**batch, **group}, None, coupling=coupling, **options
        )
        return float(found[0])

    # Of the whole batch each end is a start; of the first two rows, and of the last, it is not.
    assert loss(flow.exact_ot, group=jnp.zeros(4, int)) == 0.0
    apart = loss(flow.exact_ot, group=jnp.asarray([3, 3, 7, 7]))
    assert apart == pytest.approx((1 + 100 + 100 + 1) / 4)
    for coupling in (flow.exact_ot, flow.get_coupling("entropic_ot", reg=0.1)):
        with pytest.raises(ValueError, match="ties the source to the condition .* give groups"):
            loss(coupling)
    assert loss(flow.independent) == pytest.approx((121 + 0 + 0 + 121) / 4)


def test_the_task_loss_of_a_diffusion_counts_as_far_as_the_latent_is_seen():
    schedule = diffusion.iddpm_linear_schedule(50)
    arguments = (PARTS.velocity, PARTS.velocity_params, jax.random.key(7), BATCH, PARTS.latents)
    plain, metrics = losses.diffusion_loss(*arguments, schedule=schedule)
    _, key_steps = jax.random.split(jax.random.key(7))
    model = as_noise_model(PARTS.velocity, PARTS.velocity_params, schedule)
    expected, aux = diffusion.ddpm_loss(
        model, key_steps, BATCH["latent"], BATCH["condition"], schedule
    )
    assert set(metrics) == {"eps"}
    assert float(plain) == pytest.approx(float(expected), rel=1e-6)
    weighted, metrics = losses.diffusion_loss(*arguments, schedule=schedule, task_weight=2.0)
    clean = diffusion.predict_x0(schedule, aux["eps_hat"], aux["x_t"], aux["t"])
    heads = PARTS.latents.decode(clean, CONTEXT)
    of_task = [
        query_cross_entropy(head[None], query[None])
        for head, query in zip(heads, BATCH["query"], strict=True)
    ]
    seen = np.asarray(schedule.alphas_cumprod)[np.asarray(aux["t"])]
    task = np.mean(seen * np.asarray(of_task))
    assert float(metrics["task"]) == pytest.approx(task, rel=1e-4)
    assert float(weighted) == pytest.approx(float(expected) + 2.0 * task, rel=1e-4)


def test_a_task_loss_without_the_decoder_is_refused():
    arguments = (PARTS.velocity, PARTS.velocity_params, jax.random.key(2), BATCH, None)
    with pytest.raises(ValueError, match="a task loss needs the latent space"):
        losses.regression_loss(*arguments, task_weight=1.0)
    losses.regression_loss(*arguments)

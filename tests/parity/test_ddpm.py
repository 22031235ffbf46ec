"""Parity of the diffusion schedules and steps with improved-diffusion, p-diff and latent diffusion.

The model is replaced by a given output, so only the arithmetic of the steps is compared.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import diffusion
from tests.parity.fixtures import assert_close, load


@pytest.fixture(scope="module")
def ddpm(source):
    return load("ddpm", source)


@pytest.fixture(scope="module")
def schedule(ddpm):
    c = ddpm.config
    return diffusion.linear_schedule(c["T"], c["beta_start"], c["beta_end"])


@pytest.fixture(scope="module")
def arrays(ddpm):
    return {k: jnp.asarray(v) for k, v in ddpm.inputs.items()}


def test_schedule(ddpm, schedule):
    for name in (
        "betas",
        "alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    ):
        assert_close(getattr(schedule, name), ddpm.outputs[name], 1e-9, name)


def test_forward_process(ddpm, schedule, arrays):
    a = arrays
    x_t = diffusion.q_sample(schedule, a["x0"], a["t"], a["noise"])
    assert_close(x_t, ddpm.outputs["x_t"], 1e-5, "x_t")
    mean, _ = diffusion.q_posterior(schedule, a["x0"], x_t, a["t"])
    assert_close(mean, ddpm.outputs["q_posterior_mean"], 1e-5, "posterior mean")
    axes = tuple(range(1, x_t.ndim))
    loss = jnp.mean((a["model_output"] - a["noise"]) ** 2, axes)
    assert_close(loss, ddpm.outputs["loss_mse"], 1e-5, "loss")


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["large", "small"])
def test_reverse_step(ddpm, schedule, arrays, variance, clip):
    a, x_t = arrays, jnp.asarray(ddpm.outputs["x_t"])
    name = f"{variance}_{'clip' if clip else 'noclip'}"
    p = diffusion.p_mean_variance(
        schedule, a["model_output"], x_t, a["t"], variance=variance, clip_x0=clip
    )
    assert_close(p.x0_hat, ddpm.outputs[f"pred_x0_{name}"], 1e-5, "x0")
    assert_close(p.mean, ddpm.outputs[f"p_mean_{name}"], 1e-5, "mean")
    if f"log_variance_{name}" in ddpm.outputs:
        assert_close(p.log_variance, ddpm.outputs[f"log_variance_{name}"], 1e-5, "log variance")
    x = diffusion.ancestral_step(
        schedule, a["model_output"], x_t, a["t"], a["z"], variance=variance, clip_x0=clip
    )
    assert_close(x, ddpm.outputs[f"x_prev_{name}"], 1e-5, "x_prev")


def test_pdiff_step(ddpm, schedule, arrays):
    a, x_t = arrays, jnp.asarray(ddpm.outputs["x_t"])
    x = diffusion.ancestral_step(
        schedule, a["model_output"], x_t, a["t"], a["z"], clip_x0=True, clip_sample=True
    )
    assert_close(x, ddpm.outputs["x_prev_pdiff"], 1e-5, "x_prev")


@pytest.mark.parametrize("eta", [0, 1])
def test_ddim_step(ddpm, schedule, arrays, eta):
    a, x_t = arrays, jnp.asarray(ddpm.outputs["x_t"])
    x = diffusion.ddim_step(schedule, a["model_output"], x_t, a["t"], a["z"], eta=float(eta))
    assert_close(x, ddpm.outputs[f"ddim_eta{eta}_x_prev"], 1e-5, "x_prev")


def test_respacing(ddpm, schedule):
    keep = diffusion.space_timesteps(len(schedule), ddpm.config["space_timesteps"])
    np.testing.assert_array_equal(keep, ddpm.outputs["space_timesteps"])
    spaced = diffusion.respace(schedule, keep)
    assert_close(spaced.betas, ddpm.outputs["spaced_betas"], 1e-9, "betas")
    np.testing.assert_array_equal(spaced.timesteps, keep)


def test_latent_diffusion(ddpm):
    c = ddpm.config["ldm"]
    schedule = diffusion.ldm_schedule(c["T"], c["linear_start"], c["linear_end"])
    assert_close(schedule.betas, ddpm.outputs["ldm_betas"], 1e-9, "betas")
    steps = diffusion.ldm_ddim_steps(schedule, c["ddim_steps"], c["eta"])
    np.testing.assert_array_equal(steps.timesteps, ddpm.outputs["ldm_ddim_timesteps"])
    for name in ("alphas", "alphas_prev", "sigmas"):
        assert_close(getattr(steps, name), ddpm.outputs[f"ldm_ddim_{name}"], 1e-9, name)

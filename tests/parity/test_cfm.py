"""Parity of paths, couplings, schedulers, solvers, likelihood and gradient cut with the original
PyTorch libraries (torchcfm, flow_matching, POT, torchdiffeq)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import couplings, schedulers
from flown_jax.flow.likelihood import log_likelihood
from flown_jax.flow.matching import score_loss
from flown_jax.flow.paths import (
    LinearPath,
    SchrodingerBridgePath,
    TargetPath,
    VariancePreservingPath,
)
from flown_jax.flow.sampling import sample
from flown_jax.flow.sources import get_source
from tests.parity.fixtures import assert_close, load


@pytest.fixture(scope="module")
def cfm(source):
    return load("cfm", source)


def _paths(config):
    s = config["sigma"]
    return {
        "icfm0": LinearPath(0.0),
        "icfm": LinearPath(s["icfm"]),
        "otcfm": LinearPath(s["icfm"]),
        "target0": TargetPath(0.0),
        "target": TargetPath(s["target"]),
        "sb": SchrodingerBridgePath(s["sb"]),
        "vp0": VariancePreservingPath(0.0),
        "vp": VariancePreservingPath(s["vp"]),
    }


@pytest.mark.parametrize("prefix", ["vec", "img"])
@pytest.mark.parametrize("name", ["icfm0", "icfm", "otcfm", "target0", "target", "sb", "vp0", "vp"])
def test_matcher(cfm, prefix, name):
    path = _paths(cfm.config)[name]
    x0, x1, eps, v, t = (
        jnp.asarray(cfm.inputs[f"{prefix}_{k}"]) for k in ("x0", "x1", "eps", "v", "t")
    )
    if name == "target0":
        t = jnp.asarray(cfm.inputs[f"{prefix}_t_target0"])
    expected = {
        k.removeprefix(f"{prefix}_{name}_"): value
        for k, value in cfm.outputs.items()
        if k.startswith(f"{prefix}_{name}_")
    }
    assert_close(path.mean(x0, x1, t), expected["mu"], 1e-6, "mu")
    assert_close(path.std(t), expected["sigma"], 1e-6, "sigma")
    x_t, u_t = path.from_noise(x0, x1, t, eps)
    assert_close(x_t, expected["xt"], 1e-6, "x_t")
    # The target path's own u_t is x1 - (1-sigma) eps, free of the reference's division by
    # 1 - (1-sigma) t, which costs the reference digits near t = 1 (5e-6 at t = 1).
    assert_close(u_t, expected["ut"], 1e-5 if "target" in name else 1e-6, "u_t")
    u = path.velocity(x_t, x0, x1, t)
    assert_close(u, expected["ut"], 1e-6, "u at x_t")
    assert_close(jnp.mean((v - u) ** 2), expected["loss"], 1e-6, "loss")
    if "lambda" in expected:
        assert_close(path.score_weight(t), expected["lambda"], 1e-6, "lambda")
    if f"{prefix}_{name}_score_loss" in cfm.outputs:
        loss = score_loss(jnp.asarray(cfm.inputs[f"{prefix}_score"]), eps, t, path)
        assert_close(loss, expected["score_loss"], 1e-6, "score loss")


def test_exact_coupling(cfm):
    x0, x1, y1 = (cfm.inputs[f"ot_{k}"] for k in ("x0", "x1", "y1"))
    cost = couplings.ot_cost(x0, x1)
    assert_close(cost, cfm.outputs["ot_cost"], 1e-6, "cost")
    plan = couplings.ot_plan(cost)
    assert_close(plan, cfm.outputs["ot_plan_exact"], 1e-6, "plan")
    i = np.asarray(couplings.exact_ot(jax.random.key(0), jnp.asarray(x0), jnp.asarray(x1)))
    # perm: row i of x0 goes with x1[perm[i]]; ours moves x0 to the order of x1.
    np.testing.assert_array_equal(i, cfm.outputs["ot_perm_inv"])
    np.testing.assert_array_equal(y1[np.argsort(i)], cfm.outputs["ot_y1_follow_x1"])
    assert_close(x0[i][cfm.outputs["ot_perm"]], x0, 0, "x0 returns to its place")
    assert_close(((x0[i] - x1) ** 2).sum(), cfm.outputs["ot_total_cost"], 1e-6, "total")
    assert_close(((x0 - x1) ** 2).sum(), cfm.outputs["ot_total_cost_identity"], 1e-6, "identity")
    assert_close(x0, cfm.outputs["ot_scipy_x0"], 0, "scipy x0")
    assert_close(x1[np.argsort(i)], cfm.outputs["ot_scipy_x1"], 0, "scipy x1")


def test_coupling_within_class(cfm):
    x0, x1, y1 = (jnp.asarray(cfm.inputs[f"ot_{k}"]) for k in ("x0", "x1", "y1"))
    i = couplings.exact_ot(jax.random.key(0), x0, x1, y1.astype(jnp.int32))
    np.testing.assert_array_equal(np.argsort(i), cfm.outputs["ot_perm_within_class"])


def test_pairs_with_replacement(cfm):
    out, u = cfm.outputs, cfm.inputs["ot_u"]
    cost = couplings.ot_cost(cfm.inputs["ot_x0"], cfm.inputs["ot_x1"])
    i, j = couplings.ot_pair(couplings.ot_plan(cost), u)
    np.testing.assert_array_equal(i, out["ot_i_replace"])
    np.testing.assert_array_equal(j, out["ot_j_replace"])
    assert len(set(j.tolist())) == int(out["ot_distinct_x1"])
    np.testing.assert_array_equal(
        out["ot_perm"][out["ot_i_noreplace"]], out["ot_j_noreplace"], "fixture's own pairs"
    )


@pytest.mark.parametrize(("name", "tolerance"), [("sb", 1e-6), ("small", 5e-3)])
def test_sinkhorn(cfm, name, tolerance):
    cost = couplings.ot_cost(cfm.inputs["ot_x0"], cfm.inputs["ot_x1"])
    plan = couplings.ot_plan(cost, "sinkhorn", reg=float(cfm.inputs[f"ot_reg_{name}"]))
    assert_close(plan, cfm.outputs[f"ot_plan_sinkhorn_{name}"], tolerance, "plan")
    i, j = couplings.ot_pair(plan, cfm.inputs["ot_u"])
    np.testing.assert_array_equal(i, cfm.outputs[f"ot_i_sinkhorn_{name}"])
    np.testing.assert_array_equal(j, cfm.outputs[f"ot_j_sinkhorn_{name}"])


def test_other_plans_and_distances(cfm):
    out, x0, x1 = cfm.outputs, cfm.inputs["ot_x0"], cfm.inputs["ot_x1"]
    cost = couplings.ot_cost(x0, x1)
    normalised = couplings.ot_plan(cost / cost.max(), "sinkhorn", reg=0.05)
    assert_close(normalised, out["ot_plan_sinkhorn_norm05"], 1e-6, "normalised")
    unbalanced = couplings.ot_plan(cost, "unbalanced", reg=1.0, reg_m=1.0)
    assert_close(unbalanced, out["ot_plan_unbalanced_1_1"], 1e-6, "unbalanced")
    few = out["ot_plan_exact_rect"].shape[1]
    rectangular = couplings.ot_plan(couplings.ot_cost(x0, x1[:few]))
    assert_close(rectangular, out["ot_plan_exact_rect"], 1e-6, "rectangular")
    assert_close(couplings.wasserstein(x0, x1, 1), out["ot_wasserstein1"], 1e-6, "W1")
    assert_close(couplings.wasserstein(x0, x1, 2), out["ot_wasserstein2"], 1e-6, "W2")
    entropic = couplings.wasserstein(x0, x1, 2, reg=1.0)
    assert_close(entropic, out["ot_wasserstein2_sinkhorn_1"], 1e-6, "W2 sinkhorn")


SCHEDULERS = {
    "condot": schedulers.CondOT(),
    "poly3": schedulers.Polynomial(3),
    "vp": schedulers.VP(0.1, 20.0),
    "linvp": schedulers.LinearVP(),
    "cosine": schedulers.Cosine(),
}


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_scheduler(cfm, name):
    scheduler = SCHEDULERS[name]
    t, x0, x1 = (jnp.asarray(cfm.inputs[f"sch_{k}"]) for k in ("t", "x0", "x1"))
    out = {
        k.removeprefix(f"sch_{name}_"): v
        for k, v in cfm.outputs.items()
        if k.startswith(f"sch_{name}_")
    }
    assert_close(scheduler.alpha(t), out["alpha_t"], 1e-6, "alpha")
    assert_close(scheduler.sigma(t), out["sigma_t"], 1e-6, "sigma")
    assert_close(scheduler.d_alpha(t), out["d_alpha_t"], 1e-6, "alpha'")
    assert_close(scheduler.d_sigma(t), out["d_sigma_t"], 1e-6, "sigma'")
    snr = scheduler.alpha(t) / scheduler.sigma(t)
    assert_close(scheduler.snr_inverse(snr), out["snr_inverse"], 1e-6, "snr inverse")
    time = t[:, None]
    x = scheduler.alpha(time) * x1 + scheduler.sigma(time) * x0
    v = scheduler.d_alpha(time) * x1 + scheduler.d_sigma(time) * x0
    assert_close(x, out["xt"], 1e-6, "x_t")
    assert_close(v, out["dxt"], 1e-6, "dx_t")
    assert_close(
        schedulers.velocity_to_target(scheduler, v, x, time), out["v2target"], 1e-6, "target"
    )
    assert_close(schedulers.velocity_to_epsilon(scheduler, v, x, time), out["v2eps"], 1e-6, "eps")


def _linear(cfm, dtype=jnp.float32):
    a, b = (jnp.asarray(cfm.inputs[f"lin_{k}"], dtype) for k in ("A", "b"))
    return lambda x, t, _: x @ a.T + t * b


def _nonlinear(cfm):
    linear = _linear(cfm)
    return lambda x, t, _: 2 * jnp.tanh(linear(x, t, None))


@pytest.mark.parametrize("backend", ["diffrax", "scan"])
@pytest.mark.parametrize(
    ("solver", "name"),
    [("euler", "euler"), ("midpoint", "midpoint"), ("rk4_38", "rk4"), ("heun3", "heun3")],
)
def test_fixed_step_solvers(cfm, backend, solver, name):
    x0 = jnp.asarray(cfm.inputs["lin_x0"])
    end = sample(_linear(cfm), x0, solver=solver, steps=cfm.config["N"], backend=backend).x1
    assert_close(end, cfm.outputs[f"lin_{name}_N"], 1e-6, "linear")
    end = sample(_nonlinear(cfm), x0, solver=solver, steps=4, backend=backend).x1
    assert_close(end, cfm.outputs[f"nl_{name}"], 1e-6, "nonlinear")


@pytest.mark.parametrize("backend", ["diffrax", "scan"])
def test_grids(cfm, backend):
    x0 = jnp.asarray(cfm.inputs["lin_x0"])
    on_grid = sample(
        _nonlinear(cfm), x0, ts=cfm.inputs["nl_grid"], save_trajectory=True, backend=backend
    )
    assert_close(on_grid.trajectory, cfm.outputs["nl_euler_grid"], 1e-6, "grid")
    start = jnp.asarray(cfm.inputs["lin_x0"])
    back = sample(_nonlinear(cfm), start, steps=4, t0=1.0, t1=0.0, backend=backend).x1
    assert_close(back, cfm.outputs["nl_euler_reverse"], 1e-6, "reverse")


def test_accurate_solves(cfm):
    x0 = jnp.asarray(cfm.inputs["lin_x0"])
    # Classical RK4 in 4 steps against the exact solution: its own error is 1e-4.
    end = sample(_nonlinear(cfm), x0, solver="rk4", steps=4).x1
    assert_close(end, cfm.outputs["nl_dopri5"], 2e-4, "rk4")
    for solver in ("tsit5", "dopri5"):
        options = {"solver": solver, "rtol": 1e-6, "atol": 1e-6}
        assert_close(
            sample(_nonlinear(cfm), x0, **options).x1, cfm.outputs["nl_dopri5"], 1e-5, solver
        )
        assert_close(sample(_linear(cfm), x0, **options).x1, cfm.outputs["lin_exact"], 1e-5, solver)


def test_likelihood(cfm):
    x1 = jnp.asarray(cfm.inputs["lin_x1"])
    options = {"log_p0": get_source("gaussian").log_prob, "solver": "dopri5"}
    options |= {"rtol": 1e-6, "atol": 1e-6}
    exact = log_likelihood(_linear(cfm), x1, **options)
    assert_close(exact.x0, cfm.outputs["lin_x0_back"], 1e-5, "x0")
    assert_close(exact.log_prob, cfm.outputs["lin_loglik"], 1e-5, "exact")
    probe = jnp.asarray(cfm.inputs["lin_hutch_z"])
    estimate = log_likelihood(_linear(cfm), x1, probe=probe, **options)
    assert_close(estimate.log_prob, cfm.outputs["lin_loglik_hutch"], 1e-5, "Hutchinson")


@pytest.mark.parametrize("backend", ["diffrax", "scan"])
@pytest.mark.parametrize(
    ("cut", "dtype", "tolerance"),
    [
        ("full", "float64", 1e-10),
        ("cut", "float64", 1e-10),
        ("last", "float64", 1e-10),
        ("cut", "float32", 1e-5),
    ],
)
def test_gradient_cut(cfm, backend, cut, dtype, tolerance):
    steps = cfm.config["N"]
    start = {"full": 0.0, "cut": cfm.config["t_cut"], "last": (steps - 1) / steps}[cut]
    with jax.enable_x64(dtype == "float64"):
        a, b, x0, c = (jnp.asarray(cfm.inputs[f"lin_{k}"], dtype) for k in ("A", "b", "x0", "c"))

        def loss(a, b):
            x1 = sample(
                lambda x, t, _: x @ a.T + t * b,
                x0,
                steps=steps,
                gradient_from=start,
                backend=backend,
            ).x1
            return jnp.sum(c * x1), x1

        (value, x1), (d_a, d_b) = jax.value_and_grad(loss, (0, 1), has_aux=True)(a, b)
        assert x1.dtype == dtype
        assert_close(x1, cfm.outputs[f"cut_{cut}_x1"], tolerance, "x1")
        assert_close(value, cfm.outputs[f"cut_{cut}_loss"], tolerance, "loss")
        assert_close(d_a, cfm.outputs[f"cut_{cut}_dA"], tolerance, "dA")
        assert_close(d_b, cfm.outputs[f"cut_{cut}_db"], tolerance, "db")

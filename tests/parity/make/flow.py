"""Paths, couplings, schedulers, solvers, gradients, diffusion, ELMES: float64 formulas.

Sources: Lipman et al. 2023; Tong et al. 2024 (paths, couplings, scores); Lipman et al., Flow
Matching Guide and Code, 2024 (schedulers); Ho et al. 2020, Nichol and Dhariwal 2021, Song et al.
2021 (diffusion, respacing, DDIM); Fifty et al. 2024 (ELMES).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import linear_sum_assignment

Arrays = dict[str, Any]


def cfm() -> tuple[Arrays, Arrays, dict[str, Any]]:
    """Inputs, outputs and configuration of `cfm`."""
    rng = np.random.RandomState(1)
    config = {"N": 10, "t_cut": 0.4, "sigma": {"icfm": 0.1, "target": 0.05, "sb": 0.6, "vp": 0.2}}
    inputs: Arrays = {}
    outputs: Arrays = {}
    for part in (_matchers, _couplings, _schedulers, _solvers, _gradients):
        part(rng, config, inputs, outputs)
    return inputs, outputs, config


def _f4(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


def _matchers(rng: Any, config: Any, inputs: Arrays, outputs: Arrays) -> None:
    sigma = config["sigma"]
    for prefix, shape in (("vec", (8, 5)), ("img", (4, 2, 3, 3))):
        given = {k: _f4(rng.randn(*shape)) for k in ("x0", "x1", "eps", "v")}
        t = _f4([0, 1, 0.5, *rng.uniform(size=shape[0] - 3)])
        given |= {"t": t, "t_target0": np.where(t == 1, np.float32(0.9375), t)}
        if prefix == "vec":
            given["score"] = _f4(rng.randn(*shape))
        inputs |= {f"{prefix}_{k}": x for k, x in given.items()}
        a = {k: x.astype(np.float64) for k, x in given.items()}
        axes = (-1,) + (1,) * (len(shape) - 1)
        for name in ("icfm0", "icfm", "otcfm", "target0", "target", "sb", "vp0", "vp"):
            kind = name.rstrip("0")
            s = 0.0 if name.endswith("0") else sigma["icfm" if kind == "otcfm" else kind]
            flat = a["t_target0" if name == "target0" else "t"]
            t = flat.reshape(axes)
            mean, std = (1 - t) * a["x0"] + t * a["x1"], s + 0 * t
            velocity = a["x1"] - a["x0"]
            if kind == "target":
                mean, std = t * a["x1"], 1 - (1 - s) * t
                velocity = a["x1"] - (1 - s) * a["eps"]
            elif kind == "sb":
                std = s * np.sqrt(t * (1 - t))
                inside = (t > 0) & (t < 1)
                rate = np.where(inside, (1 - 2 * t) / np.where(inside, 2 * t * (1 - t), 1), 0)
                velocity = velocity + rate * std * a["eps"]
            elif kind == "vp":
                c, d = np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)
                mean = c * a["x0"] + d * a["x1"]
                velocity = np.pi / 2 * (c * a["x1"] - d * a["x0"])
            found = {"mu": mean, "sigma": std.reshape(-1), "xt": mean + std * a["eps"]}
            found |= {"ut": velocity, "loss": np.mean((a["v"] - velocity) ** 2)}
            if s > 0:
                found["lambda"] = weight = 2 * std.reshape(-1) / (s**2 + 1e-8)
                if (prefix, name) == ("vec", "sb"):
                    score = weight.reshape(axes) * a["score"] + a["eps"]
                    outputs["vec_sb_score_loss"] = _f4(np.mean(score**2))
            outputs |= {f"{prefix}_{name}_{k}": _f4(x) for k, x in found.items()}


def _couplings(rng: Any, config: Any, inputs: Arrays, outputs: Arrays) -> None:
    n, few = 16, 9
    x0, x1 = _f4(rng.randn(n, 5)), _f4(rng.randn(n, 5))
    y1, u = np.arange(n) % 3, rng.uniform(size=n)
    regs = {"sb": 2 * config["sigma"]["sb"] ** 2, "small": 0.4}
    inputs |= {"ot_x0": x0, "ot_x1": x1, "ot_y1": y1, "ot_u": u}
    inputs |= {f"ot_reg_{k}": np.float64(v) for k, v in regs.items()}
    cost = ((x0[:, None].astype(np.float64) - x1[None]) ** 2).sum(-1)
    permutation = linear_sum_assignment(cost)[1]
    inverse = np.argsort(permutation)
    plan = np.eye(n)[permutation] / n
    rows, columns = _drawn(plan, u)
    order = rng.permutation(n)
    far = linear_sum_assignment(np.sqrt(cost))[1]
    # The rectangular problem: every row n/few times, every column few times, one to one.
    repeated = cost[:, :few].repeat(few, 0).repeat(n, 1)
    pairs = linear_sum_assignment(repeated)[1]
    rectangular = np.zeros((n, few))
    np.add.at(rectangular, (np.arange(n * few) // few, pairs // n), 1 / (n * few))
    within = np.empty(n, int)
    # Noise i stands for the class of x1 at the same place, as a batch is given.
    for label in range(3):
        members = np.flatnonzero(y1 == label)
        within[members] = members[linear_sum_assignment(cost[np.ix_(members, members)])[1]]
    outputs |= {
        "ot_cost": _f4(cost),
        "ot_plan_exact": plan,
        "ot_perm": permutation,
        "ot_perm_inv": inverse,
        "ot_total_cost": np.float64(cost[np.arange(n), permutation].sum()),
        "ot_total_cost_identity": np.float64(np.trace(cost)),
        "ot_scipy_x0": x0,
        "ot_scipy_x1": x1[permutation],
        "ot_y1_follow_x1": y1[permutation],
        "ot_i_replace": rows,
        "ot_j_replace": columns,
        "ot_distinct_x1": np.int64(len(set(columns.tolist()))),
        "ot_i_noreplace": order,
        "ot_j_noreplace": permutation[order],
        "ot_plan_exact_rect": rectangular,
        "ot_perm_within_class": within,
        "ot_wasserstein1": np.float64(np.sqrt(cost)[np.arange(n), far].mean()),
        "ot_wasserstein2": np.float64(np.sqrt(cost[np.arange(n), permutation].mean())),
        "ot_plan_sinkhorn_norm05": _sinkhorn(cost / cost.max(), 0.05),
        "ot_plan_unbalanced_1_1": _sinkhorn(cost, 1.0, 1.0),
        "ot_wasserstein2_sinkhorn_1": np.float64(np.sqrt((_sinkhorn(cost, 1.0) * cost).sum())),
    }
    for name, reg in regs.items():
        outputs[f"ot_plan_sinkhorn_{name}"] = plan = _sinkhorn(cost, reg)
        outputs[f"ot_i_sinkhorn_{name}"], outputs[f"ot_j_sinkhorn_{name}"] = _drawn(plan, u)


def _drawn(plan: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows and columns of the places where the cumulated plan passes u."""
    cumulated = plan.ravel().cumsum()
    return np.unravel_index(np.searchsorted(cumulated / cumulated[-1], u, "right"), plan.shape)


def _sinkhorn(cost: np.ndarray, reg: float, marginal: float | None = None) -> np.ndarray:
    """The entropic plan between uniform masses; with `marginal` these are only a penalty (KL)."""
    n, m = cost.shape
    kernel = np.exp(-cost / reg) * (1.0 if marginal is None else 1 / (n * m))
    power = 1.0 if marginal is None else marginal / (marginal + reg)
    u, v = np.ones(n), np.ones(m)
    for _ in range(20000):
        u = (1 / n / (kernel @ v)) ** power
        v = (1 / m / (kernel.T @ u)) ** power
    return u[:, None] * kernel * v


def _schedulers(rng: Any, config: Any, inputs: Arrays, outputs: Arrays) -> None:
    t = _f4(np.linspace(0.05, 0.95, 7))
    x0, x1 = _f4(rng.randn(7, 3)), _f4(rng.randn(7, 3))
    inputs |= {"sch_t": t, "sch_x0": x0, "sch_x1": x1}
    s = t.astype(np.float64)
    left, q = 1 - s, np.pi / 2
    exponent = 0.5 * left**2 * 19.9 + 0.1 * left  # betas 0.1 to 20
    slope = -(19.9 * left + 0.1)
    sigma = np.sqrt(1 - np.exp(-exponent))
    table = {
        "condot": (s, left, s**0, -(s**0)),
        "poly3": (s**3, 1 - s**3, 3 * s**2, -3 * s**2),
        "vp": (
            np.exp(-exponent / 2),
            sigma,
            -slope / 2 * np.exp(-exponent / 2),
            np.exp(-exponent) * slope / (2 * sigma),
        ),
        "linvp": (s, np.sqrt(1 - s**2), s**0, -s / np.sqrt(1 - s**2)),
        "cosine": (np.sin(q * s), np.cos(q * s), q * np.cos(q * s), -q * np.sin(q * s)),
    }
    for name, rows in table.items():
        alpha, sigma, d_alpha, d_sigma = (row[:, None] for row in rows)
        found = dict(zip(("alpha_t", "sigma_t", "d_alpha_t", "d_sigma_t"), rows, strict=True))
        found |= {"snr_inverse": s, "v2target": x1, "v2eps": x0}
        found |= {"xt": alpha * x1 + sigma * x0, "dxt": d_alpha * x1 + d_sigma * x0}
        outputs |= {f"sch_{name}_{k}": _f4(v) for k, v in found.items()}


_Field = Callable[[np.ndarray, float], np.ndarray]


def _stepped(field: _Field, x: np.ndarray, times: Any, method: str) -> np.ndarray:
    states = [x]
    for t, end in itertools.pairwise(times):
        h = end - t
        k1 = field(x, t)
        if method == "euler":
            slope = k1
        elif method == "midpoint":
            slope = field(x + h / 2 * k1, t + h / 2)
        elif method == "heun3":
            k2 = field(x + h / 3 * k1, t + h / 3)
            slope = (k1 + 3 * field(x + 2 * h / 3 * k2, t + 2 * h / 3)) / 4
        else:  # the 3/8 rule
            k2 = field(x + h / 3 * k1, t + h / 3)
            k3 = field(x + h * (k2 - k1 / 3), t + 2 * h / 3)
            slope = (k1 + 3 * k2 + 3 * k3 + field(x + h * (k1 - k2 + k3), end)) / 8
        x = x + h * slope
        states.append(x)
    return np.stack(states)


def _solvers(rng: Any, config: Any, inputs: Arrays, outputs: Arrays) -> None:
    given = {"A": rng.randn(3, 3) * 0.4, "b": rng.randn(3)}
    given |= {k: rng.randn(4, 3) for k in ("x0", "x1", "c")}
    given["hutch_z"] = rng.choice([-1.0, 1.0], (4, 3))
    inputs |= {f"lin_{k}": _f4(v) for k, v in given.items()}
    a = {k: inputs[f"lin_{k}"].astype(np.float64) for k in given}

    def linear(x: np.ndarray, t: float) -> np.ndarray:
        return x @ a["A"].T + t * a["b"]

    def nonlinear(x: np.ndarray, t: float) -> np.ndarray:
        return 2 * np.tanh(linear(x, t))

    steps, few = np.linspace(0, 1, config["N"] + 1), np.linspace(0, 1, 5)
    for name in ("euler", "midpoint", "rk4", "heun3"):
        outputs[f"lin_{name}_N"] = _f4(_stepped(linear, a["x0"], steps, name)[-1])
        outputs[f"nl_{name}"] = _f4(_stepped(nonlinear, a["x0"], few, name)[-1])
    inputs["nl_grid"] = _f4([0, 0.1, 0.4, 1])
    grid = inputs["nl_grid"].astype(np.float64)
    outputs["nl_euler_grid"] = _f4(_stepped(nonlinear, a["x0"], grid, "euler"))
    outputs["nl_euler_reverse"] = _f4(_stepped(nonlinear, a["x0"], few[::-1], "euler")[-1])
    solved = solve_ivp(
        lambda t, x: nonlinear(x.reshape(4, 3), t).ravel(),
        (0, 1),
        a["x0"].ravel(),
        rtol=1e-11,
        atol=1e-12,
    )
    outputs["nl_dopri5"] = _f4(solved.y[:, -1].reshape(4, 3))
    # The state [x, t, 1] follows a constant matrix.
    flow = np.zeros((5, 5))
    flow[:3, :3], flow[:3, 3], flow[3, 4] = a["A"], a["b"], 1
    start = np.c_[a["x0"], np.zeros(4), np.ones(4)]
    outputs["lin_exact"] = _f4((start @ expm(flow).T)[:, :3])
    end = np.c_[a["x1"], np.ones(4), np.ones(4)]
    back = (end @ expm(-flow).T)[:, :3]
    log_p0 = -0.5 * (back**2).sum(1) - 1.5 * np.log(2 * np.pi)
    z = a["hutch_z"]
    outputs["lin_x0_back"] = _f4(back)
    outputs["lin_loglik"] = _f4(log_p0 - np.trace(a["A"]))
    outputs["lin_loglik_hutch"] = _f4(log_p0 - ((z @ a["A"].T) * z).sum(1))


def _gradients(rng: Any, config: Any, inputs: Arrays, outputs: Arrays) -> None:
    steps = config["N"]
    a, b, x, c = (inputs[f"lin_{k}"].astype(np.float64) for k in ("A", "b", "x0", "c"))
    states = _stepped(lambda x, t: x @ a.T + t * b, x, np.arange(steps + 1) / steps, "euler")
    firsts = {"full": 0, "cut": round(config["t_cut"] * steps), "last": steps - 1}
    for name, first in firsts.items():
        g, d_a, d_b = c, np.zeros_like(a), np.zeros_like(b)
        for k in reversed(range(first, steps)):
            d_a += g.T @ states[k] / steps
            d_b += g.sum(0) * (k / steps) / steps
            g = g + g @ a / steps
        found = {"x1": states[-1], "loss": (c * states[-1]).sum(), "dA": d_a, "db": d_b}
        outputs |= {f"cut_{name}_{k}": np.float64(v) for k, v in found.items()}


def ddpm() -> tuple[Arrays, Arrays, dict[str, Any]]:
    """Inputs, outputs and configuration of `ddpm`."""
    rng = np.random.RandomState(2)
    steps, shape = 100, (4, 1, 12)
    ldm = {"T": 103, "ddim_steps": 10, "eta": 1.0, "linear_end": 0.0155, "linear_start": 0.0015}
    config = {"T": steps, "beta_start": 1e-3, "beta_end": 0.2, "space_timesteps": "ddim20"}
    config |= {"ldm": ldm}
    inputs: Arrays = {k: _f4(rng.randn(*shape)) for k in ("x0", "noise", "model_output", "z")}
    inputs["t"] = t = np.array([0, steps - 1, 37, 71])
    betas = np.linspace(config["beta_start"], config["beta_end"], steps)
    acp = np.cumprod(1 - betas)
    before = np.append(1.0, acp[:-1])
    variance = betas * (1 - before) / (1 - acp)
    small = np.log(np.append(variance[1], variance[1:]))
    coef1 = betas * np.sqrt(before) / (1 - acp)
    coef2 = (1 - before) * np.sqrt(1 - betas) / (1 - acp)
    outputs: Arrays = {
        "betas": betas,
        "alphas_cumprod": acp,
        "posterior_variance": variance,
        "posterior_log_variance_clipped": small,
        "posterior_mean_coef1": coef1,
        "posterior_mean_coef2": coef2,
    }
    x0, noise, eps, z = (inputs[k].astype(np.float64) for k in ("x0", "noise", "model_output", "z"))

    def at(row: np.ndarray) -> np.ndarray:
        return row[t][:, None, None]

    outputs["x_t"] = _f4(at(np.sqrt(acp)) * x0 + at(np.sqrt(1 - acp)) * noise)
    x_t = outputs["x_t"].astype(np.float64)
    outputs["q_posterior_mean"] = _f4(at(coef1) * x0 + at(coef2) * x_t)
    outputs["loss_mse"] = _f4(((eps - noise) ** 2).mean((1, 2)))
    alive = (t > 0)[:, None, None]
    guess = (x_t - at(np.sqrt(1 - acp)) * eps) / at(np.sqrt(acp))
    large = np.log(np.append(variance[1], betas[1:]))
    for kind, log_variance in (("large", large), ("small", small)):
        for clip in (False, True):
            name = f"{kind}_{'clip' if clip else 'noclip'}"
            x0_hat = np.clip(guess, -1, 1) if clip else guess
            mean = at(coef1) * x0_hat + at(coef2) * x_t
            found = mean + alive * np.exp(at(log_variance) / 2) * z
            outputs |= {f"pred_x0_{name}": _f4(x0_hat), f"p_mean_{name}": _f4(mean)}
            outputs |= {f"x_prev_{name}": _f4(found), f"log_variance_{name}": _f4(log_variance[t])}
    outputs["x_prev_pdiff"] = np.clip(outputs["x_prev_large_clip"], -1, 1)
    for eta in (0, 1):
        std = eta * np.sqrt((1 - before) / (1 - acp) * (1 - acp / before))
        x = at(np.sqrt(before)) * guess + at(np.sqrt(1 - before - std**2)) * eps
        outputs[f"ddim_eta{eta}_x_prev"] = _f4(x + alive * at(std) * z)
    keep = np.arange(0, steps, 5)
    kept = acp[keep]
    outputs |= {"space_timesteps": keep, "spaced_betas": 1 - kept / np.append(1.0, kept[:-1])}
    roots = np.linspace(np.sqrt(ldm["linear_start"]), np.sqrt(ldm["linear_end"]), ldm["T"])
    acp = np.cumprod(1 - roots**2)
    times = np.arange(0, ldm["T"], ldm["T"] // ldm["ddim_steps"]) + 1
    alphas, previous = acp[times], np.append(acp[0], acp[times[:-1]])
    sigmas = np.sqrt((1 - previous) / (1 - alphas) * (1 - alphas / previous))
    outputs |= {"ldm_betas": roots**2, "ldm_ddim_timesteps": times, "ldm_ddim_alphas": alphas}
    outputs |= {"ldm_ddim_alphas_prev": previous, "ldm_ddim_sigmas": sigmas}
    return inputs, outputs, config


def elmes() -> tuple[Arrays, Arrays, dict[str, Any]]:
    """Inputs, outputs and configuration of `elmes`: the corners of a simplex, rotated at random."""
    pairs = [[64, 5], [16, 5], [16, 2], [10, 10]]
    inputs: Arrays = {}
    outputs: Arrays = {}
    for width, classes in pairs:
        name = f"p{width}_C{classes}"
        inputs[name] = matrix = np.random.RandomState(50).random_sample((width, classes))
        # Orthonormal columns by Gram and Schmidt, with the signs of Householder's QR.
        columns: list[np.ndarray] = []
        for column in matrix.T:
            rest = column
            for _ in range(2):
                rest = rest - sum((c * (c @ rest) for c in columns), np.zeros(width))
            columns.append(rest / np.linalg.norm(rest))
        signs = np.sign(np.diag(np.linalg.qr(matrix)[1]))
        centred = np.eye(classes) - 1 / classes
        corners = np.sqrt(classes / (classes - 1)) * centred @ (np.stack(columns) * signs[:, None])
        outputs[name] = _f4(corners)
    return inputs, outputs, {"pairs": pairs, "seed": 50}

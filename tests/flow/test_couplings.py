"""Couplings: optimality, groups, the bias of optimal transport with conditions, plans."""

from __future__ import annotations

import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import couplings as c

KEY = jax.random.key(0)


def _batch(size, shape=(3,), seed=0):
    return jax.random.normal(jax.random.key(seed), (2, size, *shape))


def _cost(x0, x1):
    return float(((np.asarray(x0) - np.asarray(x1)) ** 2).sum())


def test_exact_ot_beats_every_permutation():
    x0, x1 = _batch(6, (2, 2))
    best = min(_cost(x0[np.array(p)], x1) for p in itertools.permutations(range(6)))
    assert _cost(x0[c.exact_ot(KEY, x0, x1)], x1) == pytest.approx(best, rel=1e-6)


def test_exact_ot_under_jit_vmap_and_grad():
    x0, x1 = _batch(16)
    i = c.exact_ot(KEY, x0, x1)
    assert sorted(i.tolist()) == list(range(16))
    np.testing.assert_array_equal(jax.jit(c.exact_ot)(KEY, x0, x1), i)
    many = jax.vmap(lambda a, b: c.exact_ot(KEY, a, b))(jnp.stack([x0, x1]), jnp.stack([x1, x0]))
    np.testing.assert_array_equal(many[0], i)
    np.testing.assert_array_equal(many[1], np.argsort(i))

    def cost(x0):
        return jnp.sum((x0[c.exact_ot(KEY, x0, x1)] - x1) ** 2)

    # Constant indices: the gradient is that of the fixed pairing.
    np.testing.assert_allclose(
        jax.jit(jax.grad(cost))(x0), 2 * (x0 - x1[np.argsort(i)]), rtol=1e-5, atol=1e-6
    )


def test_exact_ot_of_a_large_batch_inside_jit():
    """Large operands of a callback have dead-locked before; 4 MiB must pass."""
    x0, x1 = _batch(64, (16_384,))
    assert sorted(jax.jit(c.exact_ot)(KEY, x0, x1).tolist()) == list(range(64))


@pytest.mark.parametrize("groups", [jnp.array([2, 0, 2, 2, 0, 7]), jnp.array([[1, 2], [0, 0]] * 3)])
def test_groups_are_never_mixed(groups):
    x0, x1 = _batch(6)
    i = np.asarray(c.exact_ot(KEY, x0, x1, groups))
    np.testing.assert_array_equal(groups[i], groups)
    assert sorted(i.tolist()) == list(range(6))
    assert _cost(x0[i], x1) <= _cost(x0, x1) + 1e-6
    single = c.exact_ot(KEY, x0, x1, jnp.arange(6))
    np.testing.assert_array_equal(single, jnp.arange(6))


def test_source_given_the_condition():
    """E[x0 | y] = 0 independently and within groups, but not with OT over all conditions."""
    size, batches = 32, 150
    y = np.tile(np.arange(4), size // 4)
    centres = 4 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    rng = np.random.default_rng(0)
    means = {"independent": [], "grouped": [], "batch": []}
    for _ in range(batches):
        x0 = rng.normal(size=(size, 2)).astype(np.float32)
        x1 = (centres[y] + 0.1 * rng.normal(size=(size, 2))).astype(np.float32)
        for name, i in (
            ("independent", c.independent(KEY, x0, x1)),
            ("grouped", c.exact_ot(KEY, x0, x1, jnp.asarray(y))),
            ("batch", c.exact_ot(KEY, x0, x1)),
        ):
            means[name].append(x0[np.asarray(i)][y == 0, 0])
    error = 1 / np.sqrt(batches * size / 4)
    assert abs(np.mean(means["independent"])) < 4 * error
    assert abs(np.mean(means["grouped"])) < 4 * error
    assert np.mean(means["batch"]) > 1.0


def test_the_indices_are_those_of_an_assignment():
    """100 problems of several sizes, shapes and groups against scipy's solver."""
    scipy_optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for number in range(100):
        size, width = int(rng.integers(1, 70)), int(rng.integers(1, 12))
        x0 = rng.normal(size=(size, width, 2)).astype(np.float32)
        x1 = (3 + 2 * rng.normal(size=(size, width, 2))).astype(np.float32)
        labels = rng.integers(0, 4, size) if number % 2 else np.zeros(size, int)
        expected = np.empty(size, int)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            gaps = x1[rows, None].astype(np.float64) - x0[None, rows]
            _, columns = scipy_optimize.linear_sum_assignment((gaps**2).sum((2, 3)))
            expected[rows] = rows[columns]
        i = c.exact_ot(KEY, x0, x1, jnp.asarray(labels) if number % 2 else None)
        assert i.dtype == jnp.int32
        np.testing.assert_array_equal(i, expected)


def test_a_common_offset_costs_no_digits():
    x0, x1 = np.random.default_rng(0).normal(size=(2, 40, 3))
    i = c._assign(x0, x1, np.zeros(40))
    np.testing.assert_array_equal(c._assign(x0 + 1e6, x1 - 1e6, np.zeros(40)), i)


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_ties_still_give_a_permutation(distinct):
    rng = np.random.default_rng(distinct)
    values = rng.normal(size=(distinct, 3)).astype(np.float32)
    x0, x1 = values[rng.integers(0, distinct, (2, 60))]
    i = np.asarray(c.exact_ot(KEY, x0, x1))
    assert sorted(i.tolist()) == list(range(60))
    plan = c.ot_plan(c.ot_cost(x0, x1))
    assert _cost(x0[i], x1) == pytest.approx(60 * (plan * c.ot_cost(x0, x1)).sum(), abs=1e-4)
    assert set(np.unique(plan * 60)) == {0.0, 1.0}


def test_a_plan_that_is_no_vertex_still_gives_a_permutation(monkeypatch):
    x0, x1 = _batch(6)
    i = c.exact_ot(KEY, x0, x1)
    monkeypatch.setattr(c, "_whole_plan", lambda cost: np.full(cost.shape, 1 / len(cost)))
    np.testing.assert_array_equal(c.exact_ot(KEY, x0, x1), i)


@pytest.mark.filterwarnings("ignore:numItermax reached")
def test_what_cannot_be_solved_is_told(monkeypatch):
    x0, x1 = (np.array(x) for x in _batch(40))
    cost = c.ot_cost(x0, x1)
    with pytest.raises(ValueError, match="finite costs"):
        c.ot_plan(np.where(cost > 1, np.nan, cost))
    with pytest.raises(ValueError, match="must be finite to be paired"):
        c._assign(np.where(x0 > 1, np.inf, x0), x1, np.zeros(40))
    with pytest.raises(ValueError, match="too small for costs up to"):
        c.ot_plan(1e4 + cost, "unbalanced", reg=0.1, reg_m=0.1)
    monkeypatch.setattr(c, "_PIVOTS", 1)
    with pytest.raises(ValueError, match="not solved in 400 pivots"):
        c.ot_plan(c.ot_cost(*_batch(200)))


def test_the_solver_is_imported_when_it_is_used_and_without_other_array_libraries(tmp_path):
    for module in ("torch", "tensorflow", "cupy"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('imported')")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "import flown_jax.flow as flow, numpy as np\n"
            "assert 'ot' not in sys.modules and 'scipy.spatial' not in sys.modules\n"
            "before = dict(os.environ)\n"
            "assert flow.wasserstein(np.zeros((2, 1)), np.ones((2, 1))) == 1\n"
            "assert 'ot' in sys.modules and before == dict(os.environ)",
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_entropic_ot_between_its_limits():
    x0, noise = _batch(12)
    order = jax.random.permutation(KEY, 12)
    x1 = x0[order] + 0.01 * noise  # well separated pairs, so the sharp plan is a permutation
    np.testing.assert_array_equal(c.entropic_ot(KEY, x0, x1, reg=0.01), order)
    np.testing.assert_array_equal(c.exact_ot(KEY, x0, x1), order)
    draws = jax.vmap(lambda k: c.entropic_ot(k, x0, x1, reg=1e6))(jax.random.split(KEY, 150))
    frequency = np.bincount(np.asarray(draws).ravel(), minlength=12) / draws.size
    np.testing.assert_allclose(frequency, 1 / 12, atol=0.027)  # four standard errors
    groups = jnp.array([0, 1] * 6)
    i = jax.jit(c.get_coupling("entropic_ot", reg=0.5))(KEY, x0, x1, groups)
    np.testing.assert_array_equal(groups[i], groups)


@pytest.mark.parametrize("sizes", [(7, 7), (6, 4), (3, 8)])
def test_plans_have_uniform_marginals(sizes):
    x0, x1 = _batch(8)[0][: sizes[0]], _batch(8)[1][: sizes[1]]
    cost = c.ot_cost(x0, x1)
    exact = c.ot_plan(cost)
    entropic = c.ot_plan(cost, "sinkhorn", reg=0.5)
    for plan in (exact, entropic):
        np.testing.assert_allclose(plan.sum(1), 1 / sizes[0], atol=1e-8)
        np.testing.assert_allclose(plan.sum(0), 1 / sizes[1], atol=1e-8)
    assert (exact * cost).sum() <= (entropic * cost).sum() + 1e-9
    rigid = c.ot_plan(cost, "unbalanced", reg=0.5, reg_m=1e3, iterations=5000, tolerance=1e-7)
    np.testing.assert_allclose(rigid, entropic, atol=3e-3)  # of order reg / reg_m
    assert c.ot_plan(cost, "unbalanced", reg=0.5, reg_m=0.5).sum() < 1


def test_tiny_regularisation_does_not_underflow():
    plan = c.ot_plan(c.ot_cost(*_batch(8)), "sinkhorn", reg=1e-4)
    assert np.isfinite(plan).all() and plan.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("reg", "reg_m"), [(1.0, 1.0), (1e-2, 1.0), (1e-3, 1.0)])
def test_an_unbalanced_plan_meets_its_optimality_conditions(reg, reg_m):
    """reg log(P / ab^T) + cost = f + g, with marginals a exp(-f / reg_m) and b exp(-g / reg_m)."""
    cost = c.ot_cost(_batch(6)[0], _batch(6)[1][:4])
    plan = c.ot_plan(cost, "unbalanced", reg=reg, reg_m=reg_m, iterations=20_000, tolerance=1e-12)
    f = -reg_m * np.log(plan.sum(1) * 6)
    g = -reg_m * np.log(plan.sum(0) * 4)
    expected = np.exp((f[:, None] + g - cost) / reg) / 24
    np.testing.assert_allclose(plan, expected, rtol=1e-4, atol=1e-9)


def test_pairs_follow_the_plan():
    plan = np.array([[0.1, 0.0, 0.2], [0.3, 0.4, 0.0]])
    u = (np.arange(1000) + 0.5) / 1000
    i, j = c.ot_pair(plan, u)
    counts = np.zeros_like(plan)
    np.add.at(counts, (i, j), 1)
    np.testing.assert_allclose(counts / 1000, plan, atol=1e-3)
    with pytest.raises(ValueError, match="no finite positive mass"):
        c.ot_pair(np.zeros((2, 2)), u)


def test_wasserstein_in_one_dimension_sorts():
    x0, x1 = (np.asarray(a) for a in _batch(9, (1,)))
    gap = np.sort(x0, 0) - np.sort(x1, 0)
    assert c.wasserstein(x0, x1, 1) == pytest.approx(np.abs(gap).mean(), rel=1e-5)
    assert c.wasserstein(x0, x1, 2) == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-5)
    assert c.wasserstein(x0, x0 + 2.0) == pytest.approx(2, rel=1e-5)
    assert c.wasserstein(1e4 + x0, 1e4 + x0) == 0


def test_errors():
    x0, x1 = _batch(4)
    with pytest.raises(ValueError, match="expected one of independent, exact_ot"):
        c.get_coupling("ot")
    with pytest.raises(ValueError, match="reg belongs to entropic_ot"):
        c.get_coupling("exact_ot", reg=1.0)
    with pytest.raises(ValueError, match="reg belongs to entropic_ot"):
        c.get_coupling("entropic_ot")
    with pytest.raises(ValueError, match="one shape"):
        c.exact_ot(KEY, x0[:3], x1)
    with pytest.raises(ValueError, match="leading axis of 4"):
        c.exact_ot(KEY, x0, x1, jnp.arange(3))
    with pytest.raises(ValueError, match="reg of the method .sinkhorn. must be a finite"):
        c.ot_plan(np.ones((2, 2)), "sinkhorn")
    with pytest.raises(ValueError, match="is unknown, expected exact"):
        c.ot_plan(np.ones((2, 2)), "partial")
    with pytest.raises(ValueError, match="power must be 1 or 2"):
        c.ot_cost(x0, x1, 3)

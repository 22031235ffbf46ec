"""Losses: their formula, their minimiser, their keys, and the combinations they refuse."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import (
    LinearPath,
    SchrodingerBridgePath,
    TargetPath,
    VariancePreservingPath,
    cfm_loss,
    entropic_ot,
    exact_ot,
    get_coupling,
    get_source,
    independent,
    score_loss,
    sf2m_loss,
    skewed_time,
    uniform_time,
)

KEY = jax.random.key(0)
GAUSSIAN = get_source("gaussian")


def _zero(x, t, condition):
    del t, condition
    return jnp.zeros_like(x)


def _loss(path, x1, condition=None, velocity=_zero, **options):
    options = {"coupling": independent, "source": GAUSSIAN} | options
    return cfm_loss(velocity, KEY, x1, condition, path=path, **options)


@pytest.mark.parametrize(
    "path", [LinearPath(0.1), TargetPath(), SchrodingerBridgePath(), VariancePreservingPath()]
)
def test_loss_is_the_mean_squared_difference(path):
    x1 = jax.random.normal(jax.random.key(1), (8, 2, 3))
    y = {"a": jnp.arange(8.0)}

    def velocity(x, t, condition):
        return x * t[:, None, None] + condition["a"][:, None, None]

    loss, aux = jax.jit(lambda x1: _loss(path, x1, y, velocity))(x1)
    assert float(loss) == pytest.approx(float(((aux["v"] - aux["u"]) ** 2).mean()), rel=1e-6)
    t = aux["t"][:, None, None]
    np.testing.assert_allclose(aux["v"], velocity(aux["x_t"], aux["t"], y), rtol=1e-6)
    np.testing.assert_allclose(aux["x1_hat"], aux["x_t"] + (1 - t) * aux["v"], rtol=1e-5, atol=1e-5)
    assert aux["t"].shape == (8,) and float(aux["t"].max()) < 1


def test_perfect_velocity_has_no_loss_and_hits_the_data():
    """One data point: the velocity (x1 - x) / (1 - t) is exact."""
    x1 = jnp.broadcast_to(jnp.array([1.0, -2.0]), (64, 2))
    loss, aux = _loss(LinearPath(), x1, velocity=lambda x, t, _: (x1 - x) / (1 - t[:, None]))
    assert float(loss) < 1e-6
    np.testing.assert_allclose(aux["x1_hat"], x1, atol=1e-5)


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_minimiser_between_gaussians(tau):
    """Regression of u on x at one t gives the known marginal velocity m + c (x - t m)."""
    m, s, t = 0.7, 0.5, 0.3
    x1 = m + s * jax.random.normal(jax.random.key(2), (200_000, 1))
    _, aux = _loss(
        LinearPath(),
        x1,
        source=get_source("gaussian", tau),
        time=lambda key, shape: jnp.full(shape, t),
    )
    x, u = np.asarray(aux["x_t"])[:, 0], np.asarray(aux["u"])[:, 0]
    slope, intercept = np.polyfit(x, u, 1)
    c = (t * s**2 - (1 - t) * tau**2) / (t**2 * s**2 + (1 - t) ** 2 * tau**2)
    assert slope == pytest.approx(c, abs=0.03)  # four standard errors at most
    assert intercept == pytest.approx(m - c * t * m, abs=0.02)


def test_each_key_is_used_once():
    seen = {}

    def time(key, shape):
        seen["time"] = key
        return jax.random.uniform(key, shape)

    def source(key, shape):
        seen["source"] = key
        return jax.random.normal(key, shape)

    def coupling(key, x0, x1, groups):
        seen["coupling"] = key
        return independent(key, x0, x1, groups)

    @dataclasses.dataclass(frozen=True)
    class Spy(LinearPath):
        def sample(self, key, x0, x1, t):
            seen["noise"] = key
            return super().sample(key, x0, x1, t)

    _loss(Spy(0.1), jnp.zeros((4, 2)), time=time, source=source, coupling=coupling)
    words = {tuple(jax.random.key_data(k).tolist()) for k in (KEY, *seen.values())}
    assert len(seen) == 4 and len(words) == 5


def test_draws_are_uncorrelated():
    sigma, x1 = 0.5, jnp.zeros((40_000, 1))
    _, aux = _loss(LinearPath(sigma), x1)
    t, x0 = aux["t"], -aux["u"][:, 0]
    eps = (aux["x_t"][:, 0] - (1 - t) * x0) / sigma
    assert abs(float(eps.std()) - 1) < 0.02
    correlation = np.corrcoef(np.stack([t, x0, eps, x0**2, eps**2]))
    off_diagonal = correlation[np.triu_indices(5, 1)]
    assert np.abs(off_diagonal).max() < 4 / np.sqrt(len(t)) * 1.1


def test_couplings_move_the_source_only():
    x1 = jax.random.normal(jax.random.key(3), (16, 2))
    straight = _loss(LinearPath(), x1)[1]
    paired = jax.jit(lambda x1: _loss(LinearPath(), x1, coupling=exact_ot))(x1)[1]
    x0, x0_paired = x1 - straight["u"], x1 - paired["u"]
    np.testing.assert_array_equal(straight["t"], paired["t"])
    i = exact_ot(KEY, x0, x1)
    np.testing.assert_allclose(x0_paired, x0[i], atol=1e-6)
    assert float((paired["u"] ** 2).sum()) < float((straight["u"] ** 2).sum())


def test_optimal_transport_with_a_condition_needs_groups():
    x1, y = jnp.zeros((4, 2)), jnp.arange(4)
    for coupling in (exact_ot, get_coupling("entropic_ot", reg=1.0)):
        with pytest.raises(ValueError, match="give groups"):
            _loss(LinearPath(), x1, y, coupling=coupling)
        _loss(LinearPath(), x1, y, coupling=coupling, groups=y)
        _loss(LinearPath(), x1, None, coupling=coupling)
    assert entropic_ot.needs_groups


def test_target_path_needs_the_standard_normal_source():
    x1 = jnp.zeros((4, 2))
    for source in (get_source("gaussian", 0.5), get_source("kaiming_normal"), jax.random.normal):
        with pytest.raises(ValueError, match="standard normal source"):
            _loss(TargetPath(), x1, source=source)
    with pytest.raises(ValueError, match="coupling has no effect"):
        _loss(TargetPath(), x1, coupling=exact_ot)


def test_wrong_output_shape_is_named():
    with pytest.raises(ValueError, match=r"\(4, 2\), got \(4, 1\)"):
        _loss(LinearPath(), jnp.zeros((4, 2)), velocity=lambda x, t, c: x[:, :1])


def test_score_minimiser_is_the_drift_correction():
    """Data and source Gaussian: the regressed score is sigma^2/2 grad log p_t."""
    sigma, s, t = 0.8, 0.5, 0.4
    x1 = s * jax.random.normal(jax.random.key(4), (200_000, 1))
    path = SchrodingerBridgePath(sigma)
    _, aux = sf2m_loss(
        _zero,
        _zero,
        KEY,
        x1,
        path=path,
        coupling=independent,
        source=GAUSSIAN,
        time=lambda key, shape: jnp.full(shape, t),
    )
    x, eps = np.asarray(aux["x_t"])[:, 0], np.asarray(aux["eps"])[:, 0]
    # argmin_k mean (lambda k x + eps)^2
    k = -(x @ eps) / (x @ x) / float(path.score_weight(jnp.float32(t)))
    variance = (1 - t) ** 2 + t**2 * s**2 + sigma**2 * t * (1 - t)
    assert k == pytest.approx(-(sigma**2) / 2 / variance, rel=0.03)
    best = score_loss(k * aux["x_t"], aux["eps"], aux["t"], path)
    assert float(best) < float(aux["score_loss"])
    with pytest.raises(ValueError, match="sigma > 0"):
        score_loss(aux["eps"], aux["eps"], aux["t"], LinearPath())


def test_time_distributions():
    t = uniform_time(0.1, 0.4)(KEY, (10_000,))
    assert 0.1 <= float(t.min()) < 0.101 and 0.399 < float(t.max()) <= 0.4
    t = skewed_time()(KEY, (10_000,))
    assert float(jnp.median(t)) == pytest.approx(1 / (1 + np.exp(-1.2)), abs=0.02)
    with pytest.raises(ValueError, match="low < high"):
        uniform_time(0.5, 0.5)

"""Diffusion: schedules, exact models whose samples are known, respacing, and refusals."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import diffusion as d

pytestmark = pytest.mark.fast

KEY = jax.random.key(0)
SCHEDULE = d.linear_schedule(1000, 1e-4, 2e-2)


def _gaussian_model(schedule, mean, std):
    """E[eps | x_t] for data N(mean, std^2): exact noise prediction."""
    abar = jnp.asarray(schedule.alphas_cumprod, jnp.float32)

    def model(x, t, condition):
        a = abar[t][:, None]
        variance = a * std**2 + 1 - a
        return jnp.sqrt(1 - a) * (x - jnp.sqrt(a) * mean) / variance

    return model


def test_forward_process_keeps_unit_variance():
    x0, eps = jax.random.normal(KEY, (2, 50_000, 1))
    x_t = d.q_sample(SCHEDULE, x0, jnp.full((50_000,), 300), eps)
    assert float(x_t.std()) == pytest.approx(1, abs=0.02)


def test_posterior_is_gaussian_conditioning():
    """q(x_{t-1} | x_t, x_0) by Bayes' rule from the two Gaussian factors."""
    t, x0, x_t = 700, 0.4, -1.2
    beta, previous = SCHEDULE.betas[t], SCHEDULE.alphas_cumprod_prev[t]
    precision = (1 - beta) / beta + 1 / (1 - previous)
    mean = (np.sqrt(1 - beta) * x_t / beta + np.sqrt(previous) * x0 / (1 - previous)) / precision
    ours, log_variance = d.q_posterior(
        SCHEDULE, jnp.full((1, 1), x0), jnp.full((1, 1), x_t), jnp.array([t])
    )
    assert float(ours[0, 0]) == pytest.approx(mean, rel=1e-5)
    assert float(log_variance[0]) == pytest.approx(-np.log(precision), rel=1e-5)


def test_loss():
    x0 = jax.random.normal(jax.random.key(1), (512, 3))
    y = jnp.arange(512.0)
    spaced = d.respace(SCHEDULE, np.arange(0, 1000, 10))
    seen = {}

    def model(x, t, condition):
        seen["t"], seen["y"] = t, condition
        return jnp.zeros_like(x)

    loss, aux = d.ddpm_loss(model, KEY, x0, y, spaced)
    assert float(loss) == pytest.approx(float((aux["eps"] ** 2).mean()), rel=1e-6)
    np.testing.assert_array_equal(seen["t"], 10 * aux["t"])
    np.testing.assert_array_equal(seen["y"], y)
    assert int(aux["t"].min()) < 5 and int(aux["t"].max()) > 94
    np.testing.assert_allclose(aux["x_t"], d.q_sample(spaced, x0, aux["t"], aux["eps"]), rtol=1e-6)
    # Noise and times come from different keys.
    assert abs(np.corrcoef(aux["t"], aux["eps"][:, 0])[0, 1]) < 4 / np.sqrt(512)
    with pytest.raises(ValueError, match=r"\(512, 3\), got \(512, 1\)"):
        d.ddpm_loss(lambda x, t, c: x[:, :1], KEY, x0, y, spaced)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "ddim", "steps": 25},
        {"method": "ancestral", "steps": "ddim50"},
        {"method": "ddim", "eta": 1.0, "variance": "small"},
    ],
)
def test_point_mass_is_hit_exactly(options):
    """Data in one point: the last step's mean is the predicted x_0, so every sampler ends there."""
    target = jnp.array([0.3, -2.0])
    x_t = jax.random.normal(KEY, (5, 2))
    model = _gaussian_model(SCHEDULE, target, 0.0)
    end = d.sample_ddpm(model, KEY, x_t, None, SCHEDULE, **options)
    # float32 division by sqrt(abar) of 0.006 in the early steps.
    np.testing.assert_allclose(end.x1, jnp.broadcast_to(target, (5, 2)), atol=1e-3)


@pytest.mark.parametrize("method", ["ancestral", "ddim"])
def test_gaussian_data(method):
    mean, std, size = 0.7, 0.5, 8000
    x_t = jax.random.normal(jax.random.key(1), (size, 1))
    model = _gaussian_model(SCHEDULE, mean, std)
    end = jax.jit(
        lambda x: d.sample_ddpm(model, KEY, x, None, SCHEDULE, steps=250, method=method).x1
    )(x_t)
    assert float(end.mean()) == pytest.approx(mean, abs=0.03)
    assert float(end.std()) == pytest.approx(std, abs=0.03)


def test_ddim_without_eta_ignores_the_key_and_ancestral_does_not():
    x_t = jax.random.normal(KEY, (3, 2))
    model = _gaussian_model(SCHEDULE, 0.0, 1.0)

    def run(key, method):
        return d.sample_ddpm(
            model, jax.random.key(key), x_t, None, SCHEDULE, steps=10, method=method
        ).x1

    np.testing.assert_array_equal(run(1, "ddim"), run(2, "ddim"))
    assert float(jnp.abs(run(1, "ancestral") - run(2, "ancestral")).max()) > 0.1


def test_model_sees_the_full_schedules_indices_and_is_called_once_a_step():
    seen = []

    def model(x, t, condition):
        jax.debug.callback(lambda t, y: seen.append((int(t[0]), int(y[0]))), t, condition)
        return jnp.zeros_like(x)

    end = d.sample_ddpm(
        model, KEY, jnp.ones((2, 1)), jnp.array([4, 4]), SCHEDULE, steps=7, method="ddim"
    )
    jax.block_until_ready(end.x1)
    jax.effects_barrier()
    expected = d.space_timesteps(1000, 7)[::-1]
    assert sorted(seen, reverse=True) == [(int(t), 4) for t in expected]
    assert end.nfe == 7


def test_temperature_scales_the_noise_of_every_step():
    x_t = jax.random.normal(KEY, (3, 2))
    model = _gaussian_model(SCHEDULE, 0.0, 1.0)

    def run(key, **options):
        end = d.sample_ddpm(model, jax.random.key(key), x_t, None, SCHEDULE, steps=10, **options)
        return np.asarray(end.x1)

    plain = run(1)
    np.testing.assert_array_equal(run(1, temperature=1.0), plain)
    np.testing.assert_allclose(run(1, temperature=jnp.ones(())), plain, rtol=1e-5)
    np.testing.assert_array_equal(run(1, temperature=0.0), run(2, temperature=0.0))
    cold = run(1, temperature=0.0)
    mixed = run(1, temperature=jnp.array([0.0, 1.0, 0.5]))
    np.testing.assert_allclose(mixed[:2], [cold[0], plain[1]], rtol=1e-6)
    # This model is linear in x, so the end is affine in the temperature.
    np.testing.assert_allclose(mixed[2], (cold[2] + plain[2]) / 2, rtol=1e-4, atol=1e-6)
    options = {"method": "ddim", "eta": 1.0}
    np.testing.assert_array_equal(
        run(1, temperature=0.0, **options), run(2, temperature=0.0, **options)
    )
    with pytest.raises(ValueError, match=r"a number or \(3,\), got \(2,\)"):
        run(1, temperature=jnp.ones(2))


@pytest.mark.parametrize("method", ["ancestral", "ddim"])
@pytest.mark.parametrize("variance", ["large", "small"])
def test_one_step_is_the_models_x0(method, variance):
    x_t = jax.random.normal(KEY, (4, 2))
    options = {"method": method, "variance": variance, "steps": 1}
    end = d.sample_ddpm(lambda x, t, c: 0.5 * x, KEY, x_t, None, SCHEDULE, **options)
    expected = d.predict_x0(SCHEDULE, 0.5 * x_t, x_t, jnp.zeros(4, int))
    np.testing.assert_allclose(end.x1, expected, rtol=1e-6)


def test_no_gradient_is_kept():
    gradient = jax.grad(
        lambda x: d.sample_ddpm(
            lambda x, t, c: x, KEY, x, None, SCHEDULE, steps=3, method="ddim"
        ).x1.sum()
    )(jnp.ones((2, 1)))
    np.testing.assert_array_equal(gradient, 0)


def test_clipping():
    x_t = 10 * jnp.ones((2, 3))
    options = {"steps": 5, "clip_x0": True}

    def model(x, t, c):
        return jnp.zeros_like(x)

    clipped = d.sample_ddpm(model, KEY, x_t, None, SCHEDULE, clip_sample=True, **options)
    assert float(jnp.abs(clipped.x1).max()) <= 1
    ddim = d.sample_ddpm(model, KEY, x_t, None, SCHEDULE, method="ddim", **options)
    assert float(jnp.abs(ddim.x1).max()) <= 1 + 1e-5


def test_schedules():
    np.testing.assert_allclose(d.iddpm_linear_schedule(1000).betas, SCHEDULE.betas)
    assert d.iddpm_linear_schedule(100).betas[-1] == pytest.approx(0.2)
    ldm = d.ldm_schedule(64, 0.0015, 0.0155)
    np.testing.assert_allclose(np.diff(np.sqrt(ldm.betas), 2), 0, atol=1e-15)
    assert ldm.betas.dtype == np.float64 and len(ldm) == 64


@pytest.mark.parametrize("steps", [1, 2, 10, 100, 999, 1000, "ddim1", "ddim100", "ddim334"])
def test_respacing_keeps_the_cumulative_products(steps):
    keep = d.space_timesteps(1000, steps)
    count = int(str(steps).removeprefix("ddim"))
    assert len(set(keep.tolist())) == count and keep[0] == 0
    spaced = d.respace(SCHEDULE, keep)
    np.testing.assert_allclose(spaced.alphas_cumprod, SCHEDULE.alphas_cumprod[keep], rtol=1e-10)
    if not isinstance(steps, str) and steps > 1:
        assert keep[-1] == 999
    twice = d.respace(spaced, np.arange(0, count, 2))
    np.testing.assert_array_equal(twice.timesteps, keep[::2])


@pytest.mark.parametrize(
    ("timesteps", "steps", "expected"),
    [
        (10, "4", [0, 3, 6, 9]),
        (10, "1", [0]),
        (10, "3,2", [0, 2, 4, 5, 9]),
        (10, [3, 2], [0, 2, 4, 5, 9]),
        (10, np.array([3, 2]), [0, 2, 4, 5, 9]),
        (11, "2,1,2", [0, 3, 4, 8, 10]),  # sections of 4, 4 and 3
        (6, "2,2", [0, 2, 3, 5]),
        (6, "4", [0, 2, 3, 5]),  # 5/3 and 10/3 rounded
        (10, "ddim5", [0, 2, 4, 6, 8]),
        (10, 4, [0, 3, 6, 9]),
    ],
)
def test_names_of_respacings(timesteps, steps, expected):
    np.testing.assert_array_equal(d.space_timesteps(timesteps, steps), expected)


def test_one_section_is_the_plain_number_up_to_halves():
    for timesteps, count in itertools.product((1, 16, 40, 1000), (1, 7, 15, 16, 25, 250)):
        if count <= timesteps:
            plain = d.space_timesteps(timesteps, count)
            section = d.space_timesteps(timesteps, str(count))
            assert np.abs(plain - section).max() <= 1
            assert np.all(np.diff(section) > 0)
    np.testing.assert_array_equal(d.space_timesteps(1000, "25"), d.space_timesteps(1000, 25))


def test_sections_in_a_thousand_steps():
    """Counts 10, 15, 20: sections of 334, 333 and 333 steps, from the first to the last of each."""
    keep = d.space_timesteps(1000, "10,15,20")
    assert len(keep) == 45
    assert keep[[0, 9, 10, 24, 25, 44]].tolist() == [0, 333, 334, 666, 667, 999]
    assert set(np.diff(keep[:10])) == {37} and set(np.diff(keep[25:])) == {17, 18}


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ("3,6", "a section of 5 of the 10 timesteps cannot keep 6"),
        ("11", "a section of 10 of the 10 timesteps cannot keep 11"),
        ("0", "cannot keep 0"),
        ([], "at least one section"),
        ("ddim", "steps must be a number, counts"),
        ("ten", "steps must be a number, counts"),
        ("", "steps must be a number, counts"),
        ("ddim2,3", "between 1 and 10, got 'ddim2,3'"),
        ("ddim0", "between 1 and 10, got 'ddim0'"),
        (0, "steps must be at least 1, got 0"),
    ],
)
def test_impossible_respacings(steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        d.space_timesteps(10, steps)


def test_errors():
    x = jnp.ones((1, 1))

    def model(x, t, c):
        return x

    with pytest.raises(ValueError, match="ancestral or ddim"):
        d.sample_ddpm(model, KEY, x, None, SCHEDULE, method="ddpm")
    with pytest.raises(ValueError, match="between 1 and 1000"):
        d.sample_ddpm(model, KEY, x, None, SCHEDULE, steps=1001)
    with pytest.raises(ValueError, match="keeps exactly 998"):
        d.space_timesteps(1000, "ddim998")
    with pytest.raises(ValueError, match="large or small"):
        d.p_mean_variance(SCHEDULE, x, x, jnp.array([3]), variance="learned")
    with pytest.raises(ValueError, match="would need timestep 1000"):
        d.ldm_ddim_steps(SCHEDULE, 1000, 1.0)
    with pytest.raises(ValueError, match="at least 21"):
        d.iddpm_linear_schedule(20)
    with pytest.raises(ValueError, match="strictly increasing"):
        d.respace(SCHEDULE, [3, 3])
    with pytest.raises(ValueError, match=r"betas must lie in \(0, 1\)"):
        d.linear_schedule(10, -0.1, 0.1)
    with pytest.raises(ValueError, match=r"betas must lie in \(0, 1\)"):
        d.linear_schedule(10, 0.1, 1.0)

"""AutoencoderKL: adapters, shapes, refusals, posterior and losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders import (
    AutoencoderKL,
    Posterior,
    reconstruction_loss,
    vae_loss,
    vae_loss_from_noise,
)
from flown_jax.errors import UserError
from tests.layers.helpers import initial_variables, quick_jit, random_variables

SMALL = {"ch": 4, "ch_mult": (1, 2), "num_res_blocks": 1, "z_channels": 2, "embed_dim": 3}
LOW = SMALL | {"ch_mult": (1,)}  # one level, where the levels do not matter
ADAPTED = {
    "linear": {"in_dim": 10, "resolution": 8},
    "rows": {"in_dim": 5, "rows": 4, "resolution": 8, "in_channels": 2, "fdim": 32},
    "pad": {"in_dim": 50, "adapter": "pad"},
    "pad to a given side": {"in_dim": 50, "adapter": "pad", "resolution": 12},
    "none": {"adapter": "none", "resolution": 8, "in_channels": 2},
}


def _weights(module, batch=3):
    shape = (module.side, module.side, module.in_channels)
    shape = shape if module.adapter == "none" else (module.weight_dim,)
    return jax.random.normal(jax.random.key(0), (batch, *shape))


@pytest.mark.parametrize("name", ADAPTED)
def test_round_trip_shapes(name):
    module = AutoencoderKL(**SMALL, **ADAPTED[name])
    w = _weights(module)
    w_hat, posterior = jax.eval_shape(module.apply, random_variables(module, w), w)
    assert posterior.mean.shape == posterior.logvar.shape == (3, *module.latent_shape)
    assert w_hat.shape == w.shape


@pytest.mark.parametrize("name", ["rows", "pad"])
def test_every_parameter_takes_part(name):
    module = AutoencoderKL(**LOW, **ADAPTED[name])
    w = _weights(module)

    @quick_jit
    @jax.grad
    def gradient(variables):
        w_hat, posterior = module.apply(variables, w)
        return jnp.sum((w - w_hat) ** 2) + posterior.kl().sum()

    for leaf in jax.tree.leaves(gradient(random_variables(module, w))):
        assert np.all(np.isfinite(leaf)) and float(jnp.abs(leaf).max()) > 0


def test_padded_side_is_the_smallest_that_the_levels_allow():
    """The worked sizes: d = 2864 with 5 levels gives side 64, latent 4; with 4, 56 and 7."""
    sizes = {5: (64, 4), 4: (56, 7)}
    for levels, (side, latent) in sizes.items():
        module = AutoencoderKL(**SMALL | {"ch_mult": (1,) * levels}, in_dim=2864, adapter="pad")
        assert (module.side, module.latent_shape[0]) == (side, latent)


def test_padding_adapter_has_no_parameters_and_ignores_nothing():
    module = AutoencoderKL(**SMALL, in_dim=7, adapter="pad", resolution=4)
    w = _weights(module)
    variables = random_variables(module, w)
    assert set(variables["params"]) == {"encoder", "decoder", "quant_conv", "post_quant_conv"}
    feature_map = module.apply(variables, w, method="feature_map")
    np.testing.assert_array_equal(feature_map.reshape(3, 16)[:, :7], w)
    np.testing.assert_array_equal(feature_map.reshape(3, 16)[:, 7:], 0)


def test_paper_s_sizes_give_the_paper_s_latents():
    retrieval = AutoencoderKL(**SMALL | {"ch_mult": (1, 1, 2, 2, 2)}, in_dim=2864, resolution=64)
    few_shot = AutoencoderKL(**SMALL | {"ch_mult": (1, 1, 2, 2)}, in_dim=2565, resolution=64)
    assert retrieval.latent_shape[:2] == (4, 4)
    assert few_shot.latent_shape[:2] == (8, 8)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"in_dim": 10, "resolution": 7}, "resolution 7 is not a multiple of 2"),
        ({"in_dim": 10, "resolution": 8, "fdim": 60}, r"60 \* 1 is not 8\^2 \* 1"),
        ({"in_dim": 10}, "'linear' needs resolution"),
        ({"resolution": 8}, "needs in_dim"),
        ({"in_dim": 10, "resolution": 8, "adapter": "fold"}, "adapter 'fold' is unknown"),
        ({"in_dim": 80, "resolution": 8, "adapter": "pad"}, "in_dim <= resolution"),
        ({"in_dim": 10, "resolution": 8, "out_channels": 2}, "must equal in_channels 1"),
    ],
)
def test_impossible_sizes_are_refused(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        AutoencoderKL(**SMALL, **fields).init(jax.random.key(0), jnp.zeros((1, 10)))


def test_wrong_inputs_are_refused():
    module = AutoencoderKL(**SMALL, in_dim=10, resolution=8)
    variables = random_variables(module, jnp.zeros((1, 10)))
    with pytest.raises(UserError, match=r"decodes latents \(B, 4, 4, 3\), got \(1, 8, 8, 3\)"):
        module.apply(variables, jnp.zeros((1, 8, 8, 3)), method="decode")
    with pytest.raises(UserError, match=r"takes weight vectors \(B, 10\), got \(1, 11\)"):
        module.apply(variables, jnp.zeros((1, 11)), method="encode")
    plain = AutoencoderKL(**SMALL, **ADAPTED["none"])
    with pytest.raises(UserError, match=r"takes maps \(B, 8, 8, 2\)"):
        plain.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))


def test_posterior_closed_forms():
    mean, std = 0.7, 1.9
    posterior = Posterior(jnp.full((2, 3), mean), jnp.full((2, 3), 2 * np.log(std)))
    kl = 3 * (0.5 * (mean**2 + std**2 - 1) - np.log(std))
    np.testing.assert_allclose(posterior.kl(), kl, rtol=1e-5)
    many = Posterior(jnp.full((20_000,), mean), jnp.full((20_000,), 2 * np.log(std)))
    draws = many.sample(jax.random.key(0))
    assert float(draws.mean()) == pytest.approx(mean, abs=0.06)  # 4 standard errors
    assert float(draws.std()) == pytest.approx(std, rel=0.03)
    np.testing.assert_array_equal(Posterior(jnp.zeros((2, 3)), jnp.zeros((2, 3))).kl(), 0)


def test_posterior_clips_and_stays_finite():
    moments = jnp.array([[0.0, 0.0, 1e9, -1e9]])
    posterior = Posterior.from_moments(moments)
    np.testing.assert_array_equal(posterior.logvar, [[20.0, -30.0]])
    gradient = jax.grad(lambda m: Posterior.from_moments(m).kl().sum())(moments)
    assert np.all(np.isfinite(gradient))
    with pytest.raises(ValueError, match="even last axis"):
        Posterior.from_moments(jnp.zeros((1, 3)))


def test_reconstruction_losses_closed_forms_and_mask():
    w, w_hat = jnp.array([[1.0, 2.0, 9.0], [0.0, 4.0, 9.0]]), jnp.zeros((2, 3))
    mask = jnp.array([1.0, 1.0, 0.0])
    expected = {"sse": 21 / 4, "mse": 21 / 4, "l1_sum": 7 / 2, "l1_sum_plus_1000mse": 3.5 + 5250}
    for name, value in expected.items():
        assert float(reconstruction_loss(name, w, w_hat, mask)) == pytest.approx(value)
    assert float(reconstruction_loss("mse", w, w_hat)) == pytest.approx((21 + 162) / 6)
    with pytest.raises(UserError, match="'huber' is unknown"):
        reconstruction_loss("huber", w, w_hat)


def test_loss_is_pure_and_noise_reaches_input_and_latent():
    """With an identity autoencoder w_hat - w is exactly the noises' sum."""

    def encode(w):
        return Posterior(w, jnp.full_like(w, -30.0))

    def decode(z):
        return z

    w = jnp.zeros((200, 50))
    settings = {"reconstruction": "mse", "kl_weight": 0.0}
    loss = vae_loss(encode, decode, jax.random.key(0), w, **settings)[0]
    assert float(loss) < 1e-9
    noisy = {"sigma_in": 0.3, "sigma_lat": 0.4, **settings}
    first, aux = vae_loss(encode, decode, jax.random.key(0), w, **noisy)
    assert float(first) == pytest.approx(0.3**2 + 0.4**2, rel=0.06)  # 10,000 draws
    assert float(vae_loss(encode, decode, jax.random.key(0), w, **noisy)[0]) == float(first)
    np.testing.assert_array_equal(aux["w_hat"], aux["latent"])


def test_kl_weight_weighs_the_mean_kl():
    def encode(w):
        return Posterior(w, jnp.zeros_like(w))

    w = jnp.array([[1.0, 2.0], [3.0, 0.0]])
    loss, aux = vae_loss_from_noise(
        encode, lambda z: w, w, jnp.zeros_like(w), reconstruction="sse", kl_weight=2.0
    )
    assert float(aux["kl"]) == pytest.approx((5 + 9) / 4)
    assert float(loss) == pytest.approx(2 * float(aux["kl"]))


def test_a_few_steps_lower_the_loss():
    module = AutoencoderKL(**LOW, in_dim=10, resolution=4)
    w = _weights(module, batch=8)
    variables = initial_variables(module, w)

    def loss(variables):
        return vae_loss(
            lambda w: module.apply(variables, w, method="encode"),
            lambda z: module.apply(variables, z, method="decode"),
            jax.random.key(2),
            w,
            reconstruction="sse",
            kl_weight=1e-6,
        )[0]

    step = quick_jit(jax.value_and_grad(loss))
    values = []
    for _ in range(20):
        value, gradients = step(variables)
        variables = jax.tree.map(lambda v, g: v - 0.01 * g, variables, gradients)
        values.append(float(value))
    assert values[-1] < 0.9 * values[0]

"""Linear heads on frozen features, fitted for many tasks as one program (paper section 3.2).

A head is the weights of a linear classifier, one row [W_c | b_c] a class: (..., n, F + 1). The
AdamW probe is the paper's target; the closed forms are the baselines that use the same support
images. Every function takes any leading task axes unless it says (T, ...).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from flown_jax.errors import UserError

_CACHED = 2**15  # weights of the heads that one step of the fit goes over


def logits(heads: Array, features: Array) -> Array:
    """W x + b of each feature vector, (..., q, n).

    Args:
      heads: (..., n, F + 1). features: (..., q, F).
    Raises:
      ValueError: widths that do not fit.
    """
    if heads.shape[-1] != features.shape[-1] + 1:
        raise ValueError(
            f"heads {heads.shape} must have one column more (the bias) than the features "
            f"{features.shape}."
        )
    scores = jnp.einsum("...qf,...nf->...qn", features, heads[..., :-1])
    return scores + heads[..., None, :, -1]


def to_vector(heads: Array) -> Array:
    """Vectors (..., n F + n) of heads (..., n, F + 1): weight rows, then biases."""
    weights = heads[..., :-1].reshape(*heads.shape[:-2], -1)
    return jnp.concatenate([weights, heads[..., -1]], axis=-1)


def from_vector(vectors: Array, way: int) -> Array:
    """Heads (..., n, F + 1) of vectors (..., n F + n).

    Raises:
      UserError: a length that `way` does not divide.
    """
    if vectors.shape[-1] % way:
        raise UserError(f"a vector of length {vectors.shape[-1]} is no head of {way} classes.")
    weights = vectors[..., :-way].reshape(*vectors.shape[:-1], way, -1)
    return jnp.concatenate([weights, vectors[..., -way:, None]], axis=-1)


def fit_adamw(
    features: Array,
    *,
    steps: int = 100,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    use_bias: bool = False,
    chunk: int | None = None,
) -> Array:
    """Heads after full-batch AdamW on the cross-entropy, from zeros, (T, n, F + 1).

    What torch.optim.AdamW does at beta (0.9, 0.999), eps 1e-8. From zeros, because torch's random
    initial head is as large as what is learned and is noise that no condition predicts. The bias
    stays zero by default: its gradient starts at zero in a balanced task, and Adam makes steps of
    full size out of the rounding.

    Args:
      features: support features by class, (T, n, k, F).
      steps, learning_rate, weight_decay: of the paper: 100 epochs, 1e-3, 1e-2.
      use_bias: learn the bias too.
      chunk: tasks at a time; None takes as many as stay in a core's cache.
    Raises:
      ValueError: features without four axes.
    """
    if features.ndim != 4:
        raise ValueError(f"fit_adamw wants features (T, n, k, F), not {features.shape}.")
    optimizer = optax.adamw(learning_rate, weight_decay=weight_decay)

    def fit(task: Array) -> Array:
        way, shot, width = task.shape
        rows = task.reshape(way * shot, width)
        targets = jnp.repeat(jnp.eye(way, dtype=rows.dtype), shot, axis=0)

        def loss(params: tuple[Array, Array]) -> Array:
            weight, bias = params
            scores = rows @ weight.T + (bias if use_bias else 0.0)
            return -jnp.mean(jnp.sum(jax.nn.log_softmax(scores) * targets, axis=-1))

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        zeros = (jnp.zeros((way, width), rows.dtype), jnp.zeros((way,), rows.dtype))
        (params, _), _ = jax.lax.scan(step, (zeros, optimizer.init(zeros)), length=steps)
        return jnp.concatenate([params[0], params[1][:, None]], axis=-1)

    if chunk is None:
        chunk = max(1, min(100, _CACHED // (features.shape[1] * features.shape[3])))
    return jax.lax.map(fit, features, batch_size=min(chunk, len(features)))


def class_mean(features: Array) -> Array:
    """The nearest class mean as a head: W_c = 2 mu_c, b_c = -|mu_c|^2, (..., n, F + 1).

    Its logits are -|x - mu_c|^2 + |x|^2.

    Args:
      features: (..., n, k, F).
    """
    means = jnp.mean(features, axis=-2)
    return jnp.concatenate([2.0 * means, -jnp.sum(means**2, -1, keepdims=True)], axis=-1)


def cosine_class_mean(features: Array) -> Array:
    """The unit class mean as a head: W_c = mu_c / |mu_c|, b_c = 0, (..., n, F + 1).

    Its logits are cosines where the queries have unit length, and rank like cosines otherwise.

    Args:
      features: (..., n, k, F).
    """
    means = _unit(jnp.mean(features, axis=-2))
    return jnp.concatenate([means, jnp.zeros_like(means[..., :1])], axis=-1)


def ridge(features: Array, *, l2: float, use_bias: bool = True, dual: bool | None = None) -> Array:
    """Least squares on one-hot labels with penalty l2 |W|^2, (..., n, F + 1).

    Args:
      features: (..., n, k, F).
      l2: the penalty, positive.
      use_bias: fit an unpenalised intercept (centres features and labels).
      dual: solve for n k coefficients instead of F; None takes the smaller system.
    Raises:
      ValueError: l2 <= 0.
    """
    if l2 <= 0:
        raise ValueError(f"ridge needs l2 > 0, not {l2}.")
    *tasks, way, shot, width = features.shape
    rows = features.reshape(*tasks, way * shot, width)
    labels = jnp.repeat(jnp.eye(way, dtype=rows.dtype), shot, axis=0)
    mean = jnp.mean(rows, axis=-2, keepdims=True) if use_bias else jnp.zeros_like(rows[..., :1, :])
    prior = jnp.mean(labels, axis=0) if use_bias else jnp.zeros(way, rows.dtype)
    x, y = rows - mean, labels - prior
    x_t = jnp.swapaxes(x, -1, -2)
    if dual if dual is not None else way * shot < width:
        gram = x @ x_t + l2 * jnp.eye(way * shot, dtype=rows.dtype)
        weight_t = x_t @ jnp.linalg.solve(gram, jnp.broadcast_to(y, (*tasks, *y.shape)))
    else:
        weight_t = jnp.linalg.solve(x_t @ x + l2 * jnp.eye(width, dtype=rows.dtype), x_t @ y)
    bias = prior - (mean @ weight_t)[..., 0, :]
    return jnp.concatenate([jnp.swapaxes(weight_t, -1, -2), bias[..., None]], axis=-1)


def lda(features: Array, within: Array, centre: Array, *, shrinkage: float = 0.1) -> Array:
    """Linear discriminant head with a shared covariance, less its class average, (..., n, F + 1).

    w_c = S^-1 (m_c - mu), b_c = -w_c . (m_c + mu) / 2, S = Sw + shrinkage mean(diag Sw) I.
    From one image a class its logits are many times too large: divide by a temperature.

    Args:
      features: (..., n, k, F).
      within: Sw, (F, F), of `within_class_covariance` on training classes.
      centre: mu, (F,), mean of the training features.
      shrinkage: ridge relative to the mean variance.
    """
    means = jnp.mean(features, axis=-2)
    ridged = within + shrinkage * jnp.mean(jnp.diag(within)) * jnp.eye(within.shape[0])
    weight = jnp.linalg.solve(ridged, (means - centre).reshape(-1, within.shape[0]).T).T
    weight = weight.reshape(means.shape)
    bias = -0.5 * jnp.sum(weight * (means + centre), axis=-1, keepdims=True)
    heads = jnp.concatenate([weight, bias], axis=-1)
    # The same number added to every class changes no prediction.
    return heads - jnp.mean(heads, axis=-2, keepdims=True)


def within_class_covariance(features: Array) -> Array:
    """Covariance around the class means, (F, F).

    Args:
      features: (C, M, F), M images of each of C training classes.
    """
    centred = (features - jnp.mean(features, axis=1, keepdims=True)).reshape(-1, features.shape[-1])
    return centred.T @ centred / (features.shape[0] * (features.shape[1] - 1))


@struct.dataclass
class FeatureTransform:
    """Features centred on the training mean, of unit length, times a scale.

    Every head and baseline gets the same transform, and it is stored with the backbone.

    Attributes:
      mean: (F,), of the training features.
      scale: length of a transformed feature.
      unit_first: whether features are brought to unit length before they are centred.
    """

    mean: Array
    scale: Array
    unit_first: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def fit(cls, features: Array, *, scale: float, unit_first: bool = False) -> FeatureTransform:
        """Statistics of the training features, in float64 on the host: not for compiled functions.

        Args:
          features: (..., F) of the training classes alone.
          scale: length after the transform; sqrt(F) gives a mean square of 1 a dimension.
          unit_first: as the attribute.
        """
        given = np.asarray(features)
        dtype = jnp.asarray(given[:0]).dtype
        # Not by a device: the last bits of its sums change with the number of cores, and what is
        # made of them tells whether a finished run is the same.
        rows = given.reshape(-1, given.shape[-1]).astype(np.float64)
        if unit_first:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
        return cls(jnp.asarray(rows.mean(0), dtype), jnp.asarray(scale, dtype), unit_first)

    def apply(self, features: Array) -> Array:
        """Transformed features, (..., F)."""
        if jnp.shape(features)[-1:] != self.mean.shape:
            raise ValueError(
                f"features {jnp.shape(features)} must end in the fitted width {self.mean.shape}."
            )
        features = _unit(features) if self.unit_first else features
        return self.scale * _unit(features - self.mean)


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

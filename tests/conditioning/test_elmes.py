"""ELMES: a regular simplex, for every size."""

import numpy as np
import pytest

from flown_jax.conditioning import elmes

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("num_classes", "width"), [(2, 2), (5, 256), (7, 9), (20, 32)])
def test_simplex(num_classes, width):
    vectors = elmes(num_classes, width).astype(np.float64)
    gram = np.full((num_classes, num_classes), -1.0 / (num_classes - 1))
    np.fill_diagonal(gram, 1.0)
    np.testing.assert_allclose(vectors @ vectors.T, gram, atol=1e-6)
    np.testing.assert_allclose(vectors.sum(0), 0.0, atol=1e-6)


def test_gram_matrix_does_not_depend_on_the_seed():
    first, second = elmes(5, 16, seed=1), elmes(5, 16, seed=2)
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="width >= 5, not 4"):
        elmes(5, 4)
    with pytest.raises(ValueError, match="at least 2 classes, not num_classes=1"):
        elmes(1, 4)

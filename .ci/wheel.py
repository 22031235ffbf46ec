"""Imports every module of an installed flown_jax; runs and ready models make networks.

    python wheel.py MODULES FEWSHOT_WORKDIR RETRIEVAL_WORKDIR

MODULES: how many modules the checkout has, `__init__` files included.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import numpy as np

import flown_jax
from flown_jax import MetaModel, pretrained

wanted, heads, networks = int(sys.argv[1]), sys.argv[2], sys.argv[3]
assert "site-packages" in flown_jax.__file__, f"{flown_jax.__file__} is no installation"
found = [module.name for module in pkgutil.walk_packages(flown_jax.__path__, "flown_jax.")]
# The commands are imported as packages of their own, by `flown`.
found = [name for name in found if not name.startswith("flown_jax._commands.")]
for name in found:
    importlib.import_module(name)
assert len(found) + 1 == wanted, f"{len(found) + 1} of {wanted} modules are installed"

rng = np.random.default_rng(0)
models = [(MetaModel.restore(heads), 5), (MetaModel.restore(networks), 10)]
models += [(MetaModel.pretrained(name), 10) for name in pretrained.names()]
for model, classes in models:
    labels = list(range(classes)) * 2
    shape = (28, 28) if model.any_way else (40, 30, 3)
    images = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    made = model.generate(images, labels, samples=3)
    probabilities = made.predict(images)
    assert probabilities.shape == (len(labels), classes)
    assert np.allclose(probabilities.sum(-1), 1, atol=1e-4)
    assert len(made.state_dicts()) == 3
print(f"{wanted} modules; {len(models)} meta-models from an installed wheel: all passed")

"""One device, several fake ones, and batches that do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from flown_jax.errors import UserError
from flown_jax.training import parallel
from tests.training import toy

ROOT = Path(__file__).parents[2]
SEVERAL = """
import json, pathlib, sys
import jax, numpy as np
from flown_jax.errors import UserError
from flown_jax.training import Checkpoints, Records, TrainState, compile_step, fit, parallel
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from tests.training import toy

worst = {}
for name, devices in (("four", 4), ("two", 2)):
    one, many = toy.step(toy.quiet_loss), toy.step(toy.quiet_loss, devices=devices)
    a, b = one.place(toy.initial()), many.place(toy.initial())
    for i in range(3):
        a, metrics_a = one(a, toy.batch_at(i))
        b, metrics_b = many(b, toy.batch_at(i))
    replicas = max(float(abs(leaf - leaf[:1]).max()) for leaf in jax.tree.leaves(b))
    pairs = zip(jax.tree.leaves((one.collect(a), metrics_a)),
                jax.tree.leaves((many.collect(b), metrics_b)), strict=True)
    differences = []
    for x, y in pairs:
        assert x.shape == y.shape and x.dtype == y.dtype
        differences.append(float(abs(np.asarray(x) - np.asarray(y)).max()))
    worst[name] = [max(differences), replicas]

# Without waiting the fake devices' collectives starve each other; and a run may change devices.
folder = sys.argv[1]
settings = dict(name="toy", checkpoints=Checkpoints(folder), save_every=6)
fit(toy.initial(), toy.step(toy.quiet_loss, devices=4), toy.batch_at, steps=6, **settings)
state = fit(toy.initial(), toy.step(toy.quiet_loss, devices=2), toy.batch_at, steps=300, **settings)
same = fit(toy.initial(), toy.step(toy.quiet_loss), toy.batch_at, steps=300, name="toy")
worst["fit"] = max(float(abs(x - y).max()) for x, y in zip(
    jax.tree.leaves(state), jax.tree.leaves(same), strict=True))

# A loss that looks at pairs of its batch is whole, and the same on any number of devices.
def pairs(params, key, batch, extra):
    loss, (metrics, _) = toy.quiet_loss(params, key, batch, extra)
    loss += (batch["x"][:, None] * batch["x"][None] * params["out"][0]).mean()
    return loss, (metrics, extra)

recipe = Recipe(3, 8, 0.05)
def trained(name):
    start = toy.initial()
    context = StageContext(name, pathlib.Path(folder) / name, Records(pathlib.Path(folder) / name))
    return train(context, recipe, start.params, pairs, toy.batch_at, seed=3, extra=start.extra,
                 whole=True).params

one = compile_step(pairs, recipe.chain(), seed=3, devices=1)
a = one.place(TrainState.create(toy.initial().params, recipe.chain(), extra=toy.initial().extra))
for i in range(3):
    a, _ = one(a, toy.batch_at(i))
worst["pairs"] = max(float(abs(x - y).max()) for x, y in zip(
    jax.tree.leaves(one.collect(a).params), jax.tree.leaves(trained("pairs")), strict=True))

noisy = toy.step(devices=4)
_, first = noisy(noisy.place(toy.initial()), toy.batch_at(0))
_, again = noisy(noisy.place(toy.initial()), toy.batch_at(0))
worst["repeat"] = float(abs(first["loss"] - again["loss"]))
tree = {"a": np.arange(3.0, dtype=np.float32)}
worst["round"] = np.asarray(parallel.unreplicate(parallel.replicate(tree))["a"]).tolist()
worst["count"] = parallel.local_device_count()

def scaled(models, shared, factor):
    return {"y": models["x"] * shared * factor}

models = {"x": np.arange(10.0, dtype=np.float32).reshape(5, 2)}
for devices in (1, 4):
    over = parallel.OverModels(scaled, multiple=2, devices=devices)
    result = over.collect(over(over.place(models), over.share(np.float32(2)), np.float32(3)))
    worst[f"models{devices}"] = result["y"].tolist()
try:
    noisy(noisy.place(toy.initial()), jax.tree.map(lambda leaf: leaf[:6], toy.batch_at(0)))
except UserError as error:
    worst["sentence"] = str(error)
print(json.dumps(worst))
"""


def test_several_devices_equal_one(tmp_path):
    flags = "--xla_force_host_platform_device_count=4 " + os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, str(tmp_path / "run")],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("four", "two"):
        # Sums in another order: float32 rounding, and Adam's ratio of two small numbers.
        difference, between_replicas = found[name]
        assert difference < 1e-6
        assert between_replicas == 0.0
    assert found["fit"] < 1e-4
    assert found["pairs"] == 0.0
    assert found["repeat"] == 0.0
    assert found["round"] == [0.0, 1.0, 2.0]
    assert found["models1"] == found["models4"] == [[12.0 * i, 12.0 * i + 6] for i in range(5)]
    assert found["count"] == 4
    assert found["sentence"] == "batch size 6 cannot be shared equally by 4 devices"


def test_placing_and_collecting_leave_the_original_valid():
    step, state = toy.step(), toy.initial()
    placed = step.place(state)
    new, _ = step(placed, toy.batch_at(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(placed.params))
    toy.assert_equal(state, toy.initial())
    kept = step.collect(new)
    step(new, toy.batch_at(1))
    assert int(kept.step) == 1 and not kept.params["out"].is_deleted()


def test_impossible_number_of_devices_is_refused():
    count = parallel.local_device_count()
    with pytest.raises(UserError, match=f"devices must be between 1 and {count}, not 99"):
        toy.step(devices=99)
    with pytest.raises(UserError, match="not 0"):
        toy.step(devices=0)


def test_description_is_json():
    assert json.dumps(parallel.describe_devices())

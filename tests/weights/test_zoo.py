"""A zoo on disk: nothing lost, half written, foreign or not finite."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import ResNet12, cnn_small
from flown_jax.weights import zoo, zoo_files
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import random_variables
from tests.parity.fixtures import ROOT
from tests.weights import small

SPEC = small.spec()
RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "epochs": 2}


@pytest.fixture
def folder(tmp_path):
    """A zoo of seeds 0 to 3 at epoch 1; seed 3 is held out."""
    path = tmp_path / "zoos" / "mine"
    zoo.create(path, SPEC, dataset="digits", recipe=RECIPE)
    put(path, range(4), held_out=(3,))
    return path


def put(path, seeds, epoch=1, **more):
    zoo.add(path, small.vectors(seeds, SPEC.size, epoch), small.rows(seeds, epoch, **more))


def files(path):
    return sorted(p.name for p in path.iterdir())


def test_what_was_added_is_loaded_in_its_order(folder):
    put(folder, [7, 5], epoch=2, seconds=1.5, history=[0.1, 0.2])
    found = zoo.load(folder)
    assert len(found) == 6 and found.weights.dtype == np.float32
    np.testing.assert_array_equal(found.weights[:4], small.vectors(range(4), SPEC.size))
    np.testing.assert_array_equal(found.weights[4:], small.vectors([7, 5], SPEC.size, 2))
    assert found.table["seed"] == [0, 1, 2, 3, 7, 5] and found.table["epoch"] == [1] * 4 + [2] * 2
    assert found.table["seconds"] == [None] * 4 + [1.5] * 2
    assert found.rows()[4] == small.rows([7], 2, seconds=1.5, history=[0.1, 0.2])[0]
    assert (found.spec, found.dataset, found.recipe) == (SPEC, "digits", RECIPE)
    assert found.base is None and found.buffers is None and found.path == folder


def test_split_epochs_and_masks_choose_networks(folder):
    put(folder, range(4), epoch=2, held_out=(3,))
    put(folder, range(4), epoch=3, held_out=(3,))
    held = zoo.load(folder, split="held_out", epochs=range(2, 9))
    assert held.table["seed"] == [3, 3] and held.table["epoch"] == [2, 3]
    np.testing.assert_array_equal(held.weights[1], small.vectors([3], SPEC.size, 3)[0])
    everything = zoo.load(folder)
    mask = [seed == 2 for seed in everything.table["seed"]]
    for chosen in (everything.select(mask), everything.select([2, 6, 10])):
        assert chosen.table["epoch"] == [1, 2, 3] and len(chosen) == 3
        np.testing.assert_array_equal(chosen.weights, everything.weights[[2, 6, 10]])
    assert len(everything.select([])) == 0
    with pytest.raises(ValueError, match="mask"):
        everything.select([True])
    with pytest.raises(UserError, match=r"no networks of split 'train' and epochs \[9\]"):
        zoo.load(folder, split="train", epochs=[9])
    with pytest.raises(UserError, match="split must be one of train, held_out"):
        zoo.load(folder, split="test")


def test_an_empty_zoo_is_a_zoo(tmp_path):
    assert not zoo.exists(tmp_path / "new")
    zoo.create(tmp_path / "new", SPEC, dataset="", recipe={})
    found = zoo.load(tmp_path / "new")
    assert zoo.exists(tmp_path / "new") and found.weights.shape == (0, SPEC.size)
    assert found.rows() == []


def test_statistics_and_base_travel_with_the_networks(tmp_path):
    module, images = ResNet12(channels=(2,), num_classes=3), jnp.ones((2, 4, 4, 1))
    variables = random_variables(module, images)
    whole = WeightSpec.from_module(module, variables)
    statistics = WeightSpec.from_module(module, variables, collections=("batch_stats",))
    part = whole.subset(lambda name: "bn3" in name)
    # A transposed view, a scalar and half precision: what safetensors would spoil or refuse.
    base = variables | {"extra": {"view": np.arange(6.0).reshape(2, 3).T, "one": np.float32(2)}}
    base["extra"]["half"] = jnp.asarray([1.5], jnp.bfloat16)
    zoo.create(tmp_path, part, dataset="d", recipe={}, base=base, buffers_spec=statistics)
    w, buffers = small.vectors(range(2), part.size), small.vectors(range(2), statistics.size)
    zoo.add(tmp_path, w, small.rows(range(2)), buffers)
    found = zoo.load(tmp_path)
    np.testing.assert_array_equal(found.buffers, buffers)
    assert found.spec == part and found.buffers_spec == statistics
    jax.tree.map(np.testing.assert_array_equal, found.base, base)
    mine = found.select([1]).variables(0)
    np.testing.assert_array_equal(part.flatten(mine), w[1])
    np.testing.assert_array_equal(statistics.flatten(mine), buffers[1])
    np.testing.assert_array_equal(
        mine["params"]["classifier"]["kernel"], base["params"]["classifier"]["kernel"]
    )
    with pytest.raises(UserError, match="have running statistics: give buffers"):
        zoo.add(tmp_path, w, small.rows([8, 9]))
    with pytest.raises(UserError, match=r"buffers have shape .* not \(2, "):
        zoo.add(tmp_path, w, small.rows([8, 9]), buffers[:, 1:])


def test_a_part_needs_a_base_that_fits(tmp_path):
    part = SPEC.subset(lambda name: ".0." in name)
    with pytest.raises(UserError, match="needs `base`"):
        zoo.create(tmp_path / "a", part, dataset="d", recipe={})
    with pytest.raises(UserError, match="no params/conv_0/kernel"):
        zoo.create(tmp_path / "a", part, dataset="d", recipe={}, base={"params": {}})
    assert not (tmp_path / "a").exists()


def test_a_zoo_is_made_once_and_not_among_other_things(folder, tmp_path):
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(UserError, match=f"there is a zoo in {folder} already"):
        zoo.create(folder, SPEC, dataset="digits", recipe=RECIPE)
    assert (folder / "manifest.json").read_bytes() == before
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has thesis\.txt in it"):
        zoo.create(tmp_path / "zoos" / "..", SPEC, dataset="digits", recipe={})
    with pytest.raises(UserError, match="it is a file"):
        zoo.create(tmp_path / "thesis.txt", SPEC, dataset="digits", recipe={})
    with pytest.raises(UserError, match="recipe must be JSON"):
        zoo.create(tmp_path / "b", SPEC, dataset="digits", recipe={"lr": float("inf")})


def test_the_same_network_again_changes_nothing(folder):
    before = files(folder), (folder / "manifest.json").read_bytes()
    put(folder, [2, 0])
    assert (files(folder), (folder / "manifest.json").read_bytes()) == before
    put(folder, [3, 4], held_out=(3,))  # one old, one new
    assert zoo.load(folder).table["seed"] == [0, 1, 2, 3, 4]


def test_another_network_under_a_known_name_is_refused(folder):
    for w, row in (
        (small.vectors([9], SPEC.size), small.rows([2])),
        (small.vectors([2], SPEC.size), small.rows([2], test_accuracy=0.9)),
    ):
        with pytest.raises(UserError, match="seed 2, epoch 1 is in the zoo in .*mine already"):
            zoo.add(folder, w, row)
    with pytest.raises(UserError, match="seed 5, epoch 1 is given twice"):
        put(folder, [5, 6, 5])
    assert len(zoo.load(folder)) == 4
    # The same seed of another trial is another network.
    put(folder, [2], trial="other")
    assert len(zoo.load(folder)) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_weights_that_are_not_finite_are_refused_with_their_seed(folder, value):
    w = small.vectors([5, 6], SPEC.size).astype(np.float64)
    w[1, 3] = value
    with pytest.raises(UserError, match="weights of seed 6, epoch 1 are not finite"):
        zoo.add(folder, w, small.rows([5, 6]))
    assert len(zoo.load(folder)) == 4 and len(files(folder)) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "test"}, "split 'test', not one of train, held_out"),
        ({"epoch": 1.0}, "row 0 of the zoo's table has epoch 1.0, not a whole number"),
        ({"epoch": None}, "has epoch None"),
        ({"seed": "a"}, "has seed 'a', not a whole number"),
        ({"test_accuracy": 97.1}, "test_accuracy 97.1, not a fraction"),
        ({"test_accuracy": float("nan")}, "must be JSON values"),
        ({"shard": "x"}, "reserved field 'shard'"),
    ],
)
def test_a_row_that_cannot_be_is_refused(folder, change, words):
    with pytest.raises(UserError, match=words.replace("(", "\\(")):
        zoo.add(folder, small.vectors([9], SPEC.size), [small.rows([9])[0] | change])
    with pytest.raises(UserError, match="has no field 'split'"):
        zoo.add(folder, small.vectors([9], SPEC.size), [{"seed": 9, "epoch": 1}])
    assert len(zoo.load(folder)) == 4


def test_vectors_of_another_network_are_refused(folder):
    wide = small.spec(channels_in=3)
    with pytest.raises(UserError, match=rf"shape \(1, {wide.size}\), not \(1, {SPEC.size}\)"):
        zoo.add(folder, small.vectors([9], wide.size), small.rows([9]))
    with pytest.raises(UserError, match="1 rows for the zoo"):
        zoo.add(folder, small.vectors([8, 9], SPEC.size), small.rows([9]))
    gelu = small.spec(activation="gelu")
    with pytest.raises(UserError, match=r"mine/manifest.json is of other .* is gelu, not tanh"):
        zoo.load(folder, spec=gelu)
    with pytest.raises(UserError, match="activation is gelu, not tanh"):
        zoo.add(folder, small.vectors([9], SPEC.size), small.rows([9]), spec=gelu)
    assert len(zoo.load(folder, spec=SPEC)) == 4


def test_a_missing_zoo_is_one_sentence(tmp_path):
    for call in (zoo.load, lambda path: put(path, [1])):
        with pytest.raises(UserError, match=r"there is no zoo in .*: it has no manifest\.json"):
            call(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# What spoils a file, and whether the file is named.


def test_a_truncated_or_altered_shard_is_refused_by_name(folder):
    shard = folder / "weights-0001.safetensors"
    good = shard.read_bytes()
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    for bad in (good[:-7], b"", flipped):
        shard.write_bytes(bad)
        with pytest.raises(UserError, match=r"mine/weights-0001\.safetensors has changed"):
            zoo.load(folder)
    shard.unlink()
    with pytest.raises(UserError, match=r"cannot read .*mine/weights-0001\.safetensors"):
        zoo.load(folder)
    shard.write_bytes(good)
    assert len(zoo.load(folder)) == 4


def test_a_shard_of_another_zoo_is_refused_by_name(folder, tmp_path):
    other = small.spec(activation="gelu")  # of the same width
    zoo.create(tmp_path / "other", other, dataset="digits", recipe={})
    zoo.add(tmp_path / "other", small.vectors(range(4), other.size), small.rows(range(4)))
    shutil.copy(tmp_path / "other" / "weights-0001.safetensors", folder)
    with pytest.raises(UserError, match=r"mine/weights-0001\.safetensors has changed"):
        zoo.load(folder)


def test_a_truncated_altered_or_foreign_manifest_is_refused_by_name(folder):
    path = folder / "manifest.json"
    good = path.read_bytes()
    stored = json.loads(good)
    accuracy = good.replace(b'"test_accuracy": 0.501', b'"test_accuracy": 0.901')
    activation = good.replace(b'"activation": "tanh"', b'"activation": "gelu"')
    assert good not in (accuracy, activation)
    cases = {
        good[:-40]: "cannot read",
        b"\xff": "cannot read",
        b"[]": "is not the manifest of a flown_jax zoo",
        b'{"kind": "zoo", "models": []}': "is not the manifest of a flown_jax zoo",
        json.dumps(stored | {"format": 9}).encode(): "has format 9, this version reads 1",
        json.dumps({k: v for k, v in stored.items() if k != "shards"}).encode(): "field 'shards'",
        accuracy: "has changed since it was written",
        activation: "has changed since it was written",
    }
    for bad, words in cases.items():
        path.write_bytes(bad)
        for call in (zoo.load, lambda folder: put(folder, [9])):
            with pytest.raises(UserError) as refused:
                call(folder)
            assert words in str(refused.value) and "mine/manifest.json" in str(refused.value)
    path.write_bytes(good)
    assert len(zoo.load(folder)) == 4


def test_an_altered_base_is_refused_by_name(tmp_path):
    variables = random_variables(small.network(), jnp.zeros((1, 8, 8, 1)))
    zoo.create(tmp_path, SPEC, dataset="d", recipe={}, base=variables)
    path = tmp_path / "base.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=r"base\.safetensors has changed"):
        zoo.load(tmp_path)


# Kills and company.

_KILLED = """
import os, signal, sys
from flown_jax.weights import zoo, zoo_files
from tests.weights import small
from tests.weights.test_zoo import put
zoo_files.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
put(sys.argv[1], [8, 9])
"""
_BUSY = """
import pathlib, sys, time
from flown_jax.weights import zoo_files
from tests.weights.test_zoo import put
write = zoo_files.write_manifest
def slowly(*arguments):  # a slow disk, on which the other writer would get in between
    time.sleep(0.02)
    write(*arguments)
zoo_files.write_manifest = slowly
folder, signs, first = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
(signs / str(first)).touch()
end = time.time() + 20
while len(list(signs.iterdir())) < 2 and time.time() < end:
    time.sleep(0.001)
for seed in range(first, first + 12, 2):
    put(folder, [seed, seed + 1])
"""


def python(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT)


def test_processes_that_add_at_the_same_time_lose_nothing(folder, tmp_path):
    signs = tmp_path / "signs"
    signs.mkdir()
    writers = [python(_BUSY, folder, signs, first) for first in (100, 200)]
    while any(writer.poll() is None for writer in writers):
        seeds = zoo.load(folder).table["seed"]  # a reader in between sees a whole zoo
        assert len(set(seeds)) == len(seeds) and len(seeds) % 2 == 0
        time.sleep(0.02)
    assert [writer.returncode for writer in writers] == [0, 0]
    found = zoo.load(folder)
    assert sorted(found.table["seed"]) == [*range(4), *range(100, 112), *range(200, 212)]
    np.testing.assert_array_equal(found.weights, small.vectors(found.table["seed"], SPEC.size))


def test_a_kill_between_shard_and_manifest_leaves_the_old_zoo(folder):
    before = (folder / "manifest.json").read_bytes()
    assert python(_KILLED, folder).wait() == -signal.SIGKILL
    left = folder / "weights-0002.safetensors"
    assert left.exists() and (folder / "manifest.json").read_bytes() == before
    assert zoo.load(folder).table["seed"] == [0, 1, 2, 3]
    # The lock went with the process, and the next writer clears up.
    (folder / ".weights-0003.safetensors.tmp").write_bytes(b"half")
    (folder / "weights-0007.safetensors").write_bytes(b"older")
    put(folder, [8])
    assert zoo.load(folder).table["seed"] == [0, 1, 2, 3, 8]
    assert files(folder) == [".lock", "manifest.json", "weights-0001.safetensors", left.name]


def test_a_zoo_whose_making_was_killed_can_be_made_again(tmp_path, monkeypatch):
    variables = random_variables(small.network(), jnp.zeros((1, 8, 8, 1)))
    with monkeypatch.context() as patch:
        patch.setattr(zoo_files, "write_manifest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            zoo.create(tmp_path, SPEC, dataset="d", recipe={}, base=variables)
    assert files(tmp_path) == [".lock", "base.safetensors"] and not zoo.exists(tmp_path)
    zoo.create(tmp_path, SPEC, dataset="d", recipe={})
    assert files(tmp_path) == [".lock", "manifest.json"] and zoo.load(tmp_path).base is None


def test_a_full_disk_is_one_sentence_and_leaves_the_old_zoo(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zoo_files, "write_bytes", full)
    with pytest.raises(UserError, match="no space left"):
        put(folder, [9])
    assert len(zoo.load(folder)) == 4


def test_400_networks_of_the_paper_are_loaded_as_they_were(tmp_path):
    module = cnn_small()
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    spec = WeightSpec.from_module(module, shapes)
    zoo.create(tmp_path, spec, dataset="mnist", recipe={})
    w = small.vectors(range(400), spec.size)
    for part in np.split(np.arange(400), 4):
        zoo.add(tmp_path, w[part], small.rows(part.tolist()))
    found = zoo.load(tmp_path)
    np.testing.assert_array_equal(found.weights, w)
    assert found.weights.shape == (400, 2864)

"""Checkpoints and stored trees: round trips, and every damage told in a sentence."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax import files as files_module
from flown_jax.errors import UserError
from flown_jax.training import Checkpoints, Records, fit, load_tree, save_tree
from tests.training import toy

pytestmark = pytest.mark.fast


def tree():
    return {
        "state": toy.initial(),
        "best": {"score": -1.5, "step": 3, "on": True},
        "a/b": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "half": jnp.ones(3, jnp.bfloat16),
        "empty": jnp.zeros((0, 4)),
        "bits": np.asarray([True, False]),
        "bytes": np.arange(5, dtype=np.uint8),
    }


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """One finished checkpoint, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("stored") / "run"
    Checkpoints(folder).save(5, tree())
    return folder


def test_round_trip_keeps_values_types_and_kinds(stored):
    checkpoints = Checkpoints(stored)
    assert checkpoints.latest() == 5
    restored = checkpoints.restore(5, tree())
    toy.assert_equal(restored, tree())
    assert type(restored["best"]["score"]) is float and restored["best"]["on"] is True
    assert isinstance(restored["bits"], np.ndarray)
    assert isinstance(restored["state"].step, jax.Array)


def test_abstract_tree_restores_arrays(tmp_path):
    Checkpoints(tmp_path / "run").save(1, toy.initial())
    like = jax.eval_shape(toy.initial)
    toy.assert_equal(Checkpoints(tmp_path / "run").restore(1, like), toy.initial())


def test_old_ones_go_and_unfinished_ones_do_not_exist(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.latest() is None
    for step in (1, 2, 10):
        checkpoints.save(step, {"a": np.full(3, step)})
    assert checkpoints.steps() == [2, 10]
    assert not (tmp_path / "run" / "1.json").exists()
    # A kill before the record was written, and one in the middle of orbax's work.
    (tmp_path / "run" / "10.json").unlink()
    (tmp_path / "run" / "11.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.latest() == 2
    with pytest.raises(UserError, match="no finished checkpoint of step 10"):
        checkpoints.restore(10, {"a": np.zeros(3, int)})
    checkpoints.save(10, {"a": np.full(3, 7)})
    assert checkpoints.steps() == [2, 10]
    assert checkpoints.restore(10, {"a": np.zeros(3, int)})["a"].tolist() == [7, 7, 7]
    checkpoints.save(10, {"a": np.full(3, 8)})
    assert checkpoints.restore(10, {"a": np.zeros(3, int)})["a"].tolist() == [8, 8, 8]
    assert not list((tmp_path / "run").glob("*tmp*"))


def change(path, value):
    """The tree with one leaf replaced."""

    def leaf(where, old):
        return value if jax.tree_util.keystr(where, simple=True, separator="/") == path else old

    return jax.tree_util.tree_map_with_path(leaf, tree())


@pytest.mark.parametrize(
    ("like", "sentence"),
    [
        (
            change("state/params/in/kernel", jnp.zeros((3, 6))),
            r"params/in/kernel is stored as float32 \(3, 5\) and expected as float32 \(3, 6\)",
        ),
        (
            change("state/extra/count", jnp.zeros((), jnp.float32)),
            r"state/extra/count is stored as int32 \(\) and expected as float32 \(\)",
        ),
        ({**tree(), "new": np.zeros(1)}, "does not hold new, which this run has"),
        ({"bits": np.zeros(2, bool)}, "holds .*, which this run does not have"),
    ],
    ids=["shape", "dtype", "missing", "extra"],
)
def test_other_trees_are_refused_by_the_leafs_name(stored, like, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        Checkpoints(stored).restore(5, like)
    assert str(stored / "5") in str(caught.value)
    assert "\n" not in str(caught.value)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    middle = path.stat().st_size // 2
    with open(path, "r+b") as file:
        file.seek(middle)
        byte = file.read(1)
        file.seek(middle)
        file.write(bytes([byte[0] ^ 0xFF]))


@pytest.mark.parametrize("damage", [truncate, overwrite, Path.unlink], ids=lambda f: f.__name__)
def test_any_damaged_file_is_told_in_one_sentence(stored, tmp_path, damage, capfd):
    names = [p.relative_to(stored) for p in (stored / "5").rglob("*") if p.is_file()]
    assert len(names) > 5
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(stored, folder)
        damage(folder / name)
        with pytest.raises(UserError, match=r"is damaged.*has changed since") as caught:
            Checkpoints(folder).restore(5, tree())
        assert str(folder / "5") in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def foreign(folder):
    """A checkpoint of another tree, written beside and put in the place of the newest."""
    Checkpoints(folder.parent / "other").save(9, {"other": np.zeros(2)})
    shutil.rmtree(folder / "9")
    for name in ("9", "9.json"):
        os.rename(folder.parent / "other" / name, folder / name)


def unmarked(folder):
    (folder / "9.json").unlink()


def data_of(folder, step=9):
    files = [path for path in (folder / str(step)).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


DAMAGE = {
    "truncated": (lambda folder: truncate(data_of(folder)), "9 is damaged"),
    "flipped": (lambda folder: overwrite(data_of(folder)), "9 is damaged"),
    "missing": (lambda folder: data_of(folder).unlink(), "9 is damaged"),
    "foreign": (foreign, "9 holds other, which this run does not have"),
    "unmarked": (unmarked, r"9 was never finished \(no 9.json\)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, damage):
    """And an interrupted training comes out as an unbroken one."""
    spoil, sentence = DAMAGE[damage]
    checkpoints = Checkpoints(tmp_path / "run")
    settings = {"name": "toy", "save_every": 3}
    fit(toy.initial(), toy.step(), toy.batch_at, steps=9, checkpoints=checkpoints, **settings)
    assert checkpoints.steps() == [6, 9]
    spoil(tmp_path / "run")
    told = []
    step, _ = checkpoints.restore_latest({"state": toy.initial()}, told.append)
    assert step == 6 and len(told) == 1 and re.search(sentence, told[0]), told
    stream = io.StringIO()
    records = Records(tmp_path / "w", stream=stream)
    again = fit(
        toy.initial(),
        toy.step(),
        toy.batch_at,
        steps=12,
        checkpoints=Checkpoints(tmp_path / "run"),
        records=records,
        **settings,
    )
    records.close()
    assert re.search(sentence, stream.getvalue())
    toy.assert_equal(again, fit(toy.initial(), toy.step(), toy.batch_at, steps=12, name="toy"))
    assert checkpoints.steps() == [9, 12]
    assert checkpoints.restore_latest({"state": toy.initial()}, pytest.fail)[0] == 12


def test_where_no_checkpoint_is_whole_the_newest_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.restore_latest(toy.initial()) is None
    for step in (3, 9):
        checkpoints.save(step, toy.initial())
    for step in (3, 9):
        overwrite(data_of(tmp_path / "run", step))
    with pytest.raises(UserError, match="run/9 is damaged"):
        checkpoints.restore_latest(toy.initial())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"leaves": 3, "files": {}}', '{"files": {}}'])
def test_damaged_record_is_told_in_one_sentence(stored, tmp_path, content):
    shutil.copytree(stored, tmp_path / "run")
    (tmp_path / "run" / "5.json").write_text(content)
    with pytest.raises(UserError, match=r"run/5 is damaged.*5\.json"):
        Checkpoints(tmp_path / "run").restore(5, tree())


def test_unreadable_checkpoint_with_a_matching_record_is_told_too(stored, tmp_path):
    """What orbax itself cannot read, if even the checksums agree."""
    shutil.copytree(stored, tmp_path / "run")
    record = files_module.read_json(tmp_path / "run" / "5.json", "")
    (tmp_path / "run" / "5" / "default" / "_METADATA").unlink()
    record["files"].pop("default/_METADATA")
    files_module.write_json(tmp_path / "run" / "5.json", record)
    with pytest.raises(UserError, match=r"run/5 is damaged.*cannot be read"):
        Checkpoints(tmp_path / "run").restore(5, tree())


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "5").mkdir()
    with pytest.raises(UserError, match="are not checkpoints of flown_jax"):
        Checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


def test_full_disk_is_told_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(1, {"a": np.zeros(3)})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files_module.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*run.*: no space left on the device"):
        checkpoints.save(2, {"a": np.ones(3)})
    monkeypatch.undo()
    assert checkpoints.latest() == 1
    assert checkpoints.restore(1, {"a": np.zeros(3)})["a"].tolist() == [0, 0, 0]


def test_forbidden_folder_is_told(forbidden):
    with pytest.raises(UserError, match="no permission to use") as caught:
        Checkpoints(forbidden / "run").save(1, {"a": np.zeros(3)})
    assert str(forbidden) in str(caught.value)
    with pytest.raises(UserError, match="no permission to use"):
        save_tree(forbidden / "t.safetensors", {"a": np.zeros(3)})


def test_ambiguous_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two leaves of the tree have one name"):
        Checkpoints(tmp_path / "run").save(1, {"a/b": np.zeros(1), "a": {"b": np.zeros(1)}})
    with pytest.raises(ValueError, match="max_to_keep must be at least 2"):
        Checkpoints(tmp_path / "run", max_to_keep=1)


RESULT = {
    "kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "reversed": np.arange(5)[::-1],
    "big": np.arange(3, dtype=">i4"),
    "images": {
        "u8": np.arange(4, dtype=np.uint8),
        "labels": np.arange(4),
        "empty": np.zeros((0, 2)),
    },
    "mask": np.asarray([True, False]),
    "scalar": np.float64(0.1),
    "zero_d": jnp.asarray(3),
    "half": jnp.asarray([1.5, 2.5], jnp.bfloat16),
    "text": "ünï",
    "number": 0.1,
    "infinite": float("-inf"),
    "whole": 3,
    "on": True,
    "none": None,
    "list": [1, "two", [3.0]],
    "nothing": {},
}


def test_tree_round_trip_with_any_layout(tmp_path):
    save_tree(tmp_path / "t.safetensors", RESULT)
    loaded = load_tree(tmp_path / "t.safetensors")
    assert set(loaded) == set(RESULT) and loaded["nothing"] == {}
    for name in ("text", "number", "infinite", "whole", "on", "none", "list"):
        assert loaded[name] == RESULT[name] and type(loaded[name]) is type(RESULT[name])
    for name in ("kernel", "columns", "reversed", "big", "mask", "scalar", "zero_d", "half"):
        expected = np.asarray(RESULT[name])
        assert loaded[name].shape == expected.shape
        assert loaded[name].dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(loaded[name], expected)
    toy.assert_equal(loaded["images"], RESULT["images"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.safetensors"]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"a": {"b/c": 1}}, "keys of a stored dict.*'b/c' at a"),
        ({3: 1}, "keys of a stored dict.*3 at the top"),
        ({"a": {"key": jax.random.key(0)}}, "cannot store a/key: a random key"),
        ({"a": np.asarray(["x"], object)}, "cannot store a: arrays of type object"),
        ({"a": np.ones(2, np.complex64)}, "cannot store a: arrays of type complex64"),
        ({"a": {"b": [np.ones(2)]}}, "cannot store a/b: list is not JSON"),
    ],
)
def test_tree_refuses_what_it_cannot_keep(tmp_path, bad, sentence):
    with pytest.raises(UserError, match=sentence):
        save_tree(tmp_path / "t.safetensors", bad)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100, None])
def test_damaged_tree_is_told(tmp_path, content):
    path = tmp_path / "t.safetensors"
    if content is None:
        from safetensors.numpy import save_file

        save_file({"a": np.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path)) + " is damaged or not a result"):
        load_tree(path)
    with pytest.raises(UserError, match="there is no file"):
        load_tree(tmp_path / "absent")

"""Checkpoints without torch: each side reads what the other writes, and no code runs."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import os
import pathlib
import pickle
import struct
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from flown_jax.errors import UserError
from flown_jax.torch_import.files import read_state_dict, write_state_dict

TYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?", ml_dtypes.bfloat16)


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    state = {f"type.{np.dtype(t).name}": rng.normal(size=(3, 4)).astype(t) for t in TYPES}
    state["transposed.weight"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    state["ordered.big"] = np.arange(4, dtype=">f4")
    state["num_batches_tracked"] = np.asarray(7)
    state["empty"] = np.zeros((0, 3), np.float32)
    state["long." + "x" * 300] = np.ones(70_000, np.float32)  # sizes of one, two and four bytes
    return state


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        value = np.asarray(value)
        assert actual[name].dtype == value.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def rewritten(path, target, change=None, drop=(), folder=None):
    """A copy of a checkpoint with members changed, dropped or under another folder."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            top, inner = name.split("/", 1)
            if inner not in drop:
                data = (change or {}).get(inner, source.read(name))
                copy.writestr(f"{folder or top}/{inner}", data)
        for inner in set(change or ()) - {n.split("/", 1)[1] for n in source.namelist()}:
            copy.writestr(f"{folder or top}/{inner}", change[inner])
    return target


def refusal(path, key=None) -> str:
    """The sentence with which a file is refused; it is one line and names the file."""
    with pytest.raises(UserError) as raised:
        read_state_dict(path, key)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    return str(raised.value)


def test_round_trip_keeps_order_types_and_values(tmp_path, state):
    write_state_dict(tmp_path / "checkpoints", state)
    found = read_state_dict(tmp_path / "checkpoints")
    assert_same(found, state)
    found["transposed.weight"][0, 0] = 5  # arrays are their own: writeable, apart from the file
    assert os.listdir(tmp_path) == ["checkpoints"]


def test_the_same_state_gives_the_same_bytes(tmp_path, state):
    write_state_dict(tmp_path / "a", state)
    write_state_dict(tmp_path / "b", state)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_storages_begin_where_torch_can_map_them(tmp_path, state):
    write_state_dict(tmp_path / "x", state)
    raw = (tmp_path / "x").read_bytes()
    with zipfile.ZipFile(tmp_path / "x") as archive:
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            name, extra = struct.unpack("<HH", raw[info.header_offset + 26 :][:4])
            assert (info.header_offset + 30 + name + extra) % 64 == 0


def test_any_folder_name_and_big_endian_storages(tmp_path):
    values = np.asarray([1.5, -2.0, 3e5], np.float32)
    write_state_dict(tmp_path / "x", {"w": values, "flag": np.asarray([True, False])})
    changes = {"byteorder": b"big", "data/0": values.astype(">f4").tobytes()}
    path = rewritten(tmp_path / "x", tmp_path / "y", changes, folder="my net")
    np.testing.assert_array_equal(read_state_dict(path)["w"], values)
    # Files from before the member `byteorder` are little-endian.
    old = rewritten(tmp_path / "x", tmp_path / "z", drop=("byteorder",))
    np.testing.assert_array_equal(read_state_dict(old)["w"], values)


def test_safetensors_files_by_name_and_by_content(tmp_path):
    state = {"a": np.ones((2, 3), np.float32), "b": np.ones(2, ml_dtypes.bfloat16)}
    for name in ("x.safetensors", "checkpoints"):
        safetensors.numpy.save_file(state, tmp_path / name)
        found = read_state_dict(tmp_path / name)
        assert found["a"].shape == (2, 3) and found["b"].dtype == ml_dtypes.bfloat16


def test_damaged_files_are_refused(tmp_path):
    write_state_dict(tmp_path / "good", {"layer.weight": np.ones((40, 5), np.float32)})
    raw = (tmp_path / "good").read_bytes()
    path = tmp_path / "bad"
    for length in (20, len(raw) // 2, len(raw) - 30):
        path.write_bytes(raw[:length])
        assert "truncated or damaged" in refusal(path)
    path.write_bytes(raw.replace(np.ones(10, np.float32).tobytes(), bytes(40), 1))
    assert "CRC" in refusal(path)
    rewritten(tmp_path / "good", path, {"data/0": bytes(796)})
    assert "'layer.weight' needs 200 numbers of a storage that holds 199" in refusal(path)
    rewritten(tmp_path / "good", path, drop=("data/0",))
    assert "storage '0' of tensor 'layer.weight' is missing" in refusal(path)
    rewritten(tmp_path / "good", path, {"data.pkl": b"\x80\x02garbage"})
    assert "its pickle cannot be read" in refusal(path)
    path.with_suffix(".safetensors").write_bytes(b"\x20\0\0\0\0\0\0\0{}")
    assert "no safetensors file, or a damaged one" in refusal(path.with_suffix(".safetensors"))


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "file"
    assert "there is no file" in refusal(path)
    assert "is a folder" in refusal(tmp_path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "a plain pickle" in refusal(path)
    path.write_bytes(b"epoch,accuracy\n1,0.5\n")
    assert "neither a PyTorch checkpoint nor a safetensors file" in refusal(path)
    path.write_bytes(b"")
    assert "neither" in refusal(path)
    np.savez(path.with_suffix(".npz"), a=np.ones(3))
    assert "no data.pkl in it" in refusal(path.with_suffix(".npz"))
    write_state_dict(tmp_path / "good", {"a": np.ones(3)})
    rewritten(tmp_path / "good", path, {"constants.pkl": b""})
    assert "TorchScript" in refusal(path)


class Harmful:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def with_pickle(tmp_path, data: bytes):
    write_state_dict(tmp_path / "good", {"a": np.ones(3, np.float32)})
    return rewritten(tmp_path / "good", tmp_path / "bad", {"data.pkl": data})


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_file_never_runs(tmp_path, protocol):
    trace = tmp_path / "trace"
    harmful = {"a": Harmful(trace), "b": OrderedDict(c=Harmful(trace))}
    sentence = refusal(with_pickle(tmp_path, pickle.dumps(harmful, protocol)))
    assert "names posix.system" in sentence and "would run code" in sentence
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "torch.nn.modules.linear.Linear", "torch.load", "torch._utils._rebuild_xla"],
)
def test_every_other_name_is_refused_and_named(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    data = f"c{module}\n{attribute}\n.".encode()
    assert f"it names {name}" in refusal(with_pickle(tmp_path, data))


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """Attributes set on what the pickle is given (opcode BUILD) do not outlive the reading."""
    name = b"}X\x0c\x00\x00\x00__defaults__)s"  # {"__defaults__": ()}
    for thing in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"):
        for attributes in (name, b"N" + name + b"\x86"):  # for __dict__, and for setattr
            refusal(with_pickle(tmp_path, b"\x80\x02" + thing + attributes + b"b."))
    write_state_dict(tmp_path / "good", {"a": np.ones(3, np.float32)})
    assert_same(read_state_dict(tmp_path / "good"), {"a": np.ones(3, np.float32)})


def test_what_torch_has_no_storage_for_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r"entry 'name' has the type <U3"):
        write_state_dict(tmp_path / "x", {"name": np.asarray("abc")})
    with pytest.raises(UserError, match=r"entry 'c' has the type complex64"):
        write_state_dict(tmp_path / "x", {"c": np.ones(2, np.complex64)})
    assert not list(tmp_path.iterdir())


# With PyTorch beside it


def saved(torch, value, path, **options):
    torch.save(value, path, **options)
    return path


def test_torch_loads_what_is_written(tmp_path, state):
    torch = pytest.importorskip("torch")
    write_state_dict(tmp_path / "x.pt", state)
    for options in ({}, {"mmap": True}):
        loaded = torch.load(tmp_path / "x.pt", **options)
        assert isinstance(loaded, OrderedDict)
        found = {
            k: v.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
            if v.dtype == torch.bfloat16
            else v.numpy()
            for k, v in loaded.items()
        }
        assert_same(found, state)


def test_what_torch_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    expected = {k: v.numpy() for k, v in net.state_dict().items()}
    assert_same(read_state_dict(saved(torch, net.state_dict(), tmp_path / "a")), expected)
    parameters = dict(net.named_parameters())
    found = read_state_dict(saved(torch, parameters, tmp_path / "b.pth"))
    assert_same(found, {k: v.detach().numpy() for k, v in parameters.items()})
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    (tmp_path / "c").write_bytes(buffer.getvalue())
    assert_same(read_state_dict(tmp_path / "c"), expected)


def test_views_share_storages_and_keep_their_strides(tmp_path):
    torch = pytest.importorskip("torch")
    block = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    views = {
        "whole": block,
        "transposed": block.permute(2, 0, 1),
        "part": block[1, 1:, ::2],
        "one": block[0, 2, 3],
        "expanded": block[:1, :1].expand(5, 3, 4),
        "none": block[:, :0],
        "half": block.to(torch.bfloat16).float().double()[..., 1],
    }
    path = saved(torch, views, tmp_path / "x")
    with zipfile.ZipFile(path) as archive:
        assert sum("/data/" in name for name in archive.namelist()) == 2
    assert_same(read_state_dict(path), {k: v.numpy() for k, v in views.items()})


def test_all_element_types_that_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    names = [np.dtype(kind).name for kind in TYPES]
    values = {n: torch.tensor([0, 1, 3], dtype=getattr(torch, n)) for n in names}
    found = read_state_dict(saved(torch, values, tmp_path / "x"))
    for name in names:
        assert found[name].dtype.name == name
        np.testing.assert_array_equal(found[name].astype(float), values[name].double().numpy())


def test_files_without_checksums(tmp_path):
    torch = pytest.importorskip("torch")
    setting = getattr(torch.serialization, "set_crc32_options", None)
    if setting is None:
        pytest.skip("this torch always writes checksums")
    setting(False)
    try:
        path = saved(torch, {"w": torch.arange(3.0)}, tmp_path / "x")
    finally:
        setting(True)
    np.testing.assert_array_equal(read_state_dict(path)["w"], [0, 1, 2])


def test_wrappers_of_training_scripts(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state, expected = net.state_dict(), {k: v.detach().numpy() for k, v in net.state_dict().items()}
    for key in ("state_dict", "model"):
        content = {"epoch": 3, key: state, "optimizer": optimizer.state_dict(), "best": 0.5}
        assert_same(read_state_dict(saved(torch, content, tmp_path / key)), expected)
    path = saved(torch, {"model": state, "state_dict": state}, tmp_path / "two")
    assert "two state dicts, under the keys state_dict and model" in refusal(path)
    path = saved(torch, optimizer.state_dict(), tmp_path / "optimizer")
    assert "its entry 'state' is no tensor but of type dict" in refusal(path)
    path = saved(torch, {"weight": state["weight"], "epoch": 4}, tmp_path / "mixed")
    assert "its entry 'epoch' is no tensor but of type int" in refusal(path)
    assert "no state dict but one list" in refusal(
        saved(torch, [state["weight"]], tmp_path / "list")
    )
    assert "no state dict but one tensor" in refusal(
        saved(torch, state["weight"], tmp_path / "tensor")
    )
    assert "empty dict" in refusal(saved(torch, {}, tmp_path / "empty"))


def test_what_only_code_could_rebuild_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 3)
    for k, content in enumerate((net, {"model": net}, {"epoch": 1, "net": net})):
        sentence = refusal(saved(torch, content, tmp_path / f"module{k}"))
        assert "names torch.nn.modules.linear.Linear" in sentence
    sparse = {"epoch": 1, "state_dict": {"b": torch.ones(2), "w": torch.eye(3).to_sparse()}}
    assert "_rebuild_sparse_tensor" in refusal(saved(torch, sparse, tmp_path / "sparse"))
    complexes = {"w": torch.ones(2, dtype=torch.complex64)}
    sentence = refusal(saved(torch, complexes, tmp_path / "complex"))
    assert "tensor 'w' has elements of an unknown type (ComplexFloatStorage)" in sentence


def test_the_format_before_torch_1_6(tmp_path, state):
    torch = pytest.importorskip("torch")
    content = {"net": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2).half()}, "acc": 1}
    path = saved(torch, content, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert_same(read_state_dict(path), {k: v.numpy() for k, v in content["net"].items()})
    for protocol in (3, 4, 5):
        options = {"_use_new_zipfile_serialization": False, "pickle_protocol": protocol}
        found = read_state_dict(saved(torch, content, tmp_path / "other", **options))
        assert_same(found, {k: v.numpy() for k, v in content["net"].items()})
    raw = path.read_bytes()
    for length in (16, 100, len(raw) - 1):
        path.write_bytes(raw[:length])
        assert "damaged" in refusal(path)
    module = saved(torch, torch.nn.ReLU(), path, _use_new_zipfile_serialization=False)
    assert "names torch.nn.modules.activation.ReLU" in refusal(module)


def test_floats_of_8_bits_parameters_and_subclasses(tmp_path):
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.arange(2.0))
    parameter.mark = 1  # saved as another kind of parameter
    content = {
        "e4m3": torch.tensor([1.0, -2.0]).to(torch.float8_e4m3fn),
        "e5m2": torch.tensor([1.0, -2.0]).to(torch.float8_e5m2),
        "u16": torch.tensor([1, 2**16 - 1]).to(torch.uint16),
        "parameter": parameter,
        "buffer": torch.nn.Buffer(torch.ones(2)),
    }
    found = read_state_dict(saved(torch, content, tmp_path / "x"))
    assert found["e4m3"].dtype == ml_dtypes.float8_e4m3fn
    values = {name: value.astype(float).tolist() for name, value in found.items()}
    expected = {"e4m3": [1, -2], "e5m2": [1, -2], "u16": [1, 2**16 - 1], "parameter": [0, 1]}
    assert values == {**expected, "buffer": [1, 1]}


def test_what_scripts_save_beside_a_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.BatchNorm1d(2)
    expected = {k: v.numpy() for k, v in net.state_dict().items()}
    beside = {
        "args": argparse.Namespace(
            lr=0.1, path=pathlib.PurePosixPath("/x"), device=torch.device("cpu")
        ),
        "when": datetime.datetime(2020, 1, 1),
        "metric": np.float64(0.5),
        "history": np.ones(3),
        "tags": {"a", ("b", 1)},
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "rng_state": torch.get_rng_state(),
        "by_pair": {("a", 1): 2},
        "counter": collections.Counter("aab"),
        "missing": None,
        "pytorch-lightning_version": "2.0",
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.ones(()), "monitor": "x"}},
        "optimizer_states": [torch.optim.Adam(net.parameters()).state_dict()],
        "scheduler": {"T_max": 5, "_last_lr": [0.1]},
        "state_dict_ema": net.state_dict(),
        "criterion": {},
    }
    for key in ("state_dict", "model", "net", "model_state_dict"):
        path = saved(torch, {**beside, key: net.state_dict()}, tmp_path / key)
        assert_same(read_state_dict(path), expected)
    assert_same(read_state_dict(path, "state_dict_ema"), expected)
    assert "no state dict under the key 'x', but under state_dict_ema" in refusal(path, "x")
    inner = saved(torch, {"epoch": 1, "learner": {"net": net.state_dict()}}, tmp_path / "inner")
    assert_same(read_state_dict(inner), expected)
    pair = saved(torch, (3, net.state_dict(), {"lr": 0.1}), tmp_path / "pair")
    assert_same(read_state_dict(pair), expected)
    two = {"generator": net.state_dict(), "discriminator": net.state_dict()}
    sentence = refusal(saved(torch, two, tmp_path / "two"))
    assert (
        "under the keys generator and discriminator; save one of them alone, or choose one with key"
        in sentence
    )

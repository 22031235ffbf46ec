"""Files made to mislead: each is refused in a sentence at once, or read."""

from __future__ import annotations

import gzip
import json
import struct
import time
import zipfile

import ml_dtypes
import numpy as np
import pytest

from flown_jax.torch_import import files, state_tensors
from flown_jax.torch_import.files import read_state_dict, write_state_dict
from flown_jax.torch_import.names import fitting
from tests.torch_import.crafted import checkpoint, number, state, tensor, text
from tests.torch_import.test_files import refusal

pytestmark = pytest.mark.fast

ORDERED = b"ccollections\nOrderedDict\n)R"


def test_a_crafted_file_may_be_right(tmp_path):
    path = checkpoint(tmp_path / "x", state(w=tensor((2, 2), (1, 2))), np.arange(4.0, dtype="<f4"))
    assert read_state_dict(path)["w"].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    "made",
    [
        tensor((2**40, 2**40), (0, 0)),
        tensor((2**70,), (1,)),
        tensor((2**31, 2**31), (2**40, 1)),
        tensor((0, 2**62, 2**62), (1, 1, 1)),
        tensor((2**30,), (0,)),
        tensor((-1, 2), (2, 1)),
        tensor((2, 2), (-2, 1)),
        tensor((2, 2), (2, 1), offset=-1),
        tensor((2, 2), (2, 1), offset=2**64),
        tensor((2, 2), (2**62, 1)),
        tensor((2, 2), (2,)),
        tensor((1,) * 70, (1,) * 70),
        tensor((2, 2), (2, 1), kind=b"ctorch\nComplexFloatStorage\n"),
        tensor((2, 2), (2, 1), kind=b"N"),
        tensor((2, 2), (2, 1), tail=b"}" + text("conj") + b"\x88s"),
    ],
)
def test_tensors_that_no_storage_holds(tmp_path, made):
    refusal(checkpoint(tmp_path / "x", state(a=tensor((4,), (1,)), w=made)))


def test_an_axis_of_one_may_have_any_stride(tmp_path):
    path = checkpoint(tmp_path / "x", state(w=tensor((1, 4), (2**62, 1))))
    assert read_state_dict(path)["w"].shape == (1, 4)


def test_views_of_one_storage_do_not_multiply(tmp_path, monkeypatch):
    monkeypatch.setattr(state_tensors, "_VIEWS", 1 << 12)
    views = {f"t{i}": tensor((2**8,), (0,)) for i in range(5)}
    path = checkpoint(tmp_path / "x", state(**views))
    assert "'t4' of shape (256,) is larger" in refusal(path)


def nested(levels: int, empty: bytes, close: bytes) -> bytes:
    """Something of two things that are one, which is of two things that are one, and so on."""
    made = empty + b"q\x00"
    for k in range(1, levels):
        made += b"0(h" + bytes([k - 1]) + b"h" + bytes([k - 1]) + close + b"q" + bytes([k])
    return made


@pytest.mark.parametrize(
    "made",
    [
        b"}" + nested(99, b")", b"t") + b"K\x01s",  # a key whose hash takes 2**99 steps
        b"\x8f(" + nested(99, b")", b"t") + b"\x90",  # a member of a set
        b"]" + nested(99, b"]", b"l") + b"a",
        b"]q\x00h\x00a",  # a list in itself
        b"}q\x00" + text("a") + b"h\x00s",
    ],
)
def test_what_is_nested_takes_no_time(tmp_path, made):
    start = time.process_time()
    content = b"\x80\x04}(" + text("a") + made + text("model") + state(w=tensor((4,), (1,)))[2:-1]
    path = checkpoint(tmp_path / "x", content + b"u.")
    assert list(read_state_dict(path)) == ["w"]
    refusal(checkpoint(tmp_path / "y", b"\x80\x04" + made + b"."))
    assert time.process_time() - start < 1


def test_time_is_no_square_of_the_length(tmp_path):
    start = time.process_time()
    many = 5_000
    tensors = b"".join(text(f"t{i}") + b"h\x01" for i in range(many))
    entries = b"".join(text(f"d{i}") + b"h\x02" for i in range(many))
    whole = (
        b"\x80\x02}(" + text("w") + tensor((4,), (1,)) + b"q\x010" + b"0}(" + tensors + b"uq\x020"
    )
    assert "5000 state dicts, under the keys d0 and d1" in refusal(
        checkpoint(tmp_path / "x", whole + b"0}(" + entries + b"u.")
    )
    inner = b"}(" + text("a") + b"h\x02uq\x030"
    again = b"}(" + entries.replace(b"h\x02", b"h\x03") + b"u."  # one dict under all keys
    assert len(read_state_dict(checkpoint(tmp_path / "y", whole + inner + again))) == many
    pairs = (
        b"\x80\x02](" + b"".join(text(str(i)) + b"N\x86" for i in range(many)) + b"eq\x01\x85q\x02"
    )
    copies = b"ccollections\nOrderedDict\nq\x03" + b"h\x03h\x02R" * many
    assert "cannot be read" in refusal(checkpoint(tmp_path / "z", pairs + copies + b"."))
    for part in ("a", "module"):
        deep = {f"{part}." * 20_000 + "weight": 0}
        assert len(fitting(deep, lambda names: "weight" in names)) == 1
    assert time.process_time() - start < 5


def test_a_pickle_s_memory_is_no_larger_than_the_pickle(tmp_path):
    far = b"\x80\x02}r\xff\xff\xff\x7f."  # what is remembered as number 2**31 - 1
    assert "empty dict" in refusal(checkpoint(tmp_path / "x", far))
    longer = b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b"abc."
    assert "its pickle cannot be read" in refusal(checkpoint(tmp_path / "x", longer))


def test_state_is_set_on_nothing(tmp_path):
    """A state dict's own attributes (_metadata) are passed over, those of functions, too."""
    attributes = b"}" + text("_metadata") + ORDERED + b"sb"
    pairs = b"(" + text("w") + tensor((4,), (1,)) + b"u"
    path = checkpoint(tmp_path / "x", b"\x80\x02" + ORDERED + pairs + attributes + b".")
    assert list(read_state_dict(path)) == ["w"]
    defaults = b"}" + text("__defaults__") + b"}sb0"
    for name in (
        b"torch._utils\n_rebuild_tensor_v2",
        b"builtins\nprint",
        b"collections\nOrderedDict",
    ):
        path = checkpoint(
            tmp_path / "x", b"\x80\x02c" + name + b"\n" + defaults + state(w=tensor((4,), (1,)))[2:]
        )
        assert list(read_state_dict(path)) == ["w"]


def test_archives_that_unpack_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_UNPACKED", 1 << 16)
    whole = state(w=tensor((4,), (1,)))
    path = checkpoint(tmp_path / "x", whole, bytes(2**16 + 1), compression=zipfile.ZIP_DEFLATED)
    assert "it would unpack to" in refusal(path)
    monkeypatch.setattr(files, "_PICKLE", 1 << 12)
    path = checkpoint(tmp_path / "y", b"N" * 2**15 + whole, compression=zipfile.ZIP_DEFLATED)
    assert "it would unpack to" in refusal(path)
    path = checkpoint(tmp_path / "y", whole, compression=zipfile.ZIP_DEFLATED)
    raw = path.read_bytes()
    for claimed in (2**32 - 2, 3):  # in the directory, which is what counts
        at = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 4)
        path.write_bytes(raw[: at + 24] + struct.pack("<I", claimed) + raw[at + 28 :])
        refusal(path)


def test_what_archivers_and_editors_leave_is_read(tmp_path):
    values = np.arange(4.0, dtype="<f4")
    for folder in ("", "a/b/", "my net\\"):
        with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_BZIP2) as file:
            file.writestr("__MACOSX/._data.pkl", b"shadow")
            file.writestr("__MACOSX/archive/data.pkl", b"shadow")
            file.writestr(f"{folder}.DS_Store", b"")
            file.writestr(f"{folder}data.pkl", state(w=tensor((4,), (1,))))
            file.writestr(f"{folder}data/0", values)
            file.writestr(f"{folder}byteorder", b"little\r\n")
            file.writestr(f"{folder}.data/serialization_id", b"1")
        np.testing.assert_array_equal(read_state_dict(tmp_path / "x")["w"], values)
    with zipfile.ZipFile(tmp_path / "x", "a") as file:
        file.writestr("other/data.pkl", b"")
    assert "more than one data.pkl" in refusal(tmp_path / "x")


def test_any_cut_of_a_file_is_a_sentence(tmp_path):
    write_state_dict(tmp_path / "x", {"w": np.ones(3, np.float32)})
    raw = (tmp_path / "x").read_bytes()
    for length in range(4, len(raw), 17):
        (tmp_path / "y").write_bytes(raw[:length])
        refusal(tmp_path / "y")
    rng = np.random.default_rng(0)
    for _ in range(40):  # any byte of the pickle may be another
        pickled = bytearray(state(w=tensor((2, 2), (2, 1))))
        pickled[rng.integers(len(pickled))] = rng.integers(256)
        path = checkpoint(tmp_path / "z", bytes(pickled))
        try:
            read_state_dict(path)
        except Exception:
            refusal(path)


def old_file(count: int = 3, raw: bytes = np.arange(3, dtype="<f4").tobytes()) -> bytes:
    """A file as torch.save wrote it before torch 1.6; Python 2 had texts of bytes."""
    whole = b"(U\x07storagectorch\nFloatStorage\nU\x0294U\x03cpuK\x03NtQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor\n(" + whole + b"K\x00K\x03\x85K\x01\x85tR"
    content = b"\x80\x02ccollections\nOrderedDict\n]]U\x01wa" + rebuilt + b"aa\x85R."
    start = b"\x80\x02" + number(0x1950A86A20F9469CFC6C) + b".\x80\x02M\xe9\x03.\x80\x02}."
    return start + content + b"\x80\x02]U\x0294a." + struct.pack("<q", count) + raw


def test_the_format_before_torch_1_6(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(old_file())
    assert read_state_dict(path)["w"].tolist() == [0, 1, 2]
    for count in (-1, 4, 2**62):
        path.write_bytes(old_file(count))
        assert "not whole" in refusal(path)
    path.write_bytes(old_file(0, b""))
    assert "needs 3 numbers of a storage that holds 0" in refusal(path)
    path.write_bytes(old_file().replace(b"Float", b"Unset"))
    assert "of an unknown type" in refusal(path)
    path.write_bytes(old_file().replace(b"]U\x0294a", b"]U\x0295a"))
    assert "storage '95' of an unknown type" in refusal(path)
    path.write_bytes(old_file().replace(b"M\xe9\x03", b"M\xe8\x03"))
    assert "unknown" in refusal(path)


def safetensors_file(path, kind: str, raw: bytes, **metadata: str):
    header = {"w": {"dtype": kind, "shape": [len(raw)], "data_offsets": [0, len(raw)]}}
    text = json.dumps({**header, **({"__metadata__": metadata} if metadata else {})}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw)
    return path


def test_floats_of_8_bits_in_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    found = read_state_dict(safetensors_file(path, "F8_E4M3", b"\x38\x40\x00\xb8", format="pt"))
    assert found["w"].dtype == ml_dtypes.float8_e4m3fn
    assert found["w"].astype(float).tolist() == [1, 2, 0, -1]
    found = read_state_dict(safetensors_file(path, "F8_E5M2", b"\x3c\x40\x00\xbc"))
    assert found["w"].astype(float).tolist() == [1, 2, 0, -1]
    found["w"][0] = 0  # arrays are their own
    refusal(safetensors_file(path, "F8_E8M0", b"\x38"))
    refusal(safetensors_file(path, "F3", b"\x38"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gzip.compress(b"x", mtime=0), "compressed with gzip; unpack it first"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html>", "a web page"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x00\x05\x16\x07" + bytes(60), "neither"),
    ],
)
def test_files_that_are_mistaken_for_weights(tmp_path, content, sentence):
    (tmp_path / "net.pt").write_bytes(content)
    assert sentence in refusal(tmp_path / "net.pt")

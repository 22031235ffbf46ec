"""Folders of state dicts of one network, and what the shapes of a network tell."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

from flown_jax.errors import UserError
from flown_jax.torch_import.files import write_state_dict
from flown_jax.weights.importers import networks, state_dicts
from tests.weights.importers import trials

SIZES = {"activation": "gelu"}
INPUTS = {"size": 28, "channels": 1, "mean": [0.5], "std": [0.5], "crop": None}


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        for epoch in (1, 2):
            write_state_dict(tmp_path / f"seed{seed}_epoch{epoch}.pt", trials.state(seed, epoch))
    (tmp_path / "notes.txt").write_text("not a network")
    return tmp_path


def test_vectors_rows_and_split(folder):
    found = state_dicts.read(folder, sizes=SIZES, dataset="mnist", inputs=INPUTS, held_out=0.3)
    assert len(found.rows) == 6 and not found.skipped and found.dataset == "mnist"
    sides = {}
    for row, weights in zip(found.rows, found.weights, strict=True):
        expected = trials.vector(trials.state(row["seed"], row["epoch"]))
        np.testing.assert_array_equal(weights, expected)
        sides.setdefault(row["seed"], set()).add(row["split"])
    assert sorted(map(tuple, sides.values())) == [("held_out",), ("train",), ("train",)]
    assert found.spec.sizes_dict["activation"] == "gelu" and found.spec.inputs_dict == INPUTS
    one = state_dicts.read(folder, sizes=SIZES, nets=1, epochs=[2], held_out=0)
    assert [(row["epoch"], row["split"]) for row in one.rows] == [(2, "train")]


def test_safetensors_lose_the_order_of_layers_but_not_the_importer(tmp_path):
    """Names say the order: the file has 11 before 3, and biases before weights."""
    state = trials.state(0, 0)
    renamed = {k.replace("module_list", "layers"): v for k, v in state.items()}
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    safetensors.numpy.save_file(renamed, tmp_path / "b.safetensors")
    assert list(safetensors.numpy.load_file(tmp_path / "b.safetensors")) != list(renamed)
    found = state_dicts.read(tmp_path, sizes=SIZES)
    for weights in found.weights:
        np.testing.assert_array_equal(weights, trials.vector(state))
    assert [row["seed"] for row in found.rows] == [None, None]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"module_list.3.bias": None}, "odd.pt has no tensor 'module_list.3.bias', which this cnn"),
        (
            {"module_list.6.weight": np.zeros((4, 6, 3, 3))},
            r"odd.pt: tensor 'module_list.6.weight'",
        ),
        (
            {"module_list.13.weight": np.zeros(2)},
            "odd.pt: tensor 'module_list.13.weight' is no part",
        ),
    ],
)
def test_a_file_of_another_network_is_refused_by_name(folder, change, sentence):
    state = {**trials.state(0, 0), **change}
    write_state_dict(folder / "odd.pt", {k: v for k, v in state.items() if v is not None})
    with pytest.raises(UserError, match=sentence):
        state_dicts.read(folder, model="cnn", sizes={**SIZES, "pools": [True, True, False]})


def test_damaged_files_are_refused_and_nan_left_out(folder):
    bad = trials.state(9, 9)
    bad["module_list.0.bias"][0] = np.inf
    write_state_dict(folder / "seed9.pt", bad)
    found = state_dicts.read(folder, sizes=SIZES)
    assert found.skipped == ["seed9.pt: NaN or infinite weights"] and len(found.rows) == 6
    path = folder / "seed9.pt"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UserError, match=r"seed9\.pt is truncated or damaged"):
        state_dicts.read(folder, sizes=SIZES)


def test_what_shapes_do_not_tell_is_asked_for(folder, tmp_path):
    with pytest.raises(UserError, match="no shape tells a CNN's activation"):
        state_dicts.read(folder)
    with pytest.raises(UserError, match="activation"):
        state_dicts.read(folder, model="cnn")
    other = tmp_path / "other"
    other.mkdir()
    write_state_dict(other / "a.pt", {"weight": np.zeros((3, 4), np.float32)})
    with pytest.raises(UserError, match="a.pt: its shapes do not tell the network; give its model"):
        state_dicts.read(other)
    with pytest.raises(UserError, match="kernels of the model cnn must be"):
        state_dicts.read(folder, sizes={**SIZES, "kernels": ["5"]})
    with pytest.raises(UserError, match="model 'lenet' is unknown"):
        state_dicts.read(other, model="lenet")
    with pytest.raises(UserError, match="there are no state dicts"):
        state_dicts.read(tmp_path / "other", epochs=[7])


@pytest.mark.parametrize(("inputs", "side", "channels"), [(16, 4, 1), (48, 4, 3), (5, 1, 5)])
def test_mlps_are_read(tmp_path, inputs, side, channels):
    shapes = {"0.weight": (2, inputs), "0.bias": (2,), "2.weight": (10, 2), "2.bias": (10,)}
    state = {
        f"module_list.{n}": np.full(s, i, np.float32) for i, (n, s) in enumerate(shapes.items())
    }
    write_state_dict(tmp_path / "a.pt", state)
    with pytest.raises(UserError, match="no shape tells an MLP's activation"):
        state_dicts.read(tmp_path, model="mlp", sizes={"hidden": [2]})
    sizes = {"hidden": [2], "activation": "relu"}
    found = state_dicts.read(tmp_path, model="mlp", sizes=sizes)
    assert found.spec.model == "mlp" and found.spec.size == 2 * inputs + 32
    read = networks.resolve("mlp", sizes, {name: v.shape for name, v in state.items()}, "a.pt")
    assert read[1]["image"] == (side, channels)


def test_images_that_do_not_fit_are_refused(folder):
    with pytest.raises(UserError, match=r"'module_list.9.weight' has shape \(20, 36\), where"):
        state_dicts.read(folder, sizes=SIZES, inputs={**INPUTS, "size": 32})
    with pytest.raises(UserError, match=r"images of 4x4"):
        state_dicts.read(folder, sizes=SIZES, inputs={**INPUTS, "size": 4})


@pytest.mark.parametrize(
    ("model", "sizes", "channels"),
    [
        ("cnn", {"num_classes": 7}, 3),
        ("cnn", {"channels": [16, 32, 15], "kernels": [3] * 3, "pools": [True] * 3}, 1),
        ("resnet18", {"width": 2, "num_classes": 5, "names": "cifar"}, 1),
        ("resnet18", {"width": 2, "num_classes": 5, "names": "torchvision"}, 3),
    ],
)
def test_shapes_tell_known_networks(model, sizes, channels):
    inputs = {"size": 32 if "kernels" in sizes else 28, "channels": channels}
    layout = networks.network(model, sizes, inputs)
    shapes = {entry.name: entry.shape for entry in layout.spec.entries}
    name, found = networks.resolve(
        None, {"activation": "tanh"} if model == "cnn" else {}, shapes, "x"
    )
    assert name == model and {k: found[k] for k in sizes} == sizes
    again = networks.network(name, found, {})
    assert again.spec.entries == layout.spec.entries


def test_shapes_of_other_networks_tell_nothing():
    layout = networks.network("resnet18", {"width": 2}, {})
    shapes = {entry.name: entry.shape for entry in layout.spec.entries}
    assert networks.infer(shapes) is not None
    assert networks.infer({**shapes, "conv1.weight": (2, 3, 7, 7)}) is None  # an ImageNet stem
    assert networks.infer({**shapes, "layer1.2.conv1.weight": (2, 2, 3, 3)}) is None  # deeper
    assert networks.infer({}) is None


def test_transformers_are_named_by_the_user(tmp_path):
    sizes = {"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}
    layout = networks.network("vit", sizes, {"size": 24, "channels": 3})
    rng = np.random.default_rng(0)
    state = {e.name: rng.normal(size=e.shape).astype(np.float32) for e in layout.spec.entries}
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    found = state_dicts.read(tmp_path, model="vit", sizes=sizes)
    np.testing.assert_array_equal(found.weights[0], trials.vector(state))


def named_cnn(names, value=0.0):
    """A CNN of two equal convolutions and a classifier, whose biases are 0, 1 and 2."""
    state = {}
    for i, (name, shape) in enumerate(zip(names, WORDS_SHAPES, strict=True)):
        state[f"{name}.weight"] = np.full(shape, value, np.float32)
        state[f"{name}.bias"] = np.full(shape[:1], float(i), np.float32)
    return state


WORDS_SHAPES = ((1, 1, 3, 3), (1, 1, 3, 3), (10, 16))
WORDS_SIZES = {
    **{"channels": [1, 1], "kernels": [3, 3], "pools": [False, False], "hidden": []},
    **{"num_classes": 10, "activation": "tanh"},
}


def test_words_keep_the_order_of_their_file(tmp_path):
    """Each wrong order would be read without a word, as the layers have one shape."""
    write_state_dict(tmp_path / "a.pt", named_cnn(("one", "four", "last")))
    write_state_dict(tmp_path / "b.pt", named_cnn(("zwei", "drei", "aus"), 1.0))
    found = state_dicts.read(tmp_path, model="cnn", sizes=WORDS_SIZES)
    for weights in found.weights:
        assert [weights[found.spec.slices[n]][0] for n in found.spec.names[1::2]] == [0, 1, 2]
    write_state_dict(tmp_path / "c.pt", named_cnn(("four", "one", "last")))
    with pytest.raises(UserError, match=r"c\.pt has its layers in another order than .*a\.pt"):
        state_dicts.read(tmp_path, model="cnn", sizes=WORDS_SIZES)


def test_sorted_words_are_refused(tmp_path):
    safetensors.numpy.save_file(named_cnn(("one", "four", "last")), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a\.safetensors: the layers four, one have one shape"):
        state_dicts.read(tmp_path, model="cnn", sizes=WORDS_SIZES)


def test_stray_files_and_other_endings(tmp_path):
    for name in ("a.pth.tar", "b.PT", "c.ckpt"):
        write_state_dict(tmp_path / name, trials.state(len(name), ord(name[0])))
    for name in ("._a.pt", ".b.pt", "~$c.pt", "d.pt~", "e.pt.tmp", "f.pt.part", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "g.pt").mkdir()
    found = state_dicts.read(tmp_path, sizes=SIZES)
    assert [row["file"] for row in found.rows] == ["a.pth.tar", "b.PT", "c.ckpt"]
    assert not found.skipped


def test_epochs_of_one_net_stay_together_without_a_seed(tmp_path):
    names = ("epoch=9-step=90", "epoch=19-step=190", "run_ep3", "run_EP4", "other_ep3", "step_ep1")
    for i, name in enumerate(names):
        write_state_dict(tmp_path / f"{name}.ckpt", trials.state(i, 0))
    for seed in range(5):
        found = state_dicts.read(tmp_path, sizes=SIZES, held_out=0.5, seed=seed)
        split = {row["file"].removesuffix(".ckpt"): row["split"] for row in found.rows}
        assert split["epoch=9-step=90"] == split["epoch=19-step=190"]
        assert split["run_ep3"] == split["run_EP4"]
        assert set(split.values()) == {"train", "held_out"}
    assert sorted(row["epoch"] for row in found.rows) == [1, 3, 3, 4, 9, 19]


def test_whole_numbers_are_no_weights(tmp_path):
    state = trials.state(0, 0)
    state["module_list.3.weight"] = state["module_list.3.weight"].astype(np.int8)
    write_state_dict(tmp_path / "a.pt", state)
    with pytest.raises(UserError, match=r"tensor 'module_list.3.weight' holds int8, where weights"):
        state_dicts.read(tmp_path, sizes=SIZES)
    state = {name: value.astype(np.float64) * 1e300 for name, value in trials.state(0, 0).items()}
    write_state_dict(tmp_path / "a.pt", state)
    with pytest.raises(UserError, match="NaN or infinite weights"):
        state_dicts.read(tmp_path, sizes=SIZES)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.model.", "module._orig_mod."])
@pytest.mark.parametrize("names", ["cifar", "torchvision"])
def test_residual_networks_behind_prefixes(tmp_path, prefix, names):
    layout = networks.network("resnet18", {"width": 2, "names": names}, {})
    entries = (*layout.spec.entries, *layout.buffers_spec.entries)
    state = {e.name: np.full(e.shape, i, np.float32) for i, e in enumerate(entries)}
    state["bn1.num_batches_tracked"] = np.asarray(3)
    write_state_dict(tmp_path / "a.pt", {f"{prefix}{k}": v for k, v in state.items()})
    safetensors.numpy.save_file(
        {f"{prefix}{k}": np.asarray(v) for k, v in state.items()}, tmp_path / "b.safetensors"
    )
    found = state_dicts.read(tmp_path)
    expected = trials.vector({e.name: state[e.name] for e in layout.spec.entries})
    for weights in found.weights:
        np.testing.assert_array_equal(weights, expected)
    assert found.spec.sizes_dict["names"] == names


def test_a_network_s_first_convolution_is_not_the_file_s(tmp_path):
    """safetensors put a ConvNeXt's stages before its stem, which tells the images' channels."""
    layout = networks.network("convnext", {"depths": [1], "dims": [8]}, {})
    state = {e.name: np.ones(e.shape, np.float32) for e in layout.spec.entries}
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    found = state_dicts.read(tmp_path, model="convnext", sizes={"depths": [1], "dims": [8]})
    assert found.weights.shape == (1, layout.spec.size)

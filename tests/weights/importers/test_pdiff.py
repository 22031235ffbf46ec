"""Trajectories: names of files, parts and whole networks, the host network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.torch_import.files import write_state_dict
from flown_jax.weights.importers import pdiff
from tests.parity import fixtures
from tests.weights.importers import trials
from tests.weights.importers.trajectory import SIZES, SUBSET, part, resnet, whole_state, write


def test_parts_of_a_network_with_their_host(tmp_path):
    write(tmp_path / "cifar100_resnet18", [part(seed) for seed in range(5)])
    write_state_dict(tmp_path / "host.pth", whole_state(7))
    found = pdiff.read(tmp_path / "cifar100_resnet18", base=tmp_path / "host.pth", held_out=0.4)
    assert found.spec.names == tuple(SUBSET) and found.spec.partial
    assert found.weights.shape == (5, 4 * 16) and found.buffers is None
    for i, row in enumerate(found.rows):
        np.testing.assert_array_equal(found.weights[i], trials.vector(part(i)))
        assert (row["seed"], row["epoch"]) == (42, i)
        assert row["test_accuracy"] == pytest.approx(0.7 + i / 10_000)
        assert row["split"] == ("train" if i < 3 else "held_out")  # the last ones
    assert (found.dataset, found.recipe["tag"]) == ("cifar100", "cifar100_resnet18")
    host = whole_state(7)
    kernel = np.asarray(found.base["params"]["layer2_0"]["shortcut_conv"]["kernel"])
    np.testing.assert_array_equal(kernel, host["layer2.0.shortcut.0.weight"].transpose(2, 3, 1, 0))
    mean = np.asarray(found.base["batch_stats"]["layer4_1"]["bn2"]["mean"])
    np.testing.assert_array_equal(mean, host["layer4.1.bn2.running_mean"])


def test_parts_without_a_host_need_the_network_s_name(tmp_path):
    write(tmp_path, [part(0), part(1)])
    with pytest.raises(UserError, match="do not tell the network; give its model and sizes"):
        pdiff.read(tmp_path)
    found = pdiff.read(tmp_path, model="resnet18", sizes=SIZES)
    np.testing.assert_array_equal(found.weights[1], trials.vector(part(1)))
    assert found.base is None
    with pytest.raises(
        UserError, match=r"'layer4.1.bn1.weight' has shape \(16,\), where .* \(24,\)"
    ):
        pdiff.read(tmp_path, model="resnet18", sizes={"width": 3})
    with pytest.raises(UserError, match=r"tensor 'layer4.1.bn1.bias' is no part of this convnext"):
        pdiff.read(tmp_path, model="convnext", sizes={"depths": [1], "dims": [8]})


def test_whole_networks_bring_their_statistics(tmp_path):
    states = [whole_state(seed) for seed in range(3)]
    states[1]["layer1.0.bn1.running_var"][0] = np.nan
    found = pdiff.read(write(tmp_path / "full" / "cifar10_resnet18", states), epochs=[0, 1])
    layout = resnet()
    assert found.spec == layout.spec and found.buffers_spec == layout.buffers_spec
    assert len(found.rows) == 1 and "0001_acc" in found.skipped[0] and "NaN" in found.skipped[0]
    for values, spec in ((found.weights, found.spec), (found.buffers, found.buffers_spec)):
        expected = trials.vector({name: states[0][name] for name in spec.names})
        np.testing.assert_array_equal(values[0], expected)


def test_small_cnns_may_have_any_names(tmp_path):
    state = {f"cnn.{k}": v for k, v in trials.state(1, 1, (1, 4, 7, 11, 13)).items()}
    write(tmp_path, [state], "mnist_cnnsmall")
    with pytest.raises(UserError, match="no shape tells a CNN's activation"):
        pdiff.read(tmp_path)
    found = pdiff.read(tmp_path / "checkpoint", sizes={"activation": "leakyrelu"})
    np.testing.assert_array_equal(found.weights[0], trials.vector(state))
    assert found.dataset == "mnist"


def test_other_files_are_named_or_refused(tmp_path):
    write(tmp_path, [whole_state(0)])
    write_state_dict(tmp_path / "checkpoint" / "best.pth", whole_state(0))
    found = pdiff.read(tmp_path)
    assert len(found.rows) == 1 and found.skipped[0].startswith("best.pth: its name is not")
    write(tmp_path, [whole_state(0), {"conv1.weight": np.zeros((2, 3, 3, 3), np.float32)}])
    with pytest.raises(UserError, match=r"0001_acc.*\.pth has no tensor 'bn1.weight'"):
        pdiff.read(tmp_path)
    old = tmp_path / "old"
    old.mkdir()
    with pytest.raises(UserError, match="there are no states of a trajectory in"):
        pdiff.read(old)
    (old / "data.pt").touch()
    with pytest.raises(UserError, match=r"data\.pt holds a pickled module"):
        pdiff.read(old)


def renamed(folder, i, name):
    (path,) = (folder / "checkpoint").glob(f"{i:04d}_*")
    path.rename(path.with_name(name))


def test_states_come_by_number_and_from_one_training(tmp_path):
    write(tmp_path, [part(i) for i in range(3)])
    renamed(tmp_path, 0, "10000_acc0.7000_seed0042_cifar100_resnet18.pth")
    (tmp_path / "checkpoint" / "._0001_acc0.7001_seed0042_cifar100_resnet18.pth").touch()
    renamed(tmp_path, 1, "9999_acc1.5000_seed0042_cifar100_resnet18.pth")
    found = pdiff.read(tmp_path, model="resnet18", sizes=SIZES, held_out=0.5)
    assert [row["epoch"] for row in found.rows] == [2, 10000]
    assert [row["split"] for row in found.rows] == ["train", "held_out"]
    assert len(found.skipped) == 1 and found.skipped[0].startswith("9999_acc1.5000")
    renamed(tmp_path, 2, "2_acc0.7000_seed0043_cifar100_resnet18.pth")
    with pytest.raises(UserError, match=r"several trainings \(seed0042_.*, seed0043_"):
        pdiff.read(tmp_path, model="resnet18", sizes=SIZES)
    (tmp_path / "checkpoint" / "2_acc0.7000_seed0043_cifar100_resnet18.pth").unlink()
    write(tmp_path, [part(0)])
    renamed(tmp_path, 0, "010000_acc0.7000_seed0042_cifar100_resnet18.pth")
    with pytest.raises(UserError, match="have one number"):
        pdiff.read(tmp_path, model="resnet18", sizes=SIZES)


def test_prefixes_of_parts_and_of_the_host(tmp_path):
    before = [{f"module.{k}": v for k, v in part(seed).items()} for seed in range(2)]
    write(tmp_path, before)
    host = {f"model._orig_mod.{k}": v for k, v in whole_state(7).items()}
    write_state_dict(tmp_path / "host.pth", host)
    found = pdiff.read(tmp_path, base=tmp_path / "host.pth")
    assert found.spec.names == tuple(SUBSET)
    np.testing.assert_array_equal(found.weights[1], trials.vector(part(1)))


@pytest.mark.parametrize("source", fixtures.SOURCES)
def test_parity_of_a_part_in_its_host(tmp_path, source):
    """Vector and logits of the original ResNet-18 with four of its tensors replaced."""
    fixture = fixtures.load("zoo_models", source)
    host = {
        k.removeprefix("resnet."): v for k, v in fixture.params.items() if k.startswith("resnet.")
    }
    write_state_dict(tmp_path / "host.pth", host)
    subset = fixture.config["resnet."]["subset"]
    new, start = {}, 0
    for name in subset:
        values = fixture.inputs["resnet.subset_vector"][start : start + host[name].size]
        new[name], start = values.reshape(host[name].shape), start + host[name].size
    write(tmp_path, [{name: host[name] for name in subset}, new])
    found = pdiff.read(tmp_path, base=tmp_path / "host.pth")
    np.testing.assert_array_equal(found.weights[0], fixture.outputs["resnet.bn_subset"])
    images = jnp.asarray(fixture.inputs["resnet.x"].transpose(0, 2, 3, 1))
    logits = jax.jit(found.spec.apply)(jnp.asarray(found.weights[1]), images, found.base)
    fixtures.assert_close(logits, fixture.outputs["resnet.logits_subset"], 3e-6)

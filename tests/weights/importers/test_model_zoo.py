"""Folders of trials: which models are found, with which numbers, and what is left out."""

from __future__ import annotations

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.torch_import.files import write_state_dict
from flown_jax.weights.importers import known, model_zoo, networks
from tests.parity import fixtures
from tests.weights.importers import trials

LAST = range(46, 51)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "tune_zoo_f_mnist_uniform"
    return trials.write_zoo(folder, write_state_dict)


@trials.WRITERS
def test_vectors_are_those_of_the_files(tmp_path, save):
    folder = trials.write_zoo(tmp_path / "tune_zoo_mnist_uniform", save)
    found = model_zoo.read(folder, epochs=LAST)
    assert found.weights.shape == (3 * 5 + 4 + 4 + 5 + 5 + 4, 2464)
    assert found.weights.dtype == np.float32
    for row, weights in zip(found.rows, found.weights, strict=True):
        expected = trials.state(row["seed"], row["epoch"])
        np.testing.assert_array_equal(weights, trials.vector(expected))


def test_rows_tell_the_accuracies_of_their_epoch(zoo):
    found = model_zoo.read(zoo)
    keys = [(row["trial"], row["epoch"]) for row in found.rows]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert {row["seed"] for row in found.rows} == {1, 2, 3, 5, 6, 7, 8, 10}
    for row in found.rows:
        assert row["trial"] == trials.trial_name(row["seed"])
        assert row["test_accuracy"] == trials.accuracy(row["seed"], row["epoch"])
        assert row["train_accuracy"] == 0.4 and row["test_loss"] == 1.5
        assert row["train_loss"] is None  # NaN in the file
        assert row["validation_accuracy"] == (None if row["seed"] == 1 else 0.25)
    assert {row["epoch"] for row in found.rows if row["seed"] == 8} == set(trials.EPOCHS)
    json.dumps(found.rows, allow_nan=False)


def test_the_last_of_repeated_rows_counts(tmp_path):
    folder = tmp_path / "mnist"
    result = trials.write_trial(folder, 2, write_state_dict, epochs=(46, 47)) / "result.json"
    result.write_text(
        '{"training_iteration": 46, "test_acc": 0.1}\n'
        '{"training_iteration": 46, "test_acc": 0.2}\n{"training_it'
    )
    found = model_zoo.read(folder)
    assert [row["test_accuracy"] for row in found.rows] == [0.2, None]


def test_what_is_left_out_is_named_with_its_reason(zoo):
    found = model_zoo.read(zoo, epochs=LAST)
    reasons = {
        (4, ""): "error.txt",
        (5, ", epoch 48"): "no checkpoint",
        (6, ", epoch 47"): "NaN",
        (9, ""): "no params.json",
        (10, ", epoch 49"): "truncated or damaged",
    }
    assert len(found.skipped) == len(reasons)
    for ((seed, epoch), reason), sentence in zip(reasons.items(), found.skipped, strict=True):
        assert sentence.startswith(f"{trials.trial_name(seed)}{epoch}: ") and reason in sentence


def test_spec_data_set_and_recipe_travel_with_the_vectors(zoo):
    found = model_zoo.read(zoo)
    assert found.dataset == "fashion_mnist"
    assert found.spec.model == "cnn" and found.spec.size == 2464
    assert found.spec.names[::2] == tuple(f"module_list.{i}.weight" for i in trials.KEYS)
    sizes = found.spec.sizes_dict
    assert (sizes["activation"], sizes["num_classes"], sizes["dropout"]) == ("tanh", 10, 0.0)
    assert found.spec.inputs_dict == {
        "size": 28,
        "channels": 1,
        "mean": [0.5],
        "std": [0.5],
        "crop": None,
    }
    assert found.recipe["optim::lr"] == 0.0003 and found.recipe["folder"] == zoo.name
    assert not {"model::o_dim", "model::dropout", "dataset::dump"} & set(found.recipe)
    dropouts = {row["seed"]: row["model::dropout"] for row in found.rows}
    assert dropouts.pop(7) == 0.5 and set(dropouts.values()) == {0}


def test_nets_are_split_whole_and_by_the_seed_alone(zoo):
    def split(**options):
        sides = {}
        for row in model_zoo.read(zoo, **options).rows:
            sides.setdefault(row["seed"], set()).add(row["split"])
        assert all(len(found) == 1 for found in sides.values())
        return {seed for seed, found in sides.items() if found == {"held_out"}}

    first = split(held_out=0.4)
    assert len(first) == 3  # of 8 nets, rounded
    assert split(held_out=0.4, epochs=[50]) == first
    assert any(split(held_out=0.4, epochs=[50], seed=seed) != first for seed in (1, 2))
    assert split(held_out=0.0) == set() and len(split(held_out=0.01)) == 1
    with pytest.raises(UserError, match="held_out is 1, where a share"):
        split(held_out=1.0)


def test_some_nets_and_some_epochs_are_drawn(zoo):
    found = model_zoo.read(zoo, epochs=LAST, nets=4, per_net=1)
    again = model_zoo.read(zoo, epochs=LAST, nets=4, per_net=1)
    assert found.rows == again.rows and len({row["seed"] for row in found.rows}) == 4
    assert len(found.rows) == 4 and {row["epoch"] for row in found.rows} <= set(LAST)
    other = model_zoo.read(zoo, epochs=LAST, nets=4, per_net=1, seed=1)
    assert other.rows != found.rows
    # A broken epoch is made up for by another one, a broken net by another net.
    everything = model_zoo.read(zoo, epochs=LAST, nets=8, per_net=3)
    assert len(everything.rows) == 8 * 3


def test_weights_above_the_threshold_are_left_out(tmp_path):
    folder = tmp_path / "mnist"
    trials.write_trial(
        folder,
        1,
        write_state_dict,
        epochs=(0, 50),
        make=lambda seed, epoch: {
            k: v / np.abs(v).max() * (epoch + 1) for k, v in trials.state(seed, epoch).items()
        },
    )
    found = model_zoo.read(folder, weight_threshold=5)
    assert [row["epoch"] for row in found.rows] == [0]
    assert found.skipped[0].endswith("epoch 50: a weight of 51 is above the threshold 5")
    with pytest.raises(UserError, match=r"none of the trials in .* can be used: .* threshold 0.5"):
        model_zoo.read(folder, weight_threshold=0.5)


def test_a_zoo_of_several_activations_asks_for_one(tmp_path):
    folder = tmp_path / "tune_zoo_mnist_hyperparameter"
    for seed, activation in enumerate(("tanh", "gelu", "tanh")):
        params = {"model::nlin": activation}
        trials.write_trial(folder, seed, write_state_dict, epochs=(50,), params=params)
    with pytest.raises(UserError, match=r"several activations, choose one: gelu \(1\), tanh \(2\)"):
        model_zoo.read(folder)
    found = model_zoo.read(folder, activation="gelu")
    assert [row["seed"] for row in found.rows] == [1]
    assert found.spec.sizes_dict["activation"] == "gelu" and len(found.skipped) == 2
    with pytest.raises(UserError, match="no net of activation relu, but gelu, tanh|tanh, gelu"):
        model_zoo.read(folder, activation="relu")


def test_a_net_of_another_kind_is_left_out(tmp_path):
    folder = tmp_path / "mnist"
    trials.write_trial(folder, 1, write_state_dict, epochs=(50,))
    colour = ((8, 3, 5, 5), *trials.SHAPES[1:])
    for seed in (2, 3):
        trials.write_trial(
            folder,
            seed,
            write_state_dict,
            epochs=(50,),
            make=lambda seed, epoch: trials.state(seed, epoch, shapes=colour),
        )
    # The zoo's kind is that of the net drawn first.
    first = next(i for i in range(99) if np.random.default_rng(i).permutation(3)[0] == 0)
    found = model_zoo.read(folder, seed=first)
    assert [row["seed"] for row in found.rows] == [1]
    wanted = "tensor 'module_list.0.weight' has shape (8, 3, 5, 5), where this cnn has (8, 1, 5, 5)"
    assert len(found.skipped) == 2 and all(wanted in sentence for sentence in found.skipped)


def test_an_unnamed_activation_is_asked_for(tmp_path):
    trial = trials.write_trial(tmp_path / "mnist", 5, write_state_dict, epochs=(50,))
    (trial / "params.json").write_text("{}")
    with pytest.raises(UserError, match="names no activation; give activation"):
        model_zoo.read(tmp_path / "mnist")
    found = model_zoo.read(tmp_path / "mnist", activation="sigmoid")
    assert found.spec.sizes_dict["activation"] == "sigmoid"
    assert found.rows[0]["seed"] == 5  # from the trial's name


def test_residual_networks_bring_their_statistics(tmp_path):
    sizes = {"width": 2, "num_classes": 100, "names": "torchvision"}
    layout = networks.network("resnet18", sizes, {})
    rng = np.random.default_rng(0)
    entries = (*layout.spec.entries, *layout.buffers_spec.entries)
    state = {e.name: rng.uniform(0.5, 1, e.shape).astype(np.float32) for e in entries}
    counted = {**state, "bn1.num_batches_tracked": np.asarray(1000)}
    folder = tmp_path / "tune_zoo_cifar100_resnet18"
    params = {"model::type": "Resnet18", "model::nlin": "relu"}
    trials.write_trial(
        folder, 1, write_state_dict, epochs=(60,), make=lambda *_: counted, params=params
    )
    with pytest.raises(UserError, match="give inputs"):
        model_zoo.read(folder)
    inputs = {"size": 32, "channels": 3, "mean": [0.5], "std": [0.2], "crop": None}
    found = model_zoo.read(folder, inputs=inputs)
    assert (found.dataset, found.spec.model) == ("cifar100", "resnet18")
    assert found.spec.sizes_dict == sizes
    for values, spec in ((found.weights, found.spec), (found.buffers, found.buffers_spec)):
        expected = trials.vector({name: state[name] for name in spec.names})
        np.testing.assert_array_equal(values[0], expected)


def test_unknown_preprocessing_is_asked_for(tmp_path):
    folder = tmp_path / "my_nets"
    trials.write_trial(folder, 1, write_state_dict, epochs=(50,))
    with pytest.raises(UserError, match=r"give inputs: size, channels, mean and std"):
        model_zoo.read(folder)
    assert model_zoo.read(folder, dataset="usps").spec.inputs_dict["mean"] == [0.1307]
    inputs = {"size": 28, "channels": 1, "mean": [0.2], "std": [0.3], "crop": None}
    found = model_zoo.read(folder, inputs=inputs)
    assert found.spec.inputs_dict == inputs and found.dataset == ""


@pytest.mark.parametrize(
    "name", ["emnist", "castle_nets", "pathmnist", "q_mnist", "mnist_m", "mnist2", "cifar1000"]
)
def test_a_spelling_within_a_longer_word_says_nothing(name):
    assert known.dataset_in(name) == ""


def test_an_image_set_of_other_classes_is_not_read_off_a_name(tmp_path):
    shapes = (*trials.SHAPES[:-1], (7, 20))
    make = functools.partial(trials.state, shapes=shapes)
    trials.write_trial(tmp_path / "mnist", 1, write_state_dict, epochs=(50,), make=make)
    with pytest.raises(UserError, match="says mnist, which has 10 classes, but .* have 7; give"):
        model_zoo.read(tmp_path / "mnist")
    assert model_zoo.read(tmp_path / "mnist", dataset="mnist").dataset == "mnist"


def test_percent_is_refused_and_what_is_no_number_left_out(tmp_path):
    trial = trials.write_trial(tmp_path / "mnist", 1, write_state_dict, epochs=(0, 1))
    params = json.loads((trial / "params.json").read_text())
    (trial / "params.json").write_text(json.dumps({**params, "optim::lr": float("nan")}))
    lines = '{"training_iteration": 0, "test_acc": 0.5, "test_loss": 1e999}\n' + "[" * 100_000
    (trial / "result.json").write_text(lines)
    found = model_zoo.read(tmp_path / "mnist")
    assert found.recipe["optim::lr"] is None and found.rows[0]["test_loss"] is None
    assert [row["test_accuracy"] for row in found.rows] == [0.5, None]
    lines = '{"training_iteration": 0, "test_acc": 0.5}\n{"training_iteration": 1, "test_acc": 9.5}'
    (trial / "result.json").write_text(lines)
    with pytest.raises(UserError, match="test_acc 9.5 in epoch 1, where a share in 0..1"):
        model_zoo.read(tmp_path / "mnist", epochs=[0])
    (trial / "result.json").unlink()
    (trial / "params.json").write_text(json.dumps({**params, "model::dropout": "some"}))
    with pytest.raises(UserError, match="model::dropout in params.json that is no rate"):
        model_zoo.read(tmp_path / "mnist")


def test_folders_without_trials_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        model_zoo.read(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot read .*: File name too long"):
        model_zoo.read(tmp_path / ("n" * 300))
    with pytest.raises(UserError, match="there are no trials in"):
        model_zoo.read(tmp_path)
    archive = tmp_path / "zoo.zip"
    archive.touch()
    with pytest.raises(UserError, match="is an archive; unpack it"):
        model_zoo.read(archive)
    (tmp_path / "dataset_torch.pt").touch()
    with pytest.raises(UserError, match=r"dataset\*\.pt.*download the zoo's raw zip"):
        model_zoo.read(tmp_path)
    trials.write_trial(tmp_path / "mnist", 1, write_state_dict, epochs=(50,))
    with pytest.raises(UserError, match="none has an epoch that is asked for"):
        model_zoo.read(tmp_path / "mnist", epochs=[3])


@pytest.mark.parametrize(
    ("name", "dataset", "channels", "side"),
    [
        ("tune_zoo_mnist_uniform", "mnist", 1, 28),
        ("tune_zoo_f_mnist_uniform", "fashion_mnist", 1, 28),
        ("tune_zoo_svhn_uniform", "svhn_cropped", 1, 28),
        ("tune_zoo_usps_uniform", "usps", 1, 28),
        ("tune_zoo_cifar10_uniform_small", "cifar10", 3, 28),
        ("cifar_large_seed", "cifar10", 3, 32),
        ("tune_zoo_stl_uniform_large", "stl10", 3, 32),
    ],
)
def test_preprocessing_of_the_published_zoos(name, dataset, channels, side):
    assert known.dataset_in("results", name) == dataset
    inputs = known.zoo_inputs(dataset, channels, side)
    assert Preprocessing.from_dict(inputs).to_dict() == inputs
    assert inputs["crop"] == (28 if dataset == "svhn_cropped" else None)
    assert known.zoo_inputs(dataset, 4 - channels, side) is None


@pytest.mark.parametrize("case", ["small1", "small3", "medium1", "medium3", "dropout"])
def test_parity_with_the_zoo_code(tmp_path, case):
    """Vector and logits of the original network, through file, importer and spec."""
    fixture = fixtures.load("zoo_models", "published")
    state = {
        k.removeprefix(f"{case}."): v for k, v in fixture.params.items() if k.startswith(f"{case}.")
    }
    images = fixture.inputs[f"{case}.x"].transpose(0, 2, 3, 1)
    channels = images.shape[-1]
    kind = {1: "tanh", 3: "gelu"}[channels] if case != "dropout" else "leakyrelu"
    trials.write_trial(
        tmp_path / "zoo",
        1,
        write_state_dict,
        epochs=(50,),
        make=lambda seed, epoch: state,
        params={"model::nlin": kind, "model::dropout": 0.5 if case == "dropout" else 0},
    )
    inputs = {"size": images.shape[1], "channels": channels, "mean": [0.5], "std": [0.5]}
    found = model_zoo.read(tmp_path / "zoo", inputs=inputs)
    assert found.spec.names == tuple(state)
    np.testing.assert_array_equal(found.weights[0], fixture.outputs[f"{case}.vector"])
    if case in ("small1", "medium3"):  # each of the others is like one of these
        return
    logits = found.spec.apply(jnp.asarray(found.weights[0]), jnp.asarray(images))
    fixtures.assert_close(logits, fixture.outputs[f"{case}.logits"], 3e-6, case)

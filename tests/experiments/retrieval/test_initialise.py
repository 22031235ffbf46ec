"""The table of starts: what is trained on what, what is refused, what a kill leaves."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs.retrieval import get_config
from experiments.retrieval import initialise as module
from experiments.retrieval.check import check
from experiments.retrieval.designs import Design
from experiments.retrieval.initialise import STARTS
from experiments.retrieval.measure import units
from experiments.retrieval.zoos import Data
from experiments.stages import Stages
from flown_jax.data.pictures import Images, Pictures
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.training import tuning
from flown_jax.training.fine_tuning import accuracy, fine_tune
from flown_jax.training.stages import StageResult
from flown_jax.training.trees import load_tree
from flown_jax.training.workdir import Workdir
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.zoo import Zoo

INPUTS = Preprocessing(size=4, channels=1, mean=(0.5,), std=(0.5,))
NETWORK = CNN(channels=(2,), kernels=(4,), pools=(False,), hidden=(), num_classes=10)
RECIPE = {"optimizer": "sgd", "learning_rate": 0.05, "batch": 5, "initialisation": "uniform"}
NAMES = ("latin", "digits")
UNSEEN = {"greek": "latin", "usps": "latin"}


def spec_of():
    shapes = jax.eval_shape(
        lambda key: initialise_cnn(key, NETWORK, (4, 4, 1), "uniform"), jax.random.key(0)
    )
    return WeightSpec.from_module(NETWORK, {"params": shapes}, inputs=INPUTS.to_dict())


SPEC = spec_of()


def config(**changes):
    found = get_config("tiny").copy_and_resolve_references()
    found.unlock()
    given = {"epochs": (0, 1), "runs": 2, "rates": (0.0001, 1.0), "images": 20, "tuned_at": 1}
    found.initialise = {**found.initialise.to_dict(), **given, **changes}
    return found


PLACES = {"latin": 0.0, "digits": 10.0, "greek": 9.0, "usps": 0.0}


@pytest.fixture(scope="module", autouse=True)
def generated():
    """Networks that are drawn without a meta-model."""

    def decode(z, context):
        return z + np.linspace(-1, 1, SPEC.size, dtype=np.float32)

    with pytest.MonkeyPatch.context() as patch:
        at = np.float32
        patch.setattr(module, "draw", lambda given, name, n, row: np.full((n, 1), at(PLACES[name])))
        patch.setattr(module, "latents_of", lambda codec: SimpleNamespace(decode=decode))
        yield


def data_of(unseen):
    """Two zoos of three networks each, and foreign sets, without their training."""
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(size=(3, SPEC.size)).astype(np.float32) for n in NAMES}
    table = {"seed": [0, 1, 2], "epoch": [1, 1, 1]}
    zoos = {n: Zoo(w, SPEC, table, n, RECIPE) for n, w in weights.items()}
    images = rng.integers(0, 256, size=(40, 4, 4, 1), dtype=np.uint8)
    part = Pictures(images, np.arange(40) % 10, INPUTS)
    present = {name: like for name, like in unseen.items() if name != "usps"}
    every = dict.fromkeys((*NAMES, *present), Images(part, part, part, tuple("abcdefghij")))
    return Data(zoos, zoos, every, present)


def run(folder, **changes):
    whole, data = config(**changes), data_of(changes["unseen"])
    known = {name: {"a": np.full((4, 1, 1), at)} for name, at in PLACES.items()}
    conditions = done("conditions", {"train": known, "validation": known})
    design = Design("", whole, {}, done("codec", {}), conditions)
    aligned = done("aligned", {"train": {n: w + 1 for n, w in data.weights.items()}})
    with Workdir(folder, {}) as work:
        flow, of = done("flow", {}), units(data, conditions)
        found = module.initialise(Stages(work), whole, data, design, flow, aligned, of)
    return data, found, folder


def done(name, values):
    return StageResult(name, name, None, values, 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), unseen=UNSEEN)


def test_every_start_of_every_set_is_in_the_table(whole):
    _, result, _ = whole
    found = {}
    for row in result["rows"]:
        found.setdefault(row["set"], {}).setdefault(row["method"], []).append(row["metric"])
    assert all(row["over"] == "runs" for row in result["rows"])
    # Here the Greek set has the images of the Latin one, and takes its networks.
    assert len({row["unit"] for row in result["rows"]}) == 2
    assert list(found) == ["latin", "digits", "greek"]
    assert list(found["latin"]) == list(found["digits"]) == list(STARTS)
    assert list(found["greek"]) == [start for start in STARTS if start != "originals"]
    metrics = ["accuracy_epoch_0", "accuracy_epoch_1", "learning_rate"]
    assert all(part == metrics for own in found.values() for part in own.values())
    assert set(result["curves"]) == set(result["rates"]) == set(found)


def test_means_and_other_networks_are_those_of_the_nearest_set(whole):
    data, result, _ = whole
    test = data.images["latin"].test

    def at_start(name, start):
        return result["curves"][name][start]["mean"][0]

    def of(vectors):
        return accuracy(SPEC, np.atleast_2d(vectors), test.inputs, test.labels)

    digits, latin = (data.zoos[name].weights for name in ("digits", "latin"))
    # The Greek letters are nearest to the digits, though they take the network of the Latin ones.
    assert at_start("greek", "raw_mean") == pytest.approx(of(digits.mean(0))[0])
    assert at_start("greek", "aligned_mean") == pytest.approx(of(digits.mean(0) + 1)[0])
    assert at_start("latin", "raw_mean") == pytest.approx(of(latin.mean(0))[0])
    # Two of the three networks.
    pairs = (of(latin) + np.roll(of(latin), 1)) / 2
    assert np.isclose(pairs, at_start("digits", "trained_other")).any()
    remarks = " ".join(result["remarks"]["greek"])
    assert "means of the networks of digits" in remarks and "networks of digits" in remarks


def test_a_set_that_is_not_on_the_disk_is_named(whole):
    _, result, _ = whole
    assert result["remarks"]["usps"] == ["usps is not on this disk and is left out."]
    assert "usps" not in result["curves"]


def test_rates_are_chosen_and_training_helps(whole):
    _, result, _ = whole
    rates = result["rates"]["latin"]
    assert set(np.round(list(rates.values()), 9)) <= {0.05, 5e-6}
    line = result["curves"]["latin"]["kaiming_normal"]
    assert rates["kaiming_normal"] == pytest.approx(0.05)
    assert line["mean"][1] != line["mean"][0]


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, monkeypatch, whole):
    calls = []
    tune = fine_tune

    def killed(context, *args, name, **given):
        calls.append((context.name, name))
        if len(calls) in (2, 5):
            raise KeyboardInterrupt
        return tune(context, *args, name=name, **given)

    monkeypatch.setattr(tuning, "fine_tune", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, unseen=UNSEEN)
        # What was trained before the kill is there to go on from.
        if len(calls) == 2:
            progress = tmp_path / "stages" / "initialise-latin" / "progress"
            assert [path.name for path in progress.iterdir()] == ["rates"]
    own = [("initialise-latin", name) for name in ("rates", "runs")]
    assert calls == [*own, *own, ("initialise-digits", "rates")]
    found, wanted = (
        load_tree(folder / "stages" / "initialise-latin" / "outputs.safetensors")
        for folder in (tmp_path, whole[2])
    )
    for name in ("rates", "accuracy"):
        np.testing.assert_array_equal(found[name], wanted[name])


def test_one_rate_is_not_tuned(tmp_path, monkeypatch):
    names = []

    def noted(context, spec, vectors, *, seeds, learning_rates, epochs, name, **given):
        names.append(name)
        shape = (len(epochs), len(vectors))
        assert len(seeds) == len(vectors) == len(learning_rates)
        assert given["optimizer"].steps == 2 * 20 // 5 and len(given["images"]) == 20
        return {
            "weights": np.broadcast_to(vectors, (len(epochs), *vectors.shape)),
            "train_loss": np.zeros(shape),
        }

    monkeypatch.setattr(tuning, "fine_tune", noted)
    _, result, _ = run(tmp_path, unseen={}, rates=(3.0,), epochs=(0, 2), tuned_at=7)
    assert names == ["runs", "runs"]
    assert set(result["rates"]["latin"].values()) == {0.05 * 3.0}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": ()}, "initialise.epochs is"),
        ({"epochs": (0, 5, 5)}, r"epochs is \(0, 5, 5\); it is whole numbers .* rising"),
        ({"epochs": (-1, 2)}, "each a whole number from 0"),
        ({"rates": ()}, "initialise.rates is"),
        ({"rates": (1.0, 0.0)}, "each a finite number above 0"),
        ({"tuned_at": 0}, "tuned_at is 0; it is an epoch from 1 to the last"),
        ({"tuned_at": 2}, "the last of initialise.epochs, 1"),
        ({"runs": 0}, "initialise.runs is 0"),
        ({"runs": 6}, "from 1 to 5"),
        ({"images": -1}, "initialise.images is -1"),
        ({"unseen": {"greek": "mnist"}}, "initialise.unseen.greek is 'mnist'.*latin"),
        ({"unseen": {"colour_symbols": "latin"}}, "colour_symbols, which has a zoo"),
        ({"unseen": {"uspss": "latin"}}, "uspss"),
        ({"unseen": {"cifar100": "latin"}}, "tell 10 classes apart; cifar100 has 100"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        check(config(**changes))


def test_all_variants_can_be():
    for variant in ("default", "tiny", "real", "init", "paper"):
        check(get_config(variant))

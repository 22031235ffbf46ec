"""The meta-model in a user's hands: generate, run, carry away, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax import GeneratedNetworks, MetaModel
from flown_jax.errors import UserError
from flown_jax.few_shot.sampling import draw_heads
from flown_jax.files import sha256_of
from flown_jax.flow import get_source
from flown_jax.image_encoders import from_function, from_module
from flown_jax.meta_model import folders
from flown_jax.meta_model.build import build
from flown_jax.models import heads as linear
from flown_jax.models.resnet12 import ResNet12
from flown_jax.training.stages import FORMAT
from flown_jax.training.trees import save_tree
from tests.few_shot import small
from tests.layers.helpers import quick_jit

ABOUT = small.description(entries=("caml", "features"))


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global ARRAYS, MODEL, NETWORKS, ANY_WAY
    ARRAYS = small.arrays(ABOUT)
    MODEL = MetaModel(build(ABOUT, ARRAYS), ARRAYS)
    NETWORKS = MODEL.generate(IMAGES, LABELS, samples=3)
    ANY_WAY = model_of()


IMAGES = np.random.default_rng(0).integers(0, 256, (4, small.SIDE, small.SIDE), dtype=np.uint8)
LABELS = ["fox", "owl", "fox", "cat"]


def model_of(form="token", entries=("features", "shots"), side=0):
    """A meta-model of other parts."""
    about = small.description(form, entries, side)
    arrays = small.arrays(about)
    return MetaModel(build(about, arrays), arrays)


def test_a_model_is_shown_in_a_line():
    assert repr(MODEL).startswith("MetaModel(") and len(repr(MODEL)) < 200
    assert ABOUT["trained_on"] in repr(MODEL) and str(tuple(ABOUT["latent_shape"])) in repr(MODEL)


def four_numbers(images):
    """Features of an image encoder that is a function: means of four rows."""
    return images.mean((2, 3))[:, ::4]


def six_numbers(images):
    """The same of another width."""
    return images.mean((2, 3))[:, :6]


def named(function):
    return f"{__name__}:{function.__name__}"


def resnet(width, **form):
    """A random encoder of so many features."""
    image = np.zeros((1, small.SIDE, small.SIDE, 1), np.float32)
    network = ResNet12((4, 4, 4, width))
    rng = np.random.default_rng(9)
    variables = small.random_variables(rng, network.init, jax.random.key(0), image)
    return from_module(network, variables, **form)


def test_classes_keep_the_order_of_their_first_appearance():
    assert NETWORKS.classes == ("fox", "owl", "cat")
    assert NETWORKS.heads.shape == (3, small.WAY, small.WIDTH + 1)
    assert NETWORKS.nfe == 3


def test_probabilities_are_averages_over_the_networks():
    whole = NETWORKS.predict(IMAGES)
    each = NETWORKS.predict(IMAGES, average=False)
    assert each.shape == (3, 4, small.WAY)
    np.testing.assert_allclose(whole, each.mean(0), atol=1e-7)
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-6)
    assert NETWORKS.classify(IMAGES) == [NETWORKS.classes[c] for c in whole.argmax(-1)]


def test_labels_may_be_of_any_kind_and_images_of_any_accepted_type():
    numbers = MODEL.generate(IMAGES, np.array([7, 3, 7, 5]), samples=3)
    floats = MODEL.generate(IMAGES[..., None] / 255.0, [(7,), (3,), (7,), (5,)], samples=3)
    np.testing.assert_array_equal(numbers.heads, NETWORKS.heads)
    np.testing.assert_allclose(floats.heads, NETWORKS.heads, atol=1e-5)
    assert numbers.classes == (7, 3, 5)


def test_class_names_fix_the_order():
    named = MODEL.generate(IMAGES, LABELS, class_names=["cat", "fox", "owl"], samples=1)
    assert named.classes == ("cat", "fox", "owl")


def test_without_a_number_as_many_are_drawn_as_the_experiment_drew():
    networks = ANY_WAY.generate(IMAGES, ["a", "b", "a", "b"])
    assert len(networks.heads) == ANY_WAY.description["sampling"]["samples"] == 4
    assert ANY_WAY.description["trained_on"] == "nothing"
    with pytest.raises(UserError, match="samples is 0; at least 1 network must be drawn"):
        MODEL.generate(IMAGES, LABELS, samples=0)


def test_heads_are_like_no_data_set():
    with pytest.raises(UserError) as told:
        MODEL.generate(IMAGES, LABELS, like="mnist")
    assert str(told.value) == (
        "like is 'mnist'; it is for whole networks, not for heads of 5 columns."
    )


def test_a_torch_linear_loads_a_state_dict_and_gives_the_same_logits():
    torch = pytest.importorskip("torch")
    features = MODEL.features(MODEL._images(IMAGES))
    each = NETWORKS.predict(IMAGES, average=False)
    states = NETWORKS.state_dicts()
    assert len(states) == 3
    for state, probabilities in zip(states, each, strict=True):
        layer = torch.nn.Linear(small.WIDTH, small.WAY)
        layer.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        with torch.no_grad():
            logits = layer(torch.from_numpy(np.array(features)))
        expected = linear.logits(
            jnp.concatenate([state["weight"], state["bias"][:, None]], -1), jnp.asarray(features)
        )
        np.testing.assert_allclose(logits.numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(logits.softmax(-1).numpy(), probabilities, atol=1e-5)


def test_a_state_dict_has_the_rows_and_biases_of_its_head():
    for state, head in zip(NETWORKS.state_dicts(), NETWORKS.heads, strict=True):
        assert set(state) == {"weight", "bias"}
        np.testing.assert_array_equal(state["weight"], head[:, :-1])
        np.testing.assert_array_equal(state["bias"], head[:, -1])


def test_another_seed_draws_other_networks():
    assert not np.allclose(MODEL.generate(IMAGES, LABELS, samples=3, seed=1).heads, NETWORKS.heads)


def test_an_exported_model_predicts_the_same(tmp_path):
    MODEL.export(tmp_path / "model")
    loaded = MetaModel.load(tmp_path / "model")
    networks = loaded.generate(IMAGES, LABELS, samples=3)
    np.testing.assert_array_equal(networks.predict(IMAGES), NETWORKS.predict(IMAGES))
    NETWORKS.save(tmp_path / "heads.safetensors")
    again = GeneratedNetworks.load(tmp_path / "heads.safetensors", loaded)
    assert again.classes == NETWORKS.classes
    np.testing.assert_array_equal(again.predict(IMAGES), NETWORKS.predict(IMAGES))


def test_networks_are_saved_with_names_that_come_back_as_they_were(tmp_path):
    numbered = MODEL.generate(IMAGES, np.array([7, 3, 7, 5]), samples=1)
    again = GeneratedNetworks.load(numbered.save(tmp_path), MODEL)
    assert again.classes == numbered.classes and again.nfe == numbered.nfe
    paired = MODEL.generate(IMAGES, [(7,), (3,), (7,), (5,)], samples=1)
    with pytest.raises(UserError, match="class names must be strings or numbers to be saved"):
        paired.save(tmp_path)
    MODEL.export(tmp_path)
    with pytest.raises(UserError, match="holds no heads of 5 columns of this meta-model"):
        GeneratedNetworks.load(tmp_path / "arrays.safetensors", MODEL)


def test_codes_of_classes_make_networks_of_any_number_of_classes(tmp_path):
    assert ANY_WAY.any_way and not MODEL.any_way
    for labels in (["a", "b", "a", "b"], ["a", "b", "c", "d"]):
        networks = ANY_WAY.generate(IMAGES, labels, samples=2)
        way = len(set(labels))
        assert networks.heads.shape == (2, way, small.WIDTH + 1)
        assert networks.predict(IMAGES).shape == (4, way)
    again = GeneratedNetworks.load(networks.save(tmp_path), ANY_WAY)
    assert again.classes == ("a", "b", "c", "d")
    with pytest.raises(UserError, match="has one class; there is nothing to tell apart"):
        ANY_WAY.generate(IMAGES, ["a"] * 4)


def test_a_flat_latent_refuses_another_number_of_classes():
    flat = model_of("mlp", ("features",))
    assert not flat.any_way
    assert flat.generate(IMAGES, LABELS, samples=1).heads.shape == (1, 3, small.WIDTH + 1)
    with pytest.raises(UserError, match="has 4 classes; this meta-model was trained for 3"):
        flat.generate(IMAGES, ["a", "b", "c", "d"])


def test_generated_heads_are_those_of_the_parts():
    networks = ANY_WAY.generate(IMAGES, ["a", "a", "b", "b"], samples=2, seed=3)
    features = ANY_WAY.features(ANY_WAY._images(IMAGES))
    support = jnp.asarray(features.reshape(1, 2, 2, small.WIDTH))
    heads, _ = quick_jit(draw_heads, static_argnames="samples")(
        ANY_WAY.parts, jax.random.key(3), support, samples=2
    )
    np.testing.assert_allclose(networks.heads, heads[:, 0], atol=1e-4)


def test_images_of_any_side_are_taken_where_they_are_resized():
    model = model_of(side=small.SIDE)
    same = model.generate(IMAGES, ["a", "b", "a", "b"], samples=2)
    unresized = ANY_WAY.generate(IMAGES, ["a", "b", "a", "b"], samples=2)
    np.testing.assert_allclose(same.heads, unresized.heads, atol=1e-5)
    larger = IMAGES.repeat(2, axis=1).repeat(2, axis=2)
    assert same.predict(larger[:, :20]).shape == (4, 2)
    with pytest.raises(UserError, match=r"shape \(4, 32, 32, 1\); .* takes \(m, 16, 16\)"):
        unresized.predict(larger)
    colour = np.zeros((4, 20, 20, 3), np.uint8)
    with pytest.raises(UserError, match=r"\(4, 20, 20, 3\); .* \(m, H, W\) or \(m, H, W, 1\)"):
        model.generate(colour, LABELS)


def test_a_function_may_be_the_image_encoder(tmp_path):
    encoder = from_function(named(four_numbers), side=0, mirror=False)
    model = ANY_WAY.with_encoder(encoder)
    networks = model.generate(IMAGES, ["a", "b", "a", "b"], samples=2)
    features = four_numbers(IMAGES[..., None] / np.float32(255))
    np.testing.assert_allclose(
        model.features(model._images(IMAGES)),
        ANY_WAY.parts.transform.apply(features),
        atol=1e-5,
    )
    # It goes with the model, which has no weights of another encoder any more.
    with pytest.raises(UserError, match="names the Python function .*four_numbers.* if you trust"):
        MetaModel.load(model.export(tmp_path))
    loaded = MetaModel.load(tmp_path, allow_functions=True)
    assert loaded.parts.encoder.describe() == encoder.describe()
    assert "encoder" not in loaded.arrays and ANY_WAY.parts.encoder.kind == "resnet12"
    again = loaded.generate(IMAGES, ["a", "b", "a", "b"], samples=2)
    np.testing.assert_array_equal(again.heads, networks.heads)


def test_another_network_of_the_same_features_is_carried_away(tmp_path):
    other = resnet(small.WIDTH, side=small.SIDE, mirror=True)
    loaded = MetaModel.load(ANY_WAY.with_encoder(other).export(tmp_path))
    assert loaded.parts.encoder.fingerprint() == other.fingerprint()
    assert ANY_WAY.parts.encoder.fingerprint() != other.fingerprint()


def test_an_encoder_of_other_features_is_refused():
    wider = from_function(named(six_numbers), side=0, mirror=False)
    with pytest.raises(UserError, match="function gives 6 features an image; .* trained on 4"):
        ANY_WAY.with_encoder(wider)
    with pytest.raises(UserError, match="resnet12 gives 8 features an image; .* trained on 4"):
        ANY_WAY.with_encoder(resnet(8))


@pytest.mark.parametrize(
    ("images", "labels", "names", "sentence"),
    [
        (IMAGES[:, :15], LABELS, None, r"images have shape \(4, 15, 16, 1\); .* \(m, 16, 16\)"),
        (IMAGES, LABELS[:3], None, "4 images came with 3 labels"),
        (IMAGES, ["a", "b", "a", "b"], None, "has 2 classes; this meta-model was trained for 3"),
        (IMAGES, LABELS, ["fox", "owl", "cat", "dog"], "class 'dog' has no image"),
        (IMAGES, LABELS, ["fox", "owl", "dog"], "label 'cat' is not among the class names"),
        (IMAGES, [0, 1, 2, 3], range(3), "label 3 is not among the class names"),
        (np.full(IMAGES.shape, np.nan), LABELS, None, "NaN"),
        (IMAGES.astype(float), LABELS, None, r"must lie in \[0, 1\]"),
        (IMAGES.astype(np.int32), LABELS, None, "images are int32"),
    ],
)
def test_a_support_set_that_does_not_fit_is_refused(images, labels, names, sentence):
    with pytest.raises(UserError, match=sentence):
        MODEL.generate(images, labels, class_names=names)


def test_damaged_and_foreign_folders_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="holds no exported meta-model"):
        MetaModel.load(tmp_path)
    with pytest.raises(UserError, match="holds no finished meta-model"):
        MetaModel.restore(tmp_path)
    MODEL.export(tmp_path)
    arrays, record = tmp_path / "arrays.safetensors", tmp_path / "meta_model.json"
    whole = arrays.read_bytes()
    for damaged in (whole[:-7], whole[:-1] + bytes([whole[-1] ^ 1])):
        arrays.write_bytes(damaged)
        with pytest.raises(UserError, match=r"arrays\.safetensors is missing or has changed"):
            MetaModel.load(tmp_path)
    arrays.write_bytes(whole)
    about = json.loads(record.read_text())
    record.write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        MetaModel.load(tmp_path)
    record.write_text(json.dumps({"kind": "something else"}))
    with pytest.raises(UserError, match="is not the description of a flown_jax meta-model"):
        MetaModel.load(tmp_path)
    record.write_text("{")
    for text in ("{", "[" * 100_000, "NaN"):
        record.write_text(text)
        with pytest.raises(UserError, match="damaged"):
            MetaModel.load(tmp_path)
    with pytest.raises(UserError, match="holds no exported meta-model"):
        MetaModel.load("x" * 300)
    with pytest.raises(UserError, match="holds no finished meta-model"):
        MetaModel.restore("x" * 300)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("description", "sampling", "temperature"), 99.0),
        (("description", "sampling", "steps"), 1),
        (("description", "source"), "kaiming_uniform"),
        (("description", "more"), 1),
        (("more",), 1),
        (("sha256",), None),
    ],
)
def test_a_description_that_was_edited_is_refused(tmp_path, path, value):
    MODEL.export(tmp_path)
    record = tmp_path / "meta_model.json"
    about = json.loads(record.read_text())
    part = about
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    record.write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"meta_model\.json has changed since it was written"):
        MetaModel.load(tmp_path)


def exported(folder, **changes):
    """An export by someone else, whose checksum is right."""
    MODEL.export(folder)
    record = folder / "meta_model.json"
    about = json.loads(record.read_text())
    about["description"] |= changes
    about["description"] = {k: v for k, v in about["description"].items() if v != "absent"}
    about["checksum"] = folders.checksum(about)
    record.write_text(json.dumps(about))


SAMPLING = ABOUT["sampling"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"source": "absent"}, "description has the fields caml, codec.*, not caml"),
        ({"more": 1}, "description has the fields caml, codec.*more"),
        ({"source": "poisson"}, "source 'poisson' is unknown"),
        ({"latent_shape": [0]}, "at least two axes of entries"),
        ({"latent_shape": None}, "is not described as this version describes them"),
        ({"encoder": None}, "without an image encoder can have no condition"),
        ({"codec": {"form": "os.system", "sizes": {}}}, "os.system"),
        ({"velocity": {"kind": "os.system", "sizes": {}}}, "os.system"),
        ({"target": {"kind": "os.system"}}, "kind of target is 'os.system'"),
        ({"sampling": {**SAMPLING, "temperature": -1}}, "temperature is -1"),
        ({"sampling": {**SAMPLING, "steps": 0}}, "steps is 0"),
        ({"sampling": {**SAMPLING, "solver": "os.system"}}, "solver is 'os.system'"),
        ({"sampling": {**SAMPLING, "more": 1}}, "is not described as this version"),
    ],
)
def test_descriptions_of_strangers_are_refused_in_a_sentence(tmp_path, changes, sentence):
    exported(tmp_path, **changes)
    with pytest.raises(UserError, match=sentence):
        MetaModel.load(tmp_path)


@pytest.mark.parametrize("way_in", ["load", "restore"])
def test_a_folder_runs_no_code(tmp_path, monkeypatch, way_in):
    (tmp_path / "of_a_stranger.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    encoder = {**ABOUT["encoder"], "kind": "function", "sizes": {"name": "of_a_stranger:f"}}
    encoder |= {"mean": [], "std": []}
    if way_in == "load":
        exported(tmp_path, encoder=encoder)
    else:
        folder = tmp_path / "stages" / "model"
        folder.mkdir(parents=True)
        values = {"description": {**ABOUT, "encoder": encoder}, "arrays": ARRAYS}
        save_tree(folder / "outputs.safetensors", values)
        mark = sha256_of(folder / "outputs.safetensors")
        (folder / "stage.json").write_text(json.dumps({"format": FORMAT, "sha256": mark}))
    with pytest.raises(UserError, match="'of_a_stranger:f' .* give allow_functions=True"):
        getattr(MetaModel, way_in)(tmp_path)
    with pytest.raises(SystemExit, match="ran"):
        getattr(MetaModel, way_in)(tmp_path, allow_functions=True)


def test_a_kaiming_source_is_that_of_the_training_at_any_number_of_classes(monkeypatch):
    starts = []

    def spy(*_, source, latent_shape, **__):
        starts.append(source.std((1, *latent_shape)))
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["flown_jax.meta_model.build"], "sample_flow", spy)
    for name in ("kaiming_normal", "kaiming_uniform", "kaiming_uniform_linear"):
        about = {**small.description(entries=("features", "shots")), "source": name}
        arrays = small.arrays(about)
        model = MetaModel(build(about, arrays), arrays)
        for way in (2, small.WAY, 4):
            with pytest.raises(KeyboardInterrupt):
                model.generate(IMAGES[:way], range(way), samples=1)
        trained = get_source(name).std((1, *about["latent_shape"]))
        assert starts[-3:] == [trained] * 3


def test_places_are_made_or_named(tmp_path):
    assert NETWORKS.save(tmp_path / "absent" / "networks.safetensors").exists()
    (tmp_path / "file").touch()
    for write in (
        lambda: MODEL.export(tmp_path / "file"),
        lambda: MODEL.export(tmp_path / "file" / "model"),
        lambda: NETWORKS.save(tmp_path / "file" / "networks"),
        lambda: MODEL.export(tmp_path / ("x" * 300)),
        lambda: NETWORKS.save(tmp_path / ("x" * 300)),
    ):
        with pytest.raises(UserError, match="cannot use .*(file|xxx)"):
            write()


def test_exports_beside_each_other_leave_a_pair(tmp_path):
    other = dataclasses.replace(MODEL, arrays={**ARRAYS, "transform": ANY_WAY.arrays["transform"]})
    failed = []

    def export(model):
        for _ in range(5):
            try:
                model.export(tmp_path)
                MetaModel.load(tmp_path)
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=export, args=(model,)) for model in (MODEL, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    names = {"arrays.safetensors", "meta_model.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_run_of_another_version_is_refused(tmp_path):
    folder = tmp_path / "stages" / "model"
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text(json.dumps({"format": 1, "sha256": ""}))
    with pytest.raises(UserError, match="was made by another version of flown_jax: run its"):
        MetaModel.restore(tmp_path)

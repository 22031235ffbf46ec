"""Image encoders: what their features are, where they come from, and what they refuse."""

from __future__ import annotations

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.image_encoders import build, from_function, from_module, from_weights
from flown_jax.image_encoders import encoder as image_encoder
from flown_jax.models import CNN, ConvNeXt, ResNet12, ResNet18, VisionTransformer, layout
from flown_jax.torch_import.files import write_state_dict
from tests.layers.helpers import quick_jit, random_variables
from tests.torch_import.test_clip_vit import hugging_face

SIDE = 8
VIT = {"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 5}
MODULES = {
    "resnet12": (ResNet12((4, 6), num_classes=5), 6),
    "vit": (VisionTransformer(**VIT), 8),
    "clip_vit": (VisionTransformer(**VIT, form="clip", epsilon=1e-5, activation="quick_gelu"), 5),
    "resnet18": (ResNet18(width=2, num_classes=5), 16),
    "convnext": (ConvNeXt(depths=(1, 1), dims=(4, 6), num_classes=5), 6),
}
KINDS = list(MODULES)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@functools.cache
def variables(kind, channels=3):
    return positive(random_variables(MODULES[kind][0], jnp.zeros((1, SIDE, SIDE, channels))))


def positive(variables):
    """Random variables whose variances are ones."""

    def fix(path, leaf):
        return 1 + np.abs(leaf) if path[-1].key == "var" else leaf

    return jax.tree_util.tree_map_with_path(fix, variables)


def encoder(kind="resnet12", channels=3, **options):
    return from_module(MODULES[kind][0], variables(kind, channels), **options)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The same compiled function, compiled without XLA's optimisation."""
    monkeypatch.setattr(image_encoder, "_encoded", _quick)


@quick_jit
def _quick(encoder, images):
    return encoder(images)


def flatten(images):
    """Columns of an image that a test can follow: its first pixels."""
    return images.reshape(len(images), -1)[:, :7]


def expected_features(kind, images):
    """From the network's own outputs: its stages, before the classifier."""
    module, _ = MODULES[kind]
    out, stages = quick_jit(functools.partial(module.apply, return_stages=True))(
        variables(kind), images
    )
    if kind in ("resnet12", "clip_vit"):
        return out
    if kind == "vit":
        return stages["norm"][:, 0]
    if kind == "resnet18":
        return stages["layer4"].mean((1, 2))
    pooled = stages["stage_1"].mean((1, 2))
    norm = variables(kind)["params"]["head_norm"]
    centred = pooled - pooled.mean(-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return centred / deviation * norm["scale"] + norm["bias"]


@pytest.mark.fast
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_what_the_classifier_takes(kind):
    made = encoder(kind, mean=MEAN, std=STD)
    features = made.features(IMAGES)
    assert features.shape == (5, MODULES[kind][1]) and features.dtype == np.float32
    normal = (IMAGES / 255 - np.asarray(MEAN)) / np.asarray(STD)
    expected = expected_features(kind, normal.astype(np.float32))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)
    assert made.kind == kind
    classifier = {"classifier", "head", "linear"} & set(made.variables["params"])
    assert not classifier
    # The network of another classifier, or of none, is the same encoder.
    if kind != "clip_vit":
        other = from_module(MODULES[kind][0].clone(num_classes=7), made.variables)
        assert other.fingerprint() == encoder(kind).fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_and_variables_make_the_same_encoder(kind):
    made = encoder(kind, side=SIDE, mean=MEAN, std=STD, mirror=True)
    again = build(json.loads(json.dumps(made.describe())), made.variables)
    assert jax.tree.structure(again) == jax.tree.structure(made)
    assert again.fingerprint() == made.fingerprint()
    np.testing.assert_array_equal(again.features(IMAGES), made.features(IMAGES))


def test_the_mirror_image_counts_as_much():
    plain = encoder()
    both = [plain.features(images) for images in (IMAGES, IMAGES[:, :, ::-1])]
    expected = sum(x / np.linalg.norm(x, axis=1, keepdims=True) for x in both)
    features = encoder(mirror=True).features(IMAGES)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert np.abs(features - 2 * both[0]).max() > 0.01
    swapped = encoder(mirror=True).features(IMAGES[:, :, ::-1])
    np.testing.assert_allclose(swapped, features, atol=1e-5)


def test_images_are_brought_to_the_side():
    large = np.random.default_rng(1).random((3, 20, 12, 3)).astype(np.float32)
    resized = jax.image.resize(large, (3, SIDE, SIDE, 3), "bilinear", antialias=True)
    expected = encoder().features(np.asarray(resized))
    np.testing.assert_allclose(encoder(side=SIDE).features(large), expected, atol=1e-5)
    small = encoder(side=SIDE).features(large[:, :2, :2])  # smaller than the network takes
    assert small.shape == (3, 6)


def test_numbers_of_images_do_not_matter():
    """Chunks, the last of them padded, give what single images give; whole bytes what floats."""
    made = encoder()
    features = made.features(IMAGES)
    np.testing.assert_allclose(made.features(IMAGES, chunk=2), features, atol=1e-5)
    one = np.concatenate([made.features(image[None]) for image in IMAGES])
    np.testing.assert_allclose(one, features, atol=1e-5)
    floats = made.features((IMAGES / 255).astype(np.float32))
    np.testing.assert_allclose(floats, features, atol=1e-5)


def test_one_shape_is_compiled_once(monkeypatch):
    shapes = []  # of each tracing

    def forward(made, images):
        shapes.append(images.shape)
        return images.mean((1, 2))

    monkeypatch.setattr(image_encoder, "_encoded", jax.jit(forward))
    many = np.repeat(IMAGES, 3, axis=0)
    assert encoder().features(many, chunk=4).shape == (15, 3)
    encoder().features(many[:4], chunk=4)
    assert shapes == [(4, SIDE, SIDE, 3)]


def test_a_fingerprint_changes_with_the_variables_and_the_options():
    made = encoder()
    other = jax.tree.map(lambda leaf: leaf + 0, made.variables)
    assert from_module(MODULES["resnet12"][0], other).fingerprint() == made.fingerprint()
    other["params"]["layer1"]["bn1"]["bias"][0] += 1e-3
    changed = from_module(MODULES["resnet12"][0], other)
    marks = {e.fingerprint() for e in (made, changed, encoder(mirror=True), encoder(side=SIDE))}
    assert len(marks) == 4


def state_dict(kind):
    """The variables in PyTorch's names, as training scripts save them."""
    module, _ = MODULES[kind]
    flat = dict(layout.leaves(variables(kind)))
    names = module.state_dict_names().items()
    return {name: np.asarray(layout.to_torch(path, flat[path])) for name, path in names}


def changed_head(kind, state):
    """The same without a classifier, as published for features."""
    heads = ("classifier.", "head.", "linear.")
    kept = {n: v for n, v in state.items() if not n.startswith(heads) or "norm" in n}
    assert len(kept) < len(state) or kind == "clip_vit"
    return kept


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", [True, False])
def test_files_of_weights(kind, head, tmp_path):
    state = state_dict(kind)
    state = state if head else changed_head(kind, state)
    path = tmp_path / "weights.pth"
    write_state_dict(path, state)
    fields = {"num_heads": 2} if "vit" in kind else {}
    made = from_weights(kind, path, side=0, mean=(), std=(), mirror=False, **fields)
    assert made.fingerprint() == encoder(kind).fingerprint()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.backbone."])
def test_what_scripts_put_before_names(prefix, tmp_path):
    state = {f"{prefix}{name}": value for name, value in state_dict("vit").items()}
    write_state_dict(tmp_path / "x.pth", state)
    options = {"side": 0, "mean": (), "std": (), "mirror": False, "num_heads": 2}
    made = from_weights("vit", tmp_path / "x.pth", **options)
    assert made.fingerprint() == encoder("vit").fingerprint()


def test_weights_that_are_no_numbers_or_do_not_tell_are_refused(tmp_path):
    options = {"side": 0, "mean": (), "std": (), "mirror": False}
    path, state = tmp_path / "x.pth", state_dict("resnet18")
    write_state_dict(path, {**state, "bn1.weight": state["bn1.weight"] * np.nan})
    with pytest.raises(UserError, match=r"x\.pth .* its numbers of params/bn1/scale are NaN"):
        from_weights("resnet18", path, **options)
    write_state_dict(path, {**state, "conv1.weight": state["conv1.weight"].astype(np.int8)})
    with pytest.raises(UserError, match=r"its entry 'conv1.weight' holds int8"):
        from_weights("resnet18", path, **options)
    wide = {"patch_embed.proj.weight": np.zeros((1280, 3, 1, 1), np.float32)}
    wide |= {"blocks.0.mlp.fc1.weight": np.zeros((1280, 1), np.float32)}
    write_state_dict(path, {**wide, "pos_embed": np.zeros((1, 2, 1280), np.float32)})
    with pytest.raises(UserError, match="no shape tells the number of heads of a width of 1280"):
        from_weights("vit", path, **options)


def test_safetensors_and_torchvisions_names(tmp_path):
    from safetensors.numpy import save_file

    state = {
        name.replace("shortcut", "downsample").replace("linear.", "fc."): np.ascontiguousarray(v)
        for name, v in state_dict("resnet18").items()
    }
    save_file(state, tmp_path / "x.safetensors")
    options = {"side": 0, "mean": (), "std": (), "mirror": False}
    made = from_weights("resnet18", tmp_path / "x.safetensors", **options)
    assert made.fingerprint() == encoder("resnet18").fingerprint()


def test_hugging_faces_names(tmp_path):
    write_state_dict(tmp_path / "clip.bin", hugging_face(state_dict("clip_vit")))
    options = {"side": SIDE, "mean": (), "std": (), "mirror": False, "num_heads": 2}
    made = from_weights("clip_vit", tmp_path / "clip.bin", **options)
    assert made.fingerprint() == encoder("clip_vit", side=SIDE).fingerprint()


def test_files_of_other_networks_are_refused(tmp_path):
    options = {"side": 0, "mean": (), "std": (), "mirror": False}
    for kind in KINDS:
        write_state_dict(tmp_path / f"{kind}.pth", state_dict(kind))
    for kind in KINDS:
        for other in KINDS:
            if kind != other:
                with pytest.raises(UserError, match=f"{kind}.pth holds no {other} of these sizes"):
                    from_weights(other, tmp_path / f"{kind}.pth", **options)
    path = tmp_path / "vit.pth"
    with pytest.raises(UserError, match="has no field 'heads'"):
        from_weights("vit", path, **options, heads=2)
    with pytest.raises(UserError, match="takes images of 8 x 8 pixels, not 12 x 12: set its side"):
        from_weights("vit", path, **options | {"side": 12})
    with pytest.raises(UserError, match="kind is 'alexnet'; it must be one of resnet12, vit"):
        from_weights("alexnet", path, **options)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="truncated or damaged"):
        from_weights("vit", path, **options)
    with pytest.raises(UserError, match="there is no file"):
        from_weights("vit", tmp_path / "absent", **options)


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """A user's module of functions."""
    (tmp_path / "users_encoders.py").write_text(
        "import numpy as np\n"
        "number = 3\n"
        "def pixels(images):\n"
        "    assert images.dtype == np.float32 and images.max() <= 1\n"
        "    return images.reshape(len(images), -1)[:, :7] + 1\n"
        "def maps(images):\n    return images\n"
        "def few(images):\n    return images[:1, 0, 0]\n"
        "def nan(images):\n    return images[:, 0, 0] * np.nan\n"
        "def text(images):\n    return 'features'\n"
        "calls = []\n"
        "def counts(images):\n"
        "    calls.append(1)\n"
        "    return images[:, 0, 0] + len(calls)\n"
        "def batches(images):\n    return images[:, 0, 0] - images.mean()\n"
        "def of_side_20(images):\n"
        "    assert images.shape[1:] == (20, 20, 1), 'another shape'\n"
        "    return images[:, 0, :, 0]\n"
        "def helped(images):\n"
        "    import users_helper\n"
        "    return users_helper.factor * images[:, 0, 0]\n"
    )
    (tmp_path / "users_broken.py").write_text("import no_such_library\n")
    (tmp_path / "users_helper.py").write_text("factor = 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("users_encoders", "users_broken", "users_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_function_is_an_encoder(functions):
    made = from_function("users_encoders:pixels", side=0, mirror=False)
    expected = flatten(IMAGES / 255) + 1
    np.testing.assert_allclose(made.features(IMAGES, chunk=2), expected, atol=1e-6)
    np.testing.assert_allclose(made(IMAGES), expected, atol=1e-6)
    small = from_function("users_encoders:pixels", side=4, mirror=True)
    assert small.features(IMAGES[..., :1]).shape == (5, 7)  # it decides itself about channels
    again = build(json.loads(json.dumps(small.describe())), {})
    assert again.fingerprint() == small.fingerprint() != made.fingerprint()


def test_a_functions_file_is_part_of_its_fingerprint(functions):
    made = from_function("users_encoders:pixels", side=0, mirror=False)
    before = made.fingerprint()
    with open(functions / "users_encoders.py", "a") as file:
        file.write("# changed\n")
    assert made.fingerprint() != before


@pytest.mark.parametrize("side", [0, 4])
def test_a_fingerprint_changes_with_what_a_function_gives(functions, side):
    """Whatever it is that changes it: here another module that it imports."""
    made = from_function("users_encoders:helped", side=side, mirror=False)
    before = made.fingerprint()
    assert made.fingerprint() == before
    sys.modules["users_helper"].factor = 1.0001
    assert made.fingerprint() != before
    sys.modules["users_helper"].factor = 1.0
    assert made.fingerprint() == before


def test_functions_whose_features_cannot_be_relied_on_are_refused(functions):
    def refused(name, sentence, side=0):
        with pytest.raises(UserError, match=sentence):
            from_function(f"users_encoders:{name}", side=side, mirror=False).fingerprint()

    refused("counts", "gave the same images other features the second time")
    refused("batches", "gave an image other features beside other images than alone")
    refused("nan", "gave numbers that are not finite")
    refused("maps", r"shape \(3, 16, 16, 1\); for 3 images it must be \(3, F\)")
    refused("of_side_20", "takes none of .*: AssertionError: another shape; set its side to that")
    refused("of_side_20", "1 or 3 channels, side 21.*: another shape.$", side=21)
    encoder = from_function("users_encoders:of_side_20", side=20, mirror=False)
    assert encoder.fingerprint()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("pixels", "is named 'package.module:function', not 'pixels'"),
        ("users_encoders:", "is named 'package.module:function'"),
        ("users_absent:pixels", "users_absent:pixels cannot be imported: ModuleNotFoundError"),
        ("users_broken:pixels", "cannot be imported: ModuleNotFoundError: No module named 'no_"),
        ("users_encoders:voxels", "users_encoders of the image encoder has no 'voxels'"),
        ("users_encoders:number", "users_encoders:number is no function but 3"),
    ],
)
def test_what_is_no_function_is_refused(functions, name, sentence):
    with pytest.raises(UserError, match=sentence):
        from_function(name, side=0, mirror=False)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("maps", r"shape \(4, 8, 8, 3\); for 4 images it must be \(4, F\)"),
        ("few", r"shape \(1, 3\); for 4 images it must be \(4, F\)"),
        ("nan", "gave numbers that are not finite"),
        ("text", "gave str, which is no array of numbers"),
    ],
)
def test_what_a_function_gives_is_checked(functions, name, sentence):
    made = from_function(f"users_encoders:{name}", side=0, mirror=False)
    with pytest.raises(UserError, match=sentence):
        made.features(IMAGES[:4])


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"takes colour images \(3 channels\), and these have 1"):
        encoder().features(IMAGES[..., :1])
    grey = from_module(ResNet12((4,)), random_variables(ResNet12((4,)), np.zeros((1, 4, 4, 1))))
    with pytest.raises(UserError, match=r"takes grey images \(1 channel\), and these have 3"):
        grey.features(IMAGES)
    with pytest.raises(UserError, match="at least 4 x 4 pixels, not 3 x 8: set its side to 4"):
        encoder().features(IMAGES[:, :3])
    with pytest.raises(UserError, match="takes images of 8 x 8 pixels, not 4 x 8"):
        encoder("vit").features(IMAGES[:, :4])
    with pytest.raises(UserError, match=r"images must be \(B, H, W, C\)"):
        encoder().features(IMAGES[0])
    with pytest.raises(UserError, match="no images to encode"):
        encoder().features(IMAGES[:0])
    broken = jax.tree.map(lambda leaf: leaf * np.nan, variables("resnet12"))
    with pytest.raises(UserError, match="gave features that are not finite"):
        from_module(MODULES["resnet12"][0], broken).features(IMAGES)


def test_descriptions_that_do_not_fit_are_refused():
    about, held = encoder().describe(), variables("resnet12")

    def refused(sentence, held=held, **changes):
        with pytest.raises(UserError, match=sentence):
            build(about | changes, held)

    refused("kind is 'alexnet'; it must be one of", kind="alexnet")
    refused("description has the fields kind, mean, mirror", extra=1)
    refused("the model resnet12 has no field 'width'", sizes={"width": 3})
    refused("no resnet12's of these sizes: .* is .* and must be", sizes={"channels": [4, 5]})
    refused("no vit's: they have no 'patch_embed'", kind="vit", sizes={})
    refused("no resnet12's: they have no 'layer1'", held={})
    refused("a vit cannot have the form 'clip'", kind="vit", sizes={"form": "clip"})
    refused("batch_stats/layer1/bn1/mean is absent", held={"params": held["params"]})
    refused("at least 4 x 4 pixels, not 2 x 2", side=2)
    refused("side of an image encoder is pixels, or 0 for none, not -1", side=-1)
    refused("must be as many numbers", mean=[0.5])
    refused("must be from 0 to 1, .* not of bytes", mean=[127.5] * 3, std=[127.5] * 3)
    refused("must be above 0", mean=[0.5] * 3, std=[float("nan")] * 3)
    refused("mean and std have 1 numbers, and .* takes images of 3 ch", mean=[0.5], std=[1.0])
    with pytest.raises(UserError, match="kind is 'cnn'; it must be one of"):
        from_module(CNN(), {})

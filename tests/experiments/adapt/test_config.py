"""Variants of the config, and mistakes in it."""

from __future__ import annotations

import pytest

from configs.adapt import get_config, variants
from experiments.adapt import __main__ as adapt
from experiments.fields import check_fields, check_recipes
from flown_jax.errors import UserError
from tests.experiments.adapt import little


def test_every_variant_has_known_fields():
    like = get_config()
    for variant in variants():
        config = get_config(variant)
        check_fields(config, like)
        check_recipes(config)
        assert config.variant == variant and len(config.targets)
    with pytest.raises(ValueError, match="no variant 'mnist_cifar10'"):
        get_config("mnist_cifar10")


def test_pairs_are_a_zoo_and_a_data_set():
    pair = get_config("mnist_usps").targets.mnist_usps
    assert (pair.zoo, pair.new, pair.margin) == ("zoos/mnist_short", "usps", 3)
    assert get_config("cifar10_svhn_cropped").targets.cifar10_svhn_cropped.new == "svhn_cropped"
    cell = get_config("cnn_stl10_cifar10_graph").targets.cnn_stl10_cifar10_graph
    assert (cell.kind, cell.variant, cell.new) == ("states", "cnn_medium_stl10", "cifar10")
    assert cell.design.codec.encoder == "graph" and len(get_config("table4").targets) == 6
    published = get_config("paper_resnet18_cifar10_stl10_vae")
    assert published.targets.resnet18_cifar10_stl10_vae.variant == "paper_resnet18_cifar10"
    assert published.adapt.rates.velocity == (1e-2,) and published.adapt.parts == ("velocity",)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"targets__digits_latin__new": "cifar100"},
            "cifar100, which has 100 classes; the networks have 10 outputs",
        ),
        ({"targets__digits_latin__new": "nothing"}, "nothing"),
        ({"targets__digits_latin__zoo": "nowhere"}, "nowhere"),
        ({"adapt__parts": ("decoder", "decoder")}, "adapt.parts is .*at most once, and one at"),
        ({"adapt__parts": ("encoder",)}, "adapt.parts"),
        ({"adapt__gradient_from": 0.9}, "gradient_from=0.9 leaves no step with a gradient"),
        ({"adapt__gradient_from": 1.0}, "adapt.gradient_from is 1.0"),
        ({"adjoint__last": 9}, "a path has adjoint.steps = 4 in all"),
        ({"seeds__flow__source": "kaiming_uniform"}, "adjoint matching needs a Gaussian one"),
        ({"sampling__samples": 1}, "sampling.samples is 1; it must be 2 or more"),
        ({"cut__times": (0.0, 0.9)}, "gradient_from=0.9 leaves no step"),
    ],
)
def test_what_cannot_be_adapted_is_one_sentence(tmp_path, values, sentence):
    zoo = little.write(tmp_path)
    with pytest.raises((UserError, ValueError), match=sentence):
        adapt.run(little.config(zoo, **values), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "results.json").exists()

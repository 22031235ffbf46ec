"""Every variant is a config that can be checked, and cells are what Table 1 has."""

from __future__ import annotations

import pytest

from configs import trajectory
from configs.unconditional import get_config, variants
from experiments.fields import check_fields, check_recipes


def test_every_variant_has_known_fields():
    like = get_config()
    for variant in variants():
        config = get_config(variant)
        check_fields(config, like)
        check_recipes(config)
        assert config.variant == variant and len(config.targets)
        for target in config.targets.values():
            assert target.zoo or target.kind == "seeds" or target.variant in trajectory.variants()


def test_cells_are_networks_data_sets_and_encoders():
    cells = [name for name in variants() if name.endswith(("_vae", "_graph"))]
    assert len(cells) == 2 * 4 * 5  # three networks by one encoder, one by two; published or not
    graph, vae = get_config("cnn_cifar10_graph"), get_config("cnn_cifar10_vae")
    assert set(graph.states.beside) == {"graph"} and set(vae.states.beside) == {"kl"}
    assert list(graph.targets) == ["cnn_cifar10"]
    both = get_config("cnn_cifar10")
    assert set(both.states.beside) == {"graph", "kl"} and list(both.targets) == ["cnn_cifar10"]
    published = get_config("paper_resnet18_cifar100_vae")
    assert published.targets.resnet18_cifar100.variant == "paper_resnet18_cifar100"
    assert published.states.beside.kl.codec.sizes.ch == 128
    assert published.pdiff.velocity.sizes.channels == (64, 128, 256, 512)


def test_seeds_are_aligned_and_as_they_are():
    targets = get_config("seeds").targets
    assert len(targets) == 8 and targets.mnist.align and not targets.mnist_raw.align
    assert targets.mnist.zoo == targets.mnist_raw.zoo == "zoos/mnist_short"
    assert targets.mnist_raw.brief and not targets.mnist.brief


def test_an_unknown_variant_is_told():
    with pytest.raises(ValueError, match="no variant 'cnn_svhn_vae'"):
        get_config("cnn_svhn_vae")

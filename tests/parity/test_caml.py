"""CAML against the official module: every case that the fixture holds."""

import numpy as np
import pytest

from flown_jax.conditioning import CAML, class_means
from flown_jax.torch_import import convert
from tests.parity.fixtures import assert_close, load

# Of the fixture: a LayerNorm eps of 1e-5 already shows at 8e-6.
TOLERANCE = 4e-6


@pytest.fixture(scope="module")
def fixture(source):
    return load("caml", source)


def _cases(fixture):
    """Prefixes of the cases: '' for the main one, 'shot3.' and so on."""
    return sorted(
        name.removesuffix("support_labels")
        for name in fixture.inputs
        if name.endswith("support_labels")
    )


def _model(fixture, case):
    """The case's own network where the fixture has one, otherwise the main one."""
    own = {k.removeprefix(case): v for k, v in fixture.params.items() if k.startswith(case)}
    config = dict(fixture.config)
    if case and own:
        config |= fixture.config[case.removesuffix(".")]
        config["hidden_dim"] = config["image_dim"] + config["label_dim"]
        state = own
    else:
        state = {k: v for k, v in fixture.params.items() if k.startswith("transformer_encoder.")}
    module = CAML(
        num_classes=config["num_classes"],
        label_dim=config["label_dim"],
        num_layers=config["num_layers"],
        num_heads=config["num_heads"],
        mlp_dim=config["mlp_dim"],
        feature_dim=config["image_dim"],
    )
    return module, convert("caml", state, config)


def _episode(fixture, case):
    labels = fixture.inputs[f"{case}support_labels"]
    features = fixture.inputs[f"{case}features"]
    return features[: len(labels)], labels, features[len(labels) :]


def test_logits_and_query_embeddings_of_every_case(fixture):
    cases = _cases(fixture)
    assert "" in cases
    for case in cases:
        module, variables = _model(fixture, case)
        episode = _episode(fixture, case)
        embeddings, logits = module.apply(variables, *episode, method="embed_and_classify")
        expected = fixture.outputs[f"{case}query_embeddings"]
        assert_close(embeddings, expected, TOLERANCE, f"{case}query_embeddings")
        assert_close(logits, fixture.outputs[f"{case}logits"], TOLERANCE, f"{case}logits")


def test_class_embeddings(fixture):
    checked = 0
    for case in _cases(fixture):
        expected = fixture.outputs.get(f"{case}class_embeddings")
        if expected is None:
            continue
        module, variables = _model(fixture, case)
        support, labels, queries = _episode(fixture, case)
        # Without labels of their own the queries are the support images once more.
        query_labels = fixture.inputs.get(f"{case}query_labels", labels)
        if f"{case}permutation" in fixture.inputs:
            # Class c is called permutation[c], but its row of the output is still c.
            query_labels = np.argsort(fixture.inputs[f"{case}permutation"])[query_labels]
        embeddings = module.apply(variables, support, labels, queries, method="query_embeddings")
        actual = class_means(embeddings, query_labels, len(expected))
        assert_close(actual, expected, TOLERANCE, f"{case}class_embeddings")
        checked += 1
    assert checked


def test_sequences_and_layers(fixture):
    checked = 0
    for case in _cases(fixture):
        if f"{case}seq_in" not in fixture.outputs:
            continue
        module, variables = _model(fixture, case)
        support, labels, queries = _episode(fixture, case)
        expected = fixture.outputs[f"{case}seq_in"]
        count = len(expected)
        queries = queries[:count]
        sequences = module.apply(variables, support, labels, queries, method="sequences")
        assert_close(sequences, expected, TOLERANCE, f"{case}seq_in")
        out, layers = module.apply(variables, sequences, method="encode")
        assert_close(out, fixture.outputs[f"{case}seq_out"], TOLERANCE, f"{case}seq_out")
        for i, layer in enumerate(layers):
            expected = fixture.outputs[f"{case}layer_{i}"]
            assert_close(layer, expected, TOLERANCE, f"{case}layer_{i}")
            tokens = module.apply(
                variables, support, labels, queries, layer=i, method="query_embeddings"
            )
            assert_close(tokens, expected[:, 0], TOLERANCE, f"{case}query token {i}")
            checked += 1
    assert checked


def test_shuffled_support_changes_nothing(fixture):
    for case in _cases(fixture):
        if not case.startswith("shuffled"):
            continue
        module, variables = _model(fixture, case)
        logits = module.apply(variables, *_episode(fixture, case))
        # An invariance up to the rounding of sums: 3e-7 in the original.
        assert_close(logits, fixture.outputs["logits"], 2e-6, case)


def test_elmes_of_the_checkpoint_is_used(fixture):
    module, variables = _model(fixture, "")
    episode = _episode(fixture, "")
    changed = {**variables, "constants": {"elmes": np.flip(variables["constants"]["elmes"], 0)}}
    before, after = (np.asarray(module.apply(v, *episode)) for v in (variables, changed))
    assert np.abs(before - after).max() > 1e-3

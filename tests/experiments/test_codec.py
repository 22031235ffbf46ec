"""The weight autoencoder of a config: what counts of it, and what is refused before a run."""

from __future__ import annotations

import pytest
from ml_collections import ConfigDict

from configs import fsl, retrieval
from configs.fsl_parts import flat_unet
from experiments.codec import checked_latent, counted, described
from experiments.fewshot.check import check as check_few_shot
from experiments.retrieval.check import check as check_retrieval
from experiments.retrieval.words import order_remarks
from flown_jax.errors import UserError
from flown_jax.few_shot.space import head_spec
from tests.encoders import stand_in
from tests.experiments.walk import changed

pytestmark = pytest.mark.fast

LATER = {"diversity_form", "ball_weight", "codes"}  # which are off
GRAPH = {"codec.encoder": "graph"}
SEEDS = {"mnist": {"seed": [0, 1], "epoch": [1, 1]}}


def graphs(module, variant="tiny", **more):
    return changed(module.get_config(variant), {**GRAPH, **more})


def test_of_its_own_encoder_nothing_new_counts():
    codec = retrieval.get_config().codec
    assert set(codec) - set(counted(codec)) == {"encoder", "graph", *LATER}
    own = {"form": "mlp", "sizes": codec.sizes.to_dict(), "encoder": "vae", "graph": None}
    assert described(codec) == described(counted(codec)) == own


def test_what_came_later_counts_where_it_is_on():
    codec = retrieval.get_config().codec
    for name, value in (("diversity_form", "two_sided"), ("ball_weight", 2.0), ("codes", "normal")):
        assert set(counted(ConfigDict({**codec, name: value}))) == {*counted(codec), name}


def test_without_networks_there_is_nothing_to_reconstruct_and_nothing_to_mix():
    normal = {"codec.codes": "normal"}
    for more, field in (
        ({}, "codec.weights_weight and"),
        ({"codec.weights_weight": 0.0, "codec.anchor": 1.0}, "codec.anchor must be 0"),
        ({"codec.weights_weight": 0.0}, "flow.target is 'mixes'"),
    ):
        with pytest.raises(UserError, match=field):
            check_retrieval(changed(retrieval.get_config("tiny"), {**normal, **more}))
    more = {"codec.weights_weight": 0.0, "flow.target": "members"}
    check_retrieval(changed(retrieval.get_config("tiny"), {**normal, **more, "beside": {}}))


def test_whole_vectors_leave_no_chunk():
    plain = retrieval.get_config().codec
    for more in ({}, {"encoder": "graph"}):
        old = ConfigDict({**plain, **more})
        new = ConfigDict({**old, "chunk": 0})
        assert counted(new) == counted(old) and described(new) == described(old)
    chunked = ConfigDict({**plain, "chunk": 100})
    assert counted(chunked).chunk == described(chunked)["chunk"] == 100
    assert described(chunked) == described(counted(chunked))


def test_chunks_are_tried_with_the_target():
    codec = ConfigDict({**retrieval.get_config().codec, "chunk": 100})
    r, _, e = codec.sizes.latent_shape
    assert checked_latent(codec, (325,), head_spec(5, 64)) == (r, r, 4 * e)
    codec.encoder = "graph"
    with pytest.raises(UserError, match="codec.chunk must be 0, not 100"):
        checked_latent(codec, (325,), head_spec(5, 64))


def test_of_an_encoder_of_graphs_everything_counts():
    codec = graphs(retrieval).codec
    assert set(codec) - set(counted(codec)) == LATER
    found = described(codec)
    assert found["encoder"] == "graph" and found["graph"] == codec.graph.to_dict()


def test_sizes_of_graphs_are_tried_with_the_target(monkeypatch):
    stand_in.put(monkeypatch)
    config = changed(fsl.get_config("unet"), GRAPH)
    spec = head_spec(5, 64)
    assert checked_latent(config.codec, (5, 65), spec) == (8, 8, 4)
    with pytest.raises(UserError, match="^codec.graph does not fit: "):
        checked_latent(config.codec, (5, 65), head_spec(4, 64))


@pytest.mark.parametrize("variant", ["tiny", "paper"])
def test_retrieval_takes_graphs(variant, monkeypatch):
    stand_in.put(monkeypatch)
    config = graphs(retrieval, variant)
    check_retrieval(config)
    beside = ConfigDict({"graph": {"codec": {"encoder": "graph"}}})
    check_retrieval(changed(retrieval.get_config("tiny"), {"beside": beside}))


@pytest.mark.parametrize("variant", ["unet", "paper"])
def test_few_shot_learning_takes_graphs(variant, monkeypatch):
    stand_in.put(monkeypatch)
    check_few_shot(graphs(fsl, variant))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "codec.form 'token' has a code a class, .* it must be 'mlp' or 'autoencoder_kl'"),
        ({"codec.encoder": "cnn"}, "codec.encoder is 'cnn'; it must be 'vae' or 'graph'"),
        ({"codec.graph.backbone": "gcn"}, "codec.graph.backbone is 'gcn'; it must be 'transform"),
        ({"codec.graph.form": "mlp"}, "codec.graph.form is 'mlp'; it must be 'sparse' or 'dense'"),
        ({"codec.graph.flattening": "none"}, "flattening is 'none'; it must be 'as_conv' or 'rep"),
        ({"codec.graph.num_layers": 0}, "codec.graph.num_layers is 0"),
        ({"codec.graph.head_dims": ()}, "codec.graph.head_dims is ()"),
        ({"codec.graph.width": 3}, "codec.graph.width, which no command knows"),
    ],
)
def test_what_does_not_go_with_graphs_is_one_sentence(fields, sentence):
    with pytest.raises(UserError, match=sentence.replace("()", r"\(\)")):
        check_few_shot(graphs(fsl, **fields))


def test_the_papers_sizes_are_those_of_its_table():
    for module in (fsl, retrieval):
        graph, small = module.get_config("paper").codec.graph, module.get_config().codec.graph
        assert set(graph) == set(small)
        assert (graph.form, graph.softmax_scale, graph.flattening) == (
            "dense",
            "width",
            "repeat_nodes",
        )
        assert (graph.node_dim, graph.num_layers, graph.num_heads) == (64, 4, 8)


def test_every_design_has_an_encoder_to_choose():
    part = ConfigDict({"codec": fsl.get_config().codec, "velocity": {}})
    flat_unet(part)
    assert part.codec.encoder == "vae" and "graph" in part.codec


def test_seeds_are_warned_of_where_any_design_reads_graphs():
    tiny = retrieval.get_config("tiny")
    assert order_remarks(tiny, SEEDS) == []
    (of_main,) = order_remarks(graphs(retrieval), SEEDS)
    beside = changed(tiny, {"beside": ConfigDict({"graph": {"codec": {"encoder": "graph"}}})})
    assert order_remarks(beside, SEEDS) == [of_main]
    assert "mnist (2 networks)" in of_main
    one = {"mnist": {"seed": [0, 0], "epoch": [1, 2]}}
    assert order_remarks(graphs(retrieval), one) == []

"""A finished run of both kinds of zoos, and mistakes."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from experiments.unconditional import __main__ as unconditional
from flown_jax import MetaModel
from flown_jax.errors import UserError
from tests.experiments.unconditional import little
from tests.layers.helpers import quick_jit

NO_MODEL = {
    "average_of_all",
    "average_of_3",
    "average_of_two",
    "interpolation",
    "gaussian",
    "gaussian_pca",
    "memorising_flow",
    "noise_of_a_tenth",
    "noise_small",
    "noise_large",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return little.zoos(tmp_path_factory.mktemp("zoos"))


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    work = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick_jit)
        unconditional.run(little.few(little.config(*folders, targets__run__brief=True)), str(work))
    return work


@pytest.fixture(scope="module")
def cells(finished):
    results = json.loads((finished / "results.json").read_text())
    return {(r["table"], r["set"], r["method"], r["metric"]): r for r in results["rows"]}


def methods(cells, name):
    return {m for table, of, m, _ in cells if (table, of) == ("unconditional", name)}


SPREAD = ("spread", "spread_shuffled", "spread_no_zoo")


def test_generators_and_what_is_no_model_stand_in_one_table(cells):
    both = {"originals", "held_out", "flown", "ddpm", "flow_on_pca", *NO_MODEL}
    both.add("vae_reconstruction")
    assert methods(cells, "run") == both  # in brief
    both |= {"pdiff", "pdiff_reconstruction"}
    seeds = {f"{a}_{b}" for a in ("flown", "vae") for b in ("weights", "task", *SPREAD)}
    seeds = {s if s.startswith("flown") else f"{s}_reconstruction" for s in seeds}
    seeds.remove("vae_spread_no_zoo_reconstruction")  # it reads no network
    trained = {"average_of_two_trained_2", "average_of_two_trained_4", "kaiming_trained_4"}
    assert methods(cells, "seeds") == both | seeds | trained
    for metric in ("accuracy", "nearest", "copies", "error_iou_among", "novel_performant_2"):
        assert ("unconditional", "seeds", "flown", metric) in cells
    for metric in ("nfe", "seconds_training", "seconds_sampling"):
        assert cells["unconditional", "run", "flown", metric]["value"] > 0
        assert ("unconditional", "run", "gaussian", metric) not in cells
    assert cells["unconditional", "seeds", "kaiming_trained_4", "seconds_sampling"]["value"] > 0


def test_copies_are_copies_and_one_network_has_no_diversity(cells):
    for name in ("run", "seeds"):
        assert cells["unconditional", name, "memorising_flow", "copies"]["value"] > 0
        assert cells["unconditional", name, "originals", "nearest"]["value"] > 0
        assert ("unconditional", name, "average_of_all", "diversity") not in cells
        assert cells["unconditional", name, "originals", "diversity"]["value"] == pytest.approx(1)
    assert cells["unconditional", "seeds", "noise_of_a_tenth", "copies"]["value"] == 6


def test_states_of_one_network_have_no_interval(cells):
    assert cells["unconditional", "run", "originals", "accuracy"]["ci95"] is None
    assert cells["unconditional", "seeds", "originals", "accuracy"]["ci95"] > 0


def test_what_autoencoders_keep_is_told_before(finished, cells):
    assert -10 < cells["reconstruction", "run", "vae", "decoded_r2"]["value"] <= 1
    assert cells["reconstruction", "run", "vae", "decoded_latent"]["value"] == 4
    text = (finished / "results.md").read_text()
    assert "## run: what the autoencoders keep" in text
    assert "## seeds: novelty and diversity" in text
    for name in ("run", "seeds"):
        assert (finished / "figures" / f"{name}.png").stat().st_size > 10_000


def test_a_finished_run_is_shown_again(folders, finished, capsys):
    before = (finished / "results.json").stat().st_mtime_ns
    brief = {"targets__run__brief": True}
    unconditional.run(little.few(little.config(*folders, **brief)), str(finished))
    out = capsys.readouterr().out
    assert out.startswith("run, vae: decode(encode(w)) has ") and "latent numbers of" in out
    assert (finished / "results.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="stage run-codec.* choose a new --workdir"):
        unconditional.run(little.few(little.config(*folders, seed=1, **brief)), str(finished))


def test_the_meta_model_of_a_target_generates(finished):
    for name in ("run", "seeds"):
        networks = MetaModel.restore(finished, target=name).generate(samples=3)
        assert networks.weights.shape == (3, little.little.SPEC.size)
        shown = np.zeros((2, 9, 9, 3), np.uint8)
        np.testing.assert_allclose(networks.predict(shown).sum(1), 1, atol=1e-5)
    with pytest.raises(UserError, match="the meta-models of run, seeds: name one as target"):
        MetaModel.restore(finished)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"targets__run__zoo": "nowhere"}, "nowhere"),
        ({"targets__run__kind": "seeds"}, "targets.run.kind is 'seeds', and the zoo in .* states"),
        ({"targets__run__align": True}, "targets.run.align is True; states of one network"),
        ({"targets__run__zoo": ""}, "targets.run.zoo is empty, and configs/trajectory.py has no"),
        ({"rivals__averaged": 100}, "rivals.averaged is 100; the zoo in .* has 9 networks"),
        ({"rivals__losses": (0.1,)}, "rivals.losses is .*; there are two rows of noise"),
        ({"sampling__samples": 1}, "sampling.samples is 1; it must be 2 or more"),
        ({"sampling__solver": "rk5"}, "solver"),
        ({"states__codec__members": 9}, "codec.members is 9; a mix has from 1 to codec.recipe"),
        ({"ddpm__steps": 60}, "ddpm.steps is 60; it must be at most ddpm.timesteps, which is 50"),
        ({"seeds__codec__form": "token"}, "codec.form 'token' takes a row a class"),
        ({"pca__components": 0}, "pca.components is 0; it must be a whole number from 1"),
    ],
)
def test_what_cannot_be_generated_is_one_sentence(folders, tmp_path, values, sentence):
    with pytest.raises((UserError, ValueError), match=sentence):
        unconditional.run(little.few(little.config(*folders, **values)), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()

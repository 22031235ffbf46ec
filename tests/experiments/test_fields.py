"""Every field of every config has a rule, and what is of another kind or range is refused."""

from __future__ import annotations

import math

import pytest
from ml_collections import ConfigDict

from configs import fsl, predict_accuracy, reconstruct, retrieval, trajectory, zoo
from experiments.command import fields_of
from experiments.fewshot import check as fewshot_check
from experiments.fields import FLAG, check_at_most, check_fields, check_recipes, rule
from experiments.reconstruct import check as reconstruct_check
from experiments.retrieval import check as retrieval_check
from experiments.train_trajectory import check as trajectory_check
from experiments.train_zoo import check as zoo_check
from flown_jax.errors import UserError
from flown_jax.training.parallel import steps
from tests.experiments.walk import changed

pytestmark = pytest.mark.fast

VARIANTS = {
    fsl: ("default", "tiny", "unet", "mini_imagenet", "mini_imagenet_tiny", "paper"),
    retrieval: ("default", "tiny", "real", "init", "paper"),
    zoo: zoo.variants(),
    trajectory: trajectory.variants(),
    predict_accuracy: ("default", "tiny"),
    reconstruct: ("trajectory", "seeds", "tiny"),
}
CONFIGS = [module.get_config(variant) for module, names in VARIANTS.items() for variant in names]
VALUES = {field: value for config in CONFIGS for field, value in fields_of(config)}


def test_every_variant_is_what_its_rules_say():
    for config in CONFIGS:
        check_fields(config, config)
    assert len(VALUES) > 400


@pytest.mark.parametrize("wrong", [None, math.nan, -math.inf, -7, 2**40, {"a": 1}, object()])
def test_nothing_takes_these(wrong):
    taken = {field for field in VALUES if rule(field).fits(wrong)}
    taken -= {field for field in VALUES if isinstance(wrong, int) and is_float(VALUES[field])}
    assert not taken


def is_float(value):
    """A number without an end: of these, huge ones are allowed where no share is meant."""
    return isinstance(value, float) or value == "silverman"


def test_every_number_has_a_smallest_value_and_no_flag_among_its_kind():
    for field, value in VALUES.items():
        kind = rule(field)
        if isinstance(value, bool):
            assert kind is FLAG and not kind.fits(1) and not kind.fits("True"), field
        elif isinstance(value, int):
            assert not any(map(kind.fits, (-2, 1.5, True, "3", (3,)))), field
        elif isinstance(value, float):
            assert not any(map(kind.fits, (-1e-9, math.inf, True, "3", (3.0,)))), field
        elif isinstance(value, str):
            named = field.endswith("kde_bandwidth")
            assert not any(map(kind.fits, (*(() if named else (3,)), True, ("a",)))), field


def test_entries_of_tuples_are_checked():
    for field, value in VALUES.items():
        if isinstance(value, tuple):
            kind = rule(field)
            assert kind.fits(value) and kind.fits(list(value)), field
            for entry in (None, math.nan, -2, 1.5j, "", {}):
                fine = entry == -2 and field.endswith(".mean")  # of channels
                assert kind.fits((*value, entry)) == fine, (field, entry)
            if value and not isinstance(value[0], bool):
                assert not kind.fits((*value, True)), field


@pytest.mark.parametrize(
    ("check", "module", "variant", "field", "value", "sentence"),
    [
        (fewshot_check, fsl, "tiny", "flow.recipe.steps", -3, "flow.recipe.steps is -3; it must"),
        (fewshot_check, fsl, "tiny", "flow.recipe.batch", 0, "from 1 below"),
        (fewshot_check, fsl, "tiny", "sampling.samples", 0, "sampling.samples is 0"),
        (fewshot_check, fsl, "tiny", "seed", -5, "^seed is -5; it must be a whole number from 0"),
        (fewshot_check, fsl, "tiny", "seed", True, "^seed is True; it must be a whole number"),
        (fewshot_check, fsl, "tiny", "sampling.temperatures", (), "a tuple of 1 or more"),
        (fewshot_check, fsl, "tiny", "sampling.top", 9, "at most sampling.samples, which is 8"),
        (fewshot_check, fsl, "tiny", "tasks.train_query", 6, "at most tasks.query, which is 5"),
        (fewshot_check, fsl, "tiny", "ddpm.timesteps", 15, "ddpm.timesteps is 15: "),
        (fewshot_check, fsl, "tiny", "ddpm.steps", 101, "at most ddpm.timesteps, which is 100"),
        (fewshot_check, fsl, "tiny", "flow.source", "cauchy", "flow.source is 'cauchy'"),
        (fewshot_check, fsl, "tiny", "codec.form", "mlp", "codec.sizes, with codec.form 'mlp', d"),
        (fewshot_check, fsl, "tiny", "data.name", "imagenet", "data.name is 'imagenet'"),
        (fewshot_check, fsl, "tiny", "tasks.train", 0, "tasks.train is 0"),
        (fewshot_check, fsl, "tiny", "targets.shots", 16, "need 21 images of each class"),
        (fewshot_check, fsl, "tiny", "encoder.kind", "vit", "an encoder 'vit' needs a file"),
        (fewshot_check, fsl, "tiny", "caml.num_heads", 5, "caml.num_heads is 5; it must divide"),
        (fewshot_check, fsl, "tiny", "velocity.sizes.num_heads", 5, "5 heads do not divide"),
        (fewshot_check, fsl, "tiny", "ddpm.recipe.warmup", 20, "ddpm.recipe does not fit: warmup"),
        (fewshot_check, fsl, "tiny", "note", "x", "a field note, which no command knows"),
        (
            fewshot_check,
            fsl,
            "mini_imagenet",
            "beside.flat_unet.flow.recipe.clip",
            math.nan,
            "beside.flat_unet.flow.recipe.clip is nan; it must be a finite number from 0",
        ),
        (retrieval_check, retrieval, "tiny", "networks", -1, "networks is -1"),
        (retrieval_check, retrieval, "tiny", "condition.shot", 21, "at most condition.pool"),
        (retrieval_check, retrieval, "tiny", "trained.save_epochs", (2,), "at most trained.epochs"),
        (retrieval_check, retrieval, "tiny", "trained.count", 3, "two networks are needed"),
        (retrieval_check, retrieval, "tiny", "epochs", (3,), "among trained.save_epochs"),
        (retrieval_check, retrieval, "tiny", "features.caml.query", 6, "at most features.tasks.qu"),
        (retrieval_check, retrieval, "tiny", "zoos.dragons", "", "no variant 'dragons'"),
        (retrieval_check, retrieval, "tiny", "beside.task.codec.recipe.steps", 0, "beside.task"),
        (retrieval_check, retrieval, "tiny", "prior.recipe.warmup", 30, "prior.recipe does not"),
        (retrieval_check, retrieval, "tiny", "prior.dataset", "dragons", "dragons"),
        (zoo_check, zoo, "tiny", "data.name", "dragons", "there is no image set 'dragons'"),
        (zoo_check, zoo, "tiny", "networks.count", -1, "networks.count is -1"),
        (zoo_check, zoo, "tiny", "networks.held_out", 1.0, "from 0 below 1"),
        (zoo_check, zoo, "tiny", "recipe.save_epochs", (9,), "save_epochs must lie between"),
        (zoo_check, zoo, "tiny", "inputs.mean", (0.1, 0.2), "2 values of mean for 1 channels"),
        (trajectory_check, trajectory, "tiny", "states.held_out", math.nan, "states.held_out is n"),
        (trajectory_check, trajectory, "tiny", "base.milestones", (0.5, 0.3), "in rising order"),
        (trajectory_check, trajectory, "tiny", "network.sizes.channels", (8,), "of one length"),
    ],
)
def test_a_wrong_field_is_one_sentence(check, module, variant, field, value, sentence):
    with pytest.raises(UserError, match=sentence):
        check.check(changed(module.get_config(variant), {field: value}))


@pytest.mark.parametrize(
    ("check", "module"),
    [
        (fewshot_check, fsl),
        (retrieval_check, retrieval),
        (zoo_check, zoo),
        (trajectory_check, trajectory),
        (reconstruct_check, reconstruct),
    ],
)
def test_a_config_of_ones_own_has_every_field(check, module):
    with pytest.raises(UserError, match="^the config has no field "):
        check.check(ConfigDict())
    config = module.get_config("tiny").copy_and_resolve_references().unlock()
    del config["data"]
    with pytest.raises(UserError, match=r"^the config has no field data\."):
        check.check(config)


def test_a_design_beside_has_every_field_of_its_parts():
    config = changed(fsl.get_config("mini_imagenet_tiny"), {})
    del config.beside.flat_unet["flow"]
    with pytest.raises(UserError, match=r"no field beside.flat_unet.flow.coupling"):
        fewshot_check.check(config)


def test_two_fields_that_belong_together():
    check_at_most(ConfigDict({"a": {"b": 2}, "c": 2}), "a.b", "c")
    with pytest.raises(UserError, match=r"a.b is 3; it must be at most c, which is 2."):
        check_at_most(ConfigDict({"a": {"b": 3}, "c": 2}), "a.b", "c")


def test_a_batch_that_devices_cannot_share_is_refused_before_anything_is_trained(monkeypatch):
    """But for losses that look at their batch as a whole, which stays on one device."""
    monkeypatch.setattr(steps, "_chosen", lambda devices: [None] * (devices or 3))
    batches = {"backbone": 15, "caml": 3, "codec": 15, "flow": 15, "ddpm": 15, "regression": 15}
    fields = {f"{part}.recipe.batch": size for part, size in batches.items()}
    config = changed(fsl.get_config("tiny"), fields)
    fewshot_check.check(config)
    config.unlock()
    own = ("codec", "velocity", "condition", "flow")
    config.beside = {"other": {part: config[part].to_dict() for part in own}}
    for part in ("backbone", "caml", "codec", "flow", "beside.other.codec", "beside.other.flow"):
        wrong = changed(config, {f"{part}.recipe.batch": 16})
        sentence = f"^{part}.recipe.batch: batch size 16 cannot be shared equally by 3 devices; "
        with pytest.raises(UserError, match=sentence):
            fewshot_check.check(wrong)
    paired = {"flow.coupling": "exact_ot", "flow.recipe.batch": 16}
    check_recipes(changed(config, paired))

"""What a few-shot config may say, found before anything is trained."""

from __future__ import annotations

import pytest

from configs import fsl
from experiments.fewshot.check import check
from flown_jax.errors import UserError
from tests.experiments.fewshot.configs import changed

pytestmark = pytest.mark.fast

TRANSPORT = (
    ": transport over tasks of different conditions ties the source to the condition and biases "
    "the flow; it must be 'independent'.$"
)
VARIANTS = ("default", "tiny", "unet", "mini_imagenet", "mini_imagenet_tiny", "paper")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_fits_together(variant):
    check(fsl.get_config(variant))


@pytest.mark.parametrize(
    ("variant", "fields", "sentence"),
    [
        (
            "unet",
            {"tasks__settings": ("5-way 1-shot", "10-way 1-shot")},
            "tasks.settings has '10-way 1-shot', and this meta-model makes heads of 5 classes",
        ),
        (
            "tiny",
            {"tasks__settings": ("2-way 1-shot",), "condition__entries": ("features", "caml")},
            "tasks.settings has '2-way 1-shot'.* a condition without CAML",
        ),
        ("tiny", {"tasks__way": 12}, "tasks.way is 12, and CAML has names for 10 classes"),
        ("tiny", {"tasks__shots": ()}, r"tasks.shots is \(\); it must be a tuple"),
        ("tiny", {"tasks__shots": (5, 1)}, r"tasks.shots is \(5, 1\)"),
        ("tiny", {"tasks__shots": (1, 1)}, r"tasks.shots is \(1, 1\)"),
        ("tiny", {"targets__kind": "svm"}, "targets.kind is 'svm'; it must be 'adamw' or 'lda'"),
        (
            "mini_imagenet",
            {"beside__flat_unet__velocity__kind": "token_transformer"},
            "velocity.kind 'token_transformer' takes latents of 2 axes",
        ),
        ("tiny", {"flow__coupling": "exact_ot"}, f"flow.coupling is 'exact_ot'{TRANSPORT}"),
        ("tiny", {"flow__coupling": "entropic_ot"}, f"flow.coupling is 'entropic_ot'{TRANSPORT}"),
        (
            "mini_imagenet",
            {"beside__flat_unet__flow__coupling": "exact_ot"},
            f"flow.coupling is 'exact_ot'{TRANSPORT}",
        ),
    ],
)
def test_what_does_not_fit_is_found_before_anything_is_trained(variant, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        check(changed(variant, **fields))


def test_an_unknown_coupling_is_one_sentence():
    with pytest.raises(ValueError, match="coupling 'best' is unknown, expected one of independ"):
        check(changed(flow__coupling="best"))

"""Settings of few-shot tasks: texts that are some, and sets that are large enough for them."""

from __future__ import annotations

import pytest

from experiments.settings import settings
from flown_jax.data.episodes import Setting
from flown_jax.errors import UserError


def test_settings_are_read_in_their_order():
    texts = ("5-way 1-shot", "10-way 5-shot", "20-way 12-shot")
    assert settings(texts) == (Setting(5, 1), Setting(10, 5), Setting(20, 12))
    assert [s.name for s in settings(texts)] == list(texts)
    assert Setting(10, 5).slug == "10-way-5-shot"


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (("5-way",), "tasks.settings has '5-way'; it wants texts like '5-way 1-shot'"),
        (("5-way 0-shot",), "'5-way 0-shot'"),
        (("5-way 1-shot ",), "'5-way 1-shot '"),
        (("05-way 1-shot",), "'05-way 1-shot'"),
        (("5-way 1-shot", "5-way 1-shot"), "none of them twice"),
        ((), "at least one setting"),
    ],
)
def test_other_texts_are_no_settings(texts, sentence):
    with pytest.raises(UserError, match=sentence):
        settings(texts)


def test_sets_that_are_too_small_for_a_setting_are_named():
    Setting(5, 1).check("the test classes", classes=5, images=6, query=5)
    with pytest.raises(UserError, match=r"5-way 1-shot tasks need 5 classes; the cows are 4\."):
        Setting(5, 1).check("the cows", classes=4, images=600, query=5)
    sentence = (
        "5-way 5-shot tasks with 15 query images need 20 images of each class; the smallest "
        r"of the cows has 19\."
    )
    with pytest.raises(UserError, match=sentence):
        Setting(5, 5).check("the cows", classes=10, images=19, query=15)

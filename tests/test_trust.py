"""The tests that docs/trust.md names are there."""

from __future__ import annotations

import pathlib
import re

import pytest

pytestmark = pytest.mark.fast

TESTS = pathlib.Path(__file__).parent
NAMED = re.findall(
    r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", (TESTS.parent / "docs" / "trust.md").read_text()
)


def test_every_test_that_is_named_is_there():
    assert len(NAMED) > 40
    for file, name in NAMED:
        text = (TESTS / file.removeprefix("tests/")).read_text()
        assert not name or f"def {name}(" in text, f"{file}::{name}"

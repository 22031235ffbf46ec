"""Where the arrays to compare with come from."""

from __future__ import annotations

import pytest

from tests.parity import fixtures


@pytest.fixture(scope="module", params=fixtures.SOURCES)
def source(request):
    """own: the fixtures of this folder; published: those of the original code, where they are."""
    return request.param

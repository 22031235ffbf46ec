"""Where the arrays to compare with come from."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", params=["own", "published"])
def source(request):
    """own: the fixtures of this folder; published: those of the original code, where they are."""
    return request.param

"""The one error that speaks to a user.

Everything that a person can get wrong (a file, a field, a shape) raises `UserError` with one
sentence; commands print that sentence and exit with a non-zero status, without a traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave, told in one sentence."""


class Stopped(KeyboardInterrupt):
    """A training has saved what it had and ends, since that was wished for."""

"""Audits generated networks: copies, diversity, shared errors, of any two sets of weights."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit as the command line says; a user's mistake is one sentence and exit status 2."""
    # Python warns of a package that has imported its __main__ before it is run.
    from experiments.novelty.__main__ import main as run

    run(arguments)

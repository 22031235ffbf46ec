"""Turns trained weights of others into a zoo of this library."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Import as the command line says; a user's mistake is one sentence and exit status 2."""
    # Python warns of a package that has imported its __main__ before it is run.
    from experiments.import_zoo.__main__ import main as run

    run(arguments)

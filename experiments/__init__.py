"""Commands: a folder each; what they share lies beside the folders."""

import sys

if sys.argv[:1] == ["-m"]:  # as long as Python looks for `python -m experiments.NAME`
    # Before anything else is imported, which takes seconds.
    from experiments import interrupts

    interrupts.install()

"""The installed program `flown`: the commands that a checkout has as `python -m experiments.NAME`.

    flown                                     # lists the commands
    flown fewshot --config=fsl.py:tiny        # of a config that comes with them, or of a file
    flown --version

An installed package has the commands and their configs in a folder of its own, since packages of
the names `experiments` and `configs` would meet other people's; that folder is looked in first.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import sys
from pathlib import Path

import flown_jax
from flown_jax.errors import UserError

_HERE = Path(__file__).parent


def main() -> None:
    """The program."""
    # Python has put the folder of the program there, where `python -m` puts the current one.
    sys.path.insert(0, str(_HERE.parent))
    sys.path.append(os.getcwd())  # where a user's own image encoder may lie
    from experiments import interrupts

    interrupts.install()
    from experiments import command

    with command.one_sentence():
        name, *arguments = sys.argv[1:] or ["--help"]
        if name == "--version":
            print(f"flown_jax {flown_jax.__version__}")
        elif name in ("--help", "-h"):
            print(overview())
        elif name not in (known := commands()):
            print(overview(), flush=True)
            nearest = difflib.get_close_matches(name, known, 1, 0.0)[0]
            raise UserError(f"there is no command {name!r:.60}; the nearest is {nearest}.")
        else:
            sys.argv = [command.PROGRAM, *arguments]
            importlib.import_module(f"experiments.{name}.__main__").main()


def commands() -> dict[str, str]:
    """Name of each command -> the first line of what it says of itself, which imports nothing."""
    found = {}
    for path in sorted(_HERE.glob("*/__main__.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.parent.name] = doc.partition("\n")[0]
    return found


def overview() -> str:
    """What `flown` shows without a command: a line each."""
    known = commands()
    width = max(map(len, known))
    lines = [f"  {name.ljust(width)}  {line}" for name, line in known.items()]
    usage = "usage: flown COMMAND ...    (flown COMMAND --help says what it takes)"
    return "\n".join([usage, "", *lines])

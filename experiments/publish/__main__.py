"""Writes pages of results from the folders of finished runs.

    python -m experiments.publish WORKDIR... [--to=docs/results]
    python -m experiments.publish --again [--to=docs/results]

A page an experiment and variant: runs that differ in their seed alone become one, with means and
intervals. Figures stand first, then a table a quantity; below are the command, seeds, days, machine
and versions. The rows of a page are kept beside it (data/NAME.json), from which --again makes all
pages of the folder once more, without the runs. README.md of the folder lists its pages.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import command
from experiments.means import mean_rows
from experiments.publish import collect, page, stored
from experiments.publish.pictures import Picture, copied, pictures
from flown_jax.errors import UserError
from flown_jax.files import write_bytes, writing


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command.Parser("experiments.publish", __doc__)
    add = parser.add_argument
    add("workdir", nargs="*", type=Path, metavar="WORKDIR", help="folder of a finished run")
    add("--to", type=Path, default=Path("docs/results"), metavar="FOLDER", help="docs/results")
    add("--name", metavar="NAME", help="of the page, where there is one: experiment and variant")
    add("--again", action="store_true", help="all pages of the folder, from the rows kept there")
    with command.one_sentence():
        given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
        if given.again == bool(given.workdir):
            raise UserError("folders of finished runs are wanted, or --again alone; see --help.")
        if given.name is not None and not given.name.replace("-", "").replace("_", "").isalnum():
            raise UserError(f"--name={given.name}: letters, digits, - and _ are wanted.")
        for name in (
            again(given.to) if given.again else publish(given.workdir, given.to, given.name)
        ):
            print(f"wrote {given.to / name}.md")


def publish(workdirs: Sequence[Path], to: Path, name: str | None = None) -> list[str]:
    """Keep the rows of runs and write their pages; names of the pages.

    Raises:
      UserError: what `collect.pages` refuses, or a page of another config under the same name.
    """
    found = collect.pages(workdirs, name)
    for of, content in found.items():
        _check_name(to, of, content)
    for of, content in found.items():
        folder = to / "figures" / of
        content["figures"] = copied(content, Path(content.pop("where")), folder)
        _write(_kept(to, of), stored.to_bytes(content))
    for of in found:
        write(to, of)
    _list(to)
    return list(found)


def again(to: Path) -> list[str]:
    """Write all pages of a folder from the rows kept there; their names.

    Raises:
      UserError: there are none, or they are damaged.
    """
    names = _names(to)
    if not names:
        raise UserError(f"{to / 'data'} holds no rows of pages.")
    for name in names:
        write(to, name)
    _list(to)
    return names


def write(to: Path, name: str) -> None:
    """One page and its figures, from its rows."""
    text, drawn, shown = made(name, stored.from_file(_kept(to, name)))
    folder = to / "figures" / name
    for file, picture in drawn.items():
        picture.draw(folder / file)
    for path in folder.glob("*.png"):
        if path.name not in shown:  # of an earlier page
            path.unlink()
    _write(to / f"{name}.md", text.encode())


def made(name: str, content: dict[str, Any]) -> tuple[str, dict[str, Picture], list[str]]:
    """The text of a page, the figures that are drawn for it, and the names of all its figures."""
    rows = mean_rows([{**run, **_common(content)} for run in content["runs"]])
    drawn = pictures(content, rows)
    captions = {file: picture.caption for file, picture in drawn.items()}
    captions |= content.get("figures", {})
    return page.text(name, content, rows, captions), drawn, list(captions)


def _common(content: dict[str, Any]) -> dict[str, Any]:
    """What the means check of each run; that configs are alike was seen when rows were kept."""
    return {"experiment": content["experiment"], "variant": content["variant"], "config": {}}


def _check_name(to: Path, name: str, content: dict[str, Any]) -> None:
    if not _kept(to, name).exists():
        return
    there = stored.from_file(_kept(to, name))
    if there["config"] != content["config"] or there["part"] != content["part"]:
        raise UserError(
            f"{to / name}.md is of runs with another config: give --name=NAME, or delete "
            f"{_kept(to, name)}."
        )


def _list(to: Path) -> None:
    pages = {name: stored.from_file(_kept(to, name)) for name in _names(to)}
    _write(to / "README.md", page.index(pages).encode())


def _names(to: Path) -> list[str]:
    return sorted(path.stem for path in (to / "data").glob("*.json"))


def _kept(to: Path, name: str) -> Path:
    return to / "data" / f"{name}.json"


def _write(path: Path, data: bytes) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)


if __name__ == "__main__":
    main()

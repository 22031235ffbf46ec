"""The documentation: links lead somewhere, lines of Python name what there is, scripts run."""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import runpy

import numpy as np
import pytest

from flown_jax import MetaModel
from flown_jax.meta_model.build import build
from tests.few_shot import small

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Pages of the repository's front, which name files from its root.
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def without_code(text):
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(page):
    """Names of a page's headings, as GitHub and mkdocs make them."""
    found = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower() for title in found)
    return {re.sub(r"[\s]+", "-", each) for each in words}


@pytest.mark.parametrize("page", [*FRONT, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_lines_of_python_import_what_there_is(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("flown_jax"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    try:
                        importlib.import_module(f"{node.module}.{alias.name}")
                    except ModuleNotFoundError:
                        assert hasattr(module, alias.name), f"{page.name}: {alias.name}"


def test_every_script_stands_on_its_page():
    for script in [*DOCS.glob("start/*.py"), *DOCS.glob("tutorials/*.py")]:
        wanted = f'--8<-- "{script.relative_to(DOCS)}"'
        assert wanted in script.with_suffix(".md").read_text(), script.name


def test_no_page_is_the_front_once_more():
    """Tables of figures stand once: no long row of one page is a row of another."""
    seen: dict[str, str] = {}
    for page in [FRONT[0], *PAGES]:
        if "results" in page.parts:  # written by a command, beside the studies of it
            continue
        for row in re.findall(r"^\|.*\d\.\d.*\d\.\d.*\d\.\d.*\|$", page.read_text(), re.MULTILINE):
            other = seen.setdefault(row, page.name)
            assert other == page.name, f"{other} and {page.name}: {row}"


def test_the_first_network_runs(monkeypatch, capsys):
    about = small.description(entries=("features", "shots"))
    arrays = small.arrays(about)
    about = {**about, "image_shape": (28, 28, 1)}
    model = MetaModel(build(about, arrays), arrays)
    monkeypatch.setattr(MetaModel, "pretrained", lambda name: model, raising=False)
    runpy.run_path(str(DOCS / "start" / "first_network.py"))
    assert re.fullmatch(r"\d+% of 200 digits, from 20 images\n", capsys.readouterr().out)


def test_flows_in_two_dimensions_run(tmp_path):
    script = runpy.run_path(str(DOCS / "tutorials" / "two_dimensional_flows.py"))
    shown = ("Schrödinger bridge", "target")
    flows = script["main"](steps=5, batches=1, samples=16, paths=shown, folder=tmp_path)
    assert (tmp_path / "two_dimensional_flows.png").exists()
    assert len(flows) == 6 and sum(isinstance(each, str) for each in flows.values()) == 2
    for made in flows.values():
        if not isinstance(made, str):
            assert made.trajectory.shape == (101, 16, 2) and np.isfinite(made.trajectory).all()


def test_the_memorising_sampler_returns_its_data(tmp_path):
    script = runpy.run_path(str(DOCS / "tutorials" / "memorising_sampler.py"))
    rows = script["main"](steps=(5, 20), widths=(8,), samples=16, folder=tmp_path)
    assert (tmp_path / "memorising_sampler.png").exists()
    assert rows["exact"] < 1e-3 < rows["trained, 5 steps, 8 wide"]


def test_the_audit_finds_copies_in_disguise_where_units_are_matched():
    script = runpy.run_path(str(DOCS / "tutorials" / "novelty_audit.py"))
    found = script["main"](folder=str(ROOT / "zoos" / "mnist_short"), members=8, samples=4)
    name = "copies, in another order of their units"
    assert found[name, "as they are"]["copies"] == 0 and found[name, "units matched"]["copies"] == 4
    assert found["other seeds", "units matched"]["copies"] == 0

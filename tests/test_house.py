"""The house: who may import whom, and what one place alone may know."""

from __future__ import annotations

import ast
import pathlib
import re
import statistics
from collections.abc import Iterator

import pytest

from tests.conftest import FAST

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "flown_jax"
# A room imports from rooms of lower floors, and of its own floor from itself alone.
FLOORS = {
    "errors": 0,
    "_commands": 0,
    "files": 1,
    "pretrained": 1,
    "flow": 1,
    "layers": 2,
    "models": 3,
    "data": 4,
    "weights": 5,
    "conditioning": 5,
    "encoders": 6,
    "velocity": 6,
    "evaluation": 7,
    "training": 7,
    "image_encoders": 8,
    "meta_model": 9,
    "few_shot": 10,
    "networks": 10,
    "api": 11,
    "experiments": 12,
    "configs": 12,
    "benchmarks": 12,
}
# On the side: converters of PyTorch's weights, for every network of the house. The readers of its
# files and names know no network, so that whoever reads files may use them.
SIDE = "torch_import"
READERS = {
    f"torch_import.{name}"
    for name in ("files", "state_content", "state_pickle", "state_tensors", "names", "layer_order")
}


def modules() -> Iterator[tuple[str, pathlib.Path]]:
    """Dotted name below the root, `flown_jax` left out, and file of every module."""
    for top in ("flown_jax", "experiments", "configs", "benchmarks"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            name = name.removesuffix(".__init__").removeprefix("flown_jax.")
            yield name, path


def imports(path: pathlib.Path) -> set[str]:
    """Modules of the house that a file imports, at the top or inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            name = name.removeprefix("flown_jax.")
            if name.split(".")[0] in {*FLOORS, SIDE}:
                found.add(name)
    return found


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global EVERY
    EVERY = {name: imports(path) for name, path in modules() if name != "flown_jax"}


def room(name: str) -> str:
    return name.split(".")[0]


def test_every_room_has_a_floor():
    assert {room(name) for name in EVERY} == {*FLOORS, SIDE}


def test_rooms_import_from_lower_floors_alone():
    wrong = []
    for name, targets in EVERY.items():
        for target in targets:
            here, there = room(name), room(target)
            if there == here or here == SIDE:
                continue
            if there == SIDE:
                reader = any(target.startswith(f"{r}.") or target == r for r in READERS)
                fine = reader or FLOORS[here] > max(FLOORS["conditioning"], FLOORS["velocity"])
            else:
                fine = FLOORS[there] < FLOORS[here]
            if not fine:
                wrong.append(f"{name} -> {target}")
    # What a command is made of stands on one floor; configs are read by commands.
    wrong = [w for w in wrong if not re.match(r"experiments\S* -> configs\.", w)]
    assert not wrong, "\n".join(wrong)


def test_readers_of_files_know_no_network():
    for name in READERS:
        assert {room(target) for target in EVERY[name]} <= {"errors", "files", SIDE}


def test_there_is_no_circle():
    """Between rooms, the side room included."""
    arrows = {r: set() for r in {*FLOORS, SIDE}}
    for name, targets in EVERY.items():
        if name in READERS:
            continue
        arrows[room(name)] |= {
            room(t) for t in targets if not any(t.startswith(reader) for reader in READERS)
        } - {room(name)}
    done: set[str] = set()

    def visit(here: str, path: tuple[str, ...]) -> None:
        assert here not in path, " -> ".join((*path, here))
        if here not in done:
            for there in arrows[here]:
                visit(there, (*path, here))
            done.add(here)

    for each in arrows:
        visit(each, ())


def test_targets_do_not_know_each_other_and_the_middle_knows_none():
    for name, targets in EVERY.items():
        rooms = {room(target) for target in targets}
        if room(name) == "few_shot":
            assert "networks" not in rooms, name
        if room(name) == "networks":
            assert "few_shot" not in rooms, name
        if room(name) == "meta_model":
            assert not rooms & {"few_shot", "networks"}, name


def test_no_command_imports_another_one():
    commands = {p.parent.name for p in (ROOT / "experiments").glob("*/__main__.py")}
    assert {"fewshot", "retrieval", "train_zoo", "train_trajectory"} <= commands
    for name, targets in EVERY.items():
        if room(name) != "experiments":
            continue
        own = name.split(".")[1] if name.count(".") else ""
        for target in targets:
            parts = target.split(".")
            if parts[0] == "experiments" and len(parts) > 1 and parts[1] in commands:
                assert parts[1] == own, f"{name} -> {target}"


@pytest.mark.parametrize(
    ("library", "owner"),
    [("orbax", "training.checkpoints"), ("tensorflow_datasets", "data.array_record")],
)
def test_one_file_alone_imports(library, owner):
    for name, path in modules():
        found = re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        assert library not in found or name == owner, name


def test_one_place_alone_knows_devices_and_processes():
    """Benchmarks, which measure it, aside."""
    words = r"\bpmap\(|\bpmean\(|\.process_(index|count)|jax\.distributed|local_devices\("
    for name, path in modules():
        place = ".".join(name.split(".")[:2])
        if room(name) != "benchmarks" and place not in ("training.parallel", "training.step"):
            assert not re.search(words, path.read_text()), name


def test_the_meta_models_functions_stand_once():
    names = """sample_flow sample_diffusion flow_loss diffusion_loss codec_loss train_codec
    fit_latent_statistics generator_batches train_generator"""
    text = "\n".join(path.read_text() for _, path in modules())
    for name in re.findall(r"\w+", names):
        assert len(re.findall(rf"\bdef {name}\b", text)) <= 1, name


def test_files_are_short():
    rooms = ("few_shot", "networks", "meta_model", "experiments")
    sizes = {
        name: len(path.read_text().splitlines())
        for name, path in modules()
        if room(name) in rooms and path.name != "__init__.py"
    }
    assert max(sizes.values()) <= 400, max(sizes, key=sizes.get)
    assert statistics.median(sizes.values()) < 130
    for path in (ROOT / "experiments").glob("*/__main__.py"):
        assert len(path.read_text().splitlines()) <= 150, path


def test_every_folder_of_the_package_is_a_package():
    """What has no `__init__.py` is left out of a wheel."""
    folders = {p.parent for top in ("flown_jax", "experiments") for p in (ROOT / top).rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_every_room_has_fast_tests():
    for folder in {path.parent for path in (ROOT / "tests").glob("*/test_*.py")}:
        found = [path for path in folder.rglob("test_*.py") if FAST.search(path.read_text())]
        assert found, f"no test of {folder} is among those of `pytest -m fast`"

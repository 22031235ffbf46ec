"""A config cut to a few steps a stage, to see what a step costs: the flag --try_steps.

Widths and batches stay as they are, so that a step's seconds and memory are those of the real run.
What is cut: steps and epochs of every training, with what goes by them (warm-up, intervals of
checkpoints, records and validations); zoos that a run trains itself; steps of solvers where nothing
is trained through them; and counts of what is drawn, fitted or measured one by one, such as tasks,
samples and test images. A cut config's variant ends in -tryN, and it shares nothing with other
runs, whose finished stages would not be timed.

A run of one ends with a table, and leaves it in the workdir as trial.json:

    {"try_steps": 2,
     "cut": {"codec.recipe.steps": [39100, 2], ...},
     "backend": "gpu", "devices": ["NVIDIA H200"],
     "stages": [{"name": "codec", "steps": 2, "step_seconds": 0.31, "compile_seconds": 40.2,
                 "batch": 128, "parameters": 83000000, "memory_gib": 5.1,
                 "device_memory_gib": 21.4, "footprint": {"devices": 1, "state_bytes": ...}},
                ...]}

in the order of training, written at each one's end; the fields of a stage are those of
`flown_jax.training.paces.Pace`.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from ml_collections import ConfigDict

from experiments.command import fields_of
from flown_jax.files import write_json, writing
from flown_jax.training import paces
from flown_jax.training.parallel import describe_devices, leads

FILE = "trial.json"
_STEPS = -1  # in the place of a limit: the flag's value
_SHOWN = 4  # cut fields on the screen
_MARK = re.compile(r"-try([1-9]\d*)$")

# What the end of a field's dotted name may be at most; a 0 there means none and stays.
_AT_MOST: tuple[tuple[str, int], ...] = (
    (r"recipe\.(steps|save_every|validate_every)|few_steps|rivals\.curve|cut\.trained", _STEPS),
    (r"(trained_on|rivals|probe)\.steps|nfe_curve", _STEPS),
    (r"recipe\.log_every", 1),
    (r"recipe\.warmup|trunk_epochs", 0),
    (r"(trained|prior|recipe|base|initialise)\.epochs|save_epochs|tuned_at", 1),
    (r"reweighted\.rounds", 1),
    (r"tasks\.train|slot_tasks", 16),
    (r"(condition|evaluation)\.draws|yard_networks", 8),
    (r"(sampling|ddpm)\.samples|curve_(samples|tasks)|top|rivals\.averaged", 4),
    (r"tasks\.(validation|test)|tuned_on|fresh\.networks|initialise\.runs", 2),
)
# The same, where a 0 means all.
_OF_ALL: tuple[tuple[str, int], ...] = (
    (r"ddpm\.steps", _STEPS),
    (r"(test|choice|statistics)_images|test_images\.(states|seeds)|initialise\.images", 200),
    (r"evaluation\.networks", 8),
    (r"trajectory\.(epochs|every)", 1),
)
# Of the whole name: readers of networks, and training networks of a zoo.
_AT_TOP = (("runs", 1), ("networks", 8))

Cuts = dict[str, tuple[Any, Any]]


def cut(config: ConfigDict, steps: int) -> Cuts:
    """Cut a config in place; field -> what it was and what it is, of those that changed.

    Args:
      config: of any command, the user's own, too.
      steps: of every training, from 1.
    """
    before = dict(fields_of(config))
    for field, value in before.items():
        for rules, zero_is_all in ((_AT_MOST, False), (_OF_ALL, True)):
            if (limit := _limit(rules, field, steps)) is not None:
                _put(config, field, _cut(value, limit, zero_is_all))
    for field, limit in _AT_TOP:
        if _whole(before.get(field)):
            _put(config, field, min(before[field], limit))
    _cut_zoos(config, before)
    _cut_images(config, before, steps)
    if "adapt" not in config and _whole(before.get("sampling.steps")):
        _put(config, "sampling.steps", min(before["sampling.steps"], steps))
    if before.get("share"):
        config.share = False
    if isinstance(before.get("variant"), str):
        config.variant = f"{_MARK.sub('', config.variant)}-try{steps}"
    after = dict(fields_of(config))
    return {field: (old, after[field]) for field, old in before.items() if old != after[field]}


def remark(variant: str) -> str | None:
    """The sentence that stands in a report, of a variant that was cut; else None."""
    found = _MARK.search(variant)
    if found is None:
        return None
    return (
        f"This run was cut by --try_steps={found[1]}: so many steps a stage, and few tasks, "
        f"networks, samples and images. Its figures mean nothing; {FILE} has what a step costs."
    )


def folder(module: str, config: ConfigDict) -> str:
    """The default workdir of a cut run, beside the real ones."""
    return f"workdirs/{module.split('.')[-1]}-{config.get('variant', 'try')}"


def run(
    function: Callable[[ConfigDict, str | None], None],
    config: ConfigDict,
    workdir: str,
    steps: int,
    cuts: Cuts,
) -> None:
    """Run a command with a cut config; at its end, a failure's too, say what its stages cost.

    Args:
      function: the command's work. workdir: of the run.
      cuts: as `cut` gives them; fields that were set otherwise since are left out.
    """
    now = dict(fields_of(config))
    cuts = {field: values for field, values in cuts.items() if now.get(field) == values[1]}
    print(sentence(cuts, steps), flush=True)
    path = pathlib.Path(workdir)
    earlier = _stages(path)
    with paces.measured(lambda found: _write(path, earlier, found, steps, cuts)) as found:
        try:
            function(config, workdir)
        finally:
            if (path / "config.json").exists():  # else it was refused before anything began
                failed = " until the run failed" if sys.exc_info()[0] else ""
                print(f"\nWhat was trained{failed}; step: a device's memory in it, as compiled;")
                print("memory: the process's largest so far:\n")
                print(table(_write(path, earlier, found, steps, cuts)))
                print(f"{path / FILE} has the same", flush=True)


def sentence(cuts: Mapping[str, tuple[Any, Any]], steps: int) -> str:
    """What was cut, in one line: the first few, counts of what is not trained before steps."""
    others = [field for field in cuts if not re.search(r"recipe\.|share$|variant$", field)]
    shown = [f"{f} {_short(cuts[f][0])} -> {_short(cuts[f][1])}" for f in others[:_SHOWN]]
    more = len(cuts) - len(shown)
    return (
        f"cut to {steps} steps a stage: {', '.join(shown)}{' and ' * bool(shown)}{more} fields "
        f"more (all in config.json and {FILE} of the workdir)"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Stages that trained, a line each."""
    head = ("stage", "s/step", "compile s", "batch", "parameters", "step GiB", "memory GiB")
    lines: list[tuple[str, ...]] = [(*head, "device GiB")]
    for row in rows:
        batch, count = row["batch"], row["parameters"]
        lines.append(
            (
                row["name"],
                _number(row["step_seconds"], "{:.4g}"),
                _number(row["compile_seconds"], "{:.1f}"),
                _number(batch, "{}"),
                _number(count, "{:,}"),
                _number(_held(row.get("footprint")), "{:.2f}"),
                _number(row["memory_gib"], "{:.2f}"),
                _number(row["device_memory_gib"], "{:.2f}"),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def _stages(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Of an earlier call of the run, which this one goes on from."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return list(json.loads((workdir / FILE).read_text())["stages"])
    return []


def _write(
    workdir: pathlib.Path,
    earlier: list[dict[str, Any]],
    found: list[paces.Pace],
    steps: int,
    cuts: Cuts,
) -> list[dict[str, Any]]:
    """The file, at every stage's end: a process without memory is killed. Its rows are returned."""
    again = {pace.name for pace in found}
    rows = [row for row in earlier if row["name"] not in again]
    rows += [pace.to_dict() for pace in found]
    content = {"try_steps": steps, "cut": {k: list(v) for k, v in cuts.items()}}
    if not leads():
        return rows
    with writing(workdir):
        write_json(workdir / FILE, {**content, **describe_devices(), "stages": rows})
    return rows


def _cut_zoos(config: ConfigDict, before: Mapping[str, Any]) -> None:
    """Zoos that are trained here: as few networks and states as are divided and measured."""
    for group in ("networks", "trained"):
        count, share = before.get(f"{group}.count"), before.get(f"{group}.held_out")
        if _whole(count) and isinstance(share, float):
            few = next((n for n in range(8, count) if 2 <= round(share * n) <= n - 2), count)
            _put(config, f"{group}.count", few)
    every = before.get("held_out_every")
    states = 2 * every if _whole(every) else 20
    for field in ("trajectory.count", "states.count"):
        if _whole(before.get(field)):
            _put(config, field, _cut(before[field], states, zero_is_all=True))
    if _whole(before.get("states.every")):
        _put(config, "states.every", 1)
    # Of a zoo that is trained here there are other epochs now.
    zoos = [value for name, value in before.items() if re.fullmatch(r"zoos\.[^.]+", name)]
    if before.get("epochs") and "" in zoos:
        _put(config, "epochs", (1,) if not any(zoos) else (*before["epochs"], 1))


def _cut_images(config: ConfigDict, before: Mapping[str, Any], steps: int) -> None:
    """Images that are seen one by one: as many as tasks need, or as so many steps take."""
    for where in ("", "features."):
        query, named = before.get(f"{where}tasks.query"), before.get(f"{where}tasks.settings")
        if not _whole(query) or not isinstance(named, tuple | list):
            continue
        # Training looks at fewer queries than measuring, whose images each pass the encoder.
        trained = (before.get(f"{where}{name}", 1) for name in ("tasks.train_query", "caml.query"))
        query = min(query, max(trained))
        _put(config, f"{where}tasks.query", query)
        shots = [*before.get(f"{where}tasks.shots", ()), before.get(f"{where}targets.shots", 1)]
        shots += [int(n) for text in named for n in re.findall(r"(\d+)-shot", str(text))]
        field = f"{where}data.images_per_class"
        if _whole(before.get(field)):
            _put(config, field, _cut(before[field], max(shots) + query, zero_is_all=True))
    if _whole(before.get("condition.pool")):
        limit = max(20, before.get("condition.shot", 1))
        _put(config, "condition.pool", min(before["condition.pool"], limit))
    fields = [before.get("base.batch"), before.get("states.recipe.batch")]
    batches = [batch for batch in fields if _whole(batch)]
    if _whole(before.get("data.train_images")) and len(batches) == 2:
        images = _cut(before["data.train_images"], steps * max(batches), zero_is_all=True)
        _put(config, "data.train_images", images)


def _limit(rules: tuple[tuple[str, int], ...], field: str, steps: int) -> int | None:
    for pattern, limit in rules:
        if re.fullmatch(rf"(.*\.)?({pattern})", field):
            return steps if limit == _STEPS else limit
    return None


def _cut(value: Any, limit: int, zero_is_all: bool = False) -> Any:
    """A count, or a tuple of some, none twice; what is neither is left to the command's check."""
    if _whole(value):
        return limit if zero_is_all and value == 0 else min(value, limit)
    if isinstance(value, tuple) and all(map(_whole, value)):
        return tuple(dict.fromkeys(min(entry, limit) for entry in value))
    return value


def _put(config: ConfigDict, field: str, value: Any) -> None:
    *groups, last = field.split(".")
    for group in groups:
        config = config[group]
    config[last] = value


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _held(footprint: Mapping[str, int] | None) -> float | None:
    """GiB that a step holds on a device."""
    if footprint is None:
        return None
    return sum(footprint[f"{part}_bytes"] for part in ("state", "batch", "frozen", "work")) / 2**30


def _number(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def _short(value: Any) -> str:
    return f"{value:,}" if _whole(value) else str(value)

"""What processes of a run do together, as a command: python -m tests.parallel.together DO FOLDER

The flags of `experiments.processes` come behind.
"""

from __future__ import annotations

import os
import pathlib
import sys
import time
from typing import Any

from absl import flags

from experiments import command, interrupts, processes


def main(do: str, folder: pathlib.Path) -> None:
    """One of the things below."""
    globals()[f"do_{do}"](folder)


def do_talk(folder: pathlib.Path) -> None:
    """Every way of telling each other; lines are of the process's own number."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from flown_jax.training import parallel

    index = parallel.process_index()
    rows = parallel.gather(np.asarray([[index, 2.0**40 + index]]))
    told = {
        "agree": parallel.agree({"of": index, "long": "x" * 10_000})["of"],
        "lead": parallel.lead(lambda: index),
        "gather": rows.tolist(),
    }

    def scaled(models, shared, factor):
        return {"y": models["x"] * shared * factor}

    for devices in (1, 2):
        models = {"x": np.arange(10.0, dtype=np.float32).reshape(5, 2)}
        over = parallel.OverModels(scaled, multiple=2, devices=devices)
        result = over.collect(over(over.place(models), over.share(np.float32(2)), np.float32(3)))
        told[f"models{devices}"] = result["y"].tolist()
    # Draws and sums of rows that devices share are those of one device; each process has its items.
    rows = np.arange(24.0, dtype=np.float32).reshape(8, 3)
    drawn = jax.jit(lambda x: x + jax.random.normal(jax.random.key(0), x.shape))
    spread = parallel.spread(rows)
    told["places"] = len(spread.sharding.device_set)
    told["spread"] = bool(np.array_equal(drawn(spread), drawn(jnp.asarray(rows))))
    mine: list[int] = []

    def squared(item: int):
        mine.append(item)
        return {"square": np.full((2,), item**2)}

    shared = parallel.share_out(squared, range(5))
    told["shared"] = [one["square"].tolist() for one in shared]
    print("mine", mine, file=sys.stderr)
    (folder / f"{index}.txt").write_text(repr(told))
    print("shown by one")


def do_refuse(folder: pathlib.Path) -> None:
    """A mistake that process 0 alone meets."""
    from flown_jax.errors import UserError
    from flown_jax.training import parallel

    def write() -> None:
        raise UserError("no space left.")

    parallel.lead(write)


def do_vanish(folder: pathlib.Path) -> None:
    """The last process ends without a word."""
    from flown_jax.training import parallel

    parallel.agree(None)
    if not parallel.leads():
        os._exit(9)
    parallel.agree(None)


def do_batch(folder: pathlib.Path) -> None:
    """A batch that cannot be shared."""
    from flown_jax.training.parallel import shares

    shares(6, what="the flow")


def do_fit(folder: pathlib.Path) -> None:
    """A long training that saves seldom."""
    _fit(folder, steps=100_000, save_every=90_000)


def do_train(folder: pathlib.Path) -> None:
    """A short one that saves often, to its end."""
    import jax
    import numpy as np

    from flown_jax.training import parallel

    state = _fit(folder, steps=60, save_every=2)
    if parallel.leads():
        np.savez(folder / "end.npz", *jax.tree.leaves(state))


def _fit(folder: pathlib.Path, **how: int) -> Any:
    from flown_jax.training import Checkpoints, Records, fit
    from tests.training import toy

    def batch_at(index: int):
        time.sleep(0.01)
        return toy.batch_at(index)

    return fit(
        toy.initial(),
        toy.step(devices=None),
        batch_at,
        name="toy",
        records=Records(folder, interval=0.2),
        checkpoints=Checkpoints(folder / "saved"),
        **how,
    )


if __name__ == "__main__":
    interrupts.install()
    with command.one_sentence():
        values = flags.FlagValues()
        processes.define(values)
        rest = values(sys.argv)
        processes.join(values)
        main(rest[1], pathlib.Path(rest[2]))

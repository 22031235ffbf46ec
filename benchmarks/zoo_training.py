"""Models trained a second times steps, against PyTorch loops over the same models.

CNN-small on 28 x 28 images, Adam, every model on its own order of the data. The twin trains one
model after another; it is run on all cores in every way that may serve it: one process with
all threads, or one process a core with its share of the models.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np

from benchmarks.harness import Case, available_cores, first_call, main, race, report

BATCHES = (10, 64)
MODELS, STEPS, TWIN_STEPS = 100, 100, 100
IMAGES, LEARNING_RATE = 5000, 3e-4
CHECKED, TOLERANCE = 5, 1e-2  # steps; Adam magnifies rounding where a gradient is tiny


def run(seconds: float) -> dict[str, Any]:
    """The benchmark's result; `seconds` of measuring for each batch size."""
    from flown_jax.training.parallel import use_all_cores

    use_all_cores()
    cases = [measure(batch, seconds) for batch in BATCHES]
    return report(
        "zoo_training",
        cases,
        unit="us/model-step",
        seconds_per_unit=1e-6,
        groups={"": list(cases[0].twins)},
        model_steps_per_second={case.name: round(1 / case.ours.median) for case in cases},
        twin_model_steps_per_second={
            case.name: {name: round(1 / t.median) for name, t in case.twins.items()}
            for case in cases
        },
    )


def measure(batch: int, seconds: float, models: int = MODELS, steps: int = STEPS) -> Case:
    """Times a model's step of ours and of the twins.

    Args:
      batch: images a step. seconds: of measuring.
      models: trained at once. steps: of each in one unit of work.
    Raises:
      RuntimeError: the contestants' weights differ after a few steps.
    """
    import jax

    trainer, placed, data = build(batch, models)
    orders = trainer.orders(placed, 0)

    def our_work(units: int) -> None:
        for _ in range(units):
            jax.block_until_ready(trainer.advance(placed, orders, 0, steps))

    compile_s = first_call(our_work)
    contestants: dict[str, Any] = {"ours": our_work}
    sizes = {"ours": models * steps}
    cores = available_cores()
    with _Workers(cores, *data) as every, _Workers(1, *data) as single:
        for name, workers in (("threads", single), (f"{cores} processes", every)):
            for channels_last in (False, True):
                label = f"{name}, channels last" if channels_last else name
                contestants[label] = workers.work(TWIN_STEPS, channels_last)
                sizes[label] = workers.count * TWIN_STEPS
        for contestant in contestants.values():
            contestant(1)
        timings = {name: t.per(sizes[name]) for name, t in race(contestants, seconds).items()}
    return Case(f"batch {batch}", timings.pop("ours"), timings, compile_s, _flops(batch))


def build(batch: int, models: int) -> tuple[Any, Any, tuple[Any, ...]]:
    """Our trainer, its placed population, and the twins' data: start, images, labels, batch.

    Raises:
      RuntimeError: the twin's weights differ from ours after a few steps.
    """
    import jax

    from benchmarks.torch_twins import train_cnns
    from flown_jax.models.cnn import cnn_small
    from flown_jax.models.initialise import initialise_cnn
    from flown_jax.models.many import logits
    from flown_jax.training import many
    from flown_jax.training.optimizers import adam
    from flown_jax.weights.spec import WeightSpec

    rng = np.random.default_rng(0)
    images = rng.standard_normal((IMAGES, 28, 28, 1), np.float32)
    labels = rng.integers(0, 10, IMAGES)
    cnn = cnn_small(activation="tanh")

    def initial(key: Any) -> Any:
        return initialise_cnn(key, cnn, (28, 28, 1), "kaiming_uniform")

    params = jax.jit(jax.vmap(initial))(jax.random.split(jax.random.key(0), models))
    spec = WeightSpec.from_module(cnn, {"params": jax.eval_shape(initial, jax.random.key(0))})
    optimizer = adam(LEARNING_RATE, weight_decay=0.0, steps=1)
    trainer = many.Trainer(logits(cnn), optimizer, images, labels, batch=batch)

    def vector(params: Any) -> Any:
        return spec.flatten({"params": params})

    vectors = jax.jit(jax.vmap(vector))
    start = np.asarray(vectors(params))
    placed = trainer.place(many.create(params, np.arange(models), optimizer))
    few = trainer.advance(placed, trainer.orders(placed, 0), 0, CHECKED)
    ours = vectors(trainer.collect(few).params)[0]
    order = np.asarray(many.epoch_order(0, 0, IMAGES, batch))[None, : CHECKED * batch]
    theirs = train_cnns(start[:1], images, labels, order, batch, LEARNING_RATE)[0]
    difference = np.abs(ours - theirs).max() / np.abs(ours - start[0]).max()
    if not difference < TOLERANCE:
        raise RuntimeError(f"the twin's weights differ from ours by {difference:.1e} of the way.")
    return trainer, placed, (start, images, labels, batch)


def _flops(batch: int) -> float:
    """Operations of a step of CNN-small, multiply and add counted apart: three passes."""
    forward = 24 * 24 * 8 * 25 + 8 * 8 * 6 * 200 + 9 * 4 * 24 + 36 * 20 + 200
    return 3 * 2.0 * batch * forward


class _Workers:
    """Processes that train PyTorch models one after another, each with its share of the cores."""

    def __init__(self, count: int, *data: Any) -> None:
        self.count = count
        context = multiprocessing.get_context("spawn")
        threads = max(1, available_cores() // count)
        self._pipes, self._processes = [], []
        for i in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, i, threads, *data), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: Any) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()

    def work(self, steps: int, channels_last: bool) -> Any:
        def go(units: int) -> None:
            for pipe in self._pipes:
                pipe.send((units, steps, channels_last))
            for pipe in self._pipes:
                pipe.recv()

        return go


def _serve(pipe: Any, index: int, threads: int, *data: Any) -> None:
    import torch

    from benchmarks.torch_twins import train_cnns

    torch.set_num_threads(threads)
    start, images, labels, batch = data
    rng = np.random.default_rng(index)
    while (task := pipe.recv()) is not None:
        units, steps, channels_last = task
        for _ in range(units):
            order = rng.integers(0, len(images), (1, steps * batch))
            train_cnns(
                start[index : index + 1],
                images,
                labels,
                order,
                batch,
                LEARNING_RATE,
                channels_last=channels_last,
            )
        pipe.send(True)


if __name__ == "__main__":
    main(__doc__, run, seconds=60.0)

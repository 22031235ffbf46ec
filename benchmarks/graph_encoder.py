"""One step of the encoder of networks' graphs, against a twin of the published dense form.

Forward and backward for CNN-medium of three channels, at the sizes of the paper's Table 7 and
without an optimizer. The twin has features for all pairs of nodes, as published; ours keeps to
the pairs that have weights by default (`as_conv, sparse`). "ratio" and "memory_ratio" are the
twin's over those of the default; "forms" has the others, which are there for parity. Memory is
what a process of its own needs on the host beyond its imports, compilation included; "growth" shows
how it and the time of ours go with the network, and "accumulated" what a larger batch needs.
"""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness import Case, Work, clock, first_call, main, race, report
from flown_jax.training.records import peak_memory_gib

Network = list[tuple[np.ndarray, np.ndarray]]
BATCH, LARGE_BATCH = 8, 32
CHUNK = 1  # networks that ours encodes at a time
_MOST_PAIRS = 20_000
ROUNDS = 2  # a step of the twin is seconds long
TOLERANCE = 1e-4  # float32 sums in another order

# Shapes of kernels as PyTorch has them; every layer has a bias.
NETWORKS: dict[str, tuple[tuple[int, ...], ...]] = {
    "CNN-small": ((8, 3, 5, 5), (6, 8, 5, 5), (4, 6, 2, 2), (20, 36), (10, 20)),
    "CNN-medium": ((16, 3, 3, 3), (32, 16, 3, 3), (15, 32, 3, 3), (20, 60), (10, 20)),
    "CNN-medium, 100 classes": (
        (16, 3, 3, 3),
        (32, 16, 3, 3),
        (15, 32, 3, 3),
        (20, 60),
        (100, 20),
    ),
}


@dataclass(frozen=True)
class Form:
    """How a network is read.

    Attributes:
      flattening: "as_conv" or "repeat_nodes", which is the published one.
      dense: all pairs of nodes, without a mask; else those with a weight, both ways, and loops.
    """

    flattening: str
    dense: bool

    def size(self, shapes: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Nodes and pairs of a network of these kernels."""
        nodes, edges, before = shapes[0][1], 0, shapes[0][1]
        for shape, after in zip(shapes, [*shapes[1:], None], strict=True):
            units = shape[0]
            if self.flattening == "repeat_nodes" and after and len(shape) > len(after):
                units = after[1]
            nodes, edges, before = nodes + units, edges + before * units, units
        return nodes, nodes**2 if self.dense else 2 * edges + nodes


DEFAULT, PUBLISHED_FORM = "as_conv, sparse", "repeat_nodes, dense"
FORMS = {
    DEFAULT: Form("as_conv", dense=False),
    "as_conv, dense": Form("as_conv", dense=True),
    "repeat_nodes, sparse": Form("repeat_nodes", dense=False),
    PUBLISHED_FORM: Form("repeat_nodes", dense=True),
}
RACED = (DEFAULT, "repeat_nodes, sparse", PUBLISHED_FORM)


@dataclass
class Contestant:
    """Steps, and the outputs (B, d_out) of the networks."""

    work: Work
    outputs: np.ndarray


def ours(
    networks: list[Network],
    form: Form,
    config: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
) -> Contestant:
    """Steps of this library's encoder.

    Args:
      networks: the batch. form: see `Form`. config: sizes, see `graph_twin.PUBLISHED`.
      state: the twin's parameters, for forms that have the same; None draws others.
    """
    import jax

    from flown_jax.torch_import import convert
    from flown_jax.weights.graphs import chain

    published = form.flattening == "repeat_nodes"
    network = chain(
        [w.shape for w, _ in networks[0]],
        flattening=form.flattening,
        order="published",
        kernel=config["max_kernel"],
        linear_as_conv=not published,
    )
    encoder = _encoder(network, form, config, CHUNK)
    w = jax.numpy.asarray([np.concatenate([x.ravel() for p in n for x in p]) for n in networks])
    if state is None:
        variables = jax.jit(encoder.init)(jax.random.key(0), w[:1])
    else:
        variables = jax.tree.map(jax.numpy.asarray, convert("graph_encoder", state, config))

    def loss(params: Any, w: Any) -> Any:
        outputs = encoder.apply({**variables, "params": params}, w)
        return (outputs**2).mean(), outputs

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    params = variables["params"]

    def work(units: int) -> None:
        for _ in range(units):
            jax.block_until_ready(step(params, w))

    (_, outputs), _ = step(params, w)
    return Contestant(work, np.asarray(outputs))


def _encoder(network: Any, form: Form, config: Mapping[str, Any], chunk: int | None) -> Any:
    from flown_jax.encoders.graph_encoder import GraphEncoder

    published = form.flattening == "repeat_nodes"
    plain = {"head_activation": "relu", "skip": False, "reference": False, "pooling": "outputs"}
    return GraphEncoder(
        network,
        d_out=config["d_out"],
        form="dense" if form.dense else "sparse",
        node_dim=config["d_node"],
        edge_dim=config["d_edge"],
        attention_dim=config["d_attn_hid"],
        num_heads=config["n_heads"],
        num_layers=config["n_layers"],
        node_hidden=config["d_node_hid"],
        edge_hidden=config["d_edge_hid"],
        softmax_scale="width",
        frequencies=config["sin_emb_dim"],
        head_dims=(config["d_out_hid"],) * 2,
        levels=config["max_num_hidden_layers"] if published else None,
        positions=config["max_spatial_resolution"] if published else 0,
        chunk=chunk,
        **(plain | {"edge_levels": False} if published else {}),
    )


def twin(networks: list[Network], config: Mapping[str, Any]) -> Contestant:
    """Steps of the twin."""
    import torch

    from benchmarks import graph_twin
    from benchmarks.unet_pair import torch_device, wait

    device = torch_device()
    module = seeded_twin(config).to(device)
    graphs = graph_twin.dense_graphs(networks, config).to(device)

    def work(units: int) -> None:
        for _ in range(units):
            module.zero_grad(set_to_none=True)
            module(graphs).square().mean().backward()
        wait(device)

    with torch.no_grad():
        return Contestant(work, module(graphs).cpu().numpy())


def seeded_twin(config: Mapping[str, Any]) -> Any:
    """The twin with the same random parameters in every process."""
    import torch

    from benchmarks import graph_twin

    torch.manual_seed(0)
    return graph_twin.GraphEncoder(config)


def run(seconds: float) -> dict[str, Any]:
    """The benchmark's result; `seconds` of measuring, two rounds at least."""
    memory = {name: alone(name, "CNN-medium", BATCH)["memory_gib"] for name in ("twin", *RACED)}
    cases = measure(seconds)
    growth = [
        {"network": name, "form": form, "pairs": FORMS[form].size(shapes)[1]}
        | alone(form, name, BATCH, steps=3)
        for name, shapes in NETWORKS.items()
        for form in (DEFAULT, "as_conv, dense")
        if FORMS[form].size(shapes)[1] < _MOST_PAIRS  # more take minutes a step
    ]
    print(growth_table(growth))
    forms = {
        case.name: {
            "ratio": round(case.ratio(), 3),
            "memory_ratio": round(memory["twin"] / memory[case.name], 3),
            "seconds": round(case.ours.median, 4),
        }
        for case in cases
    }
    default = next(case for case in cases if case.name == DEFAULT)
    return report(
        "graph_encoder",
        [dataclasses.replace(default, name="CNN-medium")],
        unit="s/step",
        seconds_per_unit=1.0,
        batch=BATCH,
        memory_ratio=forms[DEFAULT]["memory_ratio"],
        memory_gib=memory,
        forms=forms,
        growth=growth,
        resnet18=in_a_process(whole_resnet),
        accumulated={"batch": LARGE_BATCH, **alone(DEFAULT, "CNN-medium", LARGE_BATCH)},
    )


def measure(
    seconds: float, network: str = "CNN-medium", batch: int = BATCH, **sizes: Any
) -> list[Case]:
    """Times a step of the twin and of ours in all forms that are raced, on the same networks.

    Args:
      seconds: of measuring. network: a name of `NETWORKS`. batch: how many of it.
      sizes: that differ from the published ones.
    Raises:
      RuntimeError: the outputs of our published form differ from the twin's.
    """
    config, networks = _config(network, sizes), drawn(NETWORKS[network], batch)
    published = twin(networks, config)
    published.work(1)
    values = {name: value.numpy() for name, value in seeded_twin(config).state_dict().items()}
    found = {}
    for name in RACED:
        same = FORMS[name].flattening == FORMS[PUBLISHED_FORM].flattening
        found[name] = ours(networks, FORMS[name], config, values if same else None)
    difference = np.abs(found[PUBLISHED_FORM].outputs - published.outputs).max()
    difference = float(difference / np.abs(published.outputs).max())
    if not difference < TOLERANCE:
        raise RuntimeError(
            f"the twin's outputs differ from ours by {difference:.1e} (at most {TOLERANCE:.0e} "
            "expected): they are not the same network."
        )
    compile_s = {name: first_call(contestant.work) for name, contestant in found.items()}
    contestants = {"torch": published.work} | {name: c.work for name, c in found.items()}
    timings = race(contestants, seconds, rounds=ROUNDS)
    torch = timings.pop("torch")
    return [
        Case(
            name,
            timings[name],
            {"torch": torch},
            compile_s[name],
            batch * _flops(*FORMS[name].size(NETWORKS[network]), config),
        )
        for name in RACED
    ]


def alone(name: str, network: str, batch: int, steps: int = 1) -> dict[str, float]:
    """Seconds a step and peak memory of one contestant, in a process that does nothing else.

    Args:
      name: "twin" or a name of `FORMS`. network: a name of `NETWORKS`.
      batch: how many of it. steps: after the first; the fastest counts.
    """
    return in_a_process(measured_here, name, network, batch, steps)


def in_a_process(function: Any, *arguments: Any) -> Any:
    """The function's result in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def measured_here(
    name: str, network: str, batch: int, steps: int, **sizes: Any
) -> dict[str, float]:
    """The same in this process."""
    config, networks = _config(network, sizes), drawn(NETWORKS[network], batch)
    _import_all(name)
    before = _resident("VmRSS")
    if name == "twin":
        contestant = twin(networks, config)
    else:
        contestant = ours(networks, FORMS[name], config)
    contestant.work(1)
    seconds = min(clock(contestant.work) for _ in range(steps))
    memory = _resident("VmHWM") - before
    return {"seconds": round(seconds, 4), "memory_gib": round(memory, 3)}


def whole_resnet() -> dict[str, float]:
    """ResNet-18 with all of its weights: a graph and back, and what encoding it would cost.

    It is encoded at Table 7's sizes in the sparse form; that is computed, not run.
    """
    import jax

    from benchmarks.graph_twin import PUBLISHED
    from flown_jax.encoders.graph_cost import encoding_cost
    from flown_jax.models.resnet import ResNet18
    from flown_jax.weights.graphs import counts, topology
    from flown_jax.weights.spec import WeightSpec

    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jax.numpy.float32)
    variables = jax.eval_shape(ResNet18().init, jax.random.key(0), images)
    start = time.perf_counter()
    network = topology(WeightSpec.from_module(ResNet18(), variables))
    made = time.perf_counter()
    w = jax.random.normal(jax.random.key(0), (network.size,))
    back = network.from_graph(network.graph(w))
    if not jax.numpy.array_equal(back, w):
        raise RuntimeError("the weights of a ResNet-18 did not come back from its graph.")
    ended, memory = time.perf_counter(), peak_memory_gib()
    encoder = _encoder(network, Form("as_conv", dense=False), PUBLISHED, None)
    # The reference network would be a second one beside the batch's.
    cost = encoding_cost(encoder.clone(reference=False))
    return {
        **counts(network),
        "topology_s": round(made - start, 2),
        "graph_and_back_s": round(ended - made, 2),
        "peak_gib": round(memory, 2),
        "encoding_gib": round(cost["gib"], 1),
        "encoding_gflop": round(cost["gflop"], 1),
    }


def drawn(shapes: Sequence[Sequence[int]], count: int) -> list[Network]:
    """Networks of normal weights that keep the size of what they are applied to."""
    rng = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return [
        [(values(*s) / np.float32(np.sqrt(np.prod(s[1:]))), 0.1 * values(s[0])) for s in shapes]
        for _ in range(count)
    ]


def growth_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of pairs, time and memory."""
    lines = [f"| network ({BATCH}) | form | pairs | s/step | GiB |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['network']} | {row['form']} | {row['pairs']:,} | {row['seconds']:.2f} | "
            f"{row['memory_gib']:.2f} |"
        )
    return "\n".join(lines)


def _config(network: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    from benchmarks.graph_twin import PUBLISHED

    shapes = NETWORKS[network]
    return {**PUBLISHED, "input_channels": shapes[0][1], "num_classes": shapes[-1][0], **sizes}


def _import_all(name: str) -> None:
    """What the contestant imports, its device and threads included: none of its memory is ours."""
    if name == "twin":
        import torch

        from benchmarks import unet_pair

        torch.ones(8, device=unet_pair.torch_device()).sum()
    else:
        import jax

        importlib.import_module("flown_jax.encoders.graph_encoder")
        importlib.import_module("flown_jax.torch_import")
        (jax.numpy.ones(8) @ jax.numpy.ones(8)).block_until_ready()


def _resident(field: str) -> float:
    """Resident memory of this process now (VmRSS) or at most (VmHWM), GiB.

    Linux's own figures: a new process's peak by getrusage is at first that of its parent.
    """
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return peak_memory_gib()
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
    return int(found[1]) / 2**20 if found else float("nan")


def _flops(nodes: int, pairs: int, c: Mapping[str, Any]) -> float:
    """Operations of a step for one network: three passes, multiply and add counted apart."""
    node, edge, width, layers = c["d_node"], c["d_edge"], c["d_attn_hid"], c["n_layers"]
    construct = pairs * (c["sin_emb_dim"] * (c["max_kernel"] ** 2 + 2 * edge) + edge**2)
    attend = pairs * (4 * edge * width + 2 * width) + nodes * 4 * node * width
    update = pairs * 5 * edge * c["d_edge_hid"] + nodes * 2 * node * c["d_edge_hid"]
    each = attend + nodes * (node**2 + 2 * node * c["d_node_hid"])
    return 3 * 2.0 * (construct + layers * each + (layers - 1) * update)


if __name__ == "__main__":
    main(__doc__, run, seconds=30.0)

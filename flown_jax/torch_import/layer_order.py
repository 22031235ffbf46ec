"""The order in which a chain of layers runs, as shapes, numbers and a file's order tell it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flown_jax.errors import UserError

Shape = tuple[int, ...]


def layers_in_order(shapes: Mapping[str, Shape], wanted: Sequence[Shape]) -> list[str]:
    """Names of a state dict's layers in the order of the network.

    Shapes tell the place of most layers. Layers of one shape are put in the order of their
    numbers, where their names differ in these alone (conv1, conv2), and otherwise in the order of
    the state dict, if it is that of the network as far as shapes tell. A state dict that was sorted
    by name, as safetensors files are, has biases before weights and no order.

    Args:
      shapes: of the tensors LAYER.weight and LAYER.bias, in the order of the file.
      wanted: of the layers' weights, in the order of the network.
    Returns:
      The layers; those of another network in any order, so that their shapes can be refused.
    Raises:
      UserError: layers of one shape might be in several orders.
    """
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
    kernels = {layer: tuple(shapes.get(f"{layer}.weight", ())) for layer in layers}
    if Counter(kernels.values()) != Counter(wanted):
        return _by_number(layers) or layers
    groups: dict[Shape, list[str]] = {}
    for layer, shape in kernels.items():
        groups.setdefault(shape, []).append(layer)
    numbered = {shape: _by_number(group) for shape, group in groups.items()}
    rest = {shape: iter(numbered[shape] or group) for shape, group in groups.items()}
    found = [next(rest[shape]) for shape in wanted]
    for shape, group in groups.items():
        alike = [layer for layer in found if _spelling(layer) == _spelling(group[0])]
        told_by_number = numbered[shape] and _by_number(alike) == alike
        if len(group) > 1 and not told_by_number and (_is_sorted(shapes) or found != layers):
            raise UserError(
                f"the layers {', '.join(group)} have one shape, and neither numbers in their names "
                "nor the order of the file tell which comes first: number them in the order in "
                "which they run (conv1, conv2), or keep that order and save with torch.save"
            )
    return found


def _by_number(layers: Sequence[str]) -> list[str]:
    """The layers by the numbers in their names; [] where names differ in anything else."""
    if len({_spelling(layer) for layer in layers}) != 1:
        return []
    keys = {layer: _numbers(layer) for layer in layers}
    return sorted(layers, key=keys.__getitem__) if len(set(keys.values())) == len(layers) else []


def _spelling(layer: str) -> str:
    return re.sub(r"[0-9]+", "#", layer)


def _numbers(layer: str) -> tuple[tuple[int, str], ...]:
    """Its numbers, of any length, in a form that sorts as they do."""
    plain = (number.lstrip("0") for number in re.findall(r"[0-9]+", layer))
    return tuple((len(number), number) for number in plain)


def _is_sorted(names: Iterable[str]) -> bool:
    """Whether a bias precedes its weight, as it does only where names were sorted."""
    seen: set[str] = set()
    for name in names:
        layer, _, leaf = name.rpartition(".")
        if leaf == "bias" and f"{layer}.weight" not in seen:
            return True
        seen.add(name)
    return False

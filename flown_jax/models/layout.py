"""Linen's tensors as PyTorch's: nested dicts by path, layouts, the order of a state dict.

A leaf `kernel` of four axes (kh, kw, in, out) is PyTorch's (out, in, kh, kw), one of two axes
(in, out) is (out, in); every other tensor is the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

_SEPARATOR = "/"
_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_RANKS = {"kernel": 0, "scale": 0, "bias": 1, "mean": 2, "var": 3}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (path, leaf) of a nested dict; a path is the keys with "/" between them."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, path + _SEPARATOR)
        else:
            yield path, value


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict of leaves by path; new dicts all the way down."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split(_SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """PyTorch's shape of the linen tensor at `path`."""
    return tuple(int(shape[axis]) for axis in _axes(path, len(shape)))


def to_torch(path: str, leaf: Array) -> Array:
    """The linen tensor at `path` in PyTorch's layout."""
    leaf = jnp.asarray(leaf)
    return jnp.transpose(leaf, _axes(path, leaf.ndim))


def from_torch(path: str, tensor: Any) -> Any:
    """The inverse of `to_torch`; a NumPy array stays one."""
    axes = _axes(path, tensor.ndim)
    return tensor.transpose(tuple(axes.index(axis) for axis in range(tensor.ndim)))


def _axes(path: str, ndim: int) -> tuple[int, ...]:
    if path.split(_SEPARATOR)[-1] == "kernel":
        if ndim == 4:
            return (3, 2, 0, 1)
        if ndim == 2:
            return (1, 0)
    return tuple(range(ndim))


def natural_order(paths: list[str]) -> list[str]:
    """Paths in the order in which PyTorch would list them.

    A module's own tensors come before its submodules: kernel or scale, bias, mean, var, others.
    Numbers are compared as numbers, and the collection (the first key) is left out of account.
    """
    return sorted(paths, key=_natural_key)


def _natural_key(path: str) -> list[tuple[Any, ...]]:
    _, *modules, leaf = path.split(_SEPARATOR)
    key: list[tuple[Any, ...]] = [(1, 0, _numbers(module)) for module in modules]
    return [*key, (0, _RANKS.get(leaf, len(_RANKS)), _numbers(leaf))]


def _numbers(name: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)


def torch_name(path: str) -> str:
    """A name in PyTorch's style: params/dense_0/kernel is dense_0.weight."""
    _, *modules, leaf = path.split(_SEPARATOR)
    return ".".join([*modules, _NAMES.get(leaf, leaf)])

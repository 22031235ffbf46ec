"""What a weight vector means: which tensors, in which order, of which network, fed with what.

A vector is the concatenation of a network's tensors in PyTorch's state-dict order, each in
PyTorch's layout and flattened row by row, so that vectors of foreign zoos and ours are the same
thing (Soro et al., Diffusion-based Neural Network Weights Generation, use this order, too). The
spec keeps beside it everything without which the vector cannot be run: the architecture with its
activation, and the preprocessing of its images.

    variables = cnn.init(key, images)
    spec = WeightSpec.from_module(cnn, variables, inputs=preprocessing)
    w = spec.flatten(variables)                     # (D,)
    logits = spec.apply(w, images)                  # the network again, from spec and vector alone

Networks with running statistics keep them out of the vector: they come from `base`, or the spec
is made with `collections=("params", "batch_stats")`. Part of a network is a `subset`, which
always needs a `base` for the rest.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flown_jax.errors import UserError
from flown_jax.models import layout, registry

Variables = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One tensor of a vector.

    Attributes:
      name: PyTorch's name, such as "module_list.0.weight".
      path: where linen keeps it, such as "params/conv_0/kernel".
      shape: PyTorch's shape.
    """

    name: str
    path: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class WeightSpec:
    """The meaning of a weight vector: hashable, equal by value, written as JSON.

    Attributes:
      entries: the tensors, in the order of the vector.
      model: the network's name in `models.registry`; None for a module that is not registered:
        then the activation is not recorded, and `module` and `apply` cannot work.
      sizes: its fields, activation included, as canonical JSON; see `sizes_dict`.
      inputs: preprocessing of its images, as canonical JSON; see `inputs_dict`.
      partial: whether tensors of the same collections were left out, see `subset`.
    """

    entries: tuple[Entry, ...]
    model: str | None = None
    sizes: str = "{}"
    inputs: str = "{}"
    partial: bool = False

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        variables: Variables,
        *,
        inputs: Mapping[str, Any] | None = None,
        collections: tuple[str, ...] = ("params",),
    ) -> WeightSpec:
        """The spec of a module's variables.

        Order and names are those of `module.state_dict_names()`; of a module without this method
        they are made up from the paths, in natural order.

        Args:
          module: a base model.
          variables: its variables, or their shapes as `jax.eval_shape` gives them.
          inputs: preprocessing of the images, JSON values.
          collections: which variables form the vector.
        Raises:
          UserError: a collection is absent, or the variables are not the module's.
        """
        for collection in collections:
            if not isinstance(variables.get(collection), Mapping):
                raise UserError(
                    f"the variables have no collection {collection!r}; they have "
                    f"{', '.join(map(str, variables)) or 'none'}."
                )
        shapes = {
            path: tuple(leaf.shape)
            for path, leaf in layout.leaves({name: variables[name] for name in collections})
        }
        if not shapes:
            raise UserError(f"the collections {', '.join(collections)} have no tensors.")
        entries = tuple(
            Entry(name, path, layout.torch_shape(path, shapes[path]))
            for name, path in _named_paths(module, shapes, collections)
        )
        model, sizes = _described(module)
        return cls(entries, model, canonical(sizes, "sizes"), canonical(inputs or {}, "inputs"))

    @functools.cached_property
    def size(self) -> int:
        """The length D of a vector."""
        return sum(entry.size for entry in self.entries)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """PyTorch's names, in the order of the vector."""
        return tuple(entry.name for entry in self.entries)

    @functools.cached_property
    def slices(self) -> dict[str, slice]:
        """Where each tensor lies in a vector, by PyTorch's name."""
        found, start = {}, 0
        for entry in self.entries:
            found[entry.name] = slice(start, start + entry.size)
            start += entry.size
        return found

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the spec's JSON, hexadecimal; equal specs and only these share it."""
        return hashlib.sha256(canonical(self.to_json(), "spec").encode()).hexdigest()

    @property
    def sizes_dict(self) -> dict[str, Any]:
        """The network's fields."""
        return json.loads(self.sizes)

    @property
    def inputs_dict(self) -> dict[str, Any]:
        """The preprocessing of its images."""
        return json.loads(self.inputs)

    def flatten(self, variables: Variables) -> Array:
        """The vector (D,) of a network's variables; may be jitted and mapped over networks.

        Raises:
          UserError: a tensor is absent or has another shape.
        """
        found = dict(layout.leaves(variables))
        return jnp.concatenate(
            [layout.to_torch(e.path, _leaf(found, e)).reshape(-1) for e in self.entries]
        )

    def unflatten(self, w: Array, base: Variables | None = None) -> dict[str, Any]:
        """The variables of a vector, the inverse of `flatten`; may be jitted and mapped.

        Args:
          w: (D,).
          base: variables to put the vector's tensors into; its other tensors stay as they are.
            A spec of a part of a network needs it.
        Raises:
          UserError: another length, no base where one is needed, or one of another network.
        """
        if w.ndim != 1 or w.shape[0] != self.size:
            given = f"{w.shape[0]} values" if w.ndim == 1 else f"shape {tuple(w.shape)}"
            raise UserError(f"a vector of this network has {self.size} values, not {given}.")
        found = dict(layout.leaves(base)) if base is not None else {}
        if self.partial and base is None:
            raise UserError(
                f"the vector holds a part of the network ({self.names[0]} to {self.names[-1]}): "
                "give `base`, the variables of the whole one."
            )
        for entry in self.entries:
            if self.partial or entry.path in found:
                _leaf(found, entry)
        for entry in self.entries:
            tensor = w[self.slices[entry.name]].reshape(entry.shape)
            found[entry.path] = layout.from_torch(entry.path, tensor)
        return layout.nested(found)

    def subset(self, predicate: Callable[[str], bool]) -> WeightSpec:
        """The spec of the tensors whose PyTorch name satisfies the predicate, in this order.

        Raises:
          UserError: no tensor does.
        """
        kept = tuple(entry for entry in self.entries if predicate(entry.name))
        if not kept:
            raise UserError(
                f"no tensor of the network is in the subset; it has {self.names[0]} to "
                f"{self.names[-1]}."
            )
        return replace(self, entries=kept, partial=self.partial or len(kept) < len(self.entries))

    def module(self) -> nn.Module:
        """The network, rebuilt from its recorded name and sizes.

        Raises:
          UserError: it is not one of `models.registry`.
        """
        if self.model is None:
            raise UserError("the network of these weights is not a registered model.")
        return registry.build(self.model, self.sizes_dict)

    def apply(self, w: Array, images: Array, base: Variables | None = None) -> Array:
        """The network's logits (B, classes), or features of a network without a classifier.

        Dropout is off and running statistics are used as they are.

        Args:
          w: (D,). images: (B, H, W, C), preprocessed as `inputs_dict` says.
          base: as in `unflatten`; running statistics come from here if the vector has none.
        Raises:
          UserError: as `unflatten` and `module`, or running statistics are missing.
        """
        module = self.module()
        variables = self.unflatten(w, base)
        needed = {path.split("/")[0] for path in module.state_dict_names().values()}
        if missing := sorted(needed - set(variables)):
            raise UserError(
                f"the network needs {missing[0]}, which are not in the vector: give `base` with "
                f"them, or make the spec with collections=('params', '{missing[0]}')."
            )
        # A backbone's call returns features even when it has a classifier.
        method = "logits" if getattr(module, "num_classes", None) else None
        method = method if method and hasattr(type(module), method) else None
        return module.apply(variables, images, train=False, method=method)

    def difference(self, other: WeightSpec) -> str | None:
        """The first thing in which another spec differs, in words; None if they are equal."""
        if self.model != other.model:
            return f"the model is {other.model}, not {self.model}"
        for what in ("sizes", "inputs"):
            here, there = json.loads(getattr(self, what)), json.loads(getattr(other, what))
            for key in sorted({*here, *there}):
                if here.get(key) != there.get(key):
                    what = "input" if what == "inputs" else "model"
                    return f"the {what}'s {key} is {there.get(key)}, not {here.get(key)}"
        for mine, theirs in zip(self.entries, other.entries, strict=False):
            if mine != theirs:
                return f"a tensor is {_shown(theirs)}, not {_shown(mine)}"
        if len(self.entries) != len(other.entries):
            return f"there are {len(other.entries)} tensors, not {len(self.entries)}"
        if self.partial != other.partial:
            return "one is a part of a network and the other is whole"
        return None

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON values; `from_json` is the exact inverse."""
        return {
            "model": self.model,
            "sizes": self.sizes_dict,
            "inputs": self.inputs_dict,
            "partial": self.partial,
            "entries": [
                {"name": e.name, "path": e.path, "shape": list(e.shape)} for e in self.entries
            ],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> WeightSpec:
        """The spec that `to_json` gave.

        Raises:
          UserError: it is not one.
        """
        try:
            entries = tuple(
                Entry(str(e["name"]), str(e["path"]), tuple(int(n) for n in e["shape"]))
                for e in stored["entries"]
            )
            model, partial = stored["model"], stored["partial"]
            sizes, inputs = canonical(stored["sizes"], "sizes"), canonical(stored["inputs"], "in")
            if not entries or not isinstance(model, str | None) or not isinstance(partial, bool):
                raise ValueError
            return cls(entries, model, sizes, inputs, partial)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("this is not the record of a weight spec.") from error


def canonical(values: Mapping[str, Any], what: str) -> str:
    """A mapping as JSON text that is the same for equal mappings.

    Raises:
      UserError: it is no mapping or has something else than JSON values; `what` names it.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{what} must be a mapping of JSON values, not {values!r:.80}.")
    try:
        return json.dumps(
            dict(values),
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
            ensure_ascii=False,
            default=_plain,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} must be JSON values: {error}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r:.80} is none")


def _named_paths(
    module: nn.Module, shapes: Mapping[str, Any], collections: tuple[str, ...]
) -> list[tuple[str, str]]:
    """(PyTorch's name, path) of every tensor, in the order of the vector."""
    if hasattr(module, "state_dict_names"):
        named = module.state_dict_names().items()
        pairs = [(n, path) for n, path in named if path.split("/")[0] in collections]
    else:
        pairs = [(layout.torch_name(path), path) for path in layout.natural_order(list(shapes))]
    listed = {path for _, path in pairs}
    if odd := sorted(listed ^ set(shapes)):
        where = "module has no" if odd[0] in shapes else "variables have no"
        raise UserError(f"the variables are not the module's: the {where} {odd[0]}.")
    if len({name for name, _ in pairs}) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two tensors of the module would both be called {twice}.")
    return pairs


def _described(module: nn.Module) -> tuple[str | None, Mapping[str, Any]]:
    if type(module) not in registry.MODELS.values():
        return None, {}
    return registry.describe(module)


def _leaf(found: Mapping[str, Any], entry: Entry) -> Any:
    if entry.path not in found:
        raise UserError(f"the variables have no {entry.path} (for {entry.name}).")
    leaf = found[entry.path]
    shape = layout.torch_shape(entry.path, jnp.shape(leaf))
    if shape != entry.shape:
        raise UserError(
            f"{entry.path} has PyTorch's shape {shape} (for {entry.name}), not {entry.shape}."
        )
    return leaf


def _shown(entry: Entry) -> str:
    return f"{entry.name} {entry.shape}"

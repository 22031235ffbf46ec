"""Which output of a network stands for which class of another data set.

CIFAR-10 and STL-10 share nine classes in two orders: networks of the one, run on the other with
classes in order of their numbers, lose what no shift of the images takes from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flown_jax.errors import UserError

# Words for one thing in names of classes.
_SYNONYMS = (
    ("airplane", "aeroplane", "plane"),
    ("automobile", "car"),
    ("ship", "boat"),
    ("truck", "lorry"),
    ("motorcycle", "motorbike"),
    ("t-shirt", "t-shirt/top", "tshirt"),
)


@dataclass(frozen=True)
class ClassOrder:
    """The classes of a data set by the outputs of networks that were made for another.

    Attributes:
      classes: (n,), number of the class that each output stands for.
      matched: (name of the output, name of the class) of those that mean the same.
      left: of the others, which are matched in the order of their numbers.
    """

    classes: tuple[int, ...]
    matched: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...]

    def outputs(self, labels: np.ndarray) -> np.ndarray:
        """The output of each label (m,)."""
        return np.argsort(np.asarray(self.classes))[labels]

    def names(self, class_names: Sequence[str]) -> tuple[str, ...]:
        """Names of the data set's classes in the order of the outputs."""
        return tuple(class_names[c] for c in self.classes)


def by_number(count: int) -> ClassOrder:
    """Output i stands for class i."""
    return ClassOrder(tuple(range(count)), (), ())


def by_name(outputs: Sequence[str], classes: Sequence[str]) -> ClassOrder:
    """Classes of the same name to the same output, and what is left in order.

    Upper and lower case, spaces and a few synonyms (car, automobile) do not count.

    Args:
      outputs: names of the classes that the networks were made for, in the order of their outputs.
      classes: of the other data set.
    Raises:
      UserError: other numbers of classes, or two classes of one name.
    """
    if len(outputs) != len(classes):
        raise UserError(f"{len(classes)} classes cannot be matched with {len(outputs)} outputs.")
    known, wanted = ([_word(name) for name in names] for names in (outputs, classes))
    for names in (known, wanted):
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two classes are named {twice[0]!r}: match them by number.")
    found = [wanted.index(name) if name in wanted else None for name in known]
    free = iter([c for c, name in enumerate(wanted) if name not in known])
    whole = tuple(next(free) if c is None else c for c in found)
    pairs = [(str(outputs[i]), str(classes[c])) for i, c in enumerate(whole)]
    same = [c is not None for c in found]
    return ClassOrder(
        whole,
        tuple(pair for pair, is_same in zip(pairs, same, strict=True) if is_same),
        tuple(pair for pair, is_same in zip(pairs, same, strict=True) if not is_same),
    )


def _word(name: str) -> str:
    word = str(name).strip().lower().replace("_", " ")
    return next((group[0] for group in _SYNONYMS if word in group), word)

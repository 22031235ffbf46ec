"""Where a trajectory's network begins: at random, or at a file of pretrained weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from flown_jax.errors import UserError
from flown_jax.files import sha256_of
from flown_jax.models import layout, registry
from flown_jax.torch_import import convert
from flown_jax.torch_import.files import read_state_dict

STARTS = ("random", "file")
Start = Callable[[Mapping[str, Any]], dict[str, Any]]


def start_values(
    network: ConfigDict, module: nn.Module, input_shape: tuple[int, int, int]
) -> tuple[Start | None, str]:
    """A function from the random variables to those of the file, and a mark of where it begins.

    At random there is no function. A file whose classifier has other classes than the data set
    gives all tensors but the classifier's, which stay random.

    Args:
      network: `start` and `file` of the config.
      module: the network. input_shape: (H, W, C) of its images.
    Raises:
      UserError: an unknown start, a file that is missing, damaged, or of another network.
    """
    if network.start not in STARTS:
        raise UserError(f"network.start is {network.start!r}; it is one of {', '.join(STARTS)}.")
    if network.start == "random":
        return None, "random"
    if not network.file:
        raise UserError(
            "the network starts from a file of pretrained weights, and none is given: "
            "--config.network.file=FILE, or --config.network.start=random."
        )
    state = read_state_dict(network.file)

    def start(variables: Mapping[str, Any]) -> dict[str, Any]:
        name, sizes = registry.describe(module)
        classifier = list(module.state_dict_names().items())[-2:]
        # The classifier's bias tells the classes of the file.
        bias = state.get(classifier[1][0])
        classes = sizes["num_classes"] if bias is None else len(np.atleast_1d(bias))
        config = {**sizes, "num_classes": classes, "in_channels": input_shape[-1]}
        config |= {"vit": {"img_size": input_shape[0]}, "cnn": {"image_size": input_shape[0]}}.get(
            name, {}
        )
        try:
            found = dict(layout.leaves(convert(name, state, config)))
        except UserError as error:
            raise UserError(f"{network.file}: {error}") from error
        if classes != sizes["num_classes"]:
            random = dict(layout.leaves(variables))
            found |= {path: random[path] for _, path in classifier}
        return layout.nested(found)

    return start, sha256_of(network.file)

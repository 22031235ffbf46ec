"""Where a trajectory's network begins: at random, or at a file of pretrained weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from flown_jax.errors import UserError
from flown_jax.files import sha256_of
from flown_jax.models import layout, registry
from flown_jax.torch_import import convert
from flown_jax.torch_import.files import read_state_dict
from flown_jax.torch_import.names import fitting

STARTS = ("random", "file")


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """Where a network begins.

    Attributes:
      fingerprint: "random", or SHA-256 of the file.
      file: its name. state: what is in it; None to begin at random.
    """

    fingerprint: str
    file: str = ""
    state: Mapping[str, Any] | None = None

    def __call__(
        self,
        module: nn.Module,
        input_shape: tuple[int, int, int],
        variables: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The network's variables at the beginning.

        A file whose classifier has other classes than the data set gives all tensors but the
        classifier's, which stay random.

        Args:
          module: the network. input_shape: (H, W, C) of its images.
          variables: its random ones.
        Raises:
          UserError: the file is of another network.
        """
        if self.state is None:
            return dict(variables)
        name, sizes = registry.describe(module)
        classifier = list(module.state_dict_names().items())[-2:]
        # The classifier's bias tells the classes of the file.
        state = fitting(self.state, set(module.state_dict_names()).issubset)
        bias = state.get(classifier[1][0])
        classes = sizes["num_classes"] if bias is None else len(np.atleast_1d(bias))
        config = {**sizes, "num_classes": classes, "in_channels": input_shape[-1]}
        config |= {"vit": {"img_size": input_shape[0]}, "cnn": {"image_size": input_shape[0]}}.get(
            name, {}
        )
        try:
            found = dict(layout.leaves(convert(name, state, config)))
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from error
        if classes != sizes["num_classes"]:
            random = dict(layout.leaves(variables))
            found |= {path: random[path] for _, path in classifier}
        return layout.nested(found)


def start_values(network: ConfigDict) -> Start:
    """Where the network of a config begins.

    Args:
      network: `start` and `file` of the config.
    Raises:
      UserError: an unknown start, a file that is missing or damaged.
    """
    if network.start not in STARTS:
        raise UserError(f"network.start is {network.start!r}; it is one of {', '.join(STARTS)}.")
    if network.start == "random":
        return Start("random")
    if not network.file:
        raise UserError(
            "the network starts from a file of pretrained weights, and none is given: "
            "--config.network.file=FILE, or --config.network.start=random."
        )
    state = read_state_dict(network.file)
    return Start(sha256_of(network.file), network.file, state)

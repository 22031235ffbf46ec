"""What can be wrong with a trajectory's config, found before anything is trained."""

from __future__ import annotations

import os

from ml_collections import ConfigDict

from configs.trajectory import get_config
from experiments.fields import check_fields, check_images, fitting
from experiments.trajectory_network import PARTS, build
from experiments.trajectory_start import STARTS
from flown_jax.errors import UserError

_CLASSES = 10  # for the shapes; the data set's own are known when it was read


def check(config: ConfigDict) -> None:
    """Refuse what cannot be trained; nothing is computed and no image read.

    Raises:
      UserError: a wrong field; the sentence names it.
    """
    check_fields(config, get_config())
    check_images(config.data.name, config.data.dir)
    network = config.network
    if network.name == "resnet12":
        raise UserError("network.name is resnet12, a backbone without a classifier of its own.")
    for field, names in (("part", PARTS), ("start", STARTS)):
        if network[field] not in names:
            raise UserError(
                f"network.{field} is {network[field]!r}; it is one of {', '.join(names)}."
            )
    if network.start == "file" and network.file and not os.path.isfile(network.file):
        raise UserError(f"network.file is {network.file!r}, and there is no such file.")
    for name, part in (("base", config.base), ("states.recipe", config.states.recipe)):
        if list(part.milestones) != sorted(set(part.milestones)):
            raise UserError(
                f"{name}.milestones is {tuple(part.milestones)}; it must be in rising order."
            )
    sizes = {**network.sizes.to_dict(), "num_classes": _CLASSES}
    with fitting("network.sizes"):
        build({"name": network.name, "sizes": sizes}, config.inputs, network.part)

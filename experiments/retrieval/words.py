"""What the tables of the retrieval experiment say in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.features import encoder_sentence
from flown_jax.networks.order import order_remark

METHODS = {
    "originals": "the zoo's training networks themselves",
    "held_out": "fresh networks: the zoo's recipe, other seeds",
    "nearest_by_condition": "a training network of the set whose conditions are nearest",
    "aligned_mean": "the mean of all training networks; one network",
    "average_of_two": "the mean of two training networks",
    "average_of_two_trained": "the mean of two, trained on",
    "kaiming_trained": "a random start, trained for as many steps",
    "kde": "kernel density in the latents of `flown`",
    "pca": "a flow in the latents of a PCA of the same size",
    "ddpm": "a DDPM in the latents of `flown`",
    "flown": "the main design",
    "flown_weights": "the paper's objective",
    "flown_task": "the task loss without reconstruction",
    "flown_raw": "as `flown`, networks not aligned",
    "flown_with_alignment": "as `flown`, units in one order first",
    "flown_with_features": "as `flown`, shown features beside CAML's embeddings",
    "flown_with_gaussian_source": "as `flown`, the flow from N(0, I)",
    "flown_with_mixes": "as `flown`, the flow to mixes of latents",
    "flown_with_mlp_codec": "as `flown`, an MLP autoencoder in the place of AutoencoderKL",
    "flown_with_mlp_velocity": "as `flown`, an MLP velocity in the place of the UNet",
    "flown_with_task_loss": "as `flown`, with the task loss of decoded mixes",
    "flown_prior": "the flow starts from networks of another data set, as in the paper",
    "flown_prior_mended": "the same, and the encoder also reconstructs them",
}
STARTS = {
    "flown": "generated for the set's support images",
    "zoo_start": "the zoo's own random initialisation",
    "kaiming_normal": "random, Kaiming normal",
    "raw_mean": "the mean of the training networks as they are",
    "aligned_mean": "their mean after alignment",
    "trained_other": "training networks of another set",
    "originals": "training networks of the set itself, trained on",
}
# The paper's Table 2: of other zoos, the mean of the best five of the samples.
PAPER = {
    "paper_original": {"mnist": 0.911, "fashion_mnist": 0.727, "cifar10": 0.487, "stl10": 0.390},
    "paper_flown": {"mnist": 0.917, "fashion_mnist": 0.738, "cifar10": 0.503, "stl10": 0.408},
    "paper_flown_prior": {"mnist": 0.63, "fashion_mnist": 0.419, "cifar10": 0.226, "stl10": 0.188},
}
_PAPER_REMARKS = {
    "paper_original": "the paper's Table 2; other zoos",
    "paper_flown": "the paper's Table 2; other zoos, top 5 of the samples",
    "paper_flown_prior": "the paper's Table 2; the same with its mini-ImageNet prior",
}


def introduction(
    config: ConfigDict, networks: Mapping[str, int], unknown: Sequence[str] = ()
) -> str:
    """What was run, in a few sentences.

    Args:
      networks: training networks of each set.
      unknown: sets whose zoos do not say which images their networks were trained on.
    """
    counts = ", ".join(f"{name} {count}" for name, count in networks.items())
    codec, flow = config.codec, config.flow
    objective = []
    if codec.weights_weight:
        objective.append(f"reconstruction of weights ({codec.reconstruction})")
    if codec.task_weight:
        part = (
            f"{codec.task_weight} times the cross-entropy of networks decoded from mixes of "
            f"{codec.members} latents on training images"
        )
        if codec.task_balance:
            part += f", each set's over its originals' own to the power {codec.task_balance}"
        objective.append(part)
    if codec.diversity_weight:
        objective.append(f"{codec.diversity_weight} times the shortfall of their distances")
    aligned = "aligned to one reference" if config.alignment.encode else "as they are"
    graphs = ", read as graphs" if codec.encoder == "graph" else ""
    return (
        f"Training networks: {counts}, {aligned}{graphs}. One autoencoder and one flow for all "
        f"sets; nobody tells the model which set is shown. {config.sampling.samples} networks a "
        f"set, each from its own {config.condition.shot} support images a class, drawn from "
        f"{_unseen(networks, unknown)} Accuracies are on test images.\n\n"
        f"Objective of the autoencoder: {'; '.join(objective)}. The flow's targets are "
        f"{'mixes of latents' if flow.target == 'mixes' else 'latents of the networks'}, its "
        f"condition is {' and '.join(config.condition.entries)}. Distances match every pair of "
        "networks unit by unit; diversity is in units of the zoo's own, and a copy is nearer to a "
        "training network than half of what held-out networks are."
        f"{encoder_sentence(config.features.encoder, 'support and test images')}"
    )


def _unseen(networks: Mapping[str, int], unknown: Sequence[str]) -> str:
    known = [name for name in networks if name not in unknown]
    seen = "training images that the flow has not seen"
    if not known:
        return f"{seen}; whether the networks have, the zoos do not say."
    if not unknown:
        return f"{seen}, nor have the networks, by the record of their zoos."
    return (
        f"{seen}; nor have the networks of {', '.join(known)}, by the record of their zoos, while "
        f"the zoos of {', '.join(unknown)} do not say which images theirs were trained on."
    )


def remarks(config: ConfigDict) -> dict[str, str]:
    """What each method is in a few words, and whether its own training saw images and labels."""
    main = bool(config.codec.task_weight)
    trained = {"average_of_two_trained": True, "kaiming_trained": True, "flown": main}
    for name, changes in config.beside.items():
        weight = changes.get("codec", {}).get("task_weight", config.codec.task_weight)
        trained[f"flown_{name}"] = bool(weight)
    for name in ("flown_prior", "flown_prior_mended"):
        trained[name] = trained.get("flown_weights", main)  # its networks and objective
    tags = {
        method: "trained on images" if saw else "weights only" for method, saw in trained.items()
    }
    tags["pca"] = "weights only"
    found = {}
    for method in dict.fromkeys([*METHODS, *trained]):
        text = METHODS.get(method, "`flown` with the changes that beside names")
        if method in tags:
            text = f"{tags[method]}: {text}"
        elif method in ("kde", "ddpm") and main:
            text += ", whose autoencoder was trained on images"
        found[method] = text
    return found | _PAPER_REMARKS


def order_remarks(config: ConfigDict, tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sentence on zoos of several seeds that are read as graphs, by any design.

    Args:
      tables: of the training networks of each set.
    """
    changes = ({}, *(part.to_dict() for part in config.beside.values()))
    main = config.codec.encoder
    if all(of.get("codec", {}).get("encoder", main) == "vae" for of in changes):
        return []
    found = order_remark(tables)
    return [] if found is None else [found]


def prior_sentence(facts: Mapping[str, float]) -> str:
    """What explains the rows of the prior, of `PriorResult.facts`."""
    return (
        f"prior: its networks are right on {100 * facts['prior_train_accuracy']:.1f} % of their "
        "training images. Where the flow trains the encoder, its latents end with a standard "
        f"deviation of {facts['prior_std']:.2f} and the targets' with {facts['targets_std']:.2f} "
        f"(1 before); in the mended autoencoder the prior's have {facts['prior_std_mended']:.2f}. "
        f"The two decoders leave {facts['residual']:.2f} and {facts['residual_mended']:.2f} of the "
        "targets' spread out."
    )


def sentences(
    of_sets: Mapping[str, list[str]], remark: str | None, facts: Mapping[str, float]
) -> list[str]:
    """All remarks below the introduction: of the starts of each set, and on the prior.

    Args:
      remark: why there is no prior, or None. facts: on the prior, where there is one.
    """
    found = [f"{name}: {sentence}" for name, of in of_sets.items() for sentence in of]
    found += [remark] if remark else []
    return found + ([prior_sentence(facts)] if facts else [])

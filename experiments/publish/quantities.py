"""What the tables of a page are about, in words: one quantity a table."""

from __future__ import annotations

from flown_jax.evaluation import tables

# Page -> its title.
TITLES = {
    "fewshot": "Few-shot heads",
    "retrieval": "Retrieval: whole networks for a data set that is shown",
    "initialisation": "Initialisation: generated networks as starts of training",
    "unconditional": "Unconditional generation",
    "adapt": "Adaptation to a new data set",
    "reconstruct": "Weight autoencoders: what they keep",
    "predict_accuracy": "Accuracies read from weights",
    "train_zoo": "A zoo of trained networks",
    "train_trajectory": "A zoo of one network's states",
    "novelty": "An audit of generated networks",
}
# Metric -> title and a sentence; of others the heading of a table stands alone.
_WORDS = {
    "accuracy": ("Accuracy, %", "Higher is better."),
    "accuracy_minus_probe": (
        "Accuracy minus that of the linear probe, points",
        "Paired: both on the same tasks.",
    ),
    "accuracy_minus_originals": ("Accuracy minus that of the zoo's own networks, points", ""),
    "accuracy_std": ("Deviation of the networks' accuracies, points", ""),
    "accuracy_min": ("Accuracy of the worst network, %", ""),
    "accuracy_max": ("Accuracy of the best network, %", ""),
    "accuracy_max_minus_originals": ("The best network minus the zoo's best, points", ""),
    "accuracy_top5": ("Accuracy of the best five networks, %", ""),
    "accuracy_top5_minus_originals": ("The best five minus the zoo's best five, points", ""),
    "accuracy_vote": ("Accuracy of the vote of 16 networks, %", ""),
    "accuracy_ensemble": ("Accuracy of ten networks' averaged probabilities, %", ""),
    "accuracy_reestimated": ("Accuracy with BatchNorm re-estimated, %", ""),
    "accuracy_copies": ("Accuracy of the copies, %", ""),
    "accuracy_others": ("Accuracy of what is no copy, %", ""),
    "nll": ("Negative log likelihood, nats", "Lower is better; as it comes."),
    "nll_minus_regression": (
        "Negative log likelihood minus that of the regression, nats",
        "Paired.",
    ),
    "nll_tempered": (
        "Negative log likelihood after one temperature, nats",
        "Fitted on validation tasks.",
    ),
    "ece": ("Calibration error, %", "Lower is better; as it comes."),
    "ece_tempered": ("Calibration error after one temperature, %", "Fitted on validation tasks."),
    "nn": ("Distance to the nearest training network", "In units of held-out networks' distance."),
    "nearest": ("Distance to the nearest training network", "In units of held-out networks' own."),
    "nn_smallest": ("The smallest distance to a training network", "In the same units."),
    "nearest_smallest": ("The smallest distance to a training network", "In the same units."),
    "copies_at_most": ("Share of copies that is not ruled out, %", "One-sided, 95 %."),
    "not_finite": ("Networks with weights that are not finite", ""),
    "novel_performant_1": ("New and good: a unit away from training networks, %", ""),
    "novel_performant_2": ("New and good: two units away from training networks, %", ""),
    "decoded_accuracy": ("Accuracy of decoded training networks, %", ""),
    "decoded_r2": ("R2 of decoded training networks", ""),
    "decoded_r2_held_out": ("R2 of decoded held-out networks", ""),
    "decoded_latent": ("Numbers in a latent", ""),
    "decoded_std": ("Deviation of the latents", ""),
    "copies": (
        "Copies of training networks",
        "Nearer to one than half of what held-out networks are.",
    ),
    "diversity": ("Diversity", "Mean distance of two, in units of two training networks'."),
    "direction_diversity": ("Diversity of directions", "The same at equal lengths."),
    "length": ("Length of the weights", "In units of the training networks'."),
    "duplicates": ("Samples that repeat another one", ""),
    "error_iou_among": ("Common errors among the networks", "Intersection over union."),
    "error_iou_train": ("Common errors with training networks", "The largest of each network's."),
    "disagreement_nearest": ("Images answered otherwise than by the nearest network, %", ""),
    "disagreement_among": ("Images on which two of the networks differ, %", ""),
    "right_set": ("Draws that gave networks of the set that was shown, %", ""),
    "reconstruction_r2": ("R2 of decoded weights", "1 is exact; 0 is the training networks' mean."),
    "seconds_training": ("Seconds of training", ""),
    "seconds_sampling": ("Seconds a network", ""),
    "nfe": ("Function evaluations a network", ""),
    "learning_rate": ("Learning rate that was chosen", "On validation images."),
}
EPOCH, CAME_OUT = "accuracy_epoch_", "came_out_"
# Differences to one row of the same table, first of those that a forest plot shows.
REFERENCES = {
    "accuracy_minus_probe": "linear_probe",
    "accuracy_minus_originals": "originals",
    "reconstruction_r2_minus_vae_mlp": "vae_mlp",
    "kendall_minus_statistics": "statistics",
}
# Differences to other rows: of the headline alone.
HEADLINE, MINUS = "flown_ensemble", "accuracy_minus_"
_ADAPTED = ("velocity", "residual", "decoder", "static", "refined", "adjoint", "reward")
_LEARNED = ("kde", "pca", "ddpm", "pdiff", "flow_on_pca", "caml", "regression", "plain_")
# Of a table, the row that others are spread around in accuracy against diversity -> its name.
LEVELS = {"originals": "mean of the originals", "static": "the generator as it is"}


def kind(experiment: str, method: str) -> str:
    """Whose a method is: `ours`, `zoo` for the zoo's own, `learned` for rivals, else `simple`."""
    if method in ("originals", "held_out", "fresh", "members"):
        return "zoo"
    own = _ADAPTED if experiment == "adapt" else ("flown",)
    if method.startswith(own):
        return "ours"
    return "learned" if method.startswith(_LEARNED) or "trained" in method else "simple"


def title(metric: str) -> str:
    """Heading of the table of a metric."""
    if metric in _WORDS:
        return _WORDS[metric][0]
    text = tables.heading(metric)
    return text[:1].upper() + text[1:]


def sentence(metric: str) -> str:
    """What is to be known of a metric below its table, or ""."""
    return _WORDS.get(metric, ("", ""))[1]


def of_headline(metric: str) -> bool:
    """Whether a metric is a difference that is shown of the headline alone."""
    return metric.startswith(MINUS) and metric not in REFERENCES

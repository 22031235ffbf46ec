"""The kind and range of every field of every config, by name, checked before anything runs.

A rule is for the end of a field's dotted name, so that `batch` is one thing in every recipe, a
design beside and the encoder's part of another command's config included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import numbers
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.command import fields_of
from experiments.designs import CODES
from experiments.stages import recipe
from flown_jax import image_encoders
from flown_jax.data import image_sets
from flown_jax.encoders.codecs import ENCODERS, FORMS, GRAPH_NAMES
from flown_jax.errors import UserError
from flown_jax.flow.density import RULES as BANDWIDTHS
from flown_jax.flow.sources import NAMES as SOURCES
from flown_jax.meta_model.mixing import DIVERSITY_FORMS
from flown_jax.models.activations import get_activation
from flown_jax.networks.adaptation import PARTS
from flown_jax.networks.batches import TARGETS
from flown_jax.training.augmentation import augmentation
from flown_jax.training.optimizers import SCHEDULES
from flown_jax.training.parallel import shares
from flown_jax.velocity.make import KINDS as VELOCITIES
from flown_jax.velocity.task_unet import INJECTIONS

# Trainings whose loss is a mean over the batch, which all devices share.
_MEANS = ("backbone", "caml", "ddpm", "flow", "regression")
_END = 2**31  # of whole numbers: seeds and counts are 32 bits wide in programs


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a field may be.

    Attributes:
      wanted: in words, behind "it must be".
      fits: whether a value is one.
    """

    wanted: str
    fits: Callable[[Any], bool]


def whole(low: int) -> Kind:
    """A whole number from `low`; True is none."""
    return Kind(
        f"a whole number from {low} below 2**31",
        lambda value: _is(value, numbers.Integral) and low <= value < _END,
    )


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Kind:
    """A finite number in a range.

    Args:
      above: `low` itself is out of it. below: `high` itself is.
    """
    words = [] if low == -math.inf else [f"above {low:g}" if above else f"from {low:g}"]
    words += [] if high == math.inf else [f"below {high:g}" if below else f"to {high:g}"]

    def fits(value: Any) -> bool:
        if not _is(value, numbers.Real) or not math.isfinite(value):
            return False
        return (low < value if above else low <= value) and (
            value < high if below else value <= high
        )

    return Kind(" ".join(["a finite number", *words]), fits)


def known(names: Sequence[str]) -> Kind:
    """One of these names."""
    listed = ", ".join(repr(name) for name in names[:-1])
    return Kind(
        f"{listed} or {names[-1]!r}", lambda value: isinstance(value, str) and value in names
    )


def named(get: Callable[[str], Any]) -> Kind:
    """A name that the library knows: `get` refuses others."""

    def fits(value: Any) -> bool:
        if isinstance(value, str):
            get(value)
        return isinstance(value, str)

    return Kind("a name that the library knows", fits)


def either(first: Kind, second: Kind) -> Kind:
    """One of two kinds."""
    return Kind(
        f"{first.wanted} or {second.wanted}", lambda value: first.fits(value) or second.fits(value)
    )


def some(kind: Kind, least: int = 1) -> Kind:
    """A tuple of at least so many of a kind."""
    return Kind(
        f"a tuple of {least} or more, each {kind.wanted}",
        lambda value: (
            isinstance(value, tuple | list) and len(value) >= least and all(map(kind.fits, value))
        ),
    )


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


FLAG = Kind("True or False", lambda value: isinstance(value, bool))
TEXT = Kind("a text that is not empty", lambda value: isinstance(value, str) and bool(value))
ANY_TEXT = Kind("a text", lambda value: isinstance(value, str))
COUNT, FROM_0 = whole(1), whole(0)
SIZE, POSITIVE = number(0), number(0, above=True)
SHARE = number(0, 1, below=True)
# Of another network's sizes than the variants have, which it names itself.
_SANE = either(FLAG, either(ANY_TEXT, either(SIZE, some(either(FLAG, SIZE), 0))))

# The first that fits the end of a field's dotted name is its rule.
RULES: tuple[tuple[str, Kind], ...] = (
    # Graph encoders.
    (r"graph\.sigma", POSITIVE),
    (r"(tasks|backbone)\.seed", whole(-1)),  # -1: the run's
    (r"(.*_)?seed", FROM_0),
    (r"share|tensorboard|mirror|unit_first|use_bias|centred|standardised|sharpened", FLAG),
    (r"nesterov|permute|encode|sizes\.(use_scale_shift_norm|wide|first_time)", FLAG),
    (r"trajectory\.(epochs|count|every|test_images)|(choice|statistics)_images", FROM_0),
    # Adaptation.
    (r"cut\.steps|spread|few|rivals\.curve", some(COUNT)),
    (r"cut\.trained", COUNT),
    (
        r"(adapt|adjoint|reweighted|rivals)\.networks|reweighted\.(rounds|images)|few_steps|adapt\.shown",
        COUNT,
    ),
    (r"adapt\.parts", some(known(PARTS))),
    (r"adapt\.rates\.[^.]+", some(POSITIVE)),
    (r"gradient_from", SHARE),
    (r"cut\.times", some(SHARE)),
    (r"match_names", FLAG),
    (r"adjoint\.(last|others)|new_images|targets\.[^.]+\.margin", FROM_0),
    (r"adjoint\.largest", SIZE),
    (r"strength|reweighted\.temperature", POSITIVE),
    (r"targets\.[^.]+\.new", TEXT),
    # Recipes.
    (r"ensemble\.recipe\.steps|(base|trained|recipe)\.epochs", FROM_0),
    (r"trained_on\.steps", some(COUNT)),
    (r"pdiff\.ddpm\.steps", FROM_0),
    (r"batch|steps|save_every|log_every|solver_steps", COUNT),
    (r"warmup|validate_every", FROM_0),
    (r"learning_rate|gamma", POSITIVE),
    (r"weight_decay|clip|floor", SIZE),
    (r"momentum|ema_decay|held_out|validation_share", SHARE),
    (r"schedule", known(SCHEDULES)),
    (r"optimizer", known(("adamw", "adam", "sgd"))),
    (r"milestones", some(number(0, 1, above=True), 0)),
    (r"augmentation", named(lambda name: augmentation(name, (0.0,)))),
    # Images.
    (r"data\.name|dataset|dir|data_dir|variant|network\.name|solver|coupling", TEXT),
    (r"foreign", some(TEXT, 0)),
    (r"alike", number(0, 1)),
    (r"jitter", SIZE),
    (r"train_classes|images_per_class|side|crop|(train|test)_images", FROM_0),
    (r"validation_classes|inputs\.(size|channels)", COUNT),
    (r"inputs\.mean", some(number(-math.inf))),
    (r"inputs\.std", some(POSITIVE)),
    # Few-shot learning.
    (r"settings", some(TEXT)),
    (r"tasks\.shots|backbone\.channels", some(COUNT)),
    (r"tasks\.(way|query|train|validation|test|train_query)|(targets\.)?shots?", COUNT),
    (r"encoder\.kind", known(("trained", *image_encoders.KINDS))),
    (r"encoder\.mean", some(number(-math.inf), 0)),
    (r"encoder\.std", some(POSITIVE, 0)),
    (r"weights|function|file|leader|zoos\.[^.]+", ANY_TEXT),
    (r"lengths|l2|inverse_penalties|temperatures|(learning_)?rates", some(POSITIVE)),
    (r"base_scales", some(POSITIVE, 0)),
    # Readers of networks.
    (r"targets\.[^.]+\.(zoo|base|base_of)", ANY_TEXT),
    (r"zoo", TEXT),
    (r"label", known(("test_accuracy", "validation_accuracy"))),
    (r"penalties", some(POSITIVE)),
    (r"backbones", some(known(("transformer", "pna")), 0)),
    (r"base_weights", some(SIZE)),
    (r"targets\.kind", known(("adamw", "lda"))),
    (r"shrinkage", number(0, 1)),
    (r"caml\.(query|num_classes|label_dim|num_layers|num_heads|mlp_dim)", COUNT),
    (r"entries", some(known(("features", "shots", "caml")))),
    (r"condition\.(slot_tasks|draws|pool)", COUNT),
    # Autoencoders, flows, diffusion.
    (r"codec\.encoder", known(ENCODERS)),
    (r"codec\.chunk", FROM_0),
    *((rf"graph\.{name}", known(names)) for name, names in GRAPH_NAMES.items()),
    (r"graph\.((node|edge|attention)_dim|num_(heads|layers)|(node|edge)_hidden)", COUNT),
    (r"graph\.(frequencies|chunk)", COUNT),
    (r"graph\.head_dims", some(COUNT)),
    (r"graph\.(edge_levels|reference|skip)", FLAG),
    (r"graph\.head_activation", named(get_activation)),
    (r"form", known(FORMS)),
    (r"reconstruction", known(("sse", "l1_sum", "l1_sum_plus_1000mse", "mse"))),
    (r"velocity\.kind", known(VELOCITIES)),
    (r"source", known(SOURCES)),
    (r"flow\.target", known(TARGETS)),
    (r"diversity_form", known(DIVERSITY_FORMS)),
    (r"codec\.codes", known(CODES)),
    (r"(kl|task|flow|weights|diversity|ball)_weight|weight|anchor|task_balance", SIZE),
    (r"diversity_target|sigma|sigma_in|sigma_lat|(condition_)?noise", SIZE),
    (r"concentration", POSITIVE),
    (r"members|mixes|(codec|prior)\.networks|(codec|alignment)\.images|timesteps", COUNT),
    (r"beta_(start|end)", number(0, 1, above=True, below=True)),
    (r"sampling\.(samples|top)|ddpm\.samples|curve_(samples|tasks)", COUNT),
    (r"nfe_curve", some(COUNT)),
    # Zoos, and what is done with them.
    (r"networks|rounds|states\.every|trunk_epochs|tuned_at|initialise\.images", FROM_0),
    (r"margins\.[^.]+", FROM_0),
    (r"(networks|trained|states)\.count|prior\.epochs", COUNT),
    (r"save_epochs|initialise\.epochs", some(FROM_0)),
    (r"epochs", some(FROM_0, 0)),
    (r"unseen\.[^.]+", TEXT),
    (r"tuned_on|runs|draws|matching_images|yard_networks", COUNT),
    (r"kde_bandwidth", either(known(BANDWIDTHS), SIZE)),
    (r"initialisation", known(("kaiming_uniform", "kaiming_normal", "uniform", "normal"))),
    (r"network\.(start|part)", TEXT),
    # Generators of one zoo's networks.
    (r"targets\.[^.]+\.kind", known(("states", "seeds"))),
    (r"test_images\.(states|seeds)", FROM_0),
    (r"align|brief", FLAG),
    (r"components", COUNT),
    (r"averaged", whole(2)),
    (r"strengths", some(POSITIVE)),
    (r"losses", some(SIZE)),
    (r"performant", number(0, 1)),
    # Weight autoencoders of one zoo.
    (r"methods", some(known(("vae_mlp", "graph", "graph_pna", "pca", "shuffled")))),
    (r"held_out_every", whole(2)),
    # Sizes of networks.
    (r"sizes\.activation", named(get_activation)),
    (r"sizes\.injection", known(INJECTIONS)),
    (r"sizes\.(condition_channels|num_res_blocks)", FROM_0),
    (r"sizes\.time_scale", POSITIVE),
    (r"sizes\.(latent_shape|channel_mult|ch_mult|channels|kernels|depths|dims)", some(COUNT)),
    (r"sizes\.(hidden|hidden_dims|attention_resolutions)", some(COUNT, 0)),
    (r"sizes\.pools", some(FLAG)),
    (r"sizes\.(num_heads|num_layers|num_groups|width|depth|patch_size)", COUNT),
    (r"sizes\.(code_dim|hidden_dim|embedding_dim|embed_dim|model_channels)", COUNT),
    (r"sizes\.(ch|resolution|z_channels|kernel|fold)", COUNT),
    (r"sizes\.(encoder|decoder)_channels", some(COUNT)),
    (r"sizes\..*", _SANE),
)
# Groups whose fields are the user's: what is named there, and how many.
_FREE = re.compile(r"(.*\.)?(sizes|beside|targets|zoos|unseen|margins)\..*")


@functools.cache
def rule(field: str) -> Kind | None:
    """What the field of this dotted name may be; None for no field of ours."""
    for pattern, kind in RULES:
        if re.fullmatch(rf"(.*\.)?({pattern})", field):
            return kind
    return None


def check_fields(config: ConfigDict, like: ConfigDict, where: str = "") -> None:
    """Refuse a config with a field that is unknown, missing, of another kind or out of range.

    Args:
      config: whatever a file's get_config and the command line made.
      like: the command's own, whose fields must be there.
      where: the dotted name that the config has in a larger one, with a dot at its end, or "".
    Raises:
      UserError: the first such field, what it is and what was expected.
    """
    found = dict(fields_of(config))
    for field, value in found.items():
        kind = rule(field)
        if kind is None:
            raise UserError(f"the config has a field {where}{field}, which no command knows.")
        if not _fits(kind, where + field, value):
            raise UserError(f"{where}{field} is {_short(value)}; it must be {kind.wanted}.")
    for field, value in fields_of(like):
        if field not in found and not _FREE.fullmatch(field):
            raise UserError(f"the config has no field {where}{field}, such as {_short(value)}.")


def check_recipes(config: ConfigDict, where: str = "") -> None:
    """Refuse recipes whose fields do not go together, such as a warm-up longer than the run, or
    whose batch the devices cannot share: before the stages that come before are trained.

    Args:
      config: with checked fields.
      where: the dotted name of its group, with a dot at its end, or "".
    Raises:
      UserError: the first one, by its dotted name.
    """
    for name, part in config.items():
        if name == "recipe" and "optimizer" in part and part.get("steps"):
            try:
                recipe(config).chain()
            except ValueError as error:
                raise UserError(f"{where}recipe does not fit: {error}") from error
            mean = where.rstrip(".").split(".")[-1] in _MEANS
            if mean and config.get("coupling", "independent") == "independent":
                shares(part.batch, what=f"{where}recipe.batch")
        elif isinstance(part, ConfigDict):
            check_recipes(part, f"{where}{name}.")


def check_images(name: str, folder: str) -> None:
    """Refuse an image set that is not at hand, without reading one that is.

    Raises:
      UserError: an unknown set, or one that was not prepared.
    """
    if not image_sets.at_hand(name, folder):
        image_sets.load(name, "train", folder)


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
    """A context in which parts that do not fit together are the user's mistake.

    Args:
      what: the dotted name of the fields that they are made from.
    Raises:
      UserError: in one sentence, from whatever refuses them.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of a module, or of an array's operation inside it
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what} does not fit: {said:.300}") from error


def check_at_most(config: ConfigDict, field: str, limit: str) -> None:
    """Refuse a field that is above another one.

    Raises:
      UserError: with both, by their dotted names.
    """
    found = dict(fields_of(config))
    if found[field] > found[limit]:
        raise UserError(
            f"{field} is {found[field]}; it must be at most {limit}, which is {found[limit]}."
        )


def _fits(kind: Kind, field: str, value: Any) -> bool:
    try:
        return kind.fits(value)
    except UserError as error:  # of a name that the library refuses
        raise UserError(f"{field} is {_short(value)}: {error}") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

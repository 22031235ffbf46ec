"""A trained meta-model in a user's hands: restore it, generate networks, run them, carry it away.

    model = MetaModel.restore("workdirs/fsl-default-seed0")
    networks = model.generate(images, labels)
    probabilities = networks.predict(new_images)

What a generated network is depends on the experiment that trained the meta-model: a linear head on
its frozen image encoder, or a whole network for a data set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# The targets register themselves.
import flown_jax.few_shot.space
import flown_jax.networks.space  # noqa: F401
from flown_jax.data.preprocessing import with_channels
from flown_jax.errors import UserError
from flown_jax.files import read_json, sha256_of, write_json, writing
from flown_jax.image_encoders import ImageEncoder
from flown_jax.meta_model.build import Parts, build
from flown_jax.meta_model.targets import RunImages, Support
from flown_jax.models.heads import FeatureTransform
from flown_jax.training.stages import FORMAT
from flown_jax.training.trees import load_tree, save_tree

_ARRAYS, _DESCRIPTION = "arrays.safetensors", "meta_model.json"
_NETWORKS = "networks.safetensors"
_KIND, _FORMAT = "flown_jax meta-model", 3


@dataclasses.dataclass(frozen=True)
class MetaModel:
    """Generates networks for support sets.

    Attributes:
      parts: the trained networks.
      arrays: all their arrays, as they are stored.
    """

    parts: Parts
    arrays: Mapping[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def restore(cls, workdir: str | Path) -> MetaModel:
        """The meta-model of a finished run of an experiment.

        Raises:
          UserError: the run is not finished, of another version, or its files are damaged.
        """
        folder = Path(workdir) / "stages" / "model"
        if not (folder / "stage.json").exists():
            raise UserError(
                f"{workdir} holds no finished meta-model: run its experiment with "
                f"--workdir={workdir} to its end first."
            )
        record = read_json(folder / "stage.json", str(workdir))
        if record.get("format") != FORMAT:
            raise UserError(
                f"{workdir} was made by another version of flown_jax: run its experiment again, in "
                "a new --workdir."
            )
        values = _checked(folder / "outputs.safetensors", record)
        return cls(build(values["description"], values["arrays"]), values["arrays"])

    @classmethod
    def load(cls, folder: str | Path) -> MetaModel:
        """The meta-model that `export` wrote into a folder.

        Raises:
          UserError: nothing of ours is there, or it is damaged or of another format.
        """
        path = Path(folder) / _DESCRIPTION
        if not path.exists():
            raise UserError(f"{folder} holds no exported meta-model: {_DESCRIPTION} is missing.")
        stored = read_json(path, f"the meta-model in {folder}")
        if not isinstance(stored, dict) or stored.get("kind") != _KIND:
            raise UserError(f"{path} is not the description of a {_KIND}.")
        if stored["format"] != _FORMAT:
            raise UserError(f"{path} has format {stored['format']}; this version reads {_FORMAT}.")
        arrays = _checked(Path(folder) / _ARRAYS, stored)
        return cls(build(stored["description"], arrays), arrays)

    def export(self, folder: str | Path) -> Path:
        """Write safetensors and JSON into a folder, for `load` and for other programs."""
        folder = Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        save_tree(folder / _ARRAYS, self.arrays)
        write_json(
            folder / _DESCRIPTION,
            {
                "kind": _KIND,
                "format": _FORMAT,
                "sha256": sha256_of(folder / _ARRAYS),
                "description": self.description,
            },
        )
        return folder

    @property
    def description(self) -> dict[str, Any]:
        """What it is and what it was trained on (`trained_on`), JSON values."""
        return self.parts.description

    @property
    def way(self) -> int | None:
        """Number of classes of the tasks that it was trained for; None where that is no matter."""
        return self.description["target"].get("way")

    @property
    def any_way(self) -> bool:
        """Whether it makes networks of any number of classes: one code, one condition a class."""
        return self.parts.any_way

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the images that its image encoder was trained on."""
        return tuple(self.description["image_shape"])

    def generate(
        self,
        images: np.ndarray,
        labels: Sequence[Hashable],
        *,
        class_names: Sequence[Hashable] | None = None,
        samples: int | None = None,
        seed: int = 0,
        like: str | None = None,
        **sampling: Any,
    ) -> GeneratedNetworks:
        """Networks for the task or the data set that a support set shows.

        Args:
          images: (m, H, W) or (m, H, W, C); uint8, or floating point in [0, 1]. For whole networks
            of any size, grey or in colour.
          labels: m labels. For heads of any kind (strings, numbers); their order in the result is
            that of `class_names`, or of their first appearance. For whole networks the class
            numbers or names of the data set that is shown.
          class_names: all classes, each with at least one image.
          samples: how many networks to draw; None for what the experiment drew.
          seed: of the draw.
          like: of whole networks, the data set whose networks these shall be; None takes the one
            whose images look most like these.
          sampling: `solver`, `steps`, `temperature` other than the trained defaults.
        Raises:
          UserError: images of another shape or not finite, another number of classes than the
            model was trained for (where `any_way` does not hold), a class without an image, a
            label that is no class, an unknown `like`.
        """
        images = self._images(images)
        listed, place = _classes(labels, class_names, len(images))
        target = self.parts.target
        classes = list(target.classes(listed, class_names is not None, like))
        index = np.asarray([classes.index(listed[i]) for i in place])
        if self.way not in (None, len(classes)) and not self.any_way:
            raise UserError(
                f"the support set has {len(classes)} classes; this meta-model was trained for "
                f"{self.way}."
            )
        count = self.description["sampling"].get("samples", 50) if samples is None else samples
        if count < 1:
            raise UserError(f"samples is {count}; at least 1 network must be drawn.")
        features, way = self.features(images), len(classes)
        condition = self.parts.conditioner.of_images(jnp.asarray(features), jnp.asarray(index), way)
        context = target.context(Support(features, index, tuple(classes), condition, like))
        key = jax.random.key(seed)
        weights, nfe = _sample(self.parts, key, condition, context, samples=count, **sampling)
        return GeneratedNetworks(
            self, np.asarray(weights[:, 0]), tuple(classes), float(nfe), context
        )

    def with_encoder(self, encoder: ImageEncoder) -> MetaModel:
        """The same with another image encoder of the same features.

        Raises:
          UserError: features of another width than the meta-model was trained on.
        """
        arrays = {name: part for name, part in self.arrays.items() if name != "encoder"}
        if encoder.variables:
            arrays["encoder"] = encoder.variables
        about = {**self.description, "encoder": encoder.describe()}
        model = dataclasses.replace(self, parts=build(about, arrays), arrays=arrays)
        model.features(np.full((1, *self.image_shape), 0.5, np.float32))
        return model

    def features(self, images: np.ndarray) -> np.ndarray:
        """Transformed features (m, F) of checked images (m, H, W, C)."""
        if self.parts.target.resizes:
            images = with_channels(images, self.image_shape[-1])
        features = self.parts.encoder.features(images)
        width = self.parts.transform.mean.shape[0]
        if features.shape[1] != width:
            raise UserError(
                f"the image encoder {self.parts.encoder.kind} gives {features.shape[1]} features "
                f"an image; this meta-model was trained on {width}."
            )
        return np.asarray(_transformed(self.parts.transform, features))

    def _images(self, images: np.ndarray) -> np.ndarray:
        """Images (m, H, W, C) as they came: uint8, or float32 in [0, 1]."""
        images = np.asarray(images)
        *sides, channels = self.image_shape
        any_images, side = self.parts.target.resizes, self.parts.encoder.side
        wanted = ", ".join(["H, W"] if any_images or side else map(str, sides))
        taken = (1, 3) if any_images else (channels,)
        if images.ndim == 3 and 1 in taken:
            images = images[..., None]
        fits = images.ndim == 4 and 0 not in images.shape and images.shape[3] in taken
        if not fits or not (any_images or side or list(images.shape[1:3]) == sides):
            forms = [f"(m, {wanted})"] if 1 in taken else []
            forms += [f"(m, {wanted}, {count})" for count in taken]
            raise UserError(
                f"images have shape {images.shape}; the meta-model takes {' or '.join(forms)}."
            )
        if images.dtype == np.uint8:
            return images
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"images are {images.dtype}; give uint8, or floating point in [0, 1].")
        if not np.isfinite(images).all():
            raise UserError("images hold NaN or infinite values.")
        if images.min() < 0 or images.max() > 1:
            raise UserError(
                f"floating-point images must lie in [0, 1], and these reach from {images.min():g} "
                f"to {images.max():g}."
            )
        return images.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class GeneratedNetworks:
    """S generated classifiers of one task or data set.

    Attributes:
      model: that made them; heads stand on its image encoder.
      weights: (S, ...): heads (S, n, F + 1), rows [weights | bias] a class, or weight vectors
        (S, D) of whole networks.
      classes: the n class names, in the order of the outputs.
      nfe: function evaluations of the flow for each.
      context: what the target space needs to run them.
    """

    model: MetaModel = dataclasses.field(repr=False)
    weights: np.ndarray = dataclasses.field(repr=False)
    classes: tuple[Hashable, ...]
    nfe: float
    context: Any = dataclasses.field(repr=False, default=None)

    @property
    def heads(self) -> np.ndarray:
        """The weights of generated heads, (S, n, F + 1)."""
        return self.weights

    def predict(self, images: np.ndarray, *, average: bool = True) -> np.ndarray:
        """Class probabilities of images, (m, n): the average over the networks.

        Args:
          images: as in `MetaModel.generate`.
          average: False gives each network's own, (S, m, n).
        """
        run = RunImages(self.model, self.model._images(images))
        probabilities = self.model.parts.target.probabilities(self.weights, self.context, run)
        return probabilities.mean(0) if average else probabilities

    def classify(self, images: np.ndarray) -> list[Hashable]:
        """The most probable class name of each image."""
        return [self.classes[c] for c in self.predict(images).argmax(-1)]

    def state_dicts(self) -> list[dict[str, np.ndarray]]:
        """Each network's tensors with PyTorch's names and layouts."""
        return self.model.parts.target.state_dicts(self.weights, self.context)

    def save(self, path: str | Path) -> Path:
        """Write the weights and their class names as a safetensors file."""
        path = Path(path)
        path = path / _NETWORKS if path.is_dir() else path
        names = [c.item() if isinstance(c, np.generic) else c for c in self.classes]
        # JSON would take a tuple, too, and give a list back.
        if not all(isinstance(name, str | int | float) for name in names):
            raise UserError("class names must be strings or numbers to be saved.")
        context = self.model.parts.target.stored(self.context)
        values = {"weights": self.weights, "classes": names, "nfe": self.nfe, "context": context}
        save_tree(path, values)
        return path

    @classmethod
    def load(cls, path: str | Path, model: MetaModel) -> GeneratedNetworks:
        """The networks that `save` wrote, of the same meta-model.

        Raises:
          UserError: the file is none of ours, or its networks are not this meta-model's.
        """
        path = Path(path)
        values = load_tree(path / _NETWORKS if path.is_dir() else path)
        target = model.parts.target
        try:
            weights, classes, nfe = (values[name] for name in ("weights", "classes", "nfe"))
            context = target.restored(values["context"])
            fits = target.fits(weights, len(classes), context)
        except KeyError:
            fits = False
        if not fits:
            raise UserError(f"{path} holds no {target.what} of this meta-model.")
        return cls(model, weights, tuple(classes), nfe, context)


# Compiled at the first call, and again for other sizes only.
_sample = jax.jit(Parts.sample, static_argnames=("samples", "solver", "steps"))
_transformed = jax.jit(FeatureTransform.apply)


def _classes(
    labels: Sequence[Hashable], class_names: Sequence[Hashable] | None, count: int
) -> tuple[list[Hashable], list[int]]:
    """The classes in the order of the user, or of their appearance, and each label's place."""
    labels = list(labels)
    if len(labels) != count:
        raise UserError(f"{count} images came with {len(labels)} labels; each needs one.")
    classes = list(dict.fromkeys(labels if class_names is None else class_names))
    place = {name: i for i, name in enumerate(classes)}
    if unknown := [label for label in labels if label not in place]:
        raise UserError(f"label {unknown[0]!r} is not among the class names {classes!r:.200}.")
    present = set(labels)
    if empty := [name for name in classes if name not in present]:
        raise UserError(f"class {empty[0]!r} has no image in the support set.")
    return classes, [place[label] for label in labels]


def _checked(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a file whose checksum stands in its record."""
    if not path.exists() or sha256_of(path) != record.get("sha256"):
        raise UserError(f"{path} is missing or has changed since it was written.")
    return load_tree(path)

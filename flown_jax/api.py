"""A trained meta-model in a user's hands: restore it, generate networks, run them, carry it away.

    model = MetaModel.restore("workdirs/fsl-default-seed0")
    networks = model.generate(images, labels)
    probabilities = networks.predict(new_images)

A generated network is a linear head on the meta-model's frozen backbone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.few_shot.parts import Parts, build
from flown_jax.files import read_json, sha256_of, write_json, writing
from flown_jax.image_encoders.encoder import ImageEncoder
from flown_jax.models import heads as linear
from flown_jax.models.heads import FeatureTransform
from flown_jax.training.trees import load_tree, save_tree

_ARRAYS, _DESCRIPTION = "arrays.safetensors", "meta_model.json"
_NETWORKS = "networks.safetensors"
_KIND, _FORMAT = "flown_jax meta-model", 2


@dataclasses.dataclass(frozen=True)
class MetaModel:
    """Generates linear heads for new few-shot tasks.

    Attributes:
      parts: the trained networks.
      arrays: all their arrays, as they are stored.
    """

    parts: Parts
    arrays: Mapping[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def restore(cls, workdir: str | Path) -> MetaModel:
        """The meta-model of a finished run of `experiments.fewshot`.

        Raises:
          UserError: the run is not finished, or its files are damaged.
        """
        folder = Path(workdir) / "stages" / "model"
        if not (folder / "stage.json").exists():
            raise UserError(
                f"{workdir} holds no finished meta-model: run `python -m experiments.fewshot "
                f"--workdir={workdir}` to its end first."
            )
        values = _checked(
            folder / "outputs.safetensors", read_json(folder / "stage.json", str(workdir))
        )
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
                "description": self.parts.description,
            },
        )
        return folder

    @property
    def way(self) -> int:
        """Number of classes of the tasks that it was trained for."""
        return int(self.parts.description["way"])

    @property
    def any_way(self) -> bool:
        """Whether it makes heads of any number of classes: one code and one condition a class."""
        return self.parts.latents.codec.by_class and self.parts.conditioner.caml is None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the images that it was trained on; see `ImageEncoder.side` for others."""
        return tuple(self.parts.description["image_shape"])

    def generate(
        self,
        images: np.ndarray,
        labels: Sequence[Hashable],
        *,
        class_names: Sequence[Hashable] | None = None,
        samples: int = 50,
        seed: int = 0,
        **sampling: Any,
    ) -> GeneratedNetworks:
        """Networks for the task that a support set shows.

        Args:
          images: (m, H, W) or (m, H, W, C); uint8, or floating point in [0, 1].
          labels: m labels of any kind (strings, numbers); their order in the result is that of
            `class_names`, or of their first appearance.
          class_names: all classes, each with at least one image.
          samples: how many networks to draw.
          seed: of the draw.
          sampling: `solver`, `steps`, `temperature` other than the trained defaults.
        Raises:
          UserError: images of another shape or not finite, another number of classes than the
            model was trained for (where `any_way` does not hold), a class without an image, a
            label that is no class.
        """
        images = self._images(images)
        classes, index = _classes(labels, class_names, len(images))
        if len(classes) != self.way and not self.any_way:
            raise UserError(
                f"the support set has {len(classes)} classes; this meta-model was trained for "
                f"{self.way}."
            )
        if len(classes) < 2:
            raise UserError("the support set has one class; there is nothing to tell apart.")
        if samples < 1:
            raise UserError(f"samples is {samples}; at least 1 network must be drawn.")
        features, way = self._features(images), len(classes)
        prototypes = np.stack([features[index == c].mean(0) for c in range(way)])
        condition = self.parts.conditioner.of_images(jnp.asarray(features), jnp.asarray(index), way)
        heads, nfe = _sample(
            self.parts,
            jax.random.key(seed),
            prototypes[None, :, None],
            samples=samples,
            condition=condition,
            shot=len(index) / way,
            **sampling,
        )
        return GeneratedNetworks(self, np.asarray(heads[:, 0]), tuple(classes), float(nfe))

    def _images(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        height, width, channels = self.image_shape
        resized = bool(self.parts.encoder.side)
        sides = "H, W" if resized else f"{height}, {width}"
        wanted = f"(m, {sides}, {channels})"
        if channels == 1:
            wanted = f"(m, {sides}) or {wanted}"
        if images.ndim == 3 and channels == 1:
            images = images[..., None]
        fits = images.ndim == 4 and len(images) and images.shape[3] == channels
        if not fits or not (resized or images.shape[1:] == self.image_shape):
            raise UserError(f"images have shape {images.shape}; the meta-model takes {wanted}.")
        if images.dtype == np.uint8:
            return images.astype(np.float32) / 255
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

    def with_encoder(self, encoder: ImageEncoder) -> MetaModel:
        """The same with another image encoder of the same features.

        Raises:
          UserError: features of another width than the meta-model was trained on.
        """
        arrays = {name: part for name, part in self.arrays.items() if name != "encoder"}
        if encoder.variables:
            arrays["encoder"] = encoder.variables
        about = {**self.parts.description, "encoder": encoder.describe()}
        model = dataclasses.replace(self, parts=build(about, arrays), arrays=arrays)
        model._features(np.full((1, *self.image_shape), 0.5, np.float32))
        return model

    def _features(self, images: np.ndarray) -> np.ndarray:
        """Transformed features (m, F) of checked images."""
        features = self.parts.encoder.features(images)
        width = self.parts.transform.mean.shape[0]
        if features.shape[1] != width:
            raise UserError(
                f"the image encoder {self.parts.encoder.kind} gives {features.shape[1]} features "
                f"an image; this meta-model was trained on {width}."
            )
        return np.asarray(_transformed(self.parts.transform, features))


@dataclasses.dataclass(frozen=True)
class GeneratedNetworks:
    """S generated classifiers of one task.

    Attributes:
      model: whose backbone they stand on.
      heads: (S, n, F + 1), rows [weights | bias] a class.
      classes: the n class names, in the order of the rows.
      nfe: function evaluations of the flow for each.
    """

    model: MetaModel = dataclasses.field(repr=False)
    heads: np.ndarray = dataclasses.field(repr=False)
    classes: tuple[Hashable, ...]
    nfe: float

    def predict(self, images: np.ndarray, *, average: bool = True) -> np.ndarray:
        """Class probabilities of images, (m, n): the average over the networks.

        Args:
          images: as in `MetaModel.generate`.
          average: False gives each network's own, (S, m, n).
        """
        features = self.model._features(self.model._images(images))
        scores = linear.logits(jnp.asarray(self.heads), jnp.asarray(features)[None])
        probabilities = np.asarray(jax.nn.softmax(scores))
        return probabilities.mean(0) if average else probabilities

    def classify(self, images: np.ndarray) -> list[Hashable]:
        """The most probable class name of each image."""
        return [self.classes[c] for c in self.predict(images).argmax(-1)]

    def save(self, path: str | Path) -> Path:
        """Write the heads and their class names as a safetensors file."""
        path = Path(path)
        path = path / _NETWORKS if path.is_dir() else path
        names = [c.item() if isinstance(c, np.generic) else c for c in self.classes]
        # JSON would take a tuple, too, and give a list back.
        if not all(isinstance(name, str | int | float) for name in names):
            raise UserError("class names must be strings or numbers to be saved.")
        save_tree(path, {"heads": self.heads, "classes": names, "nfe": self.nfe})
        return path

    @classmethod
    def load(cls, path: str | Path, model: MetaModel) -> GeneratedNetworks:
        """The networks that `save` wrote, on the backbone of the same meta-model."""
        path = Path(path)
        values = load_tree(path / _NETWORKS if path.is_dir() else path)
        shape = (len(values.get("classes", ())), model.parts.transform.mean.shape[0] + 1)
        if "heads" not in values or values["heads"].shape[1:] != shape:
            raise UserError(f"{path} holds no heads of {shape[1]} columns of this meta-model.")
        return cls(model, values["heads"], tuple(values["classes"]), values["nfe"])


# Compiled at the first call, and again for other sizes only.
_sample = jax.jit(Parts.sample, static_argnames=("samples", "solver", "steps"))


_transformed = jax.jit(FeatureTransform.apply)


def _classes(
    labels: Sequence[Hashable], class_names: Sequence[Hashable] | None, count: int
) -> tuple[list[Hashable], np.ndarray]:
    """The classes and the class index of each label."""
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
    return classes, np.asarray([place[label] for label in labels])


def _checked(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a file whose checksum stands in its record."""
    if not path.exists() or sha256_of(path) != record.get("sha256"):
        raise UserError(f"{path} is missing or has changed since it was written.")
    return load_tree(path)

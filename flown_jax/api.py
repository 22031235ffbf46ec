"""A trained meta-model in a user's hands: restore it, generate networks, run them, carry it away.

    model = MetaModel.restore("workdirs/fsl-default-seed0")
    networks = model.generate(images, labels)
    probabilities = networks.predict(new_images)

What a generated network is depends on the experiment that trained the meta-model: a linear head on
its frozen image encoder, or a whole network for a data set.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

# The targets register themselves.
import flown_jax.few_shot.space
import flown_jax.networks.space  # noqa: F401
from flown_jax import pretrained
from flown_jax.errors import UserError
from flown_jax.files import writing
from flown_jax.image_encoders import ImageEncoder
from flown_jax.meta_model import folders, support
from flown_jax.meta_model.build import Parts, build
from flown_jax.meta_model.given import checked_sampling
from flown_jax.meta_model.targets import RunImages
from flown_jax.networks.adapting import adapted_model
from flown_jax.training.trees import load_tree, save_tree

_NETWORKS = "networks.safetensors"
_SAMPLES = 50  # of a description that names no number


@dataclasses.dataclass(frozen=True)
class MetaModel:
    """Generates networks for support sets.

    Attributes:
      parts: the trained networks.
      arrays: all their arrays, as they are stored.
    """

    parts: Parts
    arrays: Mapping[str, Any] = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        about, latent = self.description, self.parts.description["latent_shape"]
        what = f"{self.parts.target.what}, latent {tuple(latent)}"
        return f"MetaModel({what}: {about.get('trained_on', 'no word of its training')})"

    @classmethod
    def restore(
        cls, workdir: str | Path, *, target: str | None = None, allow_functions: bool = False
    ) -> MetaModel:
        """The meta-model of a finished run of an experiment, or of a folder that `export` wrote.

        Args:
          target: of a run of unconditional generation with several targets, which one.
          allow_functions: import the module of the Python function that the run had as its image
            encoder, which runs code.
        Raises:
          UserError: the run is not finished, of another version, its files are damaged, or its
            image encoder is a function that was not allowed.
        """
        if target is None and folders.is_own(workdir):
            return cls.load(workdir, allow_functions=allow_functions)
        return _made(*folders.of_run(workdir, target), workdir, allow_functions)

    @classmethod
    def pretrained(cls, name: str) -> MetaModel:
        """A small trained meta-model that comes with the package.

        Args:
          name: `glyphs` makes linear heads for small grey images of any classes, `networks` whole
            networks for the data sets that it was trained on; `flown_jax.pretrained.card(name)`
            says what each was trained on and where it ends.
        Raises:
          UserError: an unknown name (all names are told), or the files have changed.
        """
        return cls.load(pretrained.folder(name))

    @classmethod
    def load(cls, folder: str | Path, *, allow_functions: bool = False) -> MetaModel:
        """The meta-model that `export` wrote into a folder.

        Args:
          allow_functions: import the module of the Python function that the folder names as its
            image encoder, which runs code of whoever made the folder.
        Raises:
          UserError: nothing of ours is there, it is damaged, has changed or is of another format,
            or its image encoder is a function that was not allowed.
        """
        return _made(*folders.read(folder), folder, allow_functions)

    def export(self, folder: str | Path, *, bits: int | None = None) -> Path:
        """Write safetensors and JSON into a folder, for `load` and for other programs.

        Args:
          bits: None for everything as it is; 32, 16 or 8 for what generating needs alone, with so
            many bits an entry (`meta_model.compact`).
        Raises:
          UserError: another number of bits, no folder can be made there, or the disk refuses.
        """
        return folders.write(folder, self.description, self.arrays, bits)

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

    @property
    def conditional(self) -> bool:
        """Whether it generates for images that it is shown."""
        return self.parts.conditional

    def generate(
        self,
        images: np.ndarray | None = None,
        labels: Sequence[Hashable] | None = None,
        *,
        class_names: Sequence[Hashable] | None = None,
        samples: int | None = None,
        seed: int = 0,
        like: str | None = None,
        solver: str | None = None,
        steps: int | None = None,
        temperature: float | None = None,
    ) -> GeneratedNetworks:
        """Networks for the task or the data set that a support set shows.

        A model that is not `conditional` is shown nothing: no images, no labels, no class names.

        Args:
          images: (m, H, W) or (m, H, W, C) of NumPy, JAX or another library; uint8, or floating
            point in [0, 1]. For whole networks of any size, grey or in colour.
          labels: m labels, a list or an array. For heads of any kind (strings, numbers); their
            order in the result is that of `class_names`, or of their first appearance. For whole
            networks the class numbers or names of the data set that is shown.
          class_names: all classes, each with at least one image.
          samples: how many networks to draw; None for what the experiment drew.
          seed: of the draw, from 0 below 2**32.
          like: of whole networks, the data set whose networks these shall be; None takes the one
            whose images look most like these.
          solver, steps, temperature: None takes what the experiment chose.
        Raises:
          UserError: images of another shape or not finite, another number of classes than the
            model was trained for (where `any_way` does not hold), a class without an image, a
            label that is no class, an unknown `like`, a number that is none or outside of its
            range, networks that are not finite.
        """
        given = {"samples": samples, "solver": solver, "steps": steps, "temperature": temperature}
        chosen = {name: value for name, value in given.items() if value is not None}
        sampling = {"samples": _SAMPLES, **self.description["sampling"], **chosen}
        options = checked_sampling(**sampling, seed=seed)
        if like is not None and not isinstance(like, str):
            raise UserError(f"like is the name of a data set, not {like!r:.60}.")
        condition, context, classes = support.shown(self.parts, images, labels, class_names, like)
        key = jax.random.key(options.pop("seed"))
        weights, nfe = _sample(self.parts, key, condition, context, **options)
        if not np.isfinite(weights).all():
            raise UserError(
                "the networks that were drawn are not finite: take more steps, another solver or "
                f"a lower temperature than {options['temperature']:g}."
            )
        return GeneratedNetworks(
            self, np.asarray(weights[:, 0]), tuple(classes), float(nfe), context
        )

    def adapt(
        self,
        images: np.ndarray,
        labels: Sequence[Hashable],
        *,
        part: str = "decoder",
        **options: Any,
    ) -> MetaModel:
        """The meta-model of whole networks adapted to a data set; this one stays as it is.

        Classes of one name keep their output. See `networks.adapting` for what is trained.

        Args:
          images, labels: as in `generate`; all classes that the networks tell apart.
          part: `decoder`, `residual` or `velocity`.
          options: `class_names`, `like` and `seed` as in `generate`; `steps`, `networks`, `batch`,
            `learning_rate` and others of `networks.adapting.adapt`.
        Raises:
          UserError: a meta-model of heads, what `generate` refuses, another number of classes, or
            an adaptation that diverged.
        """
        about, arrays = adapted_model(self.parts, self.arrays, images, labels, part, **options)
        arrays = jax.tree.map(np.asarray, arrays)
        return MetaModel(build(about, arrays), arrays)

    def with_encoder(self, encoder: ImageEncoder) -> MetaModel:
        """The same with another image encoder of the same features.

        Raises:
          UserError: features of another width than the meta-model was trained on, or it sees no
            images.
        """
        support.sight(self.parts)
        arrays = {name: part for name, part in self.arrays.items() if name != "encoder"}
        if encoder.variables:
            arrays["encoder"] = encoder.variables
        about = {**self.description, "encoder": encoder.describe()}
        model = dataclasses.replace(self, parts=build(about, arrays), arrays=arrays)
        model.features(np.full((1, *self.image_shape), 0.5, np.float32))
        return model

    def features(self, images: np.ndarray) -> np.ndarray:
        """Transformed features (m, F) of checked images (m, H, W, C)."""
        return support.features(self.parts, images)

    def _images(self, images: Any) -> np.ndarray:
        """Images (m, H, W, C) as they came: uint8, or float32 in [0, 1]."""
        return support.checked(self.parts, images)


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
        Raises:
          UserError: images as in `MetaModel.generate`; probabilities that are not finite.
        """
        run = RunImages(self.model, self.model._images(images))
        probabilities = self.model.parts.target.probabilities(self.weights, self.context, run)
        if not np.isfinite(probabilities).all():
            raise UserError("the networks give probabilities that are not finite.")
        return probabilities.mean(0) if average else probabilities

    def classify(self, images: np.ndarray) -> list[Hashable]:
        """The most probable class name of each image."""
        return [self.classes[c] for c in self.predict(images).argmax(-1)]

    def state_dicts(self) -> list[dict[str, np.ndarray]]:
        """Each network's tensors with PyTorch's names and layouts."""
        return self.model.parts.target.state_dicts(self.weights, self.context)

    def save(self, path: str | Path) -> Path:
        """Write the weights and their class names as a safetensors file.

        Args:
          path: of the file, whose folder is made, or a folder.
        Raises:
          UserError: class names that are no strings or numbers, or the disk refuses.
        """
        path = Path(path) / _NETWORKS if os.path.isdir(path) else Path(path)
        names = [c.item() if isinstance(c, np.generic) else c for c in self.classes]
        # JSON would take a tuple, too, and give a list back.
        if not all(isinstance(name, str | int | float) for name in names):
            raise UserError("class names must be strings or numbers to be saved.")
        context = self.model.parts.target.stored(self.context)
        values = {"weights": self.weights, "classes": names, "nfe": self.nfe, "context": context}
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_tree(path, values)
        return path

    @classmethod
    def load(cls, path: str | Path, model: MetaModel) -> GeneratedNetworks:
        """The networks that `save` wrote, of the same meta-model.

        Raises:
          UserError: the file is none of ours, or its networks are not this meta-model's.
        """
        path = Path(path) / _NETWORKS if os.path.isdir(path) else Path(path)
        values = load_tree(path)
        target = model.parts.target
        try:
            weights, classes, nfe = (values[name] for name in ("weights", "classes", "nfe"))
            context = target.restored(values["context"])
            fits = np.isfinite(weights).all() and len(set(classes)) == len(classes) > 0
            fits = fits and target.fits(weights, len(classes), context)
        except (KeyError, TypeError, ValueError, AttributeError):  # whatever a file may hold
            fits = False
        if not fits:
            raise UserError(f"{path} holds no {target.what} of this meta-model.")
        return cls(model, weights, tuple(classes), float(nfe), context)


# Compiled at the first call, and again for other sizes only.
_sample = jax.jit(Parts.sample, static_argnames=("samples", "solver", "steps"))


def _made(description: Any, arrays: Any, folder: Any, allow_functions: bool) -> MetaModel:
    """The meta-model of what a folder holds, which anyone may have made."""
    try:
        encoder = description["encoder"]
        if encoder is not None and encoder["kind"] == "function" and not allow_functions:
            raise UserError(
                f"the meta-model in {folder} names the Python function "
                f"{encoder['sizes'].get('name')!r} as its image encoder, whose module would be "
                "imported and run: if you trust it, give allow_functions=True."
            )
        checked_sampling(**{"samples": _SAMPLES, **description["sampling"]})
        return MetaModel(build(description, arrays), arrays)
    except UserError:
        raise
    except Exception as error:  # a description can lack or hold anything
        raise UserError(
            f"the meta-model in {folder} is not described as this version describes them: "
            f"{type(error).__name__}: {error}"
        ) from error

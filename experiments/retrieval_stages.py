"""The first stages of the retrieval experiment: zoos, images, alignment, conditions."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.zoo import get_config as zoo_config
from configs.zoo import variants as zoo_variants
from experiments.fewshot_generators import caml_module, train_caml
from experiments.fewshot_stages import FewShot
from experiments.stages import Stages
from experiments.zoo_stages import ZooTraining, split
from flown_jax.data import image_sets
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.few_shot.generator import Conditioner
from flown_jax.few_shot.training import fit_conditioner
from flown_jax.networks.aligned import ZooImages, align_zoos
from flown_jax.networks.conditions import Conditions, conditions, draw_supports, encoded
from flown_jax.networks.starts import on_disk
from flown_jax.training.stages import StageResult, plain_values
from flown_jax.training.workdir import Workdir
from flown_jax.weights import zoo
from flown_jax.weights.alignment import Reference, apply_reference
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.statistics import last_states
from flown_jax.weights.zoo import Zoo


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """The images of a data set as its networks saw them, uint8 and preprocessed.

    Attributes:
      preprocessing: of the networks' inputs.
      train, validation, test: (images uint8, labels).
      fingerprint: of all of them.
    """

    preprocessing: Preprocessing
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    fingerprint: str

    @functools.cached_property
    def train_inputs(self) -> np.ndarray:
        """(n, H, W, C) float32."""
        return self.preprocessing.apply(self.train[0])

    @functools.cached_property
    def validation_inputs(self) -> np.ndarray:
        """(n, H, W, C) float32."""
        return self.preprocessing.apply(self.validation[0])

    @functools.cached_property
    def test_inputs(self) -> np.ndarray:
        """(n, H, W, C) float32."""
        return self.preprocessing.apply(self.test[0])


class Retrieval(Stages):
    """The stages of one run; a stage is computed once and then kept.

    Zoos, features, alignment and conditions do not depend on what is learned from them: runs
    beside each other share them.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir) -> None:
        super().__init__(config, workdir)
        self.names = tuple(config.zoos)
        self._images: dict[str, Images] = {}

    @functools.cached_property
    def zoos(self) -> dict[str, Zoo]:
        """The zoo of every data set, at the epochs that are learned from."""
        return {name: self._zoo(name, folder) for name, folder in self.config.zoos.items()}

    def _zoo(self, name: str, folder: str) -> Zoo:
        whole = zoo.load(folder or self._trained(name))
        if whole.dataset != name:
            raise UserError(
                f"zoos.{name} is {whole.path}, a zoo for {whole.dataset or 'an unknown set'}."
            )
        if self.config.epochs:
            chosen = [i for i, e in enumerate(whole.table["epoch"]) if e in self.config.epochs]
            if not chosen:
                known = ", ".join(map(str, sorted(set(whole.table["epoch"]))))
                raise UserError(
                    f"the zoo of {name} has no epoch of {tuple(self.config.epochs)}; it has "
                    f"{known}: set epochs."
                )
            return whole.select(chosen)
        return whole.select(last_states(whole.table))

    def _trained(self, name: str) -> Path:
        """The folder of a zoo that is trained here."""
        if name not in zoo_variants():
            raise UserError(
                f"zoos.{name} is empty, and configs/zoo.py has no variant {name!r}: give a folder."
            )
        config = zoo_config(name)
        config.unlock()
        config.data.dir = self.config.data.dir
        trained = self.config.trained
        config.networks.update(count=trained.count, held_out=trained.held_out)
        config.recipe.update(epochs=trained.epochs, save_epochs=trained.save_epochs)
        mark = hashlib.sha256(repr(plain_values(config)).encode()).hexdigest()[:12]
        root = self.shared or self.workdir.path / "zoos"
        with Workdir(root / f"zoo-{name}-{mark}", plain_values(config)) as work:
            job = ZooTraining(config, work)
            networks = job.train()
            measured = job.evaluate(networks)
            for part in (networks, measured):
                self.seconds += part.seconds
                self.seconds_here += 0.0 if part.reused else part.seconds
            return job.write(networks, measured)

    def part(self, name: str, held_out: bool = False) -> Zoo:
        """The training networks of a zoo, or those that were held out."""
        whole = self.zoos[name]
        wanted = "held_out" if held_out else "train"
        rows = [i for i, kind in enumerate(whole.table["split"]) if kind == wanted]
        if len(rows) < 2:
            raise UserError(
                f"the zoo of {name} has {len(rows)} networks of the split {wanted!r} at the chosen "
                "epochs; two are needed."
            )
        limit = None if held_out else self.config.networks or None
        return whole.select(rows[:limit])

    @functools.cached_property
    def joint(self) -> JointSpace:
        """Where the weights of each data set lie."""
        return JointSpace.of({name: found.spec for name, found in self.zoos.items()})

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of every zoo: its networks and what they mean."""
        found = {}
        for name in self.names:
            digest = hashlib.sha256(self.zoos[name].spec.fingerprint.encode())
            for held_out in (False, True):
                digest.update(np.ascontiguousarray(self.part(name, held_out).weights).tobytes())
            found[name] = digest.hexdigest()
        return found

    def images(self, name: str, like: str | None = None) -> Images:
        """The images of a data set.

        Args:
          like: a set of the meta-model whose preprocessing a foreign set takes.
        """
        if name not in self._images:
            source = self.zoos[like or name]
            inputs = source.spec.inputs_dict
            if not inputs:
                raise UserError(
                    f"the zoo of {like or name} does not say how its images were preprocessed: "
                    "import it with --inputs."
                )
            train = image_sets.load(name, "train", self.config.data.dir)
            test = image_sets.load(name, "test", self.config.data.dir)
            seen = None if like else source.recipe.get("train_images")
            count = len(train.labels)
            share = 1 - seen / count if seen else self.config.data.validation_share
            parts = ConfigDict(
                {"validation_share": share, "split_seed": self.config.data.split_seed}
            )
            rows, rest = split(count, parts)
            if not len(rest):
                raise UserError(
                    f"the networks of {name} saw all of its training images: none are left for "
                    "choices and support images."
                )
            limit = self.config.evaluation.test_images or None
            margin = self.config.initialise.margins.get(name, 0) if like else 0
            pictures, shown = (_framed(part.images, margin) for part in (train, test))
            self._images[name] = Images(
                Preprocessing.from_dict(inputs),
                (pictures[rows], train.labels[rows]),
                (pictures[rest], train.labels[rest]),
                (shown[:limit], test.labels[:limit]),
                f"{train.fingerprint()} {test.fingerprint()} {share} {parts.split_seed} {limit} "
                f"{margin}",
            )
        return self._images[name]

    def aligned(self) -> StageResult:
        """The training and held-out networks of every set with their units in one order."""
        config = self.config.alignment

        def function(_: Any) -> dict[str, Any]:
            leader = config.leader or self.names[0]
            first = self.images(leader)
            count = config.images
            pictures, best = {}, {}
            for name in self.names:
                own = self.images(name)
                common = own.preprocessing.apply(first.train[0][:count])
                pictures[name] = ZooImages(own.train_inputs[:count], common)
                table = self.part(name).table
                known = table.get("validation_accuracy") or table.get("test_accuracy") or [0]
                best[name] = int(np.argmax([value or 0 for value in known]))
            order = sorted(self.names, key=lambda name: name != leader)
            weights = {name: self.part(name).weights for name in order}
            found = align_zoos(self.joint, weights, best, pictures, rounds=config.rounds)
            values: dict[str, Any] = {"train": {}, "held_out": {}, "correlations": {}}
            for name, aligned in found.items():
                others = self.part(name, held_out=True).weights
                reference = Reference(aligned.reference.images, aligned.reference.activations)
                values["train"][name] = aligned.weights
                values["held_out"][name] = apply_reference(
                    self.joint.spec(name), others, reference
                ).weights
                values["correlations"][name] = aligned.correlations.mean(0)
            return values

        inputs = {
            "alignment": {name: config[name] for name in ("rounds", "leader", "images")},
            "zoos": self.fingerprints,
            "images": {name: self.images(name).fingerprint for name in self.names},
        }
        return self.common("aligned", inputs, function)

    def conditioner(self) -> tuple[Any, Any, Conditioner, str]:
        """Image encoder, transform of features and conditioner, and a fingerprint of the three."""
        job = _Features(self.config.features, self.workdir)
        job.shared = self.shared
        data = job.data()
        encoder, _ = job.encoder(data)
        raw = job.features(data, encoder)
        tables = job.tables(data, encoder, raw)
        caml = train_caml(job, tables)
        self.seconds += job.seconds
        self.seconds_here += job.seconds_here
        entries = tuple(self.config.condition.entries)
        conditioner = fit_conditioner(
            entries,
            list(tables.train.values()),
            caml_module(self.config.features),
            caml.values["variables"],
            self.config.condition.slot_tasks,
        )
        return encoder, tables.transform, conditioner, f"{encoder.fingerprint()} {caml.fingerprint}"

    def conditions(self) -> StageResult:
        """Of every set, also of foreign ones: conditions of training and of validation images."""
        config = self.config.condition
        encoder, transform, conditioner, mark = self.conditioner()
        unseen = dict(self.config.initialise.unseen)
        present = on_disk(list(unseen), self.config.data.dir)
        sets = {**dict.fromkeys(self.names), **{name: unseen[name] for name in present}}

        def function(_: Any) -> dict[str, Any]:
            found: dict[str, Any] = {"train": {}, "validation": {}}
            channels = _channels(encoder)
            most = max(self.config.evaluation.draws, self.config.sampling.samples)
            wanted = {"train": config.draws, "validation": most}
            for number, (name, like) in enumerate(sets.items()):
                images = self.images(name, like)
                classes = self.zoos[like or name].spec.sizes_dict["num_classes"]
                for kind, draws in wanted.items():
                    if kind == "train" and name in present:
                        continue  # nothing is learned from a foreign set
                    pictures, labels = getattr(images, kind)
                    supports = draw_supports(
                        2 * number + (kind == "train"),
                        labels,
                        classes,
                        shot=config.shot,
                        draws=draws,
                        pool=config.pool,
                    )
                    used, index = np.unique(supports, return_inverse=True)
                    features = encoded(encoder, transform, pictures[used], channels)
                    found[kind][name] = conditions(
                        conditioner, features, index.reshape(supports.shape)
                    )
            return found

        inputs = {
            "condition": config,
            "draws": [self.config.evaluation.draws, self.config.sampling.samples],
            "encoder": mark,
            "sets": sets,
            "images": {k: self.images(k, v).fingerprint for k, v in sets.items()},
        }
        return self.common("conditions", inputs, function)


def _framed(images: np.ndarray, margin: int) -> np.ndarray:
    """Images with a black margin of so many pixels."""
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))


def banks(found: StageResult, kind: str, names: Any) -> dict[str, Conditions]:
    """The conditions of some sets, `train` or `validation`."""
    return {name: found.values[kind][name] for name in names}


class _Features(FewShot):
    """The few-shot experiment's encoder and CAML, all of which runs share."""

    def stage(self, name: str, inputs: dict[str, Any], function: Any, **where: Any) -> StageResult:
        where.setdefault("shared", self.shared)
        return super().stage(name, inputs, function, **where)


def _channels(encoder: Any) -> int:
    from flown_jax.image_encoders import networks as encoder_networks

    if encoder.kind == "function":
        return len(encoder.mean) or 3
    return encoder_networks.channels(encoder.kind, encoder.variables)

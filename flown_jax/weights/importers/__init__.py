"""Trained weights that others published or that a user has, read into one form.

`model_zoo.read`, `pdiff.read` and `state_dicts.read` return an `Imported`, which
`experiments.import_zoo` writes as a zoo. Nothing of the files read is ever run.
"""

from flown_jax.weights.importers.collect import Imported as Imported

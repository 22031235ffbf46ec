"""Heads for handwritten digits, from two images of each class, without training."""

import numpy as np

from flown_jax import MetaModel
from flown_jax.data import image_sets

train, test = (image_sets.load("digits", split, "data") for split in ("train", "test"))
shown = np.concatenate([np.flatnonzero(train.labels == digit)[:2] for digit in range(10)])

model = MetaModel.pretrained("glyphs")
networks = model.generate(train.images[shown], train.labels[shown])
answers = np.asarray(networks.classify(test.images[:200]))
print(f"{(answers == test.labels[:200]).mean():.0%} of 200 digits, from {len(shown)} images")

"""Conditions made from support images."""

from flown_jax.conditioning.caml import CAML
from flown_jax.conditioning.caml_episodes import (
    QUERY_SOURCES,
    SlotStandardizer,
    caml_loss,
    class_embeddings,
    class_means,
    predict,
    random_label_rows,
)
from flown_jax.conditioning.elmes import elmes
from flown_jax.conditioning.task_embedding import TaskEmbedding, class_tokens

__all__ = [
    "CAML",
    "QUERY_SOURCES",
    "SlotStandardizer",
    "TaskEmbedding",
    "caml_loss",
    "class_embeddings",
    "class_means",
    "class_tokens",
    "elmes",
    "predict",
    "random_label_rows",
]

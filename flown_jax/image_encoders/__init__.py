"""Frozen image encoders: the library's networks, published weights, or a function of one's own."""

from flown_jax.image_encoders.encoder import (
    KINDS,
    ImageEncoder,
    build,
    encoded,
    from_function,
    from_module,
    from_weights,
)

__all__ = [
    "KINDS",
    "ImageEncoder",
    "build",
    "encoded",
    "from_function",
    "from_module",
    "from_weights",
]

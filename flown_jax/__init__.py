"""flown_jax: flow matching on neural network parameters (FLoWN), in JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flown_jax.api import GeneratedNetworks, MetaModel

__version__ = "0.1.0"
__all__ = ["GeneratedNetworks", "MetaModel", "__version__"]


def __getattr__(name: str) -> Any:
    # The meta-model imports everything below it; `flown_jax.flow` alone must stay light.
    if name in ("MetaModel", "GeneratedNetworks"):
        from flown_jax import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Velocity networks of latents, by name."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.velocity.mlp import MLPVelocity
from flown_jax.velocity.pdiff_denoiser import PDiffDenoiser
from flown_jax.velocity.task_unet import TaskUNet
from flown_jax.velocity.token_transformer import TokenTransformer
from flown_jax.velocity.unet import UNet

KINDS = ("token_transformer", "unet", "mlp", "pdiff")
_TASK_FIELDS = ("embedding_dim", "injection", "condition_channels", "wide")


def make_velocity(kind: str, latent_shape: tuple[int, ...], **sizes: Any) -> nn.Module:
    """The velocity network for latents of a shape.

    Args:
      kind: `token_transformer` for codes (n, c), `unet` for maps (r, r, e), `mlp` for either,
        and for vectors, taken flat; `pdiff`, p-diff's denoiser, for the same, without a condition.
      latent_shape: of one latent.
      sizes: fields of `TokenTransformer`, of `MLPVelocity`, of `PDiffDenoiser`, or of `TaskUNet`
        and its `UNet` together.
    Raises:
      UserError: unknown kind, or one that does not take latents of this shape.
    """
    wanted = {"token_transformer": (2,), "unet": (3,), "mlp": (1, 2, 3), "pdiff": (1, 2, 3)}
    if kind not in wanted:
        raise UserError(f"velocity.kind is {kind!r}; it must be one of {', '.join(KINDS)}.")
    if len(latent_shape) not in wanted[kind]:
        axes = " or ".join(map(str, wanted[kind]))
        raise UserError(
            f"velocity.kind {kind!r} takes latents of {axes} axes, and the codec makes "
            f"{latent_shape}: use 'token_transformer' with codec.form 'token', 'unet' with a map, "
            "'mlp' or 'pdiff' with either."
        )
    if kind == "token_transformer":
        return TokenTransformer(out_dim=latent_shape[-1], **sizes)
    if kind == "mlp":
        return MLPVelocity(**sizes)
    if kind == "pdiff":
        return PDiffDenoiser(**sizes)
    task = {name: sizes.pop(name) for name in _TASK_FIELDS if name in sizes}
    return TaskUNet(unet=UNet(out_channels=latent_shape[-1], **sizes), **task)

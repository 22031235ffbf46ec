"""PyTorch twins: the UNet velocity with the published names, heads in two forms, small CNNs.

Written for speed as a PyTorch user would: fused attention, fused AdamW, channels last on demand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """velocity(x, t) on maps x (B, C, H, W); no conditions, no dropout, attention in the middle.

    The network that `flown_jax.velocity.unet.UNet` computes with `attention_resolutions=()`,
    `use_scale_shift_norm=False` and `resblock_updown=False`; its state dict converts with
    `flown_jax.torch_import.convert("unet", ...)`.

    Args:
      channels: of the map and the velocity.
      model_channels, channel_mult, num_res_blocks, num_heads: as there.
    """

    def __init__(
        self,
        channels: int,
        model_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        embedded = 4 * model_channels
        self.model_channels = model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, embedded), nn.SiLU(), nn.Linear(embedded, embedded)
        )
        widths = [mult * model_channels for mult in channel_mult]
        width = widths[0]
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([nn.Conv2d(channels, width, 3, padding=1)])]
        )
        skips = [width]
        for level, target in enumerate(widths):
            for _ in range(num_res_blocks):
                self.input_blocks.append(nn.ModuleList([_Block(width, target, embedded)]))
                width = target
                skips.append(width)
            if level < len(widths) - 1:
                self.input_blocks.append(nn.ModuleList([_Downsample(width)]))
                skips.append(width)
        self.middle_block = nn.ModuleList(
            [
                _Block(width, width, embedded),
                _Attention(width, num_heads),
                _Block(width, width, embedded),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for j in range(num_res_blocks + 1):
                block = nn.ModuleList([_Block(width + skips.pop(), widths[level], embedded)])
                width = widths[level]
                if level > 0 and j == num_res_blocks:
                    block.append(_Upsample(width))
                self.output_blocks.append(block)
        self.out = nn.Sequential(
            nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns v (B, C, H, W) for x (B, C, H, W) and t (B,)."""
        embedding = self.time_embed(_sinusoid(t, self.model_channels))
        h, skips = x, []
        for block in self.input_blocks:
            h = _apply(block, h, embedding)
            skips.append(h)
        h = _apply(self.middle_block, h, embedding)
        for block in self.output_blocks:
            h = _apply(block, torch.cat([h, skips.pop()], 1), embedding)
        return self.out(h)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, embedded: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedded, outputs))
        # Index 2 is the published network's dropout; the convolution's name counts it.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outputs),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class _Attention(nn.Module):
    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        flat = x.reshape(batch, channels, -1)
        qkv = self.qkv(self.norm(flat))
        q, k, v = qkv.reshape(batch, self.num_heads, 3, -1, flat.shape[-1]).mT.unbind(2)
        attended = F.scaled_dot_product_attention(q, k, v).mT.reshape(flat.shape)
        return (flat + self.proj_out(attended)).reshape(x.shape)


class _Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def _apply(layers: Any, h: Tensor, embedding: Tensor) -> Tensor:
    for layer in layers:
        h = layer(h, embedding) if isinstance(layer, _Block) else layer(h)
    return h


def _sinusoid(t: Tensor, width: int) -> Tensor:
    half = width // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
    angles = t[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def multiply_adds(module: UNet, x: Tensor, t: Tensor) -> float:
    """Multiply-adds of all convolutions and linear layers in one evaluation of the batch."""
    total = 0

    def count(layer: Any, inputs: tuple, output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        outputs = output.shape[1] if isinstance(layer, nn.Conv1d | nn.Conv2d) else output.shape[-1]
        total += output.numel() // outputs * weight.numel()

    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        module(x, t)
    for handle in handles:
        handle.remove()
    return float(total)


def fit_heads_loop(
    features: Tensor, *, steps: int, learning_rate: float, weight_decay: float, fused: bool
) -> Tensor:
    """Heads one after the other, (T, n, F): full-batch AdamW from zeros, no bias.

    Args:
      features: (T, n, k, F), by class.
      fused: AdamW's fused form.
    """
    way, shot = features.shape[1:3]
    targets = torch.arange(way, device=features.device).repeat_interleave(shot)
    heads = []
    for task in features:
        rows = task.reshape(way * shot, -1)
        head = nn.Linear(rows.shape[1], way, bias=False, device=rows.device)
        nn.init.zeros_(head.weight)
        optimizer = torch.optim.AdamW(
            head.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=fused
        )
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(head(rows), targets).backward()
            optimizer.step()
        heads.append(head.weight.detach())
    return torch.stack(heads)


def fit_heads_batched(
    features: Tensor, *, steps: int, learning_rate: float, weight_decay: float, chunk: int
) -> Tensor:
    """The same heads with a batched matrix product for `chunk` tasks at a time, (T, n, F)."""
    way, shot = features.shape[1:3]
    targets = torch.arange(way, device=features.device).repeat_interleave(shot)
    heads = []
    for tasks in features.split(chunk):
        rows = tasks.reshape(len(tasks), way * shot, -1)
        weight = torch.zeros(len(tasks), way, rows.shape[-1], device=rows.device)
        weight.requires_grad_()
        labels = targets.repeat(len(tasks))
        optimizer = torch.optim.AdamW(
            [weight], lr=learning_rate, weight_decay=weight_decay, fused=True
        )
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            scores = torch.bmm(rows, weight.mT).reshape(-1, way)
            # A mean within a task and a sum over tasks: every head sees its own loss only.
            (F.cross_entropy(scores, labels, reduction="sum") / (way * shot)).backward()
            optimizer.step()
        heads.append(weight.detach())
    return torch.cat(heads)


class CNNSmall(nn.Module):
    """The zoos' small network: pool, then tanh; logits (B, 10) of images (B, C, 28, 28)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels, 8, 5), nn.Conv2d(8, 6, 5), nn.Conv2d(6, 4, 2)]
        )
        self.dense = nn.ModuleList([nn.Linear(36, 20), nn.Linear(20, 10)])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(F.max_pool2d(self.convs[0](x), 2))
        x = torch.tanh(F.max_pool2d(self.convs[1](x), 2))
        x = torch.tanh(self.convs[2](x)).flatten(1)
        return self.dense[1](torch.tanh(self.dense[0](x)))


def train_cnns(
    vectors: Any,
    images: Any,
    labels: Any,
    orders: Any,
    batch: int,
    learning_rate: float,
    *,
    channels_last: bool = False,
) -> Any:
    """Weight vectors of `CNNSmall`s trained one after another with Adam, a NumPy array (M, D).

    Args:
      vectors: (M, D), where each begins, in the order of the state dict.
      images: (n, 28, 28, C). labels: (n,).
      orders: (M, steps * batch), the examples of each model's steps.
      channels_last: the layout of images and kernels.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    targets = torch.from_numpy(labels)
    trained = []
    for vector, order in zip(vectors, torch.tensor(orders), strict=True):
        module = CNNSmall(images.shape[-1])
        nn.utils.vector_to_parameters(torch.tensor(vector), module.parameters())
        place: Any = module.to  # its stub knows no memory format
        place(memory_format=layout)
        optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)
        for index in order.split(batch):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(module(data[index]), targets[index]).backward()
            optimizer.step()
        trained.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]))
    return torch.stack(trained).numpy()

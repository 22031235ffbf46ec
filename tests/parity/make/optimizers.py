"""Twenty steps of PyTorch's optimizers with a cosine schedule, on w -> h w^2 / 2 + c w."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.parity.make.blocks import Case, Made, drawn

_STEPS, _RATE, _DECAY = 20, 0.05, 0.1


def _optimizers(state: dict[str, np.ndarray]) -> Made:
    rng = np.random.RandomState(41)
    start, c, h = drawn(rng, 5), drawn(rng, 5), drawn(rng, 5).abs() + 0.1
    kinds: dict[str, Any] = {
        "adam": lambda w: torch.optim.Adam([w], _RATE, weight_decay=_DECAY),
        "adamw": lambda w: torch.optim.AdamW([w], _RATE, weight_decay=_DECAY),
        "sgd": lambda w: torch.optim.SGD([w], _RATE, 0.9, weight_decay=_DECAY, nesterov=True),
    }
    outputs: dict[str, np.ndarray] = {}
    for name, make in kinds.items():
        w = start.clone().requires_grad_()
        optimizer = make(w)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        states, rates = [], []
        for _ in range(_STEPS):
            optimizer.zero_grad()
            (h * w**2 / 2 + c * w).sum().backward()
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
            states.append(w.detach().numpy().copy())
        outputs[name], outputs["rates"] = np.stack(states).astype(np.float32), np.array(rates)
    given = {"start": start, "c": c, "h": h}
    inputs = {k: v.numpy().astype(np.float32) for k, v in given.items()}
    config = {"steps": _STEPS, "lr": _RATE, "weight_decay": _DECAY, "momentum": 0.9}
    return inputs, outputs, config


FIXTURES = {"optimizers": Case({}, 0, _optimizers)}

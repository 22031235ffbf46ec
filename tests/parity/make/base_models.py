"""Base models: the zoos' CNNs and their training by Adam, ResNet-18, ViT, ConvNeXt, ResNet-12.

Sources: Schuerholt et al. 2022 (CNNs, names counted over one list of modules), He et al. 2016
(ResNet with a stem for small images), Dosovitskiy et al. 2021 (ViT), Liu et al. 2022 (ConvNeXt),
Chen et al. 2021 (ResNet-12 and its cosine and distance heads).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.parity.make.blocks import (
    Case,
    Made,
    Shapes,
    State,
    arrays,
    attend,
    batch_norm,
    conv,
    drawn,
    kernel,
    layer_norm,
    linear,
    norm,
    tensors,
)

Arrays = dict[str, Any]
_ACTIVATIONS = {"tanh": torch.tanh, "gelu": functional.gelu, "leakyrelu": functional.leaky_relu}
# Class of the zoos' code, channels of the images, side, activation, dropout, indices of the layers,
# pooled convolutions, widths: of the convolutions, their kernels, then hidden, then classes.
_CNNS: dict[str, tuple[Any, ...]] = {
    "small1.": ("CNN", 1, 28, "tanh", 0.0, (0, 3, 6, 9, 11), (1, 1, 0), (4, 3, 2), (5, 5, 2), 6, 4),
    "small3.": ("CNN", 3, 28, "gelu", 0.0, (0, 3, 6, 9, 11), (1, 1, 0), (3, 4, 2), (5, 5, 2), 5, 3),
    "medium1.": (
        "CNN3", 1, 32, "tanh", 0.0, (0, 4, 8, 13, 16), (1, 1, 1), (3, 4, 3), (3, 3, 3), 5, 3,
    ),
    "medium3.": (
        "CNN3", 3, 32, "gelu", 0.0, (0, 4, 8, 13, 16), (1, 1, 1), (4, 5, 3), (3, 3, 3), 6, 4,
    ),
    "dropout.": (
        "CNN", 1, 28, "leakyrelu", 0.5, (0, 4, 8, 11, 14), (1, 1, 0), (4, 3, 2), (5, 5, 2), 5, 3,
    ),
    "adam.": ("CNN", 1, 28, "tanh", 0.0, (0, 3, 6, 9, 11), (1, 1, 0), (8, 6, 4), (5, 5, 2), 20, 3),
}  # fmt: skip


def _images(rng: np.random.RandomState, *shape: int) -> Tensor:
    """Multiples of 1/8: small when compressed."""
    return torch.from_numpy(np.round(rng.standard_normal(shape) * 8) / 8)


def _cnn_shapes(case: str) -> Shapes:
    _, inputs, side, _, _, indices, pools, widths, kernels, hidden, classes = _CNNS[case]
    found: Shapes = {}
    for index, pool, width, k in zip(indices, pools, widths, kernels, strict=False):
        found |= kernel(f"{case}module_list.{index}", width, inputs, k, k)
        inputs, side = width, (side - k + 1) // (1 + pool)
    flat = inputs * side**2
    found |= kernel(f"{case}module_list.{indices[3]}", hidden, flat)
    return found | kernel(f"{case}module_list.{indices[4]}", classes, hidden)


def _cnn(p: State, case: str, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    _, _, _, name, _, indices, pools, *_ = _CNNS[case]
    stages: dict[str, Tensor] = {}
    for index, pool in zip(indices, pools, strict=False):
        x = conv(p, f"module_list.{index}", x, padding=0)
        x = functional.max_pool2d(x, 2) if pool else x
        x = stages[f"act_{len(stages)}"] = _ACTIVATIONS[name](x)
    x = linear(p, f"module_list.{indices[3]}", x.flatten(1))
    x = stages["act_3"] = _ACTIVATIONS[name](x)
    return linear(p, f"module_list.{indices[4]}", x), stages


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()


def _cnns(state: Arrays, inputs: Arrays, outputs: Arrays, config: Arrays) -> None:
    rng = np.random.RandomState(31)
    for case, (kind, channels, side, name, dropout, indices, *_, classes) in _CNNS.items():
        if case == "adam.":
            continue
        own = {k: v for k, v in state.items() if k.startswith(case)}
        x, y = _images(rng, 2, channels, side, side), torch.from_numpy(rng.randint(0, classes, 2))
        logits, stages = _cnn(tensors(own, case), case, x)
        vector = np.concatenate([v.ravel() for v in own.values()])
        found = arrays(logits=logits, nll=_nll(logits, y), **{k: v[:1] for k, v in stages.items()})
        found |= {"vector": vector, "correct": (logits.argmax(1) == y).sum().numpy()}
        outputs |= {f"{case}{k}": v for k, v in found.items()}
        inputs |= {f"{case}x": x.numpy().astype(np.float32), f"{case}y": y.numpy()}
        config[case] = {"cls": kind, "channels": channels, "side": side, "nlin": name}
        config[case] |= {"dropout": dropout, "layers": indices, "params": vector.size}


def _torch_files(state: Arrays, inputs: Arrays) -> None:
    own = {
        k.removeprefix("small1."): torch.from_numpy(v)
        for k, v in state.items()
        if k.startswith("small1.")
    }
    for name, zipped in (("checkpoints", True), ("legacy_checkpoints", False)):
        file = io.BytesIO()
        torch.save(own, file, _use_new_zipfile_serialization=zipped)
        inputs[f"torch_file.{name}"] = np.frombuffer(file.getvalue(), np.uint8)


def _adam(state: Arrays, inputs: Arrays, outputs: Arrays, config: Arrays) -> None:
    rng = np.random.RandomState(32)
    c = {"lr": 1e-3, "weight_decay": 1e-2, "steps": 3, "net": "CNN 1 channel tanh"}
    x, y = _images(rng, 6, 1, 28, 28), torch.from_numpy(rng.randint(0, 3, 6))
    p = {k: v.requires_grad_() for k, v in tensors(state, "adam.").items()}
    start = np.concatenate([v.detach().numpy().ravel() for v in p.values()])
    optimizer = torch.optim.Adam(p.values(), lr=c["lr"], weight_decay=c["weight_decay"])
    losses, vectors = [], []
    for _ in range(c["steps"]):
        optimizer.zero_grad()
        loss = _nll(_cnn(p, "adam.", x)[0], y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().numpy())
        vectors.append(np.concatenate([v.detach().numpy().ravel() for v in p.values()]))
    given = {"x": x.numpy(), "vector": start}
    inputs |= {f"adam.{k}": v.astype(np.float32) for k, v in given.items()} | {"adam.y": y.numpy()}
    outputs["adam.loss"] = np.stack(losses).astype(np.float32)
    outputs["adam.vectors"] = np.stack(vectors).astype(np.float32)
    config["adam."] = c


def _bn_shapes(name: str, width: int) -> Shapes:
    return norm(name, width) | {f"{name}.running_mean": [width], f"{name}.running_var": [width]}


def _resnet_shapes(width: int, classes: int) -> Shapes:
    found = kernel("conv1", width, 3, 3, 3, bias=False) | _bn_shapes("bn1", width)
    inputs = width
    for stage in (1, 2, 3, 4):
        outputs = width * 2 ** (stage - 1)
        for block in (0, 1):
            at = f"layer{stage}.{block}"
            for i, before in ((1, inputs), (2, outputs)):
                found |= kernel(f"{at}.conv{i}", outputs, before, 3, 3, bias=False)
                found |= _bn_shapes(f"{at}.bn{i}", outputs)
            if inputs != outputs:
                found |= kernel(f"{at}.shortcut.0", outputs, inputs, 1, 1, bias=False)
                found |= _bn_shapes(f"{at}.shortcut.1", outputs)
            inputs = outputs
    return found | kernel("linear", classes, inputs)


def _resnet(p: State, x: Tensor, train: bool = False) -> tuple[Tensor, list[Tensor], Arrays]:
    new: Arrays = {}

    def normed(name: str, x: Tensor) -> Tensor:
        y, found = batch_norm(p, name, x, train)
        new.update(found)
        return y

    x, stages = normed("bn1", conv(p, "conv1", x)).relu(), []
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            at, stride = f"layer{stage}.{block}", 1 if stage == 1 or block else 2
            h = normed(f"{at}.bn1", conv(p, f"{at}.conv1", x, stride=stride)).relu()
            h = normed(f"{at}.bn2", conv(p, f"{at}.conv2", h))
            if f"{at}.shortcut.0.weight" in p:
                x = normed(f"{at}.shortcut.1", conv(p, f"{at}.shortcut.0", x, stride=stride))
            x = (h + x).relu()
        stages.append(x)
    return linear(p, "linear", x.mean((2, 3))), stages, new


def _resnets(state: Arrays, inputs: Arrays, outputs: Arrays, config: Arrays) -> None:
    rng, p = np.random.RandomState(33), tensors(state, "resnet.")
    x = _images(rng, 4, 3, 16, 16)
    names = [k for k in p if ".running_" not in k]
    subset = [f"layer4.1.{name}" for name in ("bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias")]
    vector = drawn(rng, sum(p[name].numel() for name in subset))
    logits, stages, _ = _resnet(p, x)
    in_training, _, new = _resnet(p, x, train=True)
    parts = torch.split(vector, [p[name].numel() for name in subset])
    changed = p | dict(zip(subset, parts, strict=True))
    found = arrays(
        logits=logits,
        logits_train_mode=in_training,
        logits_subset=_resnet(changed, x)[0],
        bn_subset=torch.cat([p[name] for name in subset]),
        **{f"stage_{i}": stage[:1] for i, stage in enumerate(stages, 1)},
    )
    for name in ("bn1", "layer2.0.shortcut.1", "layer4.1.bn2"):
        for part in ("running_mean", "running_var"):
            key = f"{name}.{part}"
            found |= arrays(**{f"after_one_training_pass.{key}": new[key]})
    outputs |= {f"resnet.{k}": v for k, v in found.items()}
    inputs |= arrays(**{"resnet.x": x, "resnet.subset_vector": vector})
    config["resnet."] = {"width": 4, "classes": 5, "channels": 3, "subset": subset, "order": names}
    config["resnet."]["num_parameters"] = sum(p[name].numel() for name in names)


_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}
_CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [8, 12, 16, 20]}


def _vit_shapes(width: int, depth: int, classes: int) -> Shapes:
    found: Shapes = {"cls_token": [1, 1, width], "pos_embed": [1, 17, width]}
    found |= kernel("patch_embed.proj", width, 3, 8, 8)
    for i in range(depth):
        at = f"blocks.{i}"
        found |= norm(f"{at}.norm1", width) | kernel(f"{at}.attn.qkv", 3 * width, width)
        found |= kernel(f"{at}.attn.proj", width, width) | norm(f"{at}.norm2", width)
        found |= kernel(f"{at}.mlp.fc1", 4 * width, width)
        found |= kernel(f"{at}.mlp.fc2", width, 4 * width)
    return found | norm("norm", width) | kernel("head", classes, width)


def _vit(p: State, x: Tensor) -> Arrays:
    x = conv(p, "patch_embed.proj", x, stride=8, padding=0).flatten(2).transpose(1, 2)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], 1) + p["pos_embed"]
    found = {"tokens_in": x}
    for i in range(_VIT["depth"]):
        at = f"blocks.{i}"
        qkv = linear(p, f"{at}.attn.qkv", layer_norm(p, f"{at}.norm1", x))
        heads = (v.unflatten(-1, (3, -1)).transpose(1, 2) for v in qkv.chunk(3, -1))
        x = x + linear(p, f"{at}.attn.proj", attend(*heads).transpose(1, 2).flatten(2))
        h = functional.gelu(linear(p, f"{at}.mlp.fc1", layer_norm(p, f"{at}.norm2", x)))
        x = x + linear(p, f"{at}.mlp.fc2", h)
        found[f"block_{i}"] = x
    found["features"] = x = layer_norm(p, "norm", x)
    return found | {"logits": linear(p, "head", x[:, 0])}


def _convnext_shapes(depths: list[int], dims: list[int], classes: int) -> Shapes:
    found = kernel("stem.0", dims[0], 3, 4, 4) | norm("stem.1", dims[0])
    for s, (depth, width) in enumerate(zip(depths, dims, strict=True)):
        if s:
            found |= norm(f"stages.{s}.downsample.0", dims[s - 1])
            found |= kernel(f"stages.{s}.downsample.1", width, dims[s - 1], 2, 2)
        for b in range(depth):
            at = f"stages.{s}.blocks.{b}"
            found |= {f"{at}.gamma": [width]} | kernel(f"{at}.conv_dw", width, 1, 7, 7)
            found |= norm(f"{at}.norm", width) | kernel(f"{at}.mlp.fc1", 4 * width, width)
            found |= kernel(f"{at}.mlp.fc2", width, 4 * width)
    return found | norm("head.norm", dims[-1]) | kernel("head.fc", classes, dims[-1])


def _convnext(p: State, x: Tensor) -> Arrays:
    def normed(name: str, x: Tensor) -> Tensor:
        return layer_norm(p, name, x.movedim(1, -1)).movedim(-1, 1)

    x = normed("stem.1", conv(p, "stem.0", x, stride=4, padding=0))
    found = {"stem": x}
    for s, depth in enumerate(_CONVNEXT["depths"]):
        at = f"stages.{s}"
        if s:
            x = normed(f"{at}.downsample.0", x)
            x = conv(p, f"{at}.downsample.1", x, stride=2, padding=0)
        for b in range(depth):
            name = f"{at}.blocks.{b}"
            h = conv(p, f"{name}.conv_dw", x, padding=3, groups=x.shape[1])
            h = layer_norm(p, f"{name}.norm", h.movedim(1, -1))
            h = linear(p, f"{name}.mlp.fc2", functional.gelu(linear(p, f"{name}.mlp.fc1", h)))
            x = x + (h * p[f"{name}.gamma"]).movedim(-1, 1)
        found[f"stage_{s + 1}"] = x
    head = linear(p, "head.fc", layer_norm(p, "head.norm", x.mean((2, 3))))
    return {k: found[k] for k in ("stem", "stage_1")} | {"features": x, "logits": head}


def _others(state: Arrays, inputs: Arrays, outputs: Arrays, config: Arrays) -> None:
    rng = np.random.RandomState(34)
    subsets = {
        "vit.": ("blocks.1.norm2", "norm"),
        "convnext.": ("stages.3.blocks.0.norm", "head.norm"),
    }
    for case, run, c in (("vit.", _vit, _VIT), ("convnext.", _convnext, _CONVNEXT)):
        p, x = tensors(state, case), _images(rng, 2, 3, 32, 32)
        found = {k: v if k == "logits" else v[:1] for k, v in run(p, x).items() if k != "block_1"}
        subset = [f"{name}.{part}" for name in subsets[case] for part in ("weight", "bias")]
        found["norm_subset"] = torch.cat([p[name] for name in subset])
        outputs |= arrays(**{f"{case}{k}": v for k, v in found.items()})
        inputs |= arrays(**{f"{case}x": x})
        count = sum(v.numel() for v in p.values())
        config[case] = c | {"num_classes": 5, "subset": subset, "num_parameters": count}


def _zoo_models(state: dict[str, np.ndarray]) -> Made:
    inputs: Arrays = {}
    outputs: Arrays = {}
    config: Arrays = {}
    for part in (_cnns, _adam, _resnets, _others):
        part(state, inputs, outputs, config)
    _torch_files(state, inputs)
    return inputs, outputs, config


def _below(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


_ZOO_SHAPES: Shapes = {}
for _case in _CNNS:
    _ZOO_SHAPES |= _cnn_shapes(_case)
_ZOO_SHAPES |= _below("resnet.", _resnet_shapes(4, 5)) | _below("vit.", _vit_shapes(12, 2, 5))
_ZOO_SHAPES |= _below("convnext.", _convnext_shapes(_CONVNEXT["depths"], _CONVNEXT["dims"], 5))

_WIDTHS = (8, 8, 12, 12)


def _resnet12_shapes() -> Shapes:
    found: Shapes = {}
    inputs = 3
    for i, width in enumerate(_WIDTHS, 1):
        at, first = f"encoder.layer{i}", inputs
        for j in (1, 2, 3):
            found |= kernel(f"{at}.conv{j}", width, inputs, 3, 3, bias=False)
            found |= _bn_shapes(f"{at}.bn{j}", width)
            inputs = width
        found |= kernel(f"{at}.downsample.0", width, first, 1, 1, bias=False)
        found |= _bn_shapes(f"{at}.downsample.1", width)
    return found


def _resnet12(state: dict[str, np.ndarray]) -> Made:
    rng, p = np.random.RandomState(35), tensors(state)

    def run(x: Tensor, train: bool = False) -> tuple[Tensor, Arrays, Arrays]:
        new: Arrays = {}
        stages: Arrays = {}

        def normed(name: str, x: Tensor) -> Tensor:
            y, found = batch_norm(p, name, x, train)
            new.update(found)
            return y

        for i in range(1, len(_WIDTHS) + 1):
            at, h = f"encoder.layer{i}", x
            for j in (1, 2, 3):
                h = normed(f"{at}.bn{j}", conv(p, f"{at}.conv{j}", h))
                h = functional.leaky_relu(h, 0.1) if j < 3 else h
            h = h + normed(f"{at}.downsample.1", conv(p, f"{at}.downsample.0", x))
            x = functional.max_pool2d(functional.leaky_relu(h, 0.1), 2)
            stages[f"layer{i}"] = x
        return x.mean((2, 3)), stages, new

    image = _images(rng, 2, 3, 21, 21)
    support, query = _images(rng, 1, 2, 2, 3, 16, 16), _images(rng, 1, 3, 3, 16, 16)
    pooled, stages, _ = run(image)
    trained, _, new = run(image, train=True)
    means = run(support.flatten(0, 2))[0].reshape(1, 2, 2, -1).mean(2)
    asked = run(query.flatten(0, 1))[0].reshape(1, 3, -1)
    named, normed = (functional.normalize(x, dim=-1) for x in (means, asked))
    found = {"pooled": pooled, "train.pooled": trained, **stages}
    found |= {f"train.{k}": v for k, v in new.items()}
    found["head.cos"] = 10 * normed @ named.transpose(1, 2)
    found["head.sqr"] = -10 * ((asked[:, :, None] - means[:, None]) ** 2).sum(-1)
    config = {"channels": list(_WIDTHS), "bn_momentum_torch": 0.1, "head": {"temperature": 10.0}}
    given = {"image": image, "head.support": support, "head.query": query}
    return arrays(**given), arrays(**found), config


FIXTURES = {
    "zoo_models": Case(_ZOO_SHAPES, 36, _zoo_models),
    "resnet12": Case(_resnet12_shapes(), 37, _resnet12),
}

"""Keras files written by hand in the layout of real ones, and what Keras computes, written again in NumPy."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ROLES = {
    "Dense": ("kernel", "bias"), "Conv1D": ("kernel", "bias"), "Conv2D": ("kernel", "bias"),
    "Conv2DTranspose": ("kernel", "bias"), "DepthwiseConv2D": ("depthwise_kernel", "bias"),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"), "PReLU": ("alpha",),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Normalization": ("mean", "variance", "count"),
}  # fmt: skip


@dataclass(eq=False)
class Spec:
    """One layer: class, settings, weights in the order of Keras, and the layers it reads (functional models)."""

    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    weights: list[Array] = field(default_factory=list)
    name: str = ""
    reads: tuple[str, ...] = ()

    @property
    def roles(self) -> list[str]:
        roles = list(ROLES.get(self.kind, ()))
        if not self.config.get("use_bias", True):
            roles.remove("bias")
        drop = [role for role, key in (("gamma", "scale"), ("beta", "center")) if self.config.get(key, True) is False]
        return [role for role in roles if role not in drop]


def named(specs: Sequence[Spec]) -> list[Spec]:
    for index, spec in enumerate(specs):
        spec.name = spec.name or f"{spec.kind.lower()}_{index}"
        spec.config["name"] = spec.name
    return list(specs)


def description(specs: Sequence[Spec], shape: Sequence[int], keras: int = 2) -> dict[str, Any]:
    """`model_config` of a Sequential model, or of a functional one where a layer says what it reads."""
    key = "batch_input_shape" if keras == 2 else "batch_shape"
    start = {"class_name": "InputLayer", "config": {key: [None, *shape], "dtype": "float32", "name": "input_1"}}
    layers: list[dict[str, Any]] = [start, *({"class_name": spec.kind, "config": spec.config} for spec in specs)]
    if keras == 3:
        layers = [{"module": "keras.layers", "registered_name": None, **layer} for layer in layers]
    if not any(spec.reads for spec in specs):
        return {"class_name": "Sequential", "config": {"name": "network", "layers": layers}}
    reads = [(), *(spec.reads for spec in specs)]
    for layer, sources in zip(layers, reads, strict=True):
        layer["name"] = layer["config"]["name"]
        if keras == 2:
            layer["inbound_nodes"] = [[[source, 0, 0, {}] for source in sources]] if sources else []
        else:
            tensors = [
                {"class_name": "__keras_tensor__", "config": {"shape": [None], "keras_history": [source, 0, 0]}}
                for source in sources
            ]
            args = tensors if len(tensors) == 1 else [tensors]
            layer["inbound_nodes"] = [{"args": args, "kwargs": {}}] if tensors else []
    ends = {"input_layers": [["input_1", 0, 0]], "output_layers": [[specs[-1].name, 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "network", "layers": layers, **ends}}


def write_h5(path: Path, specs: Sequence[Spec], shape: Sequence[int], config: dict[str, Any] | None = None) -> Path:
    """As Keras 2.4 saves: see the attributes and groups of any of its files."""
    with h5py.File(path, "w") as file:
        file.attrs["backend"], file.attrs["keras_version"] = "tensorflow", "2.4.0"
        file.attrs["model_config"] = json.dumps(description(specs, shape) if config is None else config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([spec.name.encode() for spec in specs])
        for spec in specs:
            own = group.create_group(spec.name)
            names = [f"{spec.name}/{role}:0" for role in spec.roles]
            own.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name, weight in zip(names, spec.weights, strict=True):
                own.create_dataset(name, data=weight)
    return path


def weights_file(specs: Sequence[Spec], names: bool = True) -> bytes:
    """`model.weights.h5` as Keras 3 writes it; the early versions wrote no names."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        layers, used = file.create_group("layers"), dict[str, int]()
        for spec in specs:
            stem = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", spec.kind)
            stem = re.sub("([a-z])([A-Z])", r"\1_\2", stem).lower()
            number = used[stem] = used.get(stem, -1) + 1
            own = layers.create_group(f"{stem}_{number}" if number else stem).create_group("vars")
            if names:
                own.attrs["name"] = spec.name
            for index, weight in enumerate(spec.weights):
                own.create_dataset(str(index), data=weight)
    return content.getvalue()


def write_keras(
    path: Path,
    specs: Sequence[Spec],
    shape: Sequence[int],
    names: bool = True,
    config: dict[str, Any] | None = None,
    weights: bytes | None = None,
) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-11-23@14:19:37"}))
        archive.writestr("config.json", json.dumps(description(specs, shape, keras=3) if config is None else config))
        archive.writestr("model.weights.h5", weights_file(specs, names) if weights is None else weights)
    return path


def windows(x: Array, kernel: Sequence[int], strides: Sequence[int], padding: str, fill: float) -> Array:
    """(batch, H', W', kh, kw, C) of (batch, H, W, C); the odd element of "same" padding lies behind."""
    pads = [(0, 0)] * x.ndim
    if padding == "same":
        for dim, (k, step) in enumerate(zip(kernel, strides, strict=True), start=1):
            size = x.shape[dim]
            total = max((-(-size // step) - 1) * step + k - size, 0)
            pads[dim] = (total // 2, total - total // 2)
    x = np.pad(x, pads, constant_values=fill)
    count = len(kernel)
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=tuple(range(1, count + 1)))  # type: ignore[call-overload]
    seen = seen[(slice(None), *(slice(None, None, step) for step in strides))]
    return np.moveaxis(seen, count + 1, -1)


def conv(x: Array, spec: Spec, kernel: Array, depthwise: bool = False) -> Array:
    config, count = spec.config, kernel.ndim - 2
    dilation = config.get("dilation_rate", [1] * count)
    wide = np.zeros((*((k - 1) * dil + 1 for k, dil in zip(kernel.shape, dilation, strict=False)), *kernel.shape[-2:]))
    wide[tuple(slice(None, None, dil) for dil in dilation)] = kernel
    padding = config.get("padding", "valid")
    if padding == "causal":
        x, padding = np.pad(x, ((0, 0), (wide.shape[0] - 1, 0), (0, 0))), "valid"
    seen = windows(x, wide.shape[:-2], config.get("strides", [1] * count), padding, 0.0)
    space = "klm"[:count]
    if depthwise:
        y = np.einsum(f"b...{space}c,{space}cm->b...cm", seen, wide)
        return y.reshape(*y.shape[:-2], -1)
    return np.einsum(f"b...{space}c,{space}cd->b...d", seen, wide)


def activation(x: Array, name: str | None) -> Array:
    if name in (None, "linear"):
        return x
    if name == "softmax":
        shifted = np.exp(x - x.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True)
    return {
        "relu": lambda: np.maximum(x, 0), "relu6": lambda: np.clip(x, 0, 6), "tanh": lambda: np.tanh(x),
        "sigmoid": lambda: 1 / (1 + np.exp(-x)), "leaky_relu": lambda: np.where(x > 0, x, 0.2 * x),
    }[str(name)]()  # fmt: skip


def forward(spec: Spec, *inputs: Array) -> Array:
    """The layer in float64, channels last, from the documentation of Keras."""
    x, config, w = inputs[0], spec.config, [weight.astype(np.float64) for weight in spec.weights]
    bias = w[-1] if "bias" in spec.roles else 0.0
    act = config.get("activation")
    match spec.kind:
        case "Dense":
            return activation(x @ w[0] + bias, act)
        case "Conv1D" | "Conv2D":
            return activation(conv(x, spec, w[0]) + bias, act)
        case "DepthwiseConv2D":
            return activation(conv(x, spec, w[0], depthwise=True) + bias, act)
        case "SeparableConv2D":
            return activation(np.einsum("...c,cd->...d", conv(x, spec, w[0], True), w[1][0, 0]) + bias, act)
        case "Conv2DTranspose":
            (kh, kw), (sh, sw) = w[0].shape[:2], config["strides"]
            full = np.zeros(
                (len(x), (x.shape[1] - 1) * sh + max(kh, sh), (x.shape[2] - 1) * sw + max(kw, sw), len(w[1]))
            )
            for i in range(x.shape[1]):
                for j in range(x.shape[2]):
                    full[:, i * sh : i * sh + kh, j * sw : j * sw + kw] += np.einsum("bc,klfc->bklf", x[:, i, j], w[0])
            if config["padding"] == "same":
                top, left = max(kh - sh, 0) // 2, max(kw - sw, 0) // 2
                full = full[:, top : top + x.shape[1] * sh, left : left + x.shape[2] * sw]
            return activation(full + bias, act)
        case "BatchNormalization":
            given = dict(zip(spec.roles, w, strict=True))
            scale = given.get("gamma", 1.0) / np.sqrt(given["moving_variance"] + config["epsilon"])
            return (x - given["moving_mean"]) * scale + given.get("beta", 0.0)
        case "Normalization":
            return (x - w[0]) / np.maximum(np.sqrt(w[1]), 1e-7)
        case "Rescaling":
            return x * config["scale"] + config["offset"]
        case "Activation":
            return activation(x, act)
        case "ReLU":
            y = np.where(x >= 0, x, config.get("negative_slope", 0.0) * x)
            return y if config.get("max_value") is None else np.minimum(y, config["max_value"])
        case "LeakyReLU":
            return np.where(x > 0, x, config["negative_slope"] * x)
        case "PReLU":
            return np.where(x > 0, x, w[0] * x)
        case "Softmax":
            return activation(x, "softmax")
        case "MaxPooling2D" | "MaxPooling1D":
            seen = windows(x, config["pool_size"], config["strides"], config["padding"], -np.inf)
            return seen.max(tuple(range(x.ndim - 1, seen.ndim - 1)))
        case "AveragePooling2D" | "AveragePooling1D":
            seen = windows(x, config["pool_size"], config["strides"], config["padding"], np.nan)
            return np.nanmean(seen, tuple(range(x.ndim - 1, seen.ndim - 1)))
        case "GlobalAveragePooling2D" | "GlobalAveragePooling1D":
            return x.mean(tuple(range(1, x.ndim - 1)))
        case "GlobalMaxPooling2D" | "GlobalMaxPooling1D":
            return x.max(tuple(range(1, x.ndim - 1)))
        case "Flatten":
            return x.reshape(len(x), -1)
        case "Reshape":
            return x.reshape(len(x), *config["target_shape"])
        case "Permute":
            return x.transpose(0, *config["dims"])
        case "ZeroPadding2D":
            return np.pad(x, ((0, 0), *config["padding"], (0, 0)))
        case "Cropping2D":
            (a, b), (c, d) = config["cropping"]
            return x[:, a : x.shape[1] - b, c : x.shape[2] - d]
        case "UpSampling2D":
            return x.repeat(config["size"][0], 1).repeat(config["size"][1], 2)
        case "Dropout" | "SpatialDropout2D" | "GaussianNoise":
            return x
        case "Add":
            return sum(inputs[1:], x)
        case "Subtract":
            return x - inputs[1]
        case "Maximum":
            return np.maximum(x, inputs[1])
        case "Concatenate":
            return np.concatenate(inputs, config["axis"])
    raise NotImplementedError(spec.kind)


def expected(specs: Sequence[Spec], x: Array) -> Array:
    """What the whole model computes for `x` (batch, *shape of Keras)."""
    values, last = {"input_1": x.astype(np.float64)}, "input_1"
    for spec in specs:
        values[spec.name] = forward(spec, *(values[source] for source in spec.reads or (last,)))
        last = spec.name
    return values[last]

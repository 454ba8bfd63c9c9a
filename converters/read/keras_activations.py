"""Activations of Keras: the strings in layers, and the layers of their own. Formulas: keras.activations."""

from __future__ import annotations

import math
from typing import Any

import torch

from converters.read.keras_model import is_custom
from converters.read.keras_site import Rule, Signal, Site, as_number, entering
from neuro.nodes import Add, Clamp, LeakyReLU, ReLU, Scale, Sigmoid, Softmax, Tanh
from neuro.trace.site import Refusal

RULES: dict[str, Rule] = {}
rule = entering(RULES)

_CURVES = {
    "elu", "selu", "celu", "gelu", "swish", "silu", "softplus", "softsign", "exponential", "mish", "hard_silu",
}  # fmt: skip


def activate(site: Site, x: Signal, activation: object) -> Signal:
    """The activation of a layer, given as a word, as a serialised function, or as a layer."""
    try:
        return _activated(site, x, activation)
    except Refusal as refusal:
        site.refuse(str(refusal))
        return x


def _activated(site: Site, x: Signal, activation: Any) -> Signal:
    settings: dict[str, Any] = {}
    if isinstance(activation, dict):
        if author := is_custom(activation):
            raise Refusal(f"activation {author} is a function of its author, never executed; use one of Keras")
        config = activation.get("config")
        if isinstance(config, dict):
            settings, activation = config, activation["class_name"]
            if activation == "Activation":
                return _activated(site, x, config.get("activation"))
        else:
            activation = config if activation.get("class_name") == "function" else activation["class_name"]
    match activation:
        case None | "linear":
            return x
        case "relu":
            return site.add(ReLU(), x, part="relu")
        case "relu6":
            return site.add(Clamp(0.0, 6.0), x, part="relu6")
        case "ReLU":
            return _relu(site, x, settings)
        case "leaky_relu":
            return site.add(LeakyReLU(0.2), x, part="leaky_relu")
        case "LeakyReLU":
            return _leaky(site, x, settings)
        case "softmax" | "log_softmax" | "Softmax":
            place = x.order.index(site.axis(settings.get("axis", -1), x))
            return site.add(Softmax(place, log=activation == "log_softmax"), x, part="softmax")
        case "sigmoid":
            return site.add(Sigmoid(), x, part="sigmoid")
        case "hard_sigmoid":
            slope = 0.2 if site.reading.major < 3 else 1 / 6
            line = site.add(Scale(torch.tensor(slope), torch.tensor(0.5)), x, part="line")
            return site.add(Clamp(0.0, 1.0), line, part="hard_sigmoid")
        case "tanh":
            return site.add(Tanh(), x, part="tanh")
        case "hard_tanh":
            return site.add(Clamp(-1.0, 1.0), x, part="hard_tanh")
    curve = "; no node has this curve" if isinstance(activation, str) and activation in _CURVES else ""
    raise Refusal(f"activation {activation!r:.60} cannot be read{curve}; train with relu, relu6 or leaky_relu")


@rule("Activation")
def activation(site: Site, x: Signal) -> Signal:
    return activate(site, x, site.config.get("activation"))


@rule("Softmax", "LeakyReLU", "ReLU")
def layer(site: Site, x: Signal) -> Signal:
    return activate(site, x, {"class_name": site.layer.kind, "config": dict(site.config)})


def _relu(site: Site, x: Signal, settings: dict[str, Any]) -> Signal:
    """max_value where x >= max_value, x where x >= threshold, negative_slope * (x - threshold) below."""
    slope = as_number(settings.get("negative_slope"), "negative_slope", 0.0)
    if as_number(settings.get("threshold"), "threshold", 0.0) != 0:
        raise Refusal("threshold other than 0 jumps, and no node does; train with threshold=0")
    if settings.get("max_value") is None:
        return site.add(LeakyReLU(slope) if slope else ReLU(), x, part="relu")
    limit = as_number(settings["max_value"], "max_value", 0.0)
    if limit <= 0:
        raise Refusal(f"max_value={limit:g} lets nothing pass; it must be > 0")
    if slope == 0:
        return site.add(Clamp(0.0, limit), x, part="relu")
    return site.add(Clamp(-math.inf, limit), site.add(LeakyReLU(slope), x, part="leaky"), part="limit")


def _leaky(site: Site, x: Signal, settings: dict[str, Any]) -> Signal:
    """The slope was called `alpha` before Keras 3."""
    given = settings.get("negative_slope", settings.get("alpha"))
    return site.add(LeakyReLU(as_number(given, "negative_slope", 0.3)), x, part="leaky_relu")


@rule("ThresholdedReLU")
def thresholded(site: Site, x: Signal) -> Signal:
    """x where x > theta, else 0."""
    if site.number("theta", 1.0) != 0:
        raise Refusal("theta other than 0 jumps, and no node does; train with ReLU")
    return site.add(ReLU(), x)


@rule("PReLU")
def prelu(site: Site, x: Signal) -> Signal:
    """relu(x) - alpha * relu(-x), with alpha of the shape of the features; 1 where the axis is shared."""
    alpha = site.weights(lambda tensor: tensor, "alpha")
    if alpha.ndim != len(x.order):
        raise Refusal(f"alpha of shape {tuple(alpha.shape)} does not fit features of shape {x.shape}")
    if alpha.numel() == 1:
        return site.add(LeakyReLU(float(alpha)), x)
    falling = Scale(-alpha.permute(x.order).contiguous())
    negated = site.add(Scale(torch.tensor(-1.0)), x, part="negated")
    negative = site.add(falling, site.add(ReLU(), negated, part="negative"), part="slope")
    return site.add(Add(), site.add(ReLU(), x, part="positive"), negative)

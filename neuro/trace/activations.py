"""Rules for functions of one element, and for softmax."""

from __future__ import annotations

from torch import Tensor

from neuro.nodes import Clamp, Dropout, LeakyReLU, ReLU, Softmax
from neuro.trace.rules import Operand, Result, Rule, beside, constant, entering, feature_dim, number, signal
from neuro.trace.site import Refusal, Site, Value

RULES: dict[str, Rule] = {}
rule = entering(RULES)


@rule("relu")
def relu(site: Site, x: Value) -> Result:
    return site.add(ReLU(), x)


@rule("clamp", "clip", "hardtanh", "clamp_min", "clamp_max", "relu6")
def clamp(site: Site, x: Value, low: Operand | None = None, high: Operand | None = None) -> Result:
    if site.operation == "hardtanh":
        low, high = -1.0 if low is None else low, 1.0 if high is None else high
    if site.operation == "relu6":
        low, high = 0.0, 6.0
    if site.operation == "clamp_max":
        low, high = None, low
    if low is not None and high is None and number(low, "the lower bound") == 0:
        return site.add(ReLU(), x)
    if low is None or high is None:
        raise Refusal("one-sided clamps other than min=0 have no node; give both bounds")
    return site.add(Clamp(number(low, "the lower bound"), number(high, "the upper bound")), x)


@rule("maximum", "max.other")
def maximum(site: Site, a: Operand, b: Operand) -> Result:
    x, floor = (a, b) if isinstance(a, Value) else (b, a)
    if isinstance(floor, Value) or bool((constant(floor, "the bound") != 0).any()):
        raise Refusal("the larger of two signals has no node; only maximum(x, 0) is a ReLU")
    beside(signal(x), floor, "the bound")
    return site.add(ReLU(), signal(x))


@rule("threshold")
def threshold(site: Site, x: Value, level: float, value: float) -> Result:
    if level or value:
        raise Refusal("thresholds other than 0 with value 0 have no node; use ReLU")
    return site.add(ReLU(), x)


@rule("leaky_relu")
def leaky_relu(site: Site, x: Value, slope: float = 0.01) -> Result:
    return site.add(LeakyReLU(slope), x)


@rule("prelu")
def prelu(site: Site, x: Value, slope: Tensor) -> Result:
    return site.add(LeakyReLU(number(slope, "the slope")), x)


@rule("softmax.int", "_softmax")
def softmax(site: Site, x: Value, dim: int, dtype: object = None) -> Result:
    return site.add(Softmax(feature_dim(x, dim)), x)


@rule("log_softmax.int", "_log_softmax")
def log_softmax(site: Site, x: Value, dim: int, dtype: object = None) -> Result:
    return site.add(Softmax(feature_dim(x, dim), log=True), x)


@rule("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(site: Site, x: Value, p: float, train: bool) -> Result:
    if train:
        raise Refusal("dropout is active at inference; write F.dropout(x, p, training=self.training)")
    # Alpha dropout draws other values than the Dropout node when training, but both are the identity here.
    return site.add(Dropout(p), x) if "alpha" not in site.operation else x

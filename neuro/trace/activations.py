"""Rules for functions of one element, and for softmax."""

from __future__ import annotations

from torch import Tensor

from neuro.nodes import Add, Clamp, Dropout, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from neuro.trace.rules import Operand, Result, Rule, beside, constant, entering, feature_dim, number, scaled, signal
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
        return _limited(site, x, low if high is None else high, above=high is None)
    return site.add(Clamp(number(low, "the lower bound"), number(high, "the upper bound")), x)


@rule("hardsigmoid")
def hardsigmoid(site: Site, x: Value) -> Result:
    return site.add(Clamp(0.0, 1.0), scaled(site, x, 1 / 6, 0.5, part="scale"))


def _limited(site: Site, x: Value, bound: Operand | None, above: bool) -> Value:
    """The larger (`above`) or smaller of a signal and a constant: c + relu(x - c), or c - relu(c - x)."""
    c = beside(x, bound, "the bound")
    if above and not bool(c.any()):
        return site.add(ReLU(), x)
    sign = 1.0 if above else -1.0
    excess = site.add(ReLU(), scaled(site, x, sign, -sign * c, part="beyond"), part="relu")
    return scaled(site, excess, sign, c)


@rule("maximum", "max.other", "fmax", "minimum", "min.other", "fmin")
def extreme(site: Site, a: Operand, b: Operand) -> Result:
    """max(a, b) = b + relu(a - b) and min(a, b) = b - relu(b - a); one of them may be constant."""
    above = "max" in site.operation
    if not isinstance(a, Value) or not isinstance(b, Value):
        x, bound = (a, b) if isinstance(a, Value) else (b, a)
        return _limited(site, signal(x), bound, above)
    if a.shape != b.shape:
        raise Refusal(f"signals of shapes {a.shape} and {b.shape} have no larger one; make both one shape")
    first, second = (a, b) if above else (b, a)
    difference = site.add(Add(), first, scaled(site, second, -1, part="minus"), part="difference")
    excess = site.add(ReLU(), difference, part="relu")
    return site.add(Add(), b, excess if above else scaled(site, excess, -1, part="falling"))


@rule("sigmoid")
def sigmoid(site: Site, x: Value) -> Result:
    return site.add(Sigmoid(), x)


@rule("tanh")
def tanh(site: Site, x: Value) -> Result:
    return site.add(Tanh(), x)


@rule("abs")
def absolute(site: Site, x: Value) -> Result:
    return site.add(LeakyReLU(-1.0), x)


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
    """One slope for all is a LeakyReLU; one per channel is written out: relu(x) - slope * relu(-x)."""
    if slope.numel() == 1:
        return site.add(LeakyReLU(number(slope, "the slope")), x)
    return two_sided(site, x, constant(slope, "the slope").reshape(-1, *(1,) * (len(x.shape) - 1)))


def two_sided(site: Site, x: Value, slopes: Tensor) -> Value:
    """relu(x) - slopes * relu(-x), with slopes that broadcast against the features."""
    positive = site.add(ReLU(), x, part="positive")
    negative = site.add(ReLU(), scaled(site, x, -1, part="negated"), part="negative")
    return site.add(Add(), positive, scaled(site, negative, -slopes, part="slope"))


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

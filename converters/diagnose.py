"""diagnose: where a converted network loses, why, and what would help."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from converters.activity import activity, pulled, resumed, walk
from converters.attribution import Seen, Units, channel_mean, losses, units
from converters.calibrate import check_calibration
from converters.diagnosis import CAUSES, Diagnosis, Finding, LayerLoss
from converters.legalise import is_activation, legalise
from converters.remedies import Facts, facts, remedy, rewritten
from neuro.errors import ParameterError
from neuro.flow import has_neurons
from neuro.graph import Graph, Stateless
from neuro.nodes import Readout

BATCH = 64

STUCK = 0.5
"""A population is saturated when more than this share of its active neurons is driven to the limit or beyond."""

FELT = 0.2
"""Parts (norm over the norm of the activation) below this share of `least` cost nothing worth measuring."""

MADE_UP = 0.5
"""Weights that leave less than this share of the errors' means (squared, over the channels) were changed to help."""


def diagnose(ann: Graph, snn: Graph, x: Tensor, steps: int | None = None, least: float = 0.05) -> Diagnosis:
    """Per layer, how much of the distance between `ann` and `snn`, made from it by `convert`, has which cause.

    x (samples, *features): some hundred samples; not those of the test. steps: how long `snn` runs; left out for
    networks that know it. Each population is judged by what it really received, so that nothing is blamed on it that
    came wrong already: that is `inherited`. The rest is cut into clipping, weights, threshold, quantisation and
    unevenness (the first and the last two: Bu et al. 2022, arXiv 2303.04347, sec. 3), or saturation where most active
    neurons stand at their limit; the parts add up exactly, see `converters.attribution.losses`. Weights are compared as
    they are: what a recipe rewrote on purpose shows too, but costs nothing where it makes up for what was inherited.

    A finding names a layer of which one cause alone moves the logits of the original network by `least` (relative) or
    more, when all layers before it are perfect (unevenness: as it was); the costliest comes first. A network whose
    logits as a whole are off by less has none.

    The worth of a spike is read from the thresholds and the weights behind them. In integer networks, and for kinds of
    neurons unknown here, it is fitted on the first 64 samples: there noisy weights show as a wrong threshold too.
    Unknown kinds have one cause, "other".
    Raises ParameterError where the two networks do not belong together or steps are missing, ShapeError and DataError
    for data that do not fit.
    """
    if has_neurons(ann):
        raise ParameterError(f"{ann.name!r} holds neurons; diagnose takes the original network first, then the spiking")
    if not 0 < least < float("inf"):
        raise ParameterError(f"diagnose: least must be > 0, got {least}")
    x = check_calibration(ann, x)
    plain = legalise(ann)
    _check_pair(plain, snn)
    study = _Study(plain, snn, steps, FELT * least)
    with torch.no_grad():
        for part in x.split(BATCH):
            study.judge(part)
    rows = tuple(study.row(name) for name in study.sums)
    error, same = study.whole.moved_by("all"), 1 - study.whole.flips / len(x)
    found = [_finding(row, study.facts[row.layer], least) for row in rows] if error >= least else []
    findings = sorted((finding for finding in found if finding is not None), key=lambda finding: -finding.cost)
    return Diagnosis(snn.name, len(x), steps, rows, tuple(findings), error, same)


def _check_pair(plain: Graph, snn: Graph) -> None:
    layers = [name for name, node in plain.nodes.items() if is_activation(node)]
    missing = [name for name in layers if name not in snn.nodes or snn.shapes[name] != plain.shapes[name]]
    if missing or len(snn.inputs) != 1 or snn.shapes[snn.output] != plain.shapes[plain.output]:
        why = f"it has no population for {', '.join(map(repr, missing[:5]))}" if missing else "its ends differ"
        raise ParameterError(
            f"{snn.name!r} was not converted from {plain.name!r}: {why}; give the network that was converted"
        )


def _finding(row: LayerLoss, known: Facts, least: float) -> Finding | None:
    causes = [cause for cause, cost in row.costs.items() if cost >= least]
    causes.sort(key=lambda cause: -row.costs[cause])
    if not causes:
        return None
    return Finding(row.layer, causes[0], row.costs[causes[0]], remedy(causes[0], known), tuple(causes[1:]))


@dataclass
class _Sums:
    """Squared norms of one layer over all batches; `moved`: of the logits, by cause."""

    squares: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    moved: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    flips: int = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        for what, value in values.items():
            self.squares[what] += float(value.double().square().sum())

    def move(self, cause: str, logits: Tensor, found: Tensor) -> None:
        """`found` in place of `logits`, by one cause or by "all"."""
        self.moved[cause] += float((_centred(found) - _centred(logits)).square().sum())
        if cause == "all":
            self.moved["logits"] += float(_centred(logits).square().sum())
            self.flips += int((found.flatten(1).argmax(1) != logits.flatten(1).argmax(1)).sum())

    def moved_by(self, cause: str) -> float:
        return (self.moved[cause] / max(self.moved["logits"], 1e-30)) ** 0.5

    def distance(self, what: str) -> float:
        return (self.squares[what] / max(self.squares["original"], 1e-30)) ** 0.5


def _centred(logits: Tensor) -> Tensor:
    """Logits without their mean over the classes, which no class depends on."""
    flat = logits.flatten(1).double()
    return flat - flat.mean(1, keepdim=True) if flat.shape[1] > 1 else flat


def _helps(part: Tensor, total: Tensor) -> bool:
    """Whether the total error has much smaller means over the channels with this part of it than without."""
    left, before = (channel_mean(error).square().sum() for error in (total, total - part))
    return bool(left < MADE_UP * before)


class _Study:
    """Both networks, and what is known of them after the batches judged so far."""

    def __init__(self, plain: Graph, snn: Graph, steps: int | None, felt: float) -> None:
        self.plain, self.snn, self.steps, self.felt = plain, snn, steps, felt
        self.layers = [name for name, node in plain.nodes.items() if is_activation(node)]
        self.end = snn.output if plain.output in self.layers else plain.output
        self.sums = {name: _Sums() for name in (*self.layers, self.end)}
        self.whole = _Sums()
        self.units: dict[str, Units] = {}
        self.facts: dict[str, Facts] = {}
        self.helped: dict[str, bool] = {}
        self.samples = 0

    def judge(self, x: Tensor) -> None:
        """Add a batch (batch, *features)."""
        plain, (entry,) = self.plain, self.plain.inputs
        truth = walk(plain, {entry: x})
        means, outputs = activity(self.snn, x, self.steps)
        mixed, ideal = {entry: x}, {self.snn.inputs[0]: x}
        for name, node in plain.nodes.items():
            if name not in mixed:
                assert isinstance(node, Stateless)
                value = node.forward(*(mixed[source] for source in plain.sources[name]))
                if name in self.layers:
                    value = self._population(name, truth, mixed, means, ideal)
                    ideal[name] = truth[name] / self.units[name].worth
                mixed[name] = value
        self._read_out(truth[plain.output], mixed[plain.output], means, outputs)
        self.samples += len(x)

    def _population(
        self,
        name: str,
        truth: dict[str, Tensor],
        mixed: dict[str, Tensor],
        means: dict[str, Tensor],
        ideal: dict[str, Tensor],
    ) -> Tensor:
        """What a population sent, in original units; its losses join the sums.

        mixed: the original network on what was sent before it. ideal: the spiking network, every spike train before it
        replaced by the original activation.
        """
        node, activation = self.snn.nodes[name], self.plain.nodes[name]
        assert isinstance(activation, Stateless)
        (source,), (entry,) = self.plain.sources[name], self.snn.sources[name]
        seen = Seen(truth[name], mixed[source], activation.forward(mixed[source]), means[entry], means[name])
        alone = Seen(truth[name], truth[source], truth[name], pulled(self.snn, ideal, entry), means[name])
        if name not in self.units:
            self.units[name] = units(node, name, self.plain, self.snn, seen)
            self.facts[name] = facts(self.plain, self.snn, name, self.units[name], alone, self.steps)
        judge = partial(losses, activation, node, self.units[name], self.steps, self.facts[name].at_limit > STUCK)
        value, parts = judge(seen)
        self.sums[name].add(
            {
                "original": truth[name],
                "inherited": seen.wanted - truth[name],
                "local": value - seen.wanted,
                "total": value - truth[name],
                **parts,
            }
        )
        if name not in self.helped:
            self.helped[name] = "weights" in parts and _helps(parts["weights"], value - truth[name])
        if "unevenness" in parts:
            parts = {**judge(alone)[1], "unevenness": parts["unevenness"]}
        if self.helped[name]:
            del parts["weights"]
        self._costs(name, truth, parts)
        return value

    def _costs(self, name: str, truth: dict[str, Tensor], parts: dict[str, Tensor]) -> None:
        logits, size = truth[self.plain.output], float(truth[name].double().norm())
        for cause, part in {**parts, "all": torch.stack([*parts.values()]).sum(0)}.items():
            if cause == "all" or float(part.double().norm()) > self.felt * size:
                self.sums[name].move(cause, logits, resumed(self.plain, truth, name, truth[name] + part))

    def _read_out(self, truth: Tensor, mixed: Tensor, means: dict[str, Tensor], outputs: Tensor) -> None:
        last, sums = self.snn.nodes[self.snn.output], self.sums[self.end]
        received = means[self.snn.sources[self.snn.output][0]] if isinstance(last, Readout) else outputs
        parts = {"weights": received - mixed, "unevenness": outputs - received}
        sums.add({"original": truth, "local": outputs - mixed, "total": outputs - truth, "inherited": mixed - truth})
        sums.add(parts)
        if self.end not in self.helped:
            self.helped[self.end] = _helps(parts["weights"], outputs - truth)
        if self.helped[self.end]:
            del parts["weights"]
        for cause, part in {**parts, "all": torch.stack([*parts.values()]).sum(0)}.items():
            sums.move(cause, truth, truth + part)
        self.whole.move("all", truth, outputs)
        if self.end not in self.facts:
            self.facts[self.end] = Facts(last.kind, rewritten=rewritten(self.plain, self.snn, self.plain.output))

    def row(self, name: str) -> LayerLoss:
        sums, known = self.sums[name], self.facts[name]
        causes = {cause: sums.distance(cause) for cause in CAUSES if cause in sums.squares}
        costs = {cause: sums.moved_by(cause) for cause in CAUSES if cause in sums.moved}
        local, inherited, total = map(sums.distance, ("local", "inherited", "total"))
        flips = sums.flips / self.samples
        return LayerLoss(
            name, known.kind, causes, local, inherited, total, known.at_limit, costs, sums.moved_by("all"), flips
        )

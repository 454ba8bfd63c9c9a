"""How networks learn whose neurons fire once: losses of spike times, and what keeps their neurons alive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from neuro.errors import ParameterError, UnsupportedNode
from neuro.first_spike import Kind, gradient_limit
from neuro.graph import Graph, Input, Node, Stateless
from neuro.network import Network
from neuro.nodes import EarliestWins, LatencyCode, Reshape, TimeToFirstSpike
from neuro.training.losses import Criterion


class TimesCriterion(Criterion):
    """A loss of the scores -min(t, latest) that `EarliestWins` gives for output times t (batch, classes)."""

    def scores(self, outputs: Tensor) -> Tensor:
        return outputs


@dataclass(frozen=True)
class FirstSpikeCrossEntropy(TimesCriterion):
    """log sum over n of exp(-(t_n - t_y) / (xi tau)) + alpha exp(t_y / (beta tau)), mean over the batch.

    t_y is the time of the right class y, tau the synaptic time constant; the second term asks for early spikes. Where
    neuron y is silent the sample costs `silent` and gives no gradient; other silent neurons leave the sum. Goeltz et
    al. 2021, eq. 7 [recalled], with the constants of their code.
    """

    latest: float
    xi: float = 0.2
    alpha: float = 0.005
    beta: float = 1.0
    tau: float = 1.0
    silent: float = 100.0

    def __post_init__(self) -> None:
        for name in ("latest", "xi", "beta", "tau"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ParameterError(
                    f"FirstSpikeCrossEntropy: {name} must be finite and > 0, got {getattr(self, name)}"
                )
        if not (self.alpha >= 0 and math.isfinite(self.alpha)):
            raise ParameterError(f"FirstSpikeCrossEntropy: alpha must be finite and >= 0, got {self.alpha}")

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        of_label = -outputs.gather(1, y[:, None])[:, 0]
        fired = of_label < self.latest
        early = torch.where(outputs > -self.latest, outputs / (self.xi * self.tau), -torch.inf)
        at = torch.where(fired, of_label, 0.0)
        each = torch.logsumexp(torch.where(fired[:, None], early, 0.0), 1) + at / (self.xi * self.tau)
        each = each + self.alpha * torch.exp(at / (self.beta * self.tau))
        return torch.where(fired, each, self.silent).mean()


@dataclass(frozen=True)
class ShiftInvariantMSE(TimesCriterion):
    """mean over n of (r_n - mean r)^2 / 2 with r_n = t_n - gap [n is wrong]: all others `gap` after the right one.

    When the spikes come as a whole costs nothing; silent neurons count as spikes at `latest`, without a gradient.
    DelGrad (Goeltz et al.) trains with a gap of 0.2 tau.
    """

    gap: float = 0.2

    def __post_init__(self) -> None:
        if not (self.gap > 0 and math.isfinite(self.gap)):
            raise ParameterError(f"ShiftInvariantMSE: gap must be finite and > 0, got {self.gap}")

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        wanted = torch.full_like(outputs, self.gap).scatter_(1, y[:, None], 0.0)
        late = -outputs - wanted
        return 0.5 * (late - late.mean(1, keepdim=True)).square().mean()


@dataclass(frozen=True, eq=False)
class FirstSpikeTraining(TimesCriterion):
    """A criterion, and what surrounds it while the network trains; validation sees the criterion alone.

    noise: standard deviation of Gaussian noise on the times of input spikes (not of the bias), in the unit of time.
    gradient_limit: neurons of a sample whose part of the gradient of the mean loss has a |dL/dw| above it give none.
    bump: sees which neurons stayed silent; give it to `fit` as after_step too.
    """

    criterion: TimesCriterion
    noise: float = 0.0
    gradient_limit: float = math.inf
    bump: WeightBumping | None = None

    def __post_init__(self) -> None:
        if not (self.noise >= 0 and math.isfinite(self.noise)):
            raise ParameterError(f"FirstSpikeTraining: noise must be finite and >= 0, got {self.noise}")
        if not self.gradient_limit > 0:
            raise ParameterError(f"FirstSpikeTraining: gradient_limit must be > 0, got {self.gradient_limit}")

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.criterion.cost(outputs, y)

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if not network.training:
            return super().__call__(network, x, y)
        with gradient_limit(self.gradient_limit):
            scores, times = forward_in_time(network, x, self.noise)
        if self.bump is not None:
            self.bump.see(times)
        return self.criterion.cost(scores, y)


def forward_in_time(network: nn.Module, x: Tensor, noise: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """The outputs of a Network of first-spike layers, and the spike times of every layer by its name.

    Noise is drawn from torch's global generator, which `fit` seeds. Raises UnsupportedNode for other modules.
    """
    if not isinstance(network, Network):
        raise UnsupportedNode(f"first-spike training takes a neuro.Network, got {type(network).__name__}")
    graph = network.live()
    values: dict[str, Tensor] = {}
    times: dict[str, Tensor] = {}
    for name, node in graph.nodes.items():
        given = [values[source] for source in graph.sources[name]]
        if isinstance(node, Input):
            values[name] = x
        elif isinstance(node, Stateless):
            values[name] = node.forward(*given)
        if isinstance(node, LatencyCode) and noise:
            shaken = values[name] + noise * torch.randn_like(values[name])
            values[name] = shaken if node.bias is None else torch.cat([shaken[:, :-1], values[name][:, -1:]], 1)
        if isinstance(node, TimeToFirstSpike):
            times[name] = values[name]
    return values[graph.output], times


@dataclass(eq=False)
class WeightBumping:
    """Wakes silent neurons: the first layer with too many of them gets larger weights (Goeltz et al. 2021, Methods).

    After every update of a Network: where more than the tolerated share of a layer's neurons stayed silent in the last
    batch, counted over neurons and samples, all weights of those neurons that were silent in more samples than that
    grow by `amount`; twice as much at every following update in which the same layer is the one. Only the first such
    layer is changed. tolerated: share for hidden layers and for the last one, with
    the values of the authors' code [recalled]. Delays are kept >= 0.
    """

    amount: float = 5e-4
    tolerated: tuple[float, float] = (0.15, 0.05)
    _layer: int = field(default=-1, init=False, repr=False)
    _times: int = field(default=0, init=False, repr=False)
    _silent: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.amount > 0 and all(0 <= share < 1 for share in self.tolerated)):
            raise ParameterError(
                f"WeightBumping: needs amount > 0 and shares in [0, 1), got {self.amount} and {self.tolerated}"
            )

    def see(self, times: Mapping[str, Tensor]) -> None:
        """Spike times (batch, neurons) of every layer in one batch."""
        self._silent = {name: torch.isinf(t.detach()).float().mean(0) for name, t in times.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """What an interrupted training must remember: the number of the last layer, and how often it was the one."""
        return {"layer": torch.tensor(self._layer), "times": torch.tensor(self._times)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._layer, self._times = int(state["layer"]), int(state["times"])

    def __call__(self, network: nn.Module) -> None:
        if not isinstance(network, Network):
            raise UnsupportedNode(f"WeightBumping takes a neuro.Network, got {type(network).__name__}")
        graph = network.live()
        with torch.no_grad():
            for name in self._silent:
                node = graph.nodes[name]
                if isinstance(node, TimeToFirstSpike):
                    for delay in (node.axonal, node.synaptic):
                        if delay is not None:
                            delay.clamp_(min=0)
            for place, (name, silent) in enumerate(self._silent.items()):
                share = self.tolerated[place == len(self._silent) - 1]
                if float(silent.mean()) > share:
                    self._times = self._times + 1 if place == self._layer else 0
                    self._layer = place
                    node = graph.nodes[name]
                    assert isinstance(node, TimeToFirstSpike)
                    node.weight[silent > share] += min(self.amount * 2.0**self._times, 1.0)
                    return
            self._layer, self._times = -1, 0


def first_spike_layers(
    sizes: tuple[int, ...], seed: int, means: tuple[float, ...], deviations: tuple[float, ...]
) -> list[Tensor]:
    """Weights (out, in) of fully connected layers, normally distributed with a mean and a deviation per layer.

    sizes: inputs (with the bias) and neurons of every layer. First-spike networks start with positive means, so that
    neurons fire at all.
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        mean + deviation * torch.randn(outputs, inputs, generator=generator)
        for inputs, outputs, mean, deviation in zip(sizes[:-1], sizes[1:], means, deviations, strict=True)
    ]


def first_spike_network(
    inputs: int,
    hidden: int,
    classes: int,
    *,
    membrane: Kind = "equal",
    delays: Literal["none", "axonal", "synaptic"] = "none",
    silent_below: float | None = None,
    bias: float | None = 0.9,
    means: tuple[float, float] = (1.5, 0.5),
    deviations: tuple[float, float] = (0.8, 0.8),
    latest: float = 10.0,
    seed: int = 0,
    shape: tuple[int, ...] | None = None,
) -> Network:
    """inputs-hidden-classes of first-spike neurons with tau_s = theta = 1, ready for `fit`; thresholds do not learn.

    Samples of `shape` (default (inputs,)) in [0, 1] are flattened and coded by `LatencyCode` with early 0.15, late 2,
    `silent_below` and `bias`. Weights start normally distributed (means and deviations for Yin-Yang as in
    the code of Goeltz et al. 2021 [recalled]), delays that learn uniform in [0, 0.5].
    """
    if min(inputs, hidden, classes) < 1:
        raise ParameterError(f"first_spike_network: sizes must be >= 1, got {inputs}, {hidden}, {classes}")
    if delays not in ("none", "axonal", "synaptic"):
        raise ParameterError(f"first_spike_network: delays must be 'none', 'axonal' or 'synaptic', got {delays!r}")
    generator = torch.Generator().manual_seed(seed + 1)
    nodes: dict[str, Node] = {"x": Input(shape or (inputs,))}
    if shape is not None and len(shape) > 1:
        nodes["flat"] = Reshape((inputs,))
    nodes["code"] = LatencyCode(silent_below=silent_below, bias=bias)
    sizes = (inputs + (bias is not None), hidden, classes)
    for name, weight in zip(("hidden", "output"), first_spike_layers(sizes, seed, means, deviations), strict=True):
        nodes[name] = TimeToFirstSpike(
            weight, torch.ones(()), membrane,
            axonal=torch.rand(weight.shape[1], generator=generator) / 2 if delays == "axonal" else None,
            synaptic=torch.rand(weight.shape, generator=generator) / 2 if delays == "synaptic" else None,
        )  # fmt: skip
    nodes["score"] = EarliestWins(latest)
    names = list(nodes)
    sources = {name: (before,) for before, name in pairwise(names)}
    network = Network(Graph(nodes, sources, name="first spike"))
    for name, parameter in network.named_parameters():
        if name.endswith("/theta"):
            parameter.requires_grad_(False)
    return network

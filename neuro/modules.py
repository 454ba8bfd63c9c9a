"""Torch modules in which one step of a spiking network is written; `neuro.trace` puts their nodes in their places.

>>> step = nn.Sequential(nn.Linear(784, 1000), LIF(beta=0.95), nn.Linear(1000, 10), LIF(beta=0.95))
>>> from neuro import Network, trace
>>> Network(trace(step, torch.zeros(1, 784)))(torch.rand(25, 4, 784)).shape
torch.Size([25, 4, 10])

Every parameter is a number for all neurons, or a tensor that broadcasts against the features: one for each neuron, or
one for each channel as (channels, 1, 1). `learn` names those that learn, True means decays and thresholds. Equations
and sources are those of the nodes of the same names in `neuro.nodes`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from neuro import nodes
from neuro.dynamics import State, rest
from neuro.errors import ParameterError
from neuro.graph import Graph, Input, Node, Shape
from neuro.kernels.through_time import run_reference
from neuro.nodes import Add, Neuron, Spiking
from neuro.nodes.neurons import Reset, euler_decay, exact_decay
from neuro.surrogate import ArcTan, Surrogate
from neuro.trace import register, trace

__all__ = ["IF", "LI", "LIF", "AdaptiveLIF", "Alpha", "ParallelLIF", "Population", "Readout", "Recurrent", "Synaptic"]

Number = float | Tensor


class Population(nn.Module):
    """One step of the population `kind`. In a network it takes a current and gives spikes: its state is not seen.

    Called by itself it does one step with an explicit state: `z, state = lif(i, lif.rest(i))`, i (batch, *features).
    """

    kind: ClassVar[type[Neuron]]

    def __init__(self, learn: bool | Collection[str] = (), *, options: dict[str, Any] | None = None, **values: Number):
        super().__init__()
        self.options = options or {}
        self.fields = tuple(values)
        usual = [name for name in values if name in self.kind.domains]
        chosen = set(usual if learn is True else learn or ())
        if unknown := chosen - set(values):
            raise ParameterError(f"{self.kind.__name__}: learn names {sorted(unknown)}, it has {list(values)}")
        for name, value in values.items():
            tensor = torch.as_tensor(value).detach().to(torch.float32, copy=True)
            if name in chosen:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        self.node()

    def node(self) -> Neuron:
        """The node of this population; those of its tensors that learn require a gradient."""
        own = {name: getattr(self, name) for name in self.fields}
        copies = {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in own.items()}
        return self.kind(**copies, **self.options)

    def rest(self, i: Tensor) -> State:
        """The state before the first step, for currents like i (batch, *features)."""
        return rest(self.node(), i.shape[0], tuple(i.shape[1:]), i.dtype, i.device)

    def forward(self, i: Tensor, state: State | None = None, surrogate: Surrogate | None = None) -> Any:
        """The output (batch, *features) and the state after it."""
        if state is None:
            raise ParameterError(
                f"{type(self).__name__} does one step from a state: run the network as "
                "neuro.Network(neuro.trace(step, example)), or pass a state, first that of rest(i)"
            )
        node = self.kind(**{name: getattr(self, name) for name in self.fields}, **self.options)
        outputs, state = run_reference(node, i[None], surrogate or ArcTan(), state)
        return outputs[0], state

    def extra_repr(self) -> str:
        own = {name: getattr(self, name).detach() for name in self.fields}
        shown = {name: f"{v.item():g}" if v.numel() == 1 else tuple(v.shape) for name, v in own.items()} | self.options
        return ", ".join(f"{name}={value}" for name, value in shown.items())


class Leaking(Population):
    """A population with decays over one step, its first arguments; time constants give them in one of two ways."""

    @classmethod
    def exact(cls, *tau: Number, dt: float, **options: Any) -> Self:
        """Decays exp(-dt / tau), which solve tau dv/dt = -v exactly; tau and dt in [s], tau in the order of decays."""
        return cls(*(exact_decay(each, dt) for each in tau), **options)

    @classmethod
    def euler(cls, *tau: Number, dt: float, **options: Any) -> Self:
        """Decays 1 - dt / tau, one Euler step of tau dv/dt = -v; tau and dt in [s], tau in the order of the decays."""
        return cls(*(euler_decay(each, dt) for each in tau), **options)


class IF(Population):
    """v <- v + i;  z = [v >= theta];  then the reset."""

    kind = nodes.IF

    def __init__(
        self, theta: Number = 1.0, v0: Number = 0.0, reset: Reset = "subtract", learn: bool | Collection[str] = ()
    ) -> None:
        super().__init__(learn, theta=theta, v0=v0, options={"reset": reset})


class LIF(Leaking):
    """v <- beta v + i;  z = [v >= theta];  then the reset."""

    kind = nodes.LIF

    def __init__(
        self,
        beta: Number,
        theta: Number = 1.0,
        v0: Number = 0.0,
        reset: Reset = "subtract",
        learn: bool | Collection[str] = (),
    ) -> None:
        super().__init__(learn, beta=beta, theta=theta, v0=v0, options={"reset": reset})


class ParallelLIF(LIF):
    """`LIF` without reset: linear up to its threshold, so that kernel "scan" computes all steps side by side."""

    def __init__(self, beta: Number, theta: Number = 1.0, v0: Number = 0.0, learn: bool | Collection[str] = ()) -> None:
        super().__init__(beta, theta, v0, "none", learn)


class AdaptiveLIF(Leaking):
    """v <- beta v + i;  z = [v >= theta + rise a];  a <- rho a + z;  then the reset."""

    kind = nodes.AdaptiveLIF

    def __init__(
        self,
        beta: Number,
        rho: Number,
        rise: Number = 0.1,
        theta: Number = 1.0,
        reset: Reset = "subtract",
        learn: bool | Collection[str] = (),
    ) -> None:
        super().__init__(learn, beta=beta, rho=rho, rise=rise, theta=theta, options={"reset": reset})


class Synaptic(Leaking):
    """s <- alpha s + i;  v <- beta v + s;  z = [v > theta];  the reset in the next step; at once if not `delay`."""

    kind = nodes.Synaptic

    def __init__(
        self,
        alpha: Number,
        beta: Number,
        theta: Number = 1.0,
        reset: Reset = "subtract",
        delay: bool = True,
        learn: bool | Collection[str] = (),
    ) -> None:
        super().__init__(learn, alpha=alpha, beta=beta, theta=theta, options={"reset": reset, "delay": delay})


class Alpha(Leaking):
    """e <- alpha e + i;  h <- beta h - i;  v = tau (e + h);  z = [v > theta];  the reset in the next step."""

    kind = nodes.Alpha

    def __init__(
        self,
        alpha: Number,
        beta: Number,
        theta: Number = 1.0,
        reset: Reset = "zero",
        learn: bool | Collection[str] = (),
    ) -> None:
        super().__init__(learn, alpha=alpha, beta=beta, theta=theta, options={"reset": reset})


class LI(Leaking):
    """v <- beta v + i;  gives v: a leaky read-out."""

    kind = nodes.LI

    def __init__(self, beta: Number, learn: bool | Collection[str] = ()) -> None:
        super().__init__(learn, beta=beta)


class Readout(Population):
    """Gives the mean current from step `start` on: a read-out without leak."""

    kind = nodes.Readout

    def __init__(self, start: int = 0) -> None:
        super().__init__(options={"start": start})


class Recurrent(nn.Module):
    """y(t) = population(x(t) + connection(y(t - 1))): a population whose spikes come back to it one step later.

    connection: a module without neurons from the shape of the spikes to the same shape, such as nn.Linear(n, n).
    """

    def __init__(self, connection: nn.Module, population: Population) -> None:
        super().__init__()
        if not isinstance(population, Population) or not issubclass(population.kind, Spiking):
            raise ParameterError(f"Recurrent: population must be one that fires, got {type(population).__name__}")
        self.connection, self.population = connection, population

    def forward(self, x: Tensor) -> Tensor:
        raise ParameterError("Recurrent has a state: run the network as neuro.Network(neuro.trace(step, example))")

    def node(self, shape: Shape) -> nodes.Recurrent:
        """The node of this loop for features of `shape`."""
        back = trace(self.connection, torch.zeros(1, *shape))
        parts: dict[str, Node] = {"in": Input(shape), "before": Input(shape)}
        sources: dict[str, tuple[str, ...]] = {}
        alias = {back.inputs[0]: "before"}
        for name, node in back.nodes.items():
            if not isinstance(node, Input):
                alias[name] = f"back.{name}"
                parts[alias[name]] = node
                sources[alias[name]] = tuple(alias[source] for source in back.sources[name])
        parts |= {"sum": Add(), "population": self.population.node()}
        sources |= {"sum": ("in", alias[back.output]), "population": ("sum",)}
        return nodes.Recurrent(Graph(parts, sources, "recurrent"))


register(Population, lambda part, shape: part.node())  # type: ignore[operator]
register(Recurrent, lambda part, shape: part.node(shape))  # type: ignore[operator]

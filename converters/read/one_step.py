"""One step of a network of foreign neuron modules becomes a Graph, and is then run beside the network it came from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from neuro import simulate, trace
from neuro.errors import ParameterError, UnsupportedNode
from neuro.graph import Graph, Node, Shape
from neuro.nodes import Neuron
from neuro.trace import register

CHECKED = 8
"""Steps for which graph and module are compared."""


@dataclass(frozen=True)
class Cell:
    """How a kind of foreign neuron module becomes nodes.

    `population` makes the node of what it sends on, `potential` that of the membrane potential it also returns (None
    where spikes reset it: no node sends that), `returned` puts both in the form in which the module returns them.
    """

    population: Callable[[nn.Module, Shape], Node | Graph]
    potential: Callable[[nn.Module], Node | None]
    returned: Callable[[nn.Module, Tensor, Tensor], object]


@dataclass(frozen=True)
class Peer:
    """A library of neuron modules: its cells, the types that are refused without one, and the buffers with states.

    `remembers`: its modules keep their states from call to call. `forward` gives another forward to modules that handle
    time themselves, for one step; None to the rest. `whole` says whether a module takes all steps at once, time first.
    """

    name: str
    cells: Mapping[type, Cell]
    neurons: tuple[type[nn.Module], ...]
    states: tuple[str, ...] = ()
    remembers: bool = False
    forward: Callable[[nn.Module, bool], Callable | None] = lambda part, whole: None
    whole: Callable[[nn.Module], bool] = lambda module: False

    def cell(self, part: nn.Module) -> Cell | None:
        """The cell of a module that computes as its library wrote it."""
        kind = next((kind for kind in type(part).__mro__ if kind in self.cells), None)
        return self.cells[kind] if kind is not None and type(part).forward is kind.forward else None  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class _Remembered(Neuron):
    """A state variable that spikes reset; it may leave its module but must lead nowhere."""


class _Leaf(nn.Module):
    """What the tracer sees of one output of a foreign module."""

    def __init__(self, make: Callable[[Shape], Node | Graph]) -> None:
        super().__init__()
        self.make = make


register(_Leaf, lambda leaf, shape: leaf.make(shape))  # type: ignore[operator]


class _Alone(nn.Module):
    """A network that is one cell."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: object = None) -> object:
        return self.cell(x) if state is None else self.cell(x, state)


class _NextStep(Exception):
    """A population is called for the second time: the first step is over."""


@dataclass
class _Step:
    """What one call of the network did: the populations called, what they gave, and whether it went on to a second."""

    called: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    looped: bool = False


@dataclass(frozen=True)
class _Series:
    """The one step of input that a forward with a loop over time finds wherever it looks."""

    step: Tensor
    steps: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.steps, *self.step.shape)

    def size(self, dim: int | None = None) -> int | tuple[int, ...]:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self.step] * self.steps)

    def __getitem__(self, place: object) -> Tensor:
        if not isinstance(place, int):
            raise UnsupportedNode("the loop over time must take one step after the other: x[step]")
        return self.step


def one_step(module: nn.Module, example: Tensor, peer: Peer, output: int, time: bool, name: str | None) -> Graph:
    """The Graph of one step of `module`; the contract is that of `from_snntorch` and `from_norse`."""
    if not isinstance(module, nn.Module):
        raise ParameterError(f"{peer.name}: module must be a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(example, Tensor) or example.ndim < 2 + time or not len(example):
        form = "(time, batch, *features)" if time else "(batch, *features)"
        raise ParameterError(f"{peer.name}: example must be a tensor {form}")
    if peer.cell(module) is not None:
        module = _Alone(module)
    name = name or type(module).__name__
    _check_neurons(module, peer, name)
    refusals = []
    for which in (0, 1):
        with _stand_ins(module, example, peer, output, time, which) as step:
            graph = _renamed(trace(module, example[0] if time else example, name=name))
        if states := _states(graph):
            refusals.append(
                f"output {output} of forward depends on the state of {states}, which spikes reset; a Graph sends "
                "spikes, so choose the output that holds them (output=...)"
            )
        elif unlike := _difference(graph, module, example, peer, output, time, step.looped):
            refusals.append(f"one step of forward does not explain the network: {unlike}")
        else:
            return graph
        if not step.looped:
            break
    raise UnsupportedNode(f"{name!r}: {refusals[0]}")


def _check_neurons(module: nn.Module, peer: Peer, name: str) -> None:
    parts: list[tuple[str, nn.Module]] = [
        (path, part) for path, part in module.named_modules() if isinstance(part, peer.neurons)
    ]
    refused = [f"  {path!r}: {type(part).__name__}" for path, part in parts if peer.cell(part) is None]
    if refused:
        raise UnsupportedNode(f"{name!r}: {len(refused)} {peer.name} module(s) have no node\n" + "\n".join(refused))
    if not parts:
        raise UnsupportedNode(f"{name!r} holds no neurons of {peer.name}; use neuro.trace for plain networks")


@contextmanager
def _stand_ins(module: nn.Module, example: Tensor, peer: Peer, output: int, time: bool, which: int) -> Iterator[_Step]:
    """While inside, `module` does one step on (batch, *features) and its neurons are leaves of the tracer."""
    step = _Step()
    whole = peer.whole(module)
    with _restored(module, peer):
        original = module.forward
        for part in list(module.modules()):
            cell = peer.cell(part)
            other = peer.forward(part, whole)
            if cell is not None:
                part.population = _Leaf(lambda shape, cell=cell, part=part: cell.population(part, shape))  # type: ignore[misc]
                part.potential = _Leaf(lambda shape, cell=cell, part=part: cell.potential(part) or _Remembered())  # type: ignore[misc]
                part.forward = _stand_in(part, cell, step)
            elif other is not None:
                part.forward = other

        def forward(x: Tensor) -> Tensor:
            step.called.clear()
            step.looped = False
            given = _Series(x, len(example)) if time and not whole else x
            modules = _module_stack()
            inside = len(modules)
            try:
                result = original(given, *_absent(original))
            except _NextStep:
                while len(modules) > inside:
                    modules.popitem()
                step.looped = True
                return list(step.called.values())[-1][which]
            return _picked(result, output, type(module).__name__)

        module.forward = forward
        yield step


def _stand_in(part: nn.Module, cell: Cell, step: _Step) -> Callable:
    def forward(x: Tensor, *states: object, **named: object) -> object:
        if id(part) in step.called:
            raise _NextStep
        step.called[id(part)] = part.population(x), part.potential(x)  # type: ignore[operator]
        return cell.returned(part, *step.called[id(part)])

    return forward


def _module_stack() -> dict:
    """The modules that torch.export believes to be in; an exception leaves them without telling it."""
    mode = get_proxy_mode()
    return {} if mode is None else getattr(mode.tracer, "module_stack", {})


def _absent(forward: Callable) -> list[None]:
    """None for every state that `forward` asks for beside its input: code that looks at one does not run."""
    given = list(inspect.signature(forward).parameters.values())[1:]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [None for parameter in given if parameter.kind in plain and parameter.default is parameter.empty]


def _picked(result: object, output: int, name: str) -> Tensor:
    found = result
    if isinstance(result, (tuple, list)):
        if not -len(result) <= output < len(result):
            raise ParameterError(f"{name!r}: forward returns {len(result)} values, output={output} is none of them")
        found = result[output]
    if not isinstance(found, Tensor):
        raise UnsupportedNode(
            f"{name!r}: output {output} of forward is a {type(found).__name__}; return one tensor per output"
        )
    return found


@contextmanager
def _restored(module: nn.Module, peer: Peer) -> Iterator[None]:
    """Afterwards the members of every part are what they were; inside, the populations are at rest and in eval mode."""
    parts = list(module.modules())
    kept = [(dict(vars(part)), {key: dict(vars(part)[key]) for key in ("_buffers", "_modules")}) for part in parts]
    try:
        module.eval()
        for part in parts:
            for state in peer.states if peer.cell(part) is not None else ():
                if state in part._buffers:
                    part._buffers[state] = torch.zeros(0)
        yield
    finally:
        for part, (attributes, members) in zip(parts, kept, strict=True):
            vars(part).clear()
            vars(part).update(attributes)
            for key, entries in members.items():
                attributes[key].clear()
                attributes[key].update(entries)


def _renamed(graph: Graph) -> Graph:
    """Populations under the names of their modules."""
    names: dict[str, str] = {}
    for name in graph.nodes:
        short = name.replace(".population", "")
        names[name] = name if short in names.values() or short in graph.nodes else short
    return graph.edit(
        nodes={names[name]: node for name, node in graph.nodes.items()},
        sources={names[name]: tuple(names[source] for source in given) for name, given in graph.sources.items()},
    )


def _states(graph: Graph) -> str:
    return ", ".join(repr(name) for name, node in graph.nodes.items() if isinstance(node, _Remembered))


def _difference(
    graph: Graph, module: nn.Module, example: Tensor, peer: Peer, output: int, time: bool, looped: bool
) -> str | None:
    """How the module's own outputs over some steps differ from those of the graph; None where they do not."""
    noise = torch.Generator().manual_seed(0)
    x = example.float() if time or looped else example.float().expand(CHECKED, *example.shape)
    x = x + torch.randn(x.shape, generator=noise) * x.std(correction=0)
    with _restored(module, peer), torch.no_grad():
        expected, steps = _played(module, x, peer, output, at_once=looped or peer.whole(module))
    if expected is None:
        return None
    given = x if time or not looped else x.expand(steps, *x.shape)
    found = simulate(graph, given, record=["outputs"], kernel="reference", count=False).recordings["outputs"]
    series = found[graph.output]
    if expected.shape != series.shape:
        folded = {tuple(series.shape[1:]): (series.sum(0), series.mean(0), series[-1])}.get(tuple(expected.shape))
        if folded is None:
            return f"it gives {tuple(expected.shape)}, the graph {tuple(series.shape)} for (time, batch, ...)"
        series = min(folded, key=lambda value: float((value - expected).abs().mean()))
    close = torch.isclose(series, expected.float(), rtol=1e-3, atol=1e-4 * max(float(expected.abs().max()), 1e-3))
    share = 1 - float(close.float().mean())
    return f"{share:.1%} of its outputs on random input differ from those of the graph" if share > 0.01 else None


def _played(module: nn.Module, x: Tensor, peer: Peer, output: int, at_once: bool) -> tuple[Tensor | None, int]:
    """What the module itself gives on x (time, batch, *features), and for how many steps.

    None where states travel through its arguments in a way that only its author knows.
    """
    name = type(module).__name__
    calls: list[None] = []
    if at_once:
        first = next(part for part in module.modules() if peer.cell(part) is not None)
        with first.register_forward_hook(lambda *_: calls.append(None)):
            told = _picked(module(x, *_absent(module.forward)), output, name)
        return told, len(calls)
    extra = len(inspect.signature(module.forward).parameters) - 1
    if extra > 1 and not peer.remembers:
        return None, 0
    steps, state = [], None
    for current in x:
        carried = extra == 1 and not peer.remembers
        result = module(current, state) if carried else module(current, *_absent(module.forward))
        if carried:
            if not (isinstance(result, tuple) and len(result) == 2):
                return None, 0
            state = result[1]
        steps.append(_picked(result, output, name))
    return torch.stack(steps), len(steps)

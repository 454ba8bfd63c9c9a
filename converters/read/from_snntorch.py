"""Networks of snnTorch neurons, with thresholds, resets and delays as that library computes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from converters.read.one_step import Cell, Peer, one_step
from neuro.errors import BackendMissing, ParameterError
from neuro.graph import Graph, Input, Node, Shape
from neuro.nodes import LI, LIF, Add, Affine, Alpha, Conv, Leaky, Recurrent, Scale, Spiking, Synaptic

STATES = ("mem", "syn", "syn_exc", "syn_inh", "spk")


def from_snntorch(
    module: nn.Module, example: Tensor, *, output: int = 0, time: bool = False, name: str | None = None
) -> Graph:
    """The Graph of one time step of `module`, a network with snnTorch neurons (1.0): the same spikes from rest.

    `example` (batch, *features) is what `module` takes: one step, or the constant input of a forward that loops over
    time itself; with `time` it is (time, batch, *features) for a forward that loops over its first dimension. The
    module may be an nn.Sequential of layers and neurons (`init_hidden=True`), a forward that does one step and takes
    and returns the states, or one that loops; it is left as it was. Where forward returns several values, the `output`
    of that number counts: spikes, or the potential of neurons with reset "none", which is a leaky read-out (`LI`).

    Leaky (its delayed reset "zero" is our LIF), Synaptic, Alpha, StateLeaky, and RLeaky and RSynaptic as `Recurrent`
    have nodes. What recurrent connections and StateLeaky add, they add in another order, so that sums may round
    otherwise. A network with StateLeaky takes all steps at once: give `time`. The graph is run beside the module for
    some steps. Raises UnsupportedNode for other neurons, states that other layers use and forwards that do more than
    repeat one step; ParameterError for inhibition, quantised states and surrogates whose forward is no step function;
    BackendMissing without snntorch.
    """
    return one_step(module, example, _peer(), output, time, name)


def _peer() -> Peer:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import snntorch as snn
    except ImportError as error:
        raise BackendMissing("snnTorch is not installed; pip install snntorch") from error
    cells = {
        snn.Leaky: Cell(_leaky, _unreset, _results(1)),
        snn.Synaptic: Cell(_synaptic, lambda part: None, _results(2)),
        snn.Alpha: Cell(_alpha, lambda part: None, _results(3)),
        snn.RLeaky: Cell(_rleaky, lambda part: None, _results(1)),
        snn.RSynaptic: Cell(_rsynaptic, lambda part: None, _results(2)),
        snn.StateLeaky: Cell(_state_leaky, _filtered, lambda part, z, v: (z, v) if part.output else v),
    }

    def whole(module: nn.Module) -> bool:
        return any(isinstance(part, snn.StateLeaky) for part in module.modules())

    return Peer("snnTorch", cells, (snn.SpikingNeuron,), STATES, remembers=True, whole=whole)


def _results(states: int) -> Callable[[Any, Tensor, Tensor], object]:
    """Spikes alone, or with the states behind them, the potential last."""

    def returned(part: Any, z: Tensor, v: Tensor) -> object:
        return z if part.init_hidden and not part.output else (z, *[v] * states)

    return returned


def _leaky(part: Any, shape: Shape) -> Node | Graph:
    beta, theta = _decay(part.beta), _threshold(part)
    if part.reset_mechanism == "zero" and part.reset_delay:
        # v > theta is v >= the next float, and a late reset to zero is a reset to zero.
        nothing = torch.zeros(())
        return _graded(part, shape, LIF(beta, torch.nextafter(theta, torch.tensor(torch.inf)), nothing, "zero"))
    return _graded(part, shape, Leaky(beta, theta, part.reset_mechanism, bool(part.reset_delay)))


def _unreset(part: Any) -> Node | None:
    return LI(_decay(part.beta)) if part.reset_mechanism == "none" else None


def _synaptic(part: Any, shape: Shape) -> Node | Graph:
    node = Synaptic(
        _decay(part.alpha), _decay(part.beta), _threshold(part), part.reset_mechanism, bool(part.reset_delay)
    )
    return _graded(part, shape, node)


def _alpha(part: Any, shape: Shape) -> Node | Graph:
    return _graded(part, shape, Alpha(_decay(part.alpha), _decay(part.beta), _threshold(part), part.reset_mechanism))


def _rleaky(part: Any, shape: Shape) -> Node | Graph:
    beta, theta, delay = _decay(part.beta), _threshold(part), bool(part.reset_delay)
    if part.reset_mechanism == "zero":
        # Unlike Leaky it loses the input of the step that resets it, as a Synaptic does whose current decays at once.
        return _recurrent(part.recurrent, shape, Synaptic(torch.zeros(()), beta, theta, "zero", delay))
    return _recurrent(part.recurrent, shape, Leaky(beta, theta, part.reset_mechanism, delay))


def _rsynaptic(part: Any, shape: Shape) -> Node | Graph:
    if not part.reset_delay:
        raise ParameterError("snnTorch RSynaptic: does not run without reset_delay in snntorch 1.0")
    node = Synaptic(_decay(part.alpha), _decay(part.beta), _threshold(part), part.reset_mechanism)
    return _recurrent(part.recurrent, shape, node)


def _recurrent(connection: nn.Module, shape: Shape, population: Spiking) -> Recurrent:
    """`population` behind the sum of its input and of its own spikes of the step before through `connection`."""
    back: Node
    if isinstance(connection, nn.Linear):
        back = Affine(_own(connection.weight), _bias(connection))
    elif isinstance(connection, nn.Conv2d):
        back = Conv(_own(connection.weight), _bias(connection), padding=tuple(map(int, connection.padding)))
    else:
        back = Scale(_own(connection.V))  # type: ignore[arg-type]
    nodes: dict[str, Node] = {
        "input": Input(shape), "before": Input(shape), "back": back, "sum": Add(), "population": population,
    }  # fmt: skip
    sources = {"back": ("before",), "sum": ("input", "back"), "population": ("sum",)}
    return Recurrent(Graph(nodes, sources, "recurrent"))


def _state_leaky(part: Any, shape: Shape) -> Node | Graph:
    """Its kernel exp(-t / tau) is a decay by exp(-1 / tau), which is not quite beta; its factor acts twice."""
    factor = _own(part.graded_spikes_factor) ** 2
    return _graded(part, shape, Leaky(_filtered(part).beta, _threshold(part), "none"), factor)


def _filtered(part: Any) -> LI:
    if part.kernel_truncation_steps is not None:
        raise ParameterError("snnTorch StateLeaky: a truncated kernel has no node; leave kernel_truncation_steps out")
    return LI(torch.exp(-1 / _own(part.tau)))


def _bias(connection: nn.Linear | nn.Conv2d) -> Tensor | None:
    return None if connection.bias is None else _own(connection.bias)


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def _decay(tensor: Tensor) -> Tensor:
    return _own(tensor).clamp(0, 1)


def _threshold(part: Any) -> Tensor:
    """Its threshold, once it is sure that spikes are those of v > theta and nothing else."""
    if part.inhibition or part.state_quant:
        what = "inhibition" if part.inhibition else "state_quant"
        raise ParameterError(f"snnTorch {type(part).__name__}: {what} has no node; switch it off and train again")
    probe = torch.cat([torch.linspace(-2, 2, 1001), torch.tensor([-1e-30, 0, 1e-30])])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        if not torch.equal(part.spike_grad(probe), (probe > 0).float()):
            raise ParameterError(
                f"snnTorch {type(part).__name__}: its spike_grad gives something else than 1 for v > theta and 0 "
                "otherwise, which has no node; use one of snntorch.surrogate that does"
            )
    return _own(part.threshold)


def _graded(part: Any, shape: Shape, node: Node, factor: Tensor | None = None) -> Node | Graph:
    """The population, and behind it the weight on its spikes where there is one."""
    factor = _own(part.graded_spikes_factor) if factor is None else factor
    if bool((factor == 1).all()):
        return node
    if bool((factor == 0).any()):
        raise ParameterError(f"snnTorch {type(part).__name__}: graded_spikes_factor is 0, so nothing leaves it")
    return Graph(
        {"in": Input(shape), "population": node, "factor": Scale(factor)},
        {"population": ("in",), "factor": ("population",)},
    )

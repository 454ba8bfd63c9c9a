"""trace(module, example): run the module once in a tracer, translate what it did, and check the result."""

from __future__ import annotations

import copy
import inspect
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from neuro.errors import NeuroError, ParameterError, ShapeError, UnsupportedNode
from neuro.graph import Change, Graph
from neuro.trace.check import TOLERANCE, agree, stateless
from neuro.trace.from_export import NeedsFixedBatch, batch_of, to_graph
from neuro.trace.from_fx import straighten
from neuro.trace.leaves import leaves_in, rule_of, typed_cause
from neuro.trace.site import is_machinery

_log = logging.getLogger(__name__)


def trace(
    module: nn.Module | ExportedProgram,
    example: Tensor | Sequence[Tensor],
    *,
    name: str | None = None,
    check: bool = True,
) -> Graph:
    """The Graph of what `module` does in eval mode to `example`: `(batch, *features)`, or one such tensor per input.

    Parameters become detached 32-bit copies on the CPU; the module is left as it was. The batch size stays free unless
    the module fixes it, which `graph.history` says, as it says when 64- or 16-bit parameters were converted or torch.fx
    had to help. With `check` the graph is run beside the module on `example`, and on a random batch of another size,
    and must equal it to 1e-5 of the largest output; a graph with neurons is not run, for it needs time.

    Raises UnsupportedNode listing every operation that has no node, with its place and a rewrite, and for control flow
    on data or a graph that does not equal its module; ParameterError for bad parameters; ShapeError where the module
    does not run on the example.

    >>> print(trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 2, 2)).shapes["1"])
    (2,)
    """
    inputs = _inputs(example)
    with _quiet(), torch.no_grad():
        if isinstance(module, ExportedProgram):
            return _trace_program(module, inputs, name or "program", check)
        if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
            raise ParameterError(
                f"trace: module must be a torch.nn.Module or an ExportedProgram, got {type(module).__name__}; "
                "trace scripted modules before they are scripted"
            )
        name = name or type(module).__name__
        module, history = _single_precision(module, name)
        with _undisturbed(module):
            graph = _trace_module(module, inputs, name, history)
            if check and stateless(graph):
                fixed = any(change.node == "batch" for change in graph.history)
                _check(graph, module, module, inputs, fixed, TOLERANCE)
            return graph


def _trace_module(module: nn.Module, inputs: tuple[Tensor, ...], name: str, history: tuple[Change, ...]) -> Graph:
    # Export takes a batch of one for a constant, so it is shown two.
    doubled = tuple(torch.cat([x, x]) for x in inputs) if len(inputs[0]) == 1 else inputs
    with leaves_in(module):
        _run(module, inputs, name)
        program, changes = _export(module, inputs, doubled, name)
        try:
            return to_graph(program, name, (*history, *changes))
        except NeedsFixedBatch:
            fixed = Change("batch", "any size", str(len(inputs[0])), "the module fixes its batch size")
            return to_graph(torch.export.export(module, inputs, strict=False), name, (*history, *changes, fixed))


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], doubled: tuple[Tensor, ...], name: str
) -> tuple[ExportedProgram, tuple[Change, ...]]:
    """The first way of exporting that works, and what there is to say about it."""
    free = _free_batch(module, len(inputs))
    ways: tuple[tuple[str, Callable[[], ExportedProgram]], ...] = (
        ("torch.export", lambda: torch.export.export(module, doubled, dynamic_shapes=free, strict=False)),
        ("torch.export with a fixed batch", lambda: torch.export.export(module, inputs, strict=False)),
        ("torch.export in strict mode", lambda: torch.export.export(module, doubled, dynamic_shapes=free, strict=True)),
        ("torch.fx", lambda: torch.export.export(straighten(module), doubled, dynamic_shapes=free, strict=False)),
        ("torch.fx with a fixed batch", lambda: torch.export.export(straighten(module), inputs, strict=False)),
    )
    failures: list[Exception] = []
    for way, export in ways:
        try:
            program = export()
            batch = batch_of(program)
            if isinstance(batch, int) and batch != len(inputs[0]):
                program = torch.export.export(module, inputs, strict=False)
        except Exception as error:  # torch raises many types here, and every one means: try the next way
            _log.info("%s: %s failed: %s", name, way, _first_line(error))
            failures.append(error)
            if typed_cause(error) is not None or _is_data_dependent(error):
                break
            continue
        changes = []
        if "fx" in way or "strict" in way:
            changes.append(Change(name, "torch.export", way, _first_line(failures[0])))
        if isinstance(batch_of(program), int):
            changes.append(Change("batch", "any size", str(batch_of(program)), "the module fixes its batch size"))
        return program, tuple(changes)
    raise _explained(failures, module, inputs, name) from failures[0]


def _free_batch(module: nn.Module, count: int) -> tuple[object, ...]:
    """The first dimension of every input left open, in the form of the arguments of `forward`."""
    free = [{0: Dim.AUTO} for _ in range(count)]
    forms = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in forms:
        return tuple(free)
    named = forms.index(inspect.Parameter.VAR_POSITIONAL)
    return (*free[:named], tuple(free[named:])) if count > named else tuple(free)


def _explained(failures: list[Exception], module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> NeuroError:
    for error in failures:
        own = typed_cause(error)
        if own is not None:
            return own
    for error in failures:
        if _is_data_dependent(error):
            return UnsupportedNode(
                f"{name!r}: control flow on data{_place(error)}; a Graph takes one path for all data, so decide "
                "outside the network or use ReLU, clamp or maximum(x, 0)"
            )
    if not any(rule_of(part) for part in module.modules()):
        _run(module, inputs, name)
    return UnsupportedNode(
        f"{name!r} cannot be traced{_place(failures[0])}: {_first_line(failures[0])}; "
        "write forward with plain tensor operations, or register a rule for the module with neuro.trace.register"
    )


def _run(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> None:
    """Raises ShapeError where the module itself does not run on the example."""
    try:
        module(*(x.clone() for x in inputs))
    except NeuroError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise ShapeError(
            f"{name!r} does not run on samples of shape {', '.join(str(tuple(x.shape[1:])) for x in inputs)}"
            f"{_place(error)}: {_first_line(error)}; give samples of the shape that the network was built for"
        ) from error


def _trace_program(program: ExportedProgram, inputs: tuple[Tensor, ...], name: str, check: bool) -> Graph:
    expected = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shown = [tuple(size if isinstance(size, int) else None for size in value.shape) for value in expected]
    for wanted, x in zip(shown, inputs, strict=False):
        fits = len(wanted) == x.ndim and all(size in (None, given) for size, given in zip(wanted, x.shape, strict=True))
        if not fits or len(shown) != len(inputs):
            raise ShapeError(
                f"{name!r} was exported for inputs of shape(s) {shown}, not {[tuple(x.shape) for x in inputs]}"
            )
    kinds = {value.dtype for value in (*program.state_dict.values(), *expected) if value.is_floating_point()}
    history = _converted(kinds, name)
    graph = to_graph(program, name, history)
    if check and stateless(graph):
        runnable = program.module()

        def run(*x: Tensor) -> object:
            return runnable(*(value.to(wanted.dtype) for value, wanted in zip(x, expected, strict=True)))

        # A program keeps its element types, so it can agree only as well as its coarsest one allows.
        coarse = 16 * max((torch.finfo(kind).eps for kind in kinds), default=0.0)
        tolerance = TOLERANCE if kinds <= {torch.float32, torch.float64} else coarse
        _check(graph, run, runnable, inputs, isinstance(batch_of(program), int), tolerance)
    return graph


def _check(
    graph: Graph,
    run: Callable[..., object],
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    fixed: bool,
    tolerance: float,
) -> None:
    agree(graph, run, module, inputs, tolerance)
    if not fixed:
        generator = torch.Generator().manual_seed(0)
        other = [torch.randn(len(x) + 1, *x.shape[1:], generator=generator) for x in inputs]
        agree(graph, run, module, other, tolerance)


def _inputs(example: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    for x in inputs:
        if not isinstance(x, Tensor) or not x.is_floating_point() or not x.ndim or not x.numel():
            said = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ParameterError(f"trace: example must be a floating-point tensor (batch, *features), got {said}")
        if not bool(torch.isfinite(x).all()):
            raise ParameterError("trace: the example holds NaN or infinite values; give ordinary data")
    if not inputs or len({len(x) for x in inputs}) != 1:
        raise ParameterError(f"trace: all examples must have one batch size, got {[len(x) for x in inputs]}")
    return tuple(x.detach().to("cpu", torch.float32) for x in inputs)


def _converted(kinds: set[torch.dtype], name: str) -> tuple[Change, ...]:
    others = sorted(str(kind).removeprefix("torch.") for kind in kinds if kind != torch.float32)
    return tuple(Change(name, kind, "float32", "a Graph computes in 32-bit floating point") for kind in others)


def _single_precision(module: nn.Module, name: str) -> tuple[nn.Module, tuple[Change, ...]]:
    tensors = [*module.parameters(), *module.buffers()]
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if kinds <= {torch.float32} and all(tensor.device.type == "cpu" for tensor in tensors):
        return module, ()
    return copy.deepcopy(module).to("cpu", torch.float32), _converted(kinds, name)


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """The module in eval mode; afterwards its flags, attributes and buffers are what they were."""
    parts = list(module.modules())
    attributes = [dict(vars(part)) for part in parts]
    members = [{key: dict(vars(part)[key]) for key in ("_parameters", "_buffers", "_modules")} for part in parts]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        module.eval()
        yield
    finally:
        for part, kept, inner in zip(parts, attributes, members, strict=True):
            vars(part).clear()
            vars(part).update(kept)
            for key, entries in inner.items():
                kept[key].clear()
                kept[key].update(entries)
        for buffer, value in buffers:
            if not torch.equal(buffer, value):
                buffer.copy_(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch warns about its own workings; the user's warnings pass."""
    torch_log = logging.getLogger("torch")
    level = torch_log.level
    with warnings.catch_warnings():
        torch_log.setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=r"torch(\.|$)")
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        warnings.filterwarnings(
            "ignore", message=r"The tensor attributes? .* assigned during export", category=UserWarning
        )
        try:
            yield
        finally:
            torch_log.setLevel(level)


def _is_data_dependent(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, GuardOnDataDependentSymNode):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_machinery(frame.filename)]
    return f" at {PurePath(own[-1].filename).name}:{own[-1].lineno} `{own[-1].line}`" if own else ""


def _first_line(error: BaseException) -> str:
    lines = [line for line in re.split(r"\n+", str(error).strip()) if line.strip()]
    return lines[0][:300] if lines else type(error).__name__

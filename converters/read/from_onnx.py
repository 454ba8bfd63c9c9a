"""An ONNX file becomes a Graph: guarded, translated operator by operator, and checked against onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converters.read import onnx_moves, onnx_windows  # noqa: F401 - they enter their rules
from converters.read.onnx_constants import FUNCTIONS, evaluated
from converters.read.onnx_guard import array_of, checked_model, inlined, onnx_package
from converters.read.onnx_rules import RULES
from converters.read.onnx_site import LARGEST_SIGNAL, Budget, OnnxSite, Quantised, printable
from neuro.errors import FileError, NeuroError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Change, Graph, Shape
from neuro.nodes import Input, Weighted
from neuro.trace.hints import hint
from neuro.trace.site import Refusal, Sketch, Value

OLDEST, NEWEST = 7, 28
"""Opsets whose operators the rules were written for."""
TOLERANCE = 1e-3
"""Largest difference to onnxruntime, relative to the largest magnitude of its output."""
FREE_BATCHES = (3, 5)
_MOST_OPERATIONS, _MOST_ELEMENTS = 1 << 36, 1 << 25
_FALLBACK = "no rule; replace it by supported operators before export"
_FLOW = "control flow has no node; export one fixed path through the network"


def from_onnx(path: str | Path, *, check: bool = True, shape: Shape | None = None) -> Graph:
    """The Graph of an ONNX network (opset 7 to 28) of one output; the first dimension of every input is the batch.

    `shape` gives the feature sizes of a single input where the file leaves them open. Constants, shape arithmetic
    included, are computed here, and the batch size of the graph is free even where the file fixes it, because every
    operator must keep samples apart. QuantizeLinear and DequantizeLinear become Quantise and Dequantise.

    With `check` the graph and onnxruntime run on the same random samples. The largest difference is the last entry of
    `graph.history`, which also says where there was no check, as when onnxruntime is not installed. Quantised networks
    may differ by single steps where the order of a sum decides how a number is rounded: of them the mean difference
    counts.

    Raises UnsupportedNode listing every operator without a node, or where the two differ by more than 1e-3 of the
    largest output; FileError for files that are damaged, hostile, unknown to onnxruntime or not in 32-bit floating
    point; BackendMissing without the `onnx` package.
    """
    path = Path(path)
    model = inlined(checked_model(path), path)
    try:
        walk = _Walk(model, path)
        graph = walk.graph(shape)
        if not check:
            return graph
        return graph.edit(Change(graph.name, f"ONNX opset {walk.opset}", "Graph", _compared(graph, model, walk)))
    except NeuroError:
        raise
    except Exception as error:  # a damaged message can hold anything that its schema allows
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FileError(f"{path}: cannot be understood ({text}); export it again") from error


class _Refused:
    """The result of a refused operator; the walk goes on behind it, to find every other refusal."""


class _Walk:
    """One pass over the operators of a file, in their order."""

    def __init__(self, model: Any, path: Path) -> None:
        self.model, self.path = model, path
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.opset = opsets.get("", opsets.get("ai.onnx", 0))
        if not OLDEST <= self.opset <= NEWEST:
            raise FileError(f"{path}: opset {self.opset}, and {OLDEST} to {NEWEST} are read; export for one of those")
        self.sketch = Sketch()
        self.values: dict[str, Any] = {}
        self.refusals: list[str] = []
        self.samples: int | None = None
        self.inputs: list[str] = []

    def graph(self, shape: Shape | None) -> Graph:
        self._enter(shape)
        for node in self.model.graph.node:
            results = self._translate(node)
            for name, value in zip(node.output, results, strict=False):
                if name:
                    self._define(name, value)
        if self.refusals:
            lines = "\n".join(self.refusals)
            raise UnsupportedNode(f"{str(self.path)!r}: {len(self.refusals)} operator(s) have no node\n{lines}")
        result = self._result()
        history: tuple[Change, ...] = ()
        if self.samples is not None:
            history = (Change("batch", str(self.samples), "any size", "every operator keeps samples apart"),)
        try:
            return self.sketch.graph(result, self.path.stem, history)
        except Refusal as refusal:
            raise UnsupportedNode(f"{str(self.path)!r}: {refusal}") from None

    def _define(self, name: str, value: Any) -> None:
        if name in self.values:
            raise FileError(f"{self.path}: {name[:80]!r} is given twice; export it again")
        self.values[name] = value

    def _enter(self, shape: Shape | None) -> None:
        graph = self.model.graph
        for tensor in graph.initializer:
            self._define(tensor.name, array_of(tensor, self.path))
        self.budget = Budget(max(1 << 24, 8 * sum(array.size for array in self.values.values())))
        entering = [entry for entry in graph.input if entry.name not in self.values]
        if not entering or (shape is not None and len(entering) != 1):
            raise FileError(f"{self.path}: has {len(entering)} inputs; it needs one (for `shape`: only one)")
        for entry in entering:
            features = self._features(entry, shape)
            value = self.sketch.add(printable(entry.name) or "input", Input(features))
            self._define(entry.name, value)
            self.inputs.append(entry.name)

    def _features(self, entry: Any, shape: Shape | None) -> Shape:
        where = f"{self.path}: input {entry.name[:80]!r}"
        kind = entry.type.tensor_type
        if not entry.type.HasField("tensor_type") or kind.elem_type != 1 or not kind.HasField("shape"):
            raise FileError(
                f"{where}: must be a tensor of FLOAT numbers with a shape; export it in 32-bit floating point"
            )
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        if len(sizes) < 2 or any(size is not None and not 0 < size < 2**31 for size in sizes):
            raise FileError(f"{where}: shape {sizes[:9]} is no (batch, *features)")
        if sizes[0] is not None:
            if self.samples not in (None, sizes[0]):
                raise FileError(f"{where}: batch size {sizes[0]}, but {self.samples} elsewhere; export with one batch")
            self.samples = sizes[0]
        given = sizes[1:] if shape is None else list(shape)
        if len(given) != len(sizes) - 1 or any(
            size not in (None, want) for size, want in zip(sizes[1:], given, strict=True)
        ):
            raise FileError(f"{where}: features {sizes[1:]} are not of the given shape {tuple(given)}")
        features = tuple(size for size in given if size is not None)
        if len(features) < len(given):
            raise FileError(f"{where}: features {given} are open; give their shape, or export with fixed sizes")
        if math.prod(features) > LARGEST_SIGNAL:
            raise FileError(f"{where}: {math.prod(features)} elements per sample are too many")
        return features

    def _translate(self, node: Any) -> tuple[Any, ...]:
        shown = f"{(node.name or next(iter(node.output), ''))[:80]!r} ({node.op_type[:40]}, opset {self.opset})"
        missing = [name for name in node.input if name and name not in self.values]
        if missing:
            raise FileError(
                f"{self.path}: node {shown} reads {missing[0][:80]!r} before anything gives it: a cycle, or damaged"
            )
        inputs = [self.values[name] if name else None for name in node.input]
        try:
            result = self._apply(node, inputs)
        except Refusal as refusal:
            self.refusals.append(f"  {shown}: {refusal}")
            return (_Refused(),) * len(node.output)
        except NeuroError as error:
            raise FileError(f"{self.path}: node {shown}: {error}") from error
        return result if isinstance(result, tuple) else (result,)

    def _apply(self, node: Any, inputs: list[Any]) -> Any:
        if node.domain not in ("", "ai.onnx"):
            raise Refusal(f"the domain {node.domain[:60]!r} is unknown; export with standard operators only")
        schema = _schema(node.op_type, self.opset)
        if schema is None or (node.op_type not in RULES and node.op_type not in FUNCTIONS):
            raise Refusal(_advice(node))
        if not schema.min_input <= len(inputs) <= schema.max_input:
            raise Refusal(f"takes {schema.min_input} to {schema.max_input} inputs, not {len(inputs)}")
        batches = FREE_BATCHES if self.samples is None else (self.samples,)
        site = OnnxSite(
            self.sketch, node, batches[0], _attributes(node, schema), schema.since_version, batches, self.budget
        )
        if any(isinstance(item, _Refused) for item in inputs):
            return tuple(_Refused() for _ in node.output)
        used = sum(bool(name) for name in node.output)
        rule: Callable[..., Any] = RULES.get(node.op_type, evaluated)
        if not any(isinstance(item, Value | Quantised) for item in inputs):
            return evaluated(site, inputs)
        if rule is evaluated:
            raise Refusal(_advice(node))
        if any(item is None for item in inputs[: schema.min_input]):
            raise Refusal("an input is missing")
        result = rule(site, *inputs)
        if used > (len(result) if isinstance(result, tuple) else 1):
            raise Refusal("only the values have a node, not their indices, masks or statistics")
        return result

    def _result(self) -> Value:
        outputs = [entry.name for entry in self.model.graph.output]
        if len(outputs) != 1:
            raise UnsupportedNode(f"{str(self.path)!r}: gives {len(outputs)} outputs; export a network of one")
        value = self.values.get(outputs[0])
        if not isinstance(value, Value):
            kind = "integers" if isinstance(value, Quantised) else "a constant" if value is not None else "nothing"
            raise UnsupportedNode(f"{str(self.path)!r}: the output {outputs[0][:80]!r} is {kind}, not a real signal")
        return value


@cache
def _schema(operator: str, opset: int) -> Any:
    """The definition of an operator as of an opset, or None where there is none."""
    defs = onnx_package().defs
    try:
        schema = defs.get_schema(operator, opset, "")
    except defs.SchemaError:
        return None
    return None if schema.deprecated else schema


def _attributes(node: Any, schema: Any) -> dict[str, Any]:
    """Every attribute with its default, of the type that the operator wants."""
    value_of = onnx_package().helper.get_attribute_value
    found = {
        name: value_of(formal.default_value) for name, formal in schema.attributes.items() if formal.default_value.name
    }
    for attribute in node.attribute:
        formal = schema.attributes.get(attribute.name)
        if formal is None or attribute.type != formal.type.value or attribute.ref_attr_name:
            raise Refusal(f"attribute {attribute.name[:40]!r} is unknown here or of a wrong type")
        found[attribute.name] = value_of(attribute)
        numbers = found[attribute.name] if isinstance(found[attribute.name], list) else [found[attribute.name]]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise Refusal(f"attribute {attribute.name!r} is NaN or infinite")
    absent = [name for name, formal in schema.attributes.items() if formal.required and name not in found]
    if absent:
        raise Refusal(f"attribute {absent[0]!r} is missing")
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _advice(node: Any) -> str:
    """What to do instead, in the tracer's words where it knows the operation."""
    if node.op_type in ("If", "Loop", "Scan"):
        return _FLOW
    aten = node.op_type.lower().replace("normalization", "_norm")
    found = hint(aten)
    return _FALLBACK if found == hint("") else found


def _operations(graph: Graph) -> int:
    """Multiplications per sample, roughly."""
    return sum(
        node.by_output().shape[1] * math.prod(graph.shapes[name])
        for name, node in graph.nodes.items()
        if isinstance(node, Weighted)
    )


def _compared(graph: Graph, model: Any, walk: _Walk) -> str:
    """What onnxruntime and the graph give for the same random samples, in words; raises where they differ."""
    try:
        import onnxruntime
    except ImportError:
        return "not checked: onnxruntime is not installed"
    samples = walk.samples or 2
    widest = max(math.prod(features) for features in graph.shapes.values())
    if samples * _operations(graph) > _MOST_OPERATIONS or samples * widest > _MOST_ELEMENTS:
        return "not checked: too large for a quick run"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # What the file says, not what an optimiser makes of it: fused integer kernels round differently.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    generator = np.random.default_rng(0)
    entering = [generator.standard_normal((samples, *graph.shapes[name]), np.float32) for name in graph.inputs]
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        (expected,) = session.run(None, dict(zip(names, entering, strict=True)))
    except Exception as error:  # its errors share no type of their own
        text = " ".join(str(error).split())[:200]
        raise FileError(f"{walk.path}: onnxruntime does not run it ({text}); repair it, or use check=False") from error
    with torch.no_grad():
        found = evaluate(graph, *(torch.from_numpy(x) for x in entering)).numpy()
    if found.shape != expected.shape:
        raise UnsupportedNode(f"{str(walk.path)!r}: the graph gives shape {found.shape}, onnxruntime {expected.shape}")
    if not np.isfinite(expected).all():
        return "not compared: onnxruntime gives values that are not finite"
    largest, apart = float(np.abs(expected).max(initial=0)), np.abs(found - expected)
    rounded = any(node.kind == "Quantise" for node in graph.nodes.values())
    most = float(apart.max(initial=0))
    said = f"differs from onnxruntime by at most {most:.3g} of {largest:.3g} on a random batch of {samples}"
    if not (apart.mean() if rounded else most) <= TOLERANCE * max(largest, 1e-30):
        raise UnsupportedNode(f"{str(walk.path)!r}: the graph {said}; please report this network")
    return said

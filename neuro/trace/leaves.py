"""The registry that opens the tracer to foreign modules: a registered module is traced as one opaque operation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from neuro.errors import NeuroError, ParameterError, UnsupportedNode
from neuro.graph import Graph, Node, Shape

Rule = Callable[[nn.Module, Shape], Node | Graph]

_rules: dict[type[nn.Module], Rule] = {}
_active: dict[int, nn.Module] = {}
_made: dict[tuple[int, Shape], Node | Graph] = {}
_keys = count()


def register(module_type: type[nn.Module], rule: Rule) -> None:
    """Trace every instance of `module_type` (and its subclasses) by `rule` instead of looking inside.

    `rule(module, input_shape)` gets the feature shape of the one input, without the batch, and returns the Node that
    stands for the module, or a Graph with one input to put in its place. Such a module takes one tensor and gives one.
    A later registration of the same type replaces the earlier. Raises ParameterError for anything but a module type.
    """
    if not (isinstance(module_type, type) and issubclass(module_type, nn.Module)):
        raise ParameterError(f"register: module_type must be a subclass of torch.nn.Module, got {module_type!r}")
    if not callable(rule):
        raise ParameterError(
            f"register: rule of {module_type.__name__} must be a function (module, input_shape) -> Node"
        )
    _rules[module_type] = rule


def rule_of(module: nn.Module) -> Rule | None:
    """The rule of the nearest registered ancestor of the module's type."""
    return next((_rules[kind] for kind in type(module).__mro__ if kind in _rules), None)


def node_of(key: int, shape: Shape) -> Node | Graph:
    """What the rule makes of the opaque module `key` for features of `shape`; asked once for each."""
    if (key, shape) not in _made:
        # The tracer runs on tensors without numbers, but a rule reads the numbers of its module.
        with _disable_current_modes():
            _made[key, shape] = _ask(_active[key], shape)
    return _made[key, shape]


def _ask(module: nn.Module, shape: Shape) -> Node | Graph:
    rule = rule_of(module)
    made = rule(module, shape) if rule is not None else None
    if not isinstance(made, (Node, Graph)):
        raise ParameterError(f"the rule registered for {type(module).__name__} returned {made!r}, not a Node or Graph")
    if isinstance(made, Graph) and len(made.inputs) != 1:
        raise ParameterError(
            f"the rule registered for {type(module).__name__} returned a Graph of {len(made.inputs)} inputs"
        )
    return made


def name_of(key: int) -> str:
    return type(_active[key]).__name__.lower()


@torch.library.custom_op("neuro::leaf", mutates_args=())
def leaf(x: Tensor, key: int) -> Tensor:
    """Zeros of the shape that the opaque module `key` gives: a tracer needs no more, and the module need not run."""
    return _stand_in(x, key)


@leaf.register_fake
def _stand_in(x: Tensor, key: int) -> Tensor:
    shape = tuple(int(size) for size in x.shape[1:])
    made = node_of(key, shape)
    features = made.shapes[made.output] if isinstance(made, Graph) else made.output_shape(shape)
    return x.new_zeros((x.shape[0], *features))


def _opaque(module: nn.Module, key: int) -> Callable[..., Tensor]:
    def forward(*inputs: object, **keywords: object) -> Tensor:
        if len(inputs) != 1 or keywords or not isinstance(inputs[0], Tensor):
            raise UnsupportedNode(
                f"{type(module).__name__} is registered with the tracer and takes one tensor; pass nothing else to it"
            )
        if type(inputs[0]) is Tensor:
            # A rule may trace on its own, which does not work inside a trace: it is asked in the run before it.
            node_of(key, tuple(inputs[0].shape[1:]))
        return leaf(inputs[0], key)

    return forward


def _twin(module: nn.Module) -> nn.Module:
    """The same module around the same tensors, which keeps them while the tracer puts others into the original."""
    twin = copy.copy(module)
    vars(twin).pop("forward", None)
    for name in ("_parameters", "_buffers"):
        vars(twin)[name] = dict(vars(module)[name])
    vars(twin)["_modules"] = {name: part and _twin(part) for name, part in module._modules.items()}
    return twin


@contextmanager
def leaves_in(module: nn.Module) -> Iterator[None]:
    """While inside, registered modules call `neuro::leaf`."""
    keys: list[int] = []
    kept: list[tuple[nn.Module, dict[str, object]]] = []
    try:
        for part in module.modules():
            if rule_of(part) is not None:
                key = next(_keys)
                keys.append(key)
                _active[key] = _twin(part)
                kept.append((part, {"forward": vars(part)["forward"]} if "forward" in vars(part) else {}))
                part.forward = _opaque(part, key)  # type: ignore[method-assign]
        yield
    finally:
        for part, own in kept:
            del part.forward
            vars(part).update(own)
        for key in keys:
            del _active[key]
        for made in [made for made in _made if made[0] in keys]:
            del _made[made]


def typed_cause(error: BaseException | None) -> NeuroError | None:
    """The project's own error that torch may have wrapped while it traced."""
    while error is not None:
        if isinstance(error, NeuroError):
            return error
        error = error.__cause__ or error.__context__
    return None

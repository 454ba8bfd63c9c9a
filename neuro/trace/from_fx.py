"""Symbolic tracing by torch.fx: it sees a module's calls without running them, where torch.export cannot follow."""

from __future__ import annotations

from torch import fx, nn

from neuro.trace.leaves import rule_of


class _Tracer(fx.Tracer):
    """Looks into every module except those of torch.nn and those a rule is registered for."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return rule_of(m) is not None or super().is_leaf_module(m, module_qualified_name)


def straighten(module: nn.Module) -> fx.GraphModule:
    """The calls that `module.forward` makes, as a module of its own that does nothing else and so can be exported."""
    return fx.GraphModule(module, _Tracer().trace(module), type(module).__name__)

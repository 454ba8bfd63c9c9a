"""Imports go one way: converters -> neuro <- hardware_targets; only neuro/cli sees all three."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "neuro": {"converters", "hardware_targets"},
    "converters": {"hardware_targets"},
    "hardware_targets": {"converters"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_direction() -> None:
    seen = 0
    for room, forbidden in FORBIDDEN.items():
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.is_relative_to(ROOT / "neuro" / "cli"):
                continue
            seen += 1
            assert not imported(path) & forbidden, f"{path.relative_to(ROOT)} imports {imported(path) & forbidden}"
    assert seen > 50


def test_torchvision_is_never_imported() -> None:
    """It does not import beside a CPU-only torch."""
    for room in FORBIDDEN:
        for path in (ROOT / room).rglob("*.py"):
            assert "torchvision" not in imported(path), path

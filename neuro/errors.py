"""Every refusal of this project is a `NeuroError`: one line that says what, where and what to do about it.

The command line turns each of them into one line on stderr and exit code 2.
"""

from __future__ import annotations


class NeuroError(Exception):
    """Anything this project refuses. `str(error)` is one line, or one line per violation."""


class ParameterError(NeuroError, ValueError):
    """A node, recipe or argument is outside its domain; raised when the value is made, not when it is used."""


class ShapeError(NeuroError, ValueError):
    """Two things that must fit together do not: a tensor and a node, or two nodes of a graph."""


class UnsupportedNode(NeuroError, NotImplementedError):
    """Operations this project does not know. Lists all of them at once, each with its place and a rewrite."""


class FileError(NeuroError, ValueError):
    """A file is missing, truncated, of an unknown version, or hostile. Names the file, the place in it and the rule."""


class DataError(NeuroError, ValueError):
    """A data set cannot be found or read. Says where it was looked for and what to do."""


class DoesNotFit(NeuroError):
    """A network breaks limits of a chip. `violations` holds every one of them."""

    def __init__(self, message: str, violations: tuple = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class LossyExport(NeuroError):
    """Writing this network in that format would lose something the user has not agreed to lose."""


class MissingPrice(NeuroError, KeyError):
    """An energy table has no price for something that was counted. A missing price never counts as zero.

    `lack`: what the table has not, the same for all networks; the whole message goes on with what was counted.
    """

    def __init__(self, lack: str, counted: str = ""):
        super().__init__(lack, counted)
        self.lack = lack

    def __str__(self) -> str:
        return "".join(map(str, self.args))


class BackendMissing(NeuroError, RuntimeError):
    """An optional engine (Lava, Brian2, a GPU) is not there. Says how to get it."""

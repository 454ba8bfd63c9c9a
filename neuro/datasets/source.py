"""Where a named data set may lie, in the order in which it is looked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from neuro.datasets.download import Remote, fetch
from neuro.datasets.split import Arrays
from neuro.errors import DataError


@dataclass(frozen=True)
class Packaged:
    """A data set inside a Python package (`package`), or computed here (`package` None)."""

    about: str
    read: Callable[[], Arrays]
    package: str | None = None

    def find(self, root: Path | None) -> str | None:
        """Where the data set is, or None."""
        if self.package is None:
            return "computed"
        try:
            return f"packaged in {self.package} {metadata.version(self.package)}"
        except metadata.PackageNotFoundError:
            return None

    def advice(self, root: Path | None) -> str:
        return f"pip install {self.package}"

    def load(self, name: str, root: Path | None, download: bool) -> Arrays:
        return self.read()


@dataclass(frozen=True)
class InFolder:
    """A data set in a folder of files. `folders`: its names below a data root; `system`: folders of the system."""

    about: str
    folders: tuple[str, ...]
    holds: Callable[[Path], bool]
    read: Callable[[Path], Arrays]
    origin: str
    system: tuple[Path, ...] = ()
    remote: Remote | None = None

    def places(self, root: Path | None) -> list[Path]:
        """Every folder that may hold it, most wanted first: `root`, $NEURO_DATA, the system's, the user's cache."""
        from_environment = os.environ.get("NEURO_DATA")
        roots = [root, Path(from_environment) if from_environment else None]
        named = [place.expanduser() / folder for place in roots if place is not None for folder in self.folders]
        return [*named, *self.system, *(user_cache() / folder for folder in self.folders)]

    def find(self, root: Path | None) -> str | None:
        """Where the data set is, or None."""
        found = self.folder(root)
        return None if found is None else str(found)

    def folder(self, root: Path | None) -> Path | None:
        for place in self.places(root):
            try:
                if self.holds(place):
                    return place
            except OSError as error:
                raise DataError(
                    f"{place}: cannot be looked into ({error.strerror}); allow it or point elsewhere"
                ) from error
        return None

    def advice(self, root: Path | None) -> str:
        by_hand = f"put {self.origin} into {self.folders[0]}/ of a folder given as --data-root or NEURO_DATA"
        fetch = "or fetch it once: neuro data NAME --download, or load(name, download=True)"
        return by_hand if self.remote is None else f"{by_hand}, {fetch}"

    def load(self, name: str, root: Path | None, download: bool) -> Arrays:
        found, cached = self.folder(root), user_cache() / self.folders[0]
        if download and self.remote is not None and found in (None, cached):  # the cache may hold half a download
            fetch(self.remote, cached)
            found = cached
        if found is None:
            looked = ", ".join(str(place) for place in self.places(root))
            raise DataError(f"data set {name!r} is in none of: {looked}; {self.advice(root)}")
        return self.read(found)


Source = Packaged | InFolder


def user_cache() -> Path:
    """The folder for this user's downloads, where the platform expects it."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "neuro-snn" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "neuro-snn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuro-snn"

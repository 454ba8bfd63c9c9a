"""Where the cells of a comparison are worked on: processes of joblib's own, of Dask or of Ray."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

from neuro.cli.cells import Book, Cell
from neuro.errors import ParameterError
from neuro.progress import track

Backend = Literal["loky", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True)
class Pool:
    """Where cells are worked on: `jobs` processes of joblib's own, or of Dask or Ray."""

    jobs: int = 1
    backend: Backend = "loky"
    address: str | None = None

    def __post_init__(self) -> None:
        missing = {"dask": "distributed", "ray": "ray"}.get(self.backend)
        if missing is not None and find_spec(missing) is None:
            package = "'dask[distributed]'" if self.backend == "dask" else "ray"
            raise ParameterError(f"--backend {self.backend} needs it installed: pip install {package}")
        if self.address is not None and self.backend == "loky":
            raise ParameterError("--address is of a Dask or Ray cluster: add --backend dask or --backend ray")

    def map(self, work: Callable[..., Any], cells: Sequence[Cell], book: Book, title: str) -> list[Any]:
        """`work(cell, book)` for every cell, in their order, with a bar."""
        if (self.jobs == 1 and self.backend == "loky") or len(cells) < 2:
            return [work(cell, book) for cell in track(cells, len(cells), title, True)]
        from joblib import Parallel, delayed, parallel_config

        places = {cell: number for number, cell in enumerate(cells)}
        with self._ready(), parallel_config(self.backend, n_jobs=self.jobs), warnings.catch_warnings():
            # loky replaces a worker that has grown, in good order, and says so to whoever runs it
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
            calls = (delayed(_numbered)(work, places[cell], cell, book) for cell in cells)
            # joblib hands results of Ray over at the end only
            order = "list" if self.backend == "ray" else "generator_unordered"
            streamed: Iterable[Any] = Parallel(return_as=order)(calls)
            found = dict(track(streamed, len(cells), title, True))
        return [found[number] for number in range(len(cells))]

    def _ready(self) -> AbstractContextManager[Any]:
        if self.backend == "dask":
            from distributed import Client

            return Client(self.address) if self.address else Client(n_workers=self.jobs, threads_per_worker=1)
        if self.backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            cores = None if self.address else self.jobs
            ray.init(address=self.address, num_cpus=cores, log_to_driver=False, ignore_reinit_error=True)
            register_ray()
        return nullcontext()


def _numbered(work: Callable[..., Any], number: int, cell: Cell, book: Book) -> tuple[int, Any]:
    return number, work(cell, book)

"""One door for all networks: files by what they are, modules by what they hold."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from converters.read.nir_units import Integrator, NirReset
from neuro.errors import BackendMissing, FileError, ParameterError
from neuro.files import load
from neuro.graph import Graph
from neuro.hdf5_guard import Limits, open_guarded
from neuro.trace import trace
from neuro.weights import load_program

__all__ = ["READERS", "read"]

READERS = {
    ".h5": "a Graph of ours, a Keras model, or a NIR graph",
    ".hdf5": "the same",
    ".keras": "a Keras 3 model",
    ".tflite": "a TensorFlow Lite model of real numbers",
    ".onnx": "an ONNX network",
    ".nir": "a NIR graph",
    ".pt2": "a program of torch.export (needs an example)",
}
"""What `read` takes, by the suffix of the file."""

OURS = b"neuro-graph "


def read(
    source: str | Path | nn.Module,
    *,
    example: Tensor | None = None,
    dt: float | None = None,
    reset: NirReset = "zero",
    integrator: Integrator = "euler",
    name: str | None = None,
) -> Graph:
    """The Graph of a network file or of a torch module; its `history` says what reading changed.

    example (batch, *features): needed where the shape of a sample is not in the source, for modules and .pt2. dt [s],
    reset and integrator: for NIR, see `from_nir`. Modules with snnTorch or Norse neurons go through their readers,
    others are traced. State dicts hold no network: build the module, load them into it, and give it here.
    Raises FileError for damaged, hostile and unknown files, UnsupportedNode for what has no node, ParameterError for a
    missing example, BackendMissing where a format needs a package that is not installed.
    """
    if isinstance(source, nn.Module):
        return _module(source, _needed(example, "a module"), name)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (".h5", ".hdf5", ".nir"):
        suffix = _kind_of_hdf5(path)
    match suffix:
        case "ours":
            return load(path)
        case ".keras":
            from converters.read.from_keras import from_keras

            return from_keras(path)
        case ".tflite":
            from converters.read.from_tflite import from_tflite

            return from_tflite(path)
        case ".onnx":
            from converters.read.from_onnx import from_onnx

            return from_onnx(path)
        case ".nir":
            from converters.read.from_nir import from_nir

            return from_nir(path, dt=dt, reset=reset, integrator=integrator)
        case ".pt2":
            return trace(load_program(path), _needed(example, "a .pt2 program"), name=name or path.stem)
    if suffix in (".pt", ".pth", ".safetensors", ".npz"):
        raise FileError(f"{path}: holds weights, no network; give file.py:function that builds it and these weights")
    raise FileError(f"{path}: {suffix or 'no suffix'} is no known network format; known: {', '.join(READERS)}")


def _needed(example: Tensor | None, what: str) -> Tensor:
    if example is None:
        raise ParameterError(f"read: {what} does not say the shape of a sample; pass example=x, (batch, *features)")
    return example


def _kind_of_hdf5(path: Path) -> str:
    """Which of the formats that live in HDF5 a file holds."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(OURS))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    if start == OURS:
        return "ours"
    if start[:2] == b"PK":
        return ".keras"
    with open_guarded(path, limits=Limits(total=1 << 34, slack=1 << 26, strings=200_000, lists_of_text=True)) as file:
        if "model_config" in file.attrs or "model_weights" in file or "layer_names" in file.attrs:
            return ".keras"
        if "node" in file or "nodes" in file:
            return ".nir"
    raise FileError(f"{path}: HDF5, but neither a Graph of ours nor a Keras model nor a NIR graph")


def _module(module: nn.Module, example: Tensor, name: str | None) -> Graph:
    libraries = {type(part).__module__.split(".")[0] for part in module.modules()}
    try:
        if "snntorch" in libraries:
            from converters.read.from_snntorch import from_snntorch

            return from_snntorch(module, example, name=name)
        if "norse" in libraries:
            from converters.read.from_norse import from_norse

            return from_norse(module, example, name=name)
    except ImportError as error:
        raise BackendMissing(f"{type(module).__name__} needs {error.name}; pip install 'neuro-snn[peers]'") from error
    return trace(module, example, name=name or type(module).__name__.lower())

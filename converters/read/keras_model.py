"""The description of a Keras network: layers, and how they are joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converters.read.keras_weights import Named, Nested, Numbered, Tensors, Weights
from neuro.errors import FileError

MODELS = ("Sequential", "Functional", "Model")

_RENAMED = {
    "border_mode": "padding", "subsample": "strides", "subsample_length": "strides", "stride": "strides",
    "pool_length": "pool_size", "dim_ordering": "data_format", "bias": "use_bias", "p": "rate",
    "atrous_rate": "dilation_rate", "length": "size",
}  # fmt: skip
"""Settings of Keras 1. Its ordering "th", with kernels turned otherwise, is refused by the layers that have it."""

_MOST_LAYERS = 10_000
_DEEPEST = 16
"""Models inside models."""


@dataclass(frozen=True)
class Call:
    """One use of a layer: the (layer, call, output) that it reads, and whether it was given anything else."""

    sources: tuple[tuple[str, int, int], ...]
    others: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer as its file describes it. `model` is what lies inside, for a layer that is a model itself."""

    name: str
    kind: str
    custom: str
    """what else than Keras itself defines this layer; empty for Keras"""
    config: Mapping[str, Any]
    calls: tuple[Call, ...]
    tensors: Weights
    model: Model | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """Layers in the order of the file. `inputs` and `outputs` name the ends; a Sequential model has neither."""

    name: str
    layers: tuple[Layer, ...]
    sequential: bool
    inputs: tuple[tuple[str, int, int], ...] = ()
    outputs: tuple[tuple[str, int, int], ...] = ()
    input_shape: Any = None


def model_of(described: Mapping[str, Any], weights: Named | Nested | Numbered, depth: int) -> Model:
    """The model in a description `{"class_name": ..., "config": ...}`; KeyError and the like where it is none."""
    kind, config = described["class_name"], described["config"]
    if kind not in MODELS or is_custom(described):
        raise FileError(
            f"the model is a {_shown(kind)}, a class of its author, whose Python code is not in the file and would not "
            "be run; rebuild it as a functional model"
        )
    if depth > _DEEPEST:
        raise FileError(f"models inside models deeper than {_DEEPEST}; do not use this file")
    listed = config if isinstance(config, list) else config["layers"]
    if len(listed) > _MOST_LAYERS:
        raise FileError(f"{len(listed)} layers, more than {_MOST_LAYERS}; do not use this file")
    layers = tuple(_layer(item, weights, depth) for item in listed)
    if len({layer.name for layer in layers}) != len(layers):
        raise FileError("two layers of one model have the same name; do not use this file")
    name = "sequential" if isinstance(config, list) else _text(config["name"])
    if kind == "Sequential":
        build = described.get("build_config") or {}
        shape = None if isinstance(config, list) else config.get("build_input_shape") or build.get("input_shape")
        return Model(name, layers, True, input_shape=shape)
    return Model(name, layers, False, _ends(config["input_layers"]), _ends(config["output_layers"]))


def _layer(item: Mapping[str, Any], weights: Named | Nested | Numbered, depth: int) -> Layer:
    kind, config = _text(item["class_name"]), item["config"]
    inner = kind in MODELS and not is_custom(item)
    name = item.get("name") or ("sequential" if isinstance(config, list) else config["name"])
    calls = tuple(_call(node) for node in item.get("inbound_nodes") or ())
    if inner:
        model = model_of(item, weights.enter(_text(name), kind), depth + 1)
        return Layer(_text(name), kind, "", {}, calls, Tensors({}, False), model)
    stored = kind != "Normalization" or config.get("mean") is None
    tensors = weights.of(_text(name), kind) if stored else Tensors({}, False)
    return Layer(_text(name), kind, is_custom(item), _renewed(config), calls, tensors)


def _renewed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names that they have had since Keras 2."""
    renewed = {_RENAMED.get(key, key): value for key, value in config.items()}
    if renewed.get("data_format") == "tf":
        renewed["data_format"] = "channels_last"
    return renewed


def is_custom(item: Mapping[str, Any]) -> str:
    """Who defines a serialised object, where that is not Keras: Keras 3 writes module and registered name."""
    module, registered = item.get("module"), item.get("registered_name")
    own = module is None or _text(module).split(".")[0] in ("keras", "tf_keras", "builtins")
    if own and (registered is None or _text(registered) == item["class_name"] or ">" not in registered):
        return ""
    return _shown(registered if own else module)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 500:
        raise TypeError(f"{_shown(value)} is no name")
    return value


def _shown(value: object) -> str:
    return repr(value)[:80]


def _call(node: Any) -> Call:
    """One entry of `inbound_nodes`: [[layer, call, output, kwargs], ...] before Keras 3, else args and kwargs."""
    if isinstance(node, dict):
        sources, others = list(_histories(node["args"])), _constants(node["args"])
        return Call(tuple(sources), others or any(map(bool, _histories(node.get("kwargs") or {}))))
    if node and isinstance(node[0], str):
        node = [node]
    extra = [kwargs for _, _, _, *rest in node for kwargs in rest if kwargs]
    return Call(tuple(_end(item) for item in node), any(value for kwargs in extra for value in kwargs.values()))


def _histories(value: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield _end(value["config"]["keras_history"])
        else:
            for item in value.values():
                yield from _histories(item)
    elif isinstance(value, list):
        for item in value:
            yield from _histories(item)


def _constants(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_constants, value))
    return value is not None and not (isinstance(value, dict) and value.get("class_name") == "__keras_tensor__")


def _ends(value: Any) -> tuple[tuple[str, int, int], ...]:
    if isinstance(value, dict):
        raise TypeError("inputs and outputs by name are not supported; build the model from lists")
    return (_end(value),) if value and isinstance(value[0], str) else tuple(_end(item) for item in value)


def _end(value: Any) -> tuple[str, int, int]:
    name, call, output = value[:3]
    if type(call) is not int or type(output) is not int:
        raise TypeError(f"{_shown(value)} names no output of a layer")
    return _text(name), call, output

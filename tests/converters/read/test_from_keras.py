"""Keras files against NumPy: what the layers compute, written again from their documentation, channels last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from keras_fixtures import Array, Spec, activation, expected, forward, named, write_h5, write_keras

from converters import Exact, FirstSpike, convert, prove
from converters.read.from_keras import from_keras
from neuro.errors import FileError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.nodes import Affine, Conv, Pad, Permute
from neuro.simulate import simulate


def drawn(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(0, 0.5, shape).astype(np.float32)


def channels_first(x: Array, graph: Graph) -> torch.Tensor:
    """Samples as Keras takes them, as the graph takes them."""
    tensor = torch.from_numpy(np.ascontiguousarray(x)).float()
    (name,) = graph.inputs
    return tensor if tensor.shape[1:] == graph.shapes[name] else tensor.movedim(-1, 1).contiguous()


def assert_same(graph: Graph, specs: list[Spec], x: Array) -> None:
    wanted = expected(specs, x)
    found = evaluate(graph, channels_first(x, graph)).double().numpy()
    if wanted.ndim > 3:
        found = np.moveaxis(found, 1, -1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(wanted).max()))


def norm(rng: np.random.Generator, channels: int, **config: Any) -> Spec:
    spec = Spec("BatchNormalization", {"axis": [3], "epsilon": 1e-3, "scale": True, "center": True, **config})
    weights = {"gamma": 1 + drawn(rng, channels), "beta": drawn(rng, channels), "moving_mean": drawn(rng, channels),
               "moving_variance": 0.3 + drawn(rng, channels) ** 2}  # fmt: skip
    spec.weights = [weights[role] for role in spec.roles]
    return spec


def window(draw: Callable[[Any], Any], key: str) -> dict[str, Any]:
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    return {key: list(size), "strides": list(draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))),
            "padding": draw(st.sampled_from(["same", "valid"]))}  # fmt: skip


def image_layer(draw: Callable[[Any], Any], rng: np.random.Generator, channels: int) -> Spec:
    """Any layer that takes and leaves an image of at least 4 x 4."""
    kind = draw(st.sampled_from(["Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "MaxPooling2D",
                                 "AveragePooling2D", "BatchNormalization", "ReLU", "LeakyReLU", "PReLU", "Dense",
                                 "ZeroPadding2D", "Cropping2D", "UpSampling2D", "Dropout", "Rescaling",
                                 "Normalization", "Permute", "Reshape"]))  # fmt: skip
    act, bias = draw(st.sampled_from([None, "linear", "relu", "relu6", "tanh", "leaky_relu"])), draw(st.booleans())
    config: dict[str, Any] = {"activation": act, "use_bias": bias, "data_format": "channels_last"}
    out = draw(st.integers(1, 4))
    last = [drawn(rng, out)] if bias else []
    if "Pooling" in kind:
        return Spec(kind, window(draw, "pool_size"))
    if "Conv" in kind:
        config |= window(draw, "kernel_size")
        kernel = config["kernel_size"]
        if kind != "Conv2DTranspose" and draw(st.booleans()):
            config |= {"strides": [1, 1], "dilation_rate": [2, draw(st.integers(1, 2))]}
        if kind == "Conv2D":
            return Spec(kind, config, [drawn(rng, *kernel, channels, out), *last])
        if kind == "Conv2DTranspose":
            return Spec(kind, config, [drawn(rng, *kernel, out, channels), *last])
        more = draw(st.integers(1, 2))
        deep = drawn(rng, *kernel, channels, more)
        if kind == "DepthwiseConv2D":
            return Spec(kind, config, [deep, *([drawn(rng, channels * more)] if bias else [])])
        return Spec(kind, config, [deep, drawn(rng, 1, 1, channels * more, out), *last])
    match kind:
        case "Dense":
            return Spec(kind, config, [drawn(rng, channels, out), *last])
        case "BatchNormalization":
            return norm(rng, channels, scale=draw(st.booleans()), center=draw(st.booleans()))
        case "ReLU":
            limit, slope = draw(st.sampled_from([None, 0.7])), draw(st.sampled_from([0.0, 0.2]))
            return Spec(kind, {"max_value": limit, "negative_slope": slope, "threshold": 0.0})
        case "LeakyReLU":
            return Spec(kind, {"negative_slope": 0.3})
        case "PReLU":
            return Spec(kind, {"shared_axes": [1, 2]}, [drawn(rng, 1, 1, channels)])
        case "ZeroPadding2D":
            return Spec(kind, {"padding": [[1, 0], [2, 1]]})
        case "Cropping2D":
            return Spec(kind, {"cropping": [[1, 0], [0, 1]]})
        case "UpSampling2D":
            return Spec(kind, {"size": [2, 1], "interpolation": "nearest"})
        case "Rescaling":
            return Spec(kind, {"scale": 0.5, "offset": -0.25})
        case "Normalization":
            return Spec(kind, {"axis": [-1]}, [drawn(rng, channels), drawn(rng, channels) ** 2, np.int64(3)])  # type: ignore[list-item]
        case "Permute":
            return Spec(kind, {"dims": [2, 1, 3]})
        case "Reshape":
            return Spec(kind, {"target_shape": []})
    return Spec("Dropout", {"rate": 0.3})


@st.composite
def networks(draw: Callable[[Any], Any]) -> tuple[list[Spec], Array]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = drawn(rng, 2, *draw(st.tuples(st.integers(7, 10), st.integers(7, 10), st.integers(1, 3))))
    specs: list[Spec] = []
    for _ in range(draw(st.integers(1, 5))):
        shape = expected(named(specs), x).shape[1:]
        spec = image_layer(draw, rng, shape[-1])
        if spec.kind == "Reshape":
            spec.config["target_shape"] = [shape[1], shape[0], shape[2]]
        try:
            after = expected(named([*specs, spec]), x).shape
        except ValueError:  # a window larger than what is left
            continue
        if min(after[1:3]) > 3 and np.prod(after) < 20_000:
            specs.append(spec)
    end = draw(st.sampled_from(["Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "nothing"]))
    if end != "nothing":
        specs.append(Spec(end, {}))
        width = expected(named(specs), x).shape[1]
        specs.append(Spec("Dense", {"activation": "softmax"}, [drawn(rng, width, 3), drawn(rng, 3)]))
    return named(specs), x


@given(networks(), st.booleans())
def test_random_networks_compute_what_keras_documents(
    tmp_path_factory: pytest.TempPathFactory, network: tuple[list[Spec], Array], names: bool
) -> None:
    specs, x = network
    if not specs:
        return
    folder = tmp_path_factory.mktemp("keras")
    from_h5 = from_keras(write_h5(folder / "network.h5", specs, x.shape[1:]))
    assert_same(from_h5, specs, x)
    from_zip = from_keras(write_keras(folder / "network.keras", specs, x.shape[1:], names))
    sample = channels_first(x, from_h5)
    assert torch.equal(evaluate(from_zip, sample), evaluate(from_h5, sample))


def residual(rng: np.random.Generator) -> list[Spec]:
    """A residual block, branches joined by channels, a difference and a maximum, classes at the end."""
    same = {"padding": "same", "strides": [1, 1], "kernel_size": [3, 3]}
    return named(
        [
            Spec("Conv2D", dict(same), [drawn(rng, 3, 3, 2, 4), drawn(rng, 4)], "stem", ("input_1",)),
            replace_name(norm(rng, 4), "norm", ("stem",)),
            Spec("Activation", {"activation": "relu"}, [], "act", ("norm",)),
            Spec("Conv2D", dict(same), [drawn(rng, 3, 3, 4, 4), drawn(rng, 4)], "block/conv", ("act",)),
            Spec("Add", {}, [], "sum", ("act", "block/conv")),
            Spec("ReLU", {}, [], "relu", ("sum",)),
            Spec("Subtract", {}, [], "minus", ("relu", "act")),
            Spec("Maximum", {}, [], "max", ("minus", "block/conv")),
            Spec("Concatenate", {"axis": -1}, [], "join", ("max", "relu")),
            Spec("Concatenate", {"axis": 1}, [], "rows", ("join", "join")),
            Spec("Conv2D", {**same, "strides": [2, 2]}, [drawn(rng, 3, 3, 8, 4), drawn(rng, 4)], "half", ("rows",)),
            Spec("Flatten", {}, [], "flat", ("half",)),
            Spec("Dense", {"activation": "softmax"}, [drawn(rng, 96, 5), drawn(rng, 5)], "classes", ("flat",)),
        ]
    )


def replace_name(spec: Spec, name: str, reads: tuple[str, ...]) -> Spec:
    spec.name, spec.reads = name, reads
    return spec


def test_functional_model_of_both_formats(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    specs, x = residual(rng), drawn(rng, 3, 6, 7, 2)
    for graph in (
        from_keras(write_h5(tmp_path / "a.h5", specs, (6, 7, 2))),
        from_keras(write_keras(tmp_path / "a.keras", specs, (6, 7, 2))),
        from_keras(write_keras(tmp_path / "b.keras", specs, (6, 7, 2), names=False)),
    ):
        assert_same(graph, specs, x)
        assert "block.conv" in graph.nodes, "names of layers stay; a slash would be a path"
        (change,) = graph.history
        assert (change.node, change.was, change.became) == ("input_1", "(6, 7, 2), channels last", "(2, 6, 7)")
        assert isinstance(graph.nodes[graph.sources["half"][0]], Pad), "stride 2 on an odd side pads behind only"


def test_converts_and_keeps_its_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    specs = [spec for spec in residual(rng) if spec.kind not in ("Subtract", "Maximum")]
    specs[6].reads = ("sum", "relu")
    graph = from_keras(write_h5(tmp_path / "a.h5", specs, (6, 7, 2)))
    x = channels_first(drawn(rng, 64, 6, 7, 2), graph)
    classes = evaluate(graph, x).argmax(1)
    spiking = convert(graph, FirstSpike(), calibration=x)
    assert torch.equal(simulate(spiking, x).outputs.argmax(-1).reshape(-1), classes.reshape(-1))
    assert prove(convert(graph, Exact(levels=16), calibration=x), x).samples == len(x)


def test_one_dimensional_layers_and_causal_padding(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    specs = named(
        [
            replace_name(norm(rng, 3, axis=[2]), "", ()),
            Spec("Conv1D", {"padding": "causal", "dilation_rate": [2], "activation": "relu"},
                 [drawn(rng, 3, 3, 4), drawn(rng, 4)]),
            Spec("MaxPooling1D", {"pool_size": [3], "strides": [2], "padding": "same"}),
            Spec("AveragePooling1D", {"pool_size": [2], "strides": [1], "padding": "same"}),
            Spec("Conv1D", {"padding": "same", "strides": [3]}, [drawn(rng, 4, 4, 2), drawn(rng, 2)]),
            Spec("GlobalAveragePooling1D"),
            Spec("Dense", {}, [drawn(rng, 2, 3), drawn(rng, 3)]),
        ]
    )  # fmt: skip
    graph = from_keras(write_h5(tmp_path / "a.h5", specs, (21, 3)))
    assert graph.shapes["input_1"] == (3, 21)
    assert_same(graph, specs, drawn(rng, 2, 21, 3))


def test_flat_images_keep_their_sides(tmp_path: Path) -> None:
    """Samples of two dimensions that no one-dimensional layer reads are images, and nobody turns them."""
    rng = np.random.default_rng(3)
    specs = named(
        [
            Spec("Rescaling", {"scale": 1 / 255, "offset": 0.0}),
            Spec("Reshape", {"target_shape": [6, 5, 1]}),
            Spec("Conv2D", {"strides": [1, 1]}, [drawn(rng, 3, 2, 1, 2), drawn(rng, 2)]),
            Spec("Flatten"),
            Spec("Dense", {"use_bias": False}, [drawn(rng, 32, 3)]),
        ]
    )
    graph = from_keras(write_keras(tmp_path / "a.keras", specs, (6, 5)))
    assert graph.shapes["input_1"] == (6, 5)
    assert not graph.history
    assert_same(graph, specs, 255 * drawn(rng, 2, 6, 5))


def test_dense_behind_a_global_pool_needs_no_permutation(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pool = {"pool_size": [4, 4], "strides": [4, 4], "padding": "valid"}
    specs = named(
        [
            Spec("Conv2D", {"strides": [1, 1], "padding": "same"}, [drawn(rng, 3, 3, 2, 3), drawn(rng, 3)]),
            Spec("AveragePooling2D", pool),
            Spec("Flatten"),
            Spec("Dense", {}, [drawn(rng, 3, 2), drawn(rng, 2)]),
        ]
    )
    graph = from_keras(write_h5(tmp_path / "a.h5", specs, (4, 4, 2)))
    assert not any(isinstance(node, Permute) for node in graph.nodes.values())
    assert_same(graph, specs, drawn(rng, 2, 4, 4, 2))


def test_models_inside_models_and_shared_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    inner = named([Spec("Dense", {"activation": "relu"}, [drawn(rng, 4, 4), drawn(rng, 4)], "twice")])
    kernel, bias = inner[0].weights
    body = {
        "name": "body",
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "start"}},
            {"class_name": "Dense", "config": inner[0].config},
        ],
    }
    here = [["start_0", 0, 0, {}]]
    config = {
        "class_name": "Functional",
        "config": {
            "name": "outer",
            "layers": [
                {"class_name": "InputLayer", "name": "start_0", "inbound_nodes": [],
                 "config": {"batch_input_shape": [None, 4], "name": "start_0"}},
                {"class_name": "Sequential", "config": body, "name": "body",
                 "inbound_nodes": [[["add", 0, 0, {}]], here]},
                {"class_name": "Add", "config": {"name": "add"}, "name": "add",
                 "inbound_nodes": [[["body", 1, 0, {}], ["start_0", 0, 0, {}]]]},
            ],
            "input_layers": [["start_0", 0, 0]],
            "output_layers": [["body", 0, 0]],
        },
    }  # fmt: skip
    path = tmp_path / "nested.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file["model_weights/body/twice/kernel:0"], file["model_weights/body/twice/bias:0"] = kernel, bias
    x = drawn(rng, 3, 4)
    once = activation(x @ kernel + bias, "relu")
    wanted = activation((once + x) @ kernel + bias, "relu")
    graph = from_keras(path)
    np.testing.assert_allclose(evaluate(graph, torch.from_numpy(x)).numpy(), wanted, rtol=1e-5, atol=1e-5)
    weights = [node.weight for node in graph.nodes.values() if isinstance(node, Affine)]
    assert len(weights) == 2
    assert weights[0] is weights[1], "a shared layer keeps one kernel"


def test_all_refusals_come_in_one_message_and_nothing_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = {"class_name": "__lambda__", "config": {"code": f"__import__('os').system('touch {canary}')"}}
    specs = named(
        [
            Spec("Dense", {"activation": "gelu"}, [np.ones((3, 3), np.float32), np.zeros(3, np.float32)], "curved"),
            Spec("Lambda", {"function": code, "module": "os"}, [], "evil"),
            Spec("LSTM", {"units": 3}, [], "memory"),
            Spec("ReLU", {"threshold": 1.0}, [], "jump"),
            Spec("Secret>Layer", {}, [], "own"),
        ]
    )
    for path in (write_h5(tmp_path / "a.h5", specs, (3,)), write_keras(tmp_path / "a.keras", specs, (3,))):
        with pytest.raises(UnsupportedNode) as caught:
            from_keras(path)
        text = str(caught.value)
        for part in (path.name, "5 layer(s)", "'curved' (Dense): activation 'gelu'", "'evil' (Lambda)",
                     "never executed", "'memory' (LSTM)", "'jump' (ReLU): threshold", "'own' (Secret>La"):  # fmt: skip
            assert part in text
    assert not canary.exists()


@pytest.mark.parametrize(
    ("module", "registered"), [("mine.layers", None), ("keras.layers", "Mine>Dense"), (None, "Mine>Dense")]
)
def test_classes_of_other_authors_are_refused_by_name(tmp_path: Path, module: str, registered: str) -> None:
    config = {"class_name": "Sequential", "config": {"name": "network", "layers": [
        {"class_name": "InputLayer", "config": {"batch_shape": [None, 3], "name": "input_1"}},
        {"class_name": "Dense", "module": module, "registered_name": registered, "config": {"name": "mine"}},
    ]}}  # fmt: skip
    with pytest.raises(UnsupportedNode, match=r"'mine' \(Dense\): is defined by .*(mine|Mine).*never executed"):
        from_keras(write_keras(tmp_path / "a.keras", [], (3,), config=config))


def test_version_decides_what_hard_sigmoid_is(tmp_path: Path) -> None:
    specs = named([Spec("Activation", {"activation": "hard_sigmoid"})])
    x = torch.linspace(-4, 4, 33)[:, None]
    old = evaluate(from_keras(write_h5(tmp_path / "a.h5", specs, (1,))), x)
    new = evaluate(from_keras(write_keras(tmp_path / "a.keras", specs, (1,))), x)
    torch.testing.assert_close(old, (0.2 * x + 0.5).clamp(0, 1))
    torch.testing.assert_close(new, (x / 6 + 0.5).clamp(0, 1))


def test_settings_and_names_of_keras_1(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    kernel, bias, mean, var = drawn(rng, 3, 3, 2, 4), drawn(rng, 4), drawn(rng, 4), drawn(rng, 4) ** 2
    old = {"border_mode": "same", "subsample": [2, 2], "dim_ordering": "tf", "bias": True, "activation": "relu"}
    layers = [
        {"class_name": "Convolution2D", "config": {"name": "c", "batch_input_shape": [None, 5, 6, 2], **old}},
        {"class_name": "BatchNormalization", "config": {"name": "b", "mode": 0, "axis": -1, "epsilon": 1e-3}},
    ]
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "1.2.2"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers})
        group = file.create_group("model_weights")
        group["c/c_W"], group["c/c_b"] = kernel, bias
        for role, value in (("gamma", mean), ("beta", bias), ("running_mean", mean), ("running_std", var)):
            group[f"b/b_{role}"] = value
    new = {"padding": "same", "strides": [2, 2], "activation": "relu"}
    statistics = [mean, bias, mean, var]
    specs = named([Spec("Conv2D", new, [kernel, bias]), Spec("BatchNormalization", {"epsilon": 1e-3}, statistics)])
    graph = from_keras(path)
    assert_same(graph, specs, drawn(rng, 2, 5, 6, 2))
    layers[0]["config"]["dim_ordering"] = "th"
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers})
    with pytest.raises(UnsupportedNode, match="data_format='th'"):
        from_keras(path)


def test_weights_without_a_model_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["dense/dense/kernel:0"] = np.ones((2, 2), np.float32)
    with pytest.raises(FileError, match=r"weights\.h5: has no attribute model_config.*model\.save"):
        from_keras(path)


def raw(path: Path) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    with h5py.File(path) as file:
        weights: dict[str, Array] = {}
        file["model_weights"].visititems(
            lambda name, item: (
                weights.update({name.partition("/")[2]: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
        return weights, json.loads(file.attrs["model_config"])["config"]["layers"]


def from_raw(path: Path, x: Array) -> Array:
    """The forward pass of a functional Keras 2 file in NumPy, from its datasets."""
    weights, layers = raw(path)
    values = {layers[0]["name"]: x.astype(np.float64)}
    for layer in layers[1:]:
        spec = Spec(layer["class_name"], layer["config"], name=layer["name"])
        spec.weights = [weights[f"{spec.name}/{role}:0"] for role in spec.roles]
        reads = [source[0] for source in layer["inbound_nodes"][0]]
        values[spec.name] = forward(spec, *(values[source] for source in reads))
    return values[layers[-1]["name"]]


@pytest.mark.parametrize(
    ("name", "shape"), [("pretrainedResnet", (32, 32, 3)), ("vww_96", (96, 96, 3)), ("ad01", (640,))]
)
def test_networks_of_mlperf_tiny(shared: Path, name: str, shape: tuple[int, ...]) -> None:
    path = shared / "weights" / "mlperf_tiny" / f"{name}.h5"
    graph = from_keras(path)
    x = np.random.default_rng(0).uniform(0, 255, (2, *shape))
    wanted = from_raw(path, x)
    found = evaluate(graph, channels_first(x, graph)).double().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(wanted).max()))


def test_resnet_8_recognises_cifar(shared: Path) -> None:
    data = np.load(shared / "data" / "cifar10-1000" / "cifar10_test_1000.npz")
    graph = from_keras(shared / "weights" / "mlperf_tiny" / "pretrainedResnet.h5")
    x, y = torch.from_numpy(data["images"][:500]).float(), torch.from_numpy(data["labels"][:500]).long()
    assert float((evaluate(graph, x).argmax(1) == y).float().mean()) >= 0.85
    assert isinstance(graph.nodes["conv2d"], Conv)

"""Networks as people write them become Graphs that compute the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.evaluate import evaluate
from neuro.graph import Graph
from neuro.nodes import BatchNorm, Dropout
from neuro.trace import trace


class Spelled(nn.Module):
    """A module around one function, for spellings that are not modules."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                self.add_module(name, part)
        self.function = function

    def forward(self, *x: Tensor) -> Tensor:
        return self.function(self, *x)


def kinds(graph: Graph) -> list[str]:
    return [node.kind for node in graph.nodes.values()][1:]


def alike(graph: Graph, module: nn.Module, *x: Tensor) -> None:
    with torch.no_grad():
        expected = module.eval()(*(value.clone() for value in x))
    error = (evaluate(graph, *x) - expected).abs().max()
    assert error <= 1e-5 * expected.abs().max().clamp(min=1e-30)


def spelled(
    function: Callable[..., Tensor], shape: tuple[int, ...], wanted: str, **parts: nn.Module | Tensor
) -> object:
    return pytest.param(Spelled(function, **parts), shape, wanted)


RELUS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    Spelled(lambda _, x: F.relu(x)),
    Spelled(lambda _, x: F.relu(x * 1.0, inplace=True)),
    Spelled(lambda _, x: torch.relu(x)),
    Spelled(lambda _, x: torch.relu_(x.clone())),
    Spelled(lambda _, x: x.relu()),
    Spelled(lambda _, x: x.clone().relu_()),
    Spelled(lambda _, x: x.clamp(min=0)),
    Spelled(lambda _, x: torch.clamp(x, min=0.0)),
    Spelled(lambda _, x: x.clamp_min(0)),
    Spelled(lambda _, x: x.clone().clamp_(min=0)),
    Spelled(lambda _, x: torch.maximum(x, torch.tensor(0.0))),
    Spelled(lambda _, x: torch.maximum(torch.zeros_like(x), x)),
    Spelled(lambda _, x: torch.max(x, torch.zeros(1))),
    Spelled(lambda _, x: F.threshold(x, 0.0, 0.0)),
]


@pytest.mark.parametrize("module", RELUS, ids=range(len(RELUS)))
def test_every_spelling_of_relu_is_one_relu(module: nn.Module) -> None:
    assert kinds(trace(module, torch.randn(3, 5))) == ["ReLU"]


IMAGE = (4, 8, 6)
STATISTICS = torch.rand(4, 1, 1) + 0.5

LAYERS = [
    pytest.param(nn.Linear(6, 3), IMAGE, "Affine", id="linear on the last dimension"),
    pytest.param(nn.Linear(6, 3, bias=False), (6,), "Affine", id="linear without bias"),
    spelled(lambda m, x: F.linear(x, m.w), (6,), "Affine", w=torch.randn(3, 6)),
    spelled(lambda m, x: x @ m.w, (6,), "Affine", w=torch.randn(6, 3)),
    spelled(lambda m, x: torch.addmm(m.b, x, m.w), (6,), "Affine", w=torch.randn(6, 3), b=torch.randn(3)),
    pytest.param(nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (4, 16), "Conv", id="conv1d"),
    pytest.param(nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), groups=2), IMAGE, "Conv", id="conv2d grouped"),
    pytest.param(nn.Conv2d(4, 4, 3, groups=4, bias=False), IMAGE, "Conv", id="depthwise"),
    pytest.param(nn.Conv2d(4, 5, 3, padding="same", dilation=2), IMAGE, "Conv", id="same"),
    pytest.param(nn.Conv2d(4, 5, 3, padding="valid"), IMAGE, "Conv", id="valid"),
    pytest.param(nn.Conv2d(4, 5, (4, 3), padding="same"), IMAGE, "Pad Conv", id="same, even kernel"),
    pytest.param(nn.Conv1d(4, 5, 2, padding="same", dilation=3), (4, 9), "Pad Conv", id="same, odd total"),
    pytest.param(nn.Conv3d(2, 3, 3, padding=1), (2, 4, 5, 3), "Conv", id="conv3d"),
    pytest.param(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 5, 3)), IMAGE, "Conv", id="weight norm"),
    pytest.param(nn.BatchNorm1d(6), (6,), "BatchNorm", id="batch norm of vectors"),
    pytest.param(nn.BatchNorm1d(4, affine=False), (4, 7), "BatchNorm", id="batch norm without affine"),
    pytest.param(nn.BatchNorm2d(4, eps=1e-3), IMAGE, "BatchNorm", id="batch norm of images"),
    pytest.param(nn.AvgPool1d(2), (4, 8), "AvgPool", id="avg1d"),
    pytest.param(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), IMAGE, "AvgPool", id="avg2d"),
    pytest.param(nn.AvgPool2d(2, divisor_override=3), IMAGE, "AvgPool Scale", id="avg2d divisor"),
    pytest.param(nn.AvgPool3d(2), (2, 4, 4, 4), "AvgPool", id="avg3d"),
    pytest.param(nn.MaxPool1d(3, 2), (4, 9), "MaxPool", id="max1d"),
    pytest.param(nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE, "MaxPool", id="max2d"),
    pytest.param(nn.MaxPool3d(2), (2, 4, 4, 4), "MaxPool", id="max3d"),
    pytest.param(nn.AdaptiveAvgPool1d(2), (4, 8), "AvgPool", id="adaptive avg1d"),
    pytest.param(nn.AdaptiveAvgPool2d(1), IMAGE, "AvgPool", id="adaptive avg2d to 1"),
    pytest.param(nn.AdaptiveAvgPool2d((4, None)), IMAGE, "AvgPool", id="adaptive avg2d to divisors"),
    pytest.param(nn.AdaptiveMaxPool2d(1), IMAGE, "MaxPool", id="adaptive max2d"),
    spelled(lambda _, x: F.avg_pool2d(x, x.size()[2:]), IMAGE, "AvgPool"),
    spelled(lambda _, x: F.avg_pool2d(x, (x.shape[2], x.size(3))).flatten(1), IMAGE, "AvgPool Reshape"),
    spelled(lambda _, x: x.mean(dim=(2, 3)), IMAGE, "AvgPool Reshape"),
    spelled(lambda _, x: x.mean([-1, -2], keepdim=True), IMAGE, "AvgPool"),
    spelled(lambda _, x: x.mean(1), IMAGE, "Permute Reshape AvgPool Reshape"),
    spelled(lambda _, x: x.mean(-1), (7,), "Reshape AvgPool Reshape"),
    spelled(lambda _, x: x.sum((2, 3)), IMAGE, "AvgPool Reshape Scale"),
    spelled(lambda _, x: x.amax((2, 3)), IMAGE, "MaxPool Reshape"),
    spelled(lambda _, x: x.max(dim=-1)[0], IMAGE, "MaxPool Reshape"),
    pytest.param(nn.Flatten(), IMAGE, "Reshape", id="flatten"),
    pytest.param(nn.Unflatten(1, (2, 2)), IMAGE, "Reshape", id="unflatten"),
    spelled(lambda _, x: x.view(x.size(0), -1), IMAGE, "Reshape"),
    spelled(lambda _, x: x.reshape(x.shape[0], 4, x.shape[2] * x.shape[3]), IMAGE, "Reshape"),
    spelled(lambda _, x: x.view(-1, 4 * 8 * 6), IMAGE, "Reshape"),
    spelled(lambda _, x: torch.flatten(x, 2), IMAGE, "Reshape"),
    spelled(lambda _, x: x.flatten(1), (7,), ""),
    spelled(lambda _, x: x.unsqueeze(1).squeeze(1).unsqueeze(-1), IMAGE, "Reshape Reshape Reshape"),
    spelled(lambda _, x: x.permute(0, 2, 3, 1), IMAGE, "Permute"),
    spelled(lambda _, x: x.transpose(1, -1).contiguous(), IMAGE, "Permute"),
    spelled(lambda _, x: x.movedim(-1, 1), IMAGE, "Permute"),
    spelled(lambda _, x: F.channel_shuffle(x, 2), IMAGE, "Reshape Permute Reshape"),
    spelled(lambda _, x: x + x, IMAGE, "Add"),
    spelled(lambda _, x: x - 2 * x, IMAGE, "Scale Scale Add"),
    spelled(lambda _, x: torch.add(x, x, alpha=0.5), IMAGE, "Scale Add"),
    spelled(lambda _, x: x + 1.5, IMAGE, "Scale"),
    spelled(lambda _, x: 2 - x, IMAGE, "Scale"),
    spelled(lambda _, x: -x, IMAGE, "Scale"),
    spelled(lambda _, x: 3 * x / 2, IMAGE, "Scale Scale"),
    spelled(lambda _, x: 0 + x * 1, IMAGE, ""),
    spelled(lambda m, x: (x - m.mean) / m.std, IMAGE, "Scale Scale", mean=STATISTICS, std=STATISTICS),
    spelled(lambda m, x: (x - m.mean) * m.std, IMAGE, "Scale Scale", mean=STATISTICS[None], std=STATISTICS[None]),
    spelled(lambda m, x: x + m.c.sqrt().view(1, -1, 1, 1), IMAGE, "Scale", c=torch.rand(4)),
    spelled(lambda _, x: torch.cat([x, x.relu()], dim=1), IMAGE, "ReLU Concat"),
    spelled(lambda _, x: torch.cat((x, x), -1), IMAGE, "Concat"),
    spelled(lambda _, x: torch.stack((x, x), 1), IMAGE, "Reshape Reshape Concat"),
    spelled(lambda _, x: torch.cat((x, torch.zeros(x.size(0), 3, 8, 6)), 1), IMAGE, "Pad"),
    spelled(lambda _, x: torch.cat((x.new_zeros(x.shape[0], 3, 8, 6), x, torch.ones_like(x)), 1), IMAGE, "Pad Pad"),
    spelled(lambda _, x: torch.cat((x, x.mul(0)), 1), IMAGE, "Scale Concat"),
    spelled(lambda _, x: F.pad(x, (1, 2, 0, 1), value=0.5), IMAGE, "Pad"),
    spelled(lambda _, x: F.pad(x, (0, 0, 0, 0, 1, 2)), IMAGE, "Pad"),
    pytest.param(nn.ZeroPad2d((1, 0, 2, 0)), IMAGE, "Pad", id="zero pad"),
    spelled(lambda _, x: x[:, :, ::2, 1::2], IMAGE, "Slice Slice"),
    spelled(lambda _, x: x[:, -3:-1], IMAGE, "Slice"),
    spelled(lambda _, x: x[: x.shape[0], 1], IMAGE, "Slice Reshape"),
    spelled(lambda _, x: x.narrow(2, 1, 3), IMAGE, "Slice"),
    spelled(lambda _, x: torch.cat(x.chunk(2, 1)[::-1], 1), IMAGE, "Slice Slice Concat"),
    spelled(lambda _, x: sum(x.split([1, 1, 2], 1)[:2]), IMAGE, "Slice Slice Add"),
    spelled(lambda _, x: x.unbind(1)[2], IMAGE, "Slice Reshape"),
    pytest.param(nn.ReLU6(inplace=True), IMAGE, "Clamp", id="relu6"),
    pytest.param(nn.Hardtanh(-2, 2), IMAGE, "Clamp", id="hardtanh"),
    spelled(lambda _, x: F.hardtanh(x), IMAGE, "Clamp"),
    spelled(lambda _, x: F.relu6(x), IMAGE, "Clamp"),
    spelled(lambda _, x: x.clamp(-0.5, max=1), IMAGE, "Clamp"),
    pytest.param(nn.LeakyReLU(0.2), IMAGE, "LeakyReLU", id="leaky relu"),
    pytest.param(nn.PReLU(), IMAGE, "LeakyReLU", id="prelu"),
    pytest.param(nn.PReLU(4, 0.1), IMAGE, "ReLU Scale ReLU Scale Add", id="prelu per channel"),
    pytest.param(nn.Hardsigmoid(), IMAGE, "Scale Clamp", id="hard sigmoid"),
    spelled(lambda _, x: torch.tanh(x.sigmoid()), IMAGE, "Sigmoid Tanh"),
    spelled(lambda _, x: x.abs(), IMAGE, "LeakyReLU"),
    spelled(lambda _, x: x.clamp(min=0.5), IMAGE, "Scale ReLU Scale"),
    spelled(lambda _, x: x.clamp(max=0.5), IMAGE, "Scale ReLU Scale"),
    spelled(lambda m, x: torch.maximum(m.c, x), IMAGE, "Scale ReLU Scale", c=torch.randn(4, 1, 1)),
    spelled(lambda m, x: torch.minimum(x, m.c), IMAGE, "Scale ReLU Scale", c=torch.randn(4, 1, 1)),
    spelled(lambda _, x: torch.maximum(x, 1 - x), IMAGE, "Scale Scale Add ReLU Add"),
    spelled(lambda _, x: torch.min(x, 1 - x), IMAGE, "Scale Scale Add ReLU Scale Add"),
    pytest.param(nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (4, 7), "ConvTranspose", id="transposed 1d"),
    pytest.param(
        nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, 2),
        IMAGE,
        "ConvTranspose",
        id="transposed 2d, grouped and dilated",
    ),
    pytest.param(nn.ConvTranspose3d(2, 3, 2, 2), (2, 3, 4, 2), "ConvTranspose", id="transposed 3d"),
    pytest.param(nn.Upsample(scale_factor=2), IMAGE, "ConvTranspose", id="upsample"),
    spelled(lambda _, x: F.interpolate(x, size=(16, 18), mode="nearest-exact"), IMAGE, "ConvTranspose"),
    spelled(lambda _, x: F.interpolate(x, scale_factor=3), (4, 5), "ConvTranspose"),
    spelled(lambda _, x: F.adaptive_avg_pool2d(x, (3, 4)), IMAGE, "Permute Affine Permute Affine"),
    pytest.param(nn.ReflectionPad2d((2, 1, 0, 0)), IMAGE, "Slice Slice Slice Concat", id="reflect"),
    pytest.param(nn.ReplicationPad1d((2, 1)), (4, 5), "Slice Slice Slice Concat", id="replicate"),
    pytest.param(
        nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"),
        IMAGE,
        "Slice Slice Concat Slice Slice Concat Conv",
        id="circular",
    ),
    pytest.param(nn.Dropout(0.3), IMAGE, "Dropout", id="dropout"),
    pytest.param(nn.Dropout2d(0.3), IMAGE, "Dropout", id="dropout2d"),
    spelled(lambda m, x: F.dropout(x, 0.4, training=m.training), IMAGE, "Dropout"),
    pytest.param(nn.Identity(), IMAGE, "", id="identity"),
    spelled(lambda _, x: x.contiguous().clone().detach().float().to(torch.float32), IMAGE, ""),
    spelled(lambda _, x: F.log_softmax(x, dim=-1), (6,), "Softmax"),
    pytest.param(nn.Softmax(dim=1), IMAGE, "Softmax", id="softmax"),
    pytest.param(nn.LogSoftmax(1), (6,), "Softmax", id="log softmax"),
]


@pytest.mark.parametrize(("module", "shape", "wanted"), LAYERS)
def test_layer(module: nn.Module, shape: tuple[int, ...], wanted: str) -> None:
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
    graph = trace(module, torch.randn(3, *shape))
    assert kinds(graph) == wanted.split()
    assert graph.history == ()
    for batch in (1, 5):
        alike(graph, module, torch.randn(batch, *shape))


class BasicBlock(nn.Module):
    """He et al. 2016, with the parameter-free shortcut (option A)."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        more = (planes - channels) // 2
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = Spelled(lambda _, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more), "constant", 0))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self, depth: int = 20, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        plan = [(width * 2 ** max(stage - 1, 0), width * 2**stage, 2 if stage else 1) for stage in range(3)]
        for number, (channels, planes, stride) in enumerate(plan, 1):
            blocks = [
                BasicBlock(channels if i == 0 else planes, planes, stride if i == 0 else 1)
                for i in range((depth - 2) // 6)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)


def random_statistics(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)


def test_resnet_20_with_functional_relus_lambda_shortcuts_and_dynamic_pooling() -> None:
    module = ResNet()
    random_statistics(module)
    started = time.process_time()
    graph = trace(module, torch.randn(2, 3, 32, 32))
    # Five seconds are the aim, counted for two busy cores.
    assert time.process_time() - started < 10
    assert Counter(kinds(graph)) == {
        "Conv": 19, "BatchNorm": 19, "ReLU": 19, "Add": 9, "Slice": 4, "Pad": 2, "AvgPool": 1,
        "Reshape": 1, "Affine": 1,
    }  # fmt: skip
    assert graph.parameters == sum(p.numel() for p in module.parameters()) == 269_722
    assert {"conv1", "layer1.0.conv1", "layer1.0.relu", "layer1.0.relu_2", "layer2.0.add", "linear"} <= set(graph.nodes)
    assert not any("/" in name for name in graph.nodes)
    assert graph.shapes["layer3.2.relu_2"] == (64, 8, 8)
    assert graph.shapes[graph.output] == (10,)
    alike(graph, module, torch.randn(5, 3, 32, 32))


def test_vgg_like() -> None:
    def stage(channels: int, planes: int) -> list[nn.Module]:
        conv = nn.Conv2d(channels, planes, 3, padding=1)
        return [conv, nn.BatchNorm2d(planes), nn.ReLU(inplace=True), nn.MaxPool2d(2)]

    head = [nn.Flatten(), nn.Dropout(), nn.Linear(32, 16), nn.ReLU(True), nn.Dropout(0.2), nn.Linear(16, 10)]
    module = nn.Sequential(*stage(3, 8), *stage(8, 8), *head)
    random_statistics(module)
    module.train()
    module[1].eval()
    graph = trace(module, torch.randn(1, 3, 8, 8))
    assert kinds(graph) == ["Conv", "BatchNorm", "ReLU", "MaxPool"] * 2 + [
        "Reshape", "Dropout", "Affine", "ReLU", "Dropout", "Affine",
    ]  # fmt: skip
    assert list(graph.nodes)[1:] == [str(number) for number in range(14)]
    dropout = graph.nodes["12"]
    assert isinstance(dropout, Dropout)
    assert dropout.p == 0.2
    assert module.training
    assert not module[1].training
    alike(graph, module, torch.randn(4, 3, 8, 8))


class Fire(nn.Module):
    """Squeeze and expand: Iandola et al. 2016."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 4, 1)
        self.left, self.right = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.squeeze(x))
        return torch.cat([self.act(self.left(x)), self.act(self.right(x))], 1)


def test_concatenating_network_with_one_relu_module_used_three_times() -> None:
    module = nn.Sequential(
        Fire(3), nn.MaxPool2d(2), Fire(12), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(12, 4)
    )
    graph = trace(module, torch.randn(2, 3, 8, 8), name="fire")
    assert graph.name == "fire"
    assert {"0.act", "0.act_2", "0.act_3", "0.cat"} <= set(graph.nodes)
    assert Counter(kinds(graph)) == {
        "Conv": 6,
        "ReLU": 6,
        "Concat": 2,
        "MaxPool": 1,
        "AvgPool": 1,
        "Reshape": 1,
        "Affine": 1,
    }
    alike(graph, module, torch.randn(3, 3, 8, 8))


def test_depthwise_separable_inverted_residual() -> None:
    branch = nn.Sequential(
        nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
        nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4),
    )  # fmt: skip
    random_statistics(branch)
    module = Spelled(lambda m, x: x + m.branch(x), branch=branch)
    graph = trace(module, torch.randn(2, 4, 6, 6))
    assert kinds(graph) == ["Conv", "BatchNorm", "Clamp"] * 2 + ["Conv", "BatchNorm", "Add"]
    assert all(node.eps == 1e-5 for node in graph.nodes.values() if isinstance(node, BatchNorm))


def test_two_inputs() -> None:
    module = Spelled(lambda m, x, y: m.a(x) + m.b(y), a=nn.Linear(3, 2), b=nn.Linear(5, 2))
    graph = trace(module, (torch.randn(4, 3), torch.randn(4, 5)))
    assert [graph.shapes[name] for name in graph.inputs] == [(3,), (5,)]
    alike(graph, module, torch.randn(2, 3), torch.randn(2, 5))


def test_in_place_operations_reach_every_name_of_their_memory() -> None:
    def same_elements(_: nn.Module, x: Tensor) -> Tensor:
        y = x * 2
        z = y.relu_()
        z += 1
        return y + z

    def through_a_view(_: nn.Module, x: Tensor) -> Tensor:
        y = x * 2
        y.view(-1, 6).relu_()
        return y

    for function in (same_elements, through_a_view):
        module = Spelled(function)
        alike(trace(module, torch.randn(4, 2, 3)), module, torch.randn(3, 2, 3))

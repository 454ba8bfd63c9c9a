"""Networks as other people write and train them: traced, legalised and converted by every recipe without an edit."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from test_legalise import survives
from torch import Tensor, nn

from converters import FirstSpike, convert
from neuro.errors import UnsupportedNode
from neuro.trace import trace


class LambdaLayer(nn.Module):
    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class BasicBlock(nn.Module):
    """He et al. 2016 with a lambda shortcut, functional ReLUs and an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.shortcut = LambdaLayer(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        out = F.relu(out)
        return self.fc(out.mean([2, 3]))


class Bottleneck(nn.Module):
    """One ReLU module used three times, a projection shortcut, operator.iadd, adaptive pooling and flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
        self.conv3, self.bn3 = nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.downsample = nn.Sequential(nn.Conv2d(3, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        identity = self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = operator.iadd(self.bn3(self.conv3(out)), identity)
        out = F.adaptive_avg_pool2d(self.relu(out), (1, 1))
        return self.fc(torch.flatten(out, 1))


class VGG(nn.Module):
    """Batch norm, max-pools with ceil_mode, dropout in the classifier, view with a computed batch."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(32, 12), nn.ReLU(True), nn.Dropout(0.2), nn.Linear(12, 4), nn.LogSoftmax(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.features(x), 3, 2, ceil_mode=True)
        x = x.view(x.size(0), -1)
        return self.classifier[:-1](F.dropout(x, 0.1, training=self.training))


class MobileNet(nn.Module):
    """Inverted residual with depthwise convolution and ReLU6; Identity; torch.add with alpha."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
        self.branch = nn.Sequential(
            nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True),
            nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True),
            nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4),
        )  # fmt: skip
        self.drop_path, self.head = nn.Identity(), nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.add(x, self.drop_path(self.branch(x)), alpha=0.5)
        return self.head(F.relu6(x).mean((2, 3)))


class DenseNet(nn.Module):
    """Norm before ReLU, concatenation of all layers, a transition with an average pool (Huang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 4 * i, 4, 3, padding=1, bias=False) for i in range(2))
        self.transition, self.last, self.fc = nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms[:2], self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        x = F.avg_pool2d(self.transition(F.relu(self.norms[2](torch.cat(features, 1)))), 2)
        x = F.relu(self.last(x))
        return self.fc(F.avg_pool2d(x, x.size(-1)).flatten(1))


class UNet(nn.Module):
    """Max-pool down, transposed convolution and nearest upsampling up, skips by concatenation; an image comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.ReLU())
        self.c = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.LeakyReLU(0.1))
        self.up = nn.Sequential(nn.ConvTranspose2d(6, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU())
        self.merge, self.out = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.up(self.c(F.max_pool2d(b, kernel_size=2)))
        d = F.relu(self.merge(torch.cat([b, c], dim=1)))
        return self.out(torch.cat((F.interpolate(d, scale_factor=2), a), 1))


class SqueezeNet(nn.Module):
    """Fire modules, an overlapping max-pool, and logits that are averages of a ReLU (Iandola et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=1)
        self.squeeze, self.left, self.right = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.final, self.relu = nn.Conv2d(8, 4, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.stem(x)), kernel_size=3, stride=2, ceil_mode=True)
        x = self.relu(self.squeeze(x))
        x = torch.cat([self.relu(self.left(x)), self.relu(self.right(x))], 1)
        x = self.relu(self.final(F.dropout(x, training=self.training)))
        return nn.AdaptiveAvgPool2d((1, 1))(x).reshape(-1, 4)


class Inception(nn.Module):
    """Normalised input, four branches with a max-pool among them, channels split and chunked, PReLU per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.49, 0.48, 0.45]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.25, 0.24, 0.26]).view(1, 3, 1, 1))
        self.stem, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8)
        self.one, self.three = nn.Conv2d(8, 3, 1), nn.Conv2d(4, 3, 3, padding=1)
        self.pooled, self.bn, self.fc = nn.Conv2d(8, 3, 1), nn.BatchNorm2d(13), nn.Linear(13 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem((x - self.mean) / self.std))
        first, second = x.chunk(2, 1)
        left, _ = torch.split(second, [1, 3], dim=1)
        pooled = self.pooled(F.max_pool2d(x, 3, stride=1, padding=1))
        branches = [F.relu(self.one(x)), F.relu(self.three(first)), F.relu(pooled), left, torch.maximum(first, second)]
        x = F.max_pool2d(self.bn(torch.cat([*branches[:4], branches[4][:, :3]], 1)).relu(), 2)
        return self.fc(torch.flatten(x, 1))


class Tutorial(nn.Module):
    """Pool before the norm, norm after the ReLU, a pool of that, and a max-pool of a plain sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc1, self.bn3, self.fc2 = nn.Linear(24, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(F.max_pool2d(self.conv1(x), 2, stride=1)))
        y = self.bn2(torch.relu(self.conv2(x)))
        x = F.max_pool2d(x + y, 2)
        return self.fc2(self.bn3(F.relu(self.fc1(x.contiguous().view(-1, 24)))))


NETWORKS = [BasicBlock, Bottleneck, VGG, MobileNet, DenseNet, UNet, SqueezeNet, Inception, Tutorial]


def trained(kind: type[nn.Module]) -> nn.Module:
    """The module with statistics of data and uneven norms, some of them falling, as training leaves them."""
    torch.manual_seed(1)
    module = kind()
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for part in norms:
        nn.init.uniform_(part.weight, 0.5, 1.5)
        nn.init.normal_(part.bias, 0, 0.3)
        part.weight.data[0] *= -1
        part.momentum = None
    with torch.no_grad():
        for _ in range(3):
            module.train()(torch.rand(32, 3, 8, 8))
    return module


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_of_others_survive_every_recipe(kind: type[nn.Module]) -> None:
    module = trained(kind)
    graph = trace(module, torch.rand(2, 3, 8, 8))
    survives(graph, torch.rand(8, 3, 8, 8))


def test_a_curve_without_spikes_is_refused_once_for_all_its_places() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(UnsupportedNode) as caught:
        convert(trace(module, torch.rand(2, 3, 8, 8)), FirstSpike(), torch.rand(2, 3, 8, 8))
    head, *lines = str(caught.value).splitlines()
    assert head == "'Sequential': 2 operation(s) have no node"
    assert "'1' (SiLU)" in lines[0]
    assert "'3' (GELU)" in lines[1]
    assert all("train with ReLU" in line for line in lines)

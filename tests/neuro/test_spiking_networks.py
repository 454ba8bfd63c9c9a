"""The known architectures trace, run forward and backward, and simulate as they train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuro import Network, simulate, trace
from neuro.baselines import spiking
from neuro.errors import ParameterError
from neuro.modules import LI, LIF

SMALL = {
    "mlp": (lambda: spiking.mlp((12, 16, 10)), (12,)),
    "lenet": (lambda: spiking.lenet((1, 16, 16), channels=(3, 4), hidden=(12,)), (1, 16, 16)),
    "vgg9": (lambda: spiking.vgg9((2, 8, 8), width=4), (2, 8, 8)),
    "resnet18": (lambda: spiking.resnet(18, (2, 8, 8), width=4), (2, 8, 8)),
    "resnet20": (lambda: spiking.resnet(20, (2, 8, 8), width=4, readout=lambda: LI(0.9)), (2, 8, 8)),
    "recurrent": (lambda: spiking.recurrent(12, (16, 8)), (12,)),
}


@pytest.mark.parametrize("name", SMALL)
def test_it_trains_and_simulates_alike(name: str) -> None:
    build, shape = SMALL[name]
    graph = trace(build(), torch.zeros(2, *shape))
    assert graph.shapes[graph.output] == (10,)
    net = Network(graph, kernel="reference")
    x = (torch.rand(4, 3, *shape) < 0.5).float()
    (1 - net.train()(x)).square().mean().backward()
    reached = [key for key, parameter in net.named_parameters() if parameter.grad is not None and parameter.grad.any()]
    assert {key.split("/")[0] for key in reached} == {key.split("/")[0] for key, _ in net.named_parameters()}
    seen = net.eval()(x, record=True)
    run = simulate(net.graph, x, record=["spikes", "outputs"], kernel="reference")
    assert seen.spikes
    assert all(torch.equal(run.recordings["spikes"][k].float(), z) for k, z in seen.spikes.items())
    torch.testing.assert_close(run.recordings["outputs"][graph.output], seen.outputs)


def test_sizes_are_those_of_the_papers() -> None:
    """3x3 ResNet-20 on 32x32 has 0.27 million parameters (He et al. 2016, tab. 6); ResNet-18 here 11.17 million."""
    counts = {depth: sum(p.numel() for p in spiking.resnet(depth).parameters()) for depth in (18, 20)}
    assert counts[20] == pytest.approx(0.27e6, rel=0.02)
    assert counts[18] == pytest.approx(11.17e6, rel=0.01)
    weighted = [part for part in spiking.vgg9().modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 9
    benchmark = trace(spiking.lenet(channels=(32, 64), hidden=(), kernel=3), torch.zeros(1, 1, 28, 28))
    assert [node.kind for node in benchmark.nodes.values()] == [
        "Input", "Conv", "LIF", "AvgPool", "Conv", "LIF", "AvgPool", "Reshape", "Affine", "LIF"
    ]  # fmt: skip


def test_populations_and_sizes_can_be_chosen() -> None:
    step = spiking.mlp((4, 5, 3), neuron=lambda: LIF(0.5, learn=True), readout=lambda: LI(0.9))
    net = Network(trace(step, torch.zeros(1, 4)))
    assert {"2/beta", "2/theta"} < set(dict(net.named_parameters()))
    with pytest.raises(ParameterError, match="depth must be one of 18, 20"):
        spiking.resnet(50)
    with pytest.raises(ParameterError, match="need a larger image"):
        spiking.lenet((1, 8, 8))

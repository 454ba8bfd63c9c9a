"""An input that stays the same over time is multiplied once, whatever lies between it and the first weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuro import Network, trace
from neuro.encode import Constant
from neuro.modules import LI, LIF
from neuro.nodes import Affine, Conv

STEPS, BATCH = 6, 5


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 70), LIF(0.9), nn.Linear(70, 3), LI(0.9))


def pooled() -> nn.Module:
    conv = nn.Conv2d(1, 8, 3, padding=1)
    return nn.Sequential(conv, LIF(0.9), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 3), LI(0.9))


@pytest.mark.parametrize(("step", "first"), [(flat, Affine), (pooled, Conv)])
@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_a_held_image_is_multiplied_once(
    step: object, first: type[Affine | Conv], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = Network(trace(step(), torch.zeros(1, 1, 8, 8)), kernel=kernel)  # type: ignore[operator, arg-type]
    x = torch.rand(BATCH, 1, 8, 8) * (torch.rand(BATCH, 1, 8, 8) < 0.2)
    rows: list[int] = []
    plain = first.forward

    def counted(node: Affine | Conv, *inputs: Tensor) -> Tensor:
        if node.weight.shape[0] != 3:
            rows.append(len(inputs[0].reshape(-1, *x.shape[2:] if first is Conv else (64,))))
        return plain(node, *inputs)

    monkeypatch.setattr(first, "forward", counted)
    held = Constant()(x, STEPS)
    found = network(held)
    found.square().mean().backward()
    assert rows == [BATCH]
    gradients = [parameter.grad for parameter in network.parameters()]
    network.zero_grad(set_to_none=True)
    written_out = network(held.contiguous())
    written_out.square().mean().backward()
    assert torch.allclose(found, written_out, atol=1e-6)
    for own, parameter in zip(gradients, network.parameters(), strict=True):
        assert own is not None
        assert parameter.grad is not None
        assert float((own - parameter.grad).abs().max()) <= 1e-5 * float(parameter.grad.abs().max())


def test_steps_that_differ_by_their_start_alone_are_no_held_input() -> None:
    torch.manual_seed(0)
    network = Network(trace(flat(), torch.zeros(1, 1, 8, 8)), kernel="reference")
    x = torch.rand(STEPS, BATCH, 1, 8, 8)
    assert not torch.equal(network(x)[-1], network(x[:1].expand(STEPS, -1, -1, -1, -1))[-1])

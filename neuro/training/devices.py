"""Where a training runs: one process or many, on which device, in which precision. Lightning Fabric does the work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


def fabric_for(device: torch.device | str, precision: Precision = "32-true") -> Fabric:
    """A launched Fabric for the processes that torchrun has started, or for this one alone.

    device: "cpu", "cuda" (one GPU for each process) or "cuda:3" (that one, where there is one process).
    """
    from lightning_fabric import Fabric  # takes two seconds, which who does not train need not wait
    from lightning_fabric.strategies import DDPStrategy

    place = torch.device(device)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        devices = [place.index or 0] if place.type == "cuda" else 1
        fabric = Fabric(accelerator=place.type, devices=devices, precision=precision)
    else:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        # an expert that no sample of a batch is routed to has no gradient
        fabric = Fabric(
            accelerator=place.type,
            devices=here,
            num_nodes=processes // here,
            strategy=DDPStrategy(find_unused_parameters=True),
            precision=precision,
        )
    fabric.launch()
    return fabric


def gathered(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The tensors of all processes, (processes, *shape), on the CPU."""
    here = tensor.to(fabric.device)
    if fabric.world_size == 1:
        return here[None].cpu()
    every = [torch.empty_like(here) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(every, here)
    return torch.stack(every).cpu()


def summed(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The sum of the tensors of all processes."""
    total = fabric.all_reduce(tensor.clone(), reduce_op="sum")
    assert isinstance(total, Tensor)
    return total

"""QCFS: train the network a little further with the staircase that integrate-and-fire neurons make of a ReLU."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converters.calibrate import check_calibration, mmse, sampled
from converters.convert import apply
from converters.maxima import is_activation
from converters.recipes.calibrated import FEWEST_SAMPLES, Calibrated, calibrated
from converters.scales import channel_shape
from converters.spiking import spiking_graph
from converters.staircase import ClipFloorShift, as_rows, in_time
from neuro.errors import ParameterError, ShapeError
from neuro.graph import Graph
from neuro.network import Network
from neuro.nodes import IF, Clamp, Neuron, Readout
from neuro.rewrite import Builder, rebuild
from neuro.training import ShiftFlip, fit

SEEN = 512
"""Samples from which the first lambda is found."""

SMALLEST = 1e-6
"""No lambda is taken below it."""

CLIP = 1.0
"""Bound of the norm of the gradient."""


@dataclass(frozen=True)
class QCFS:
    """Fine-tune with quantisation-clip-floor-shift activations, then put IF neurons in their place.

    h(z) = lambda clip(floor(z L / lambda + 1/2) / L, 0, 1) with L = `levels` and a lambda that is learnt, per channel
    or per layer: Bu et al. 2022 (arXiv 2303.04347) [recalled]. IF neurons with theta = lambda, v0 = theta / 2 and soft
    reset have the rate h(z) / lambda after L steps of a constant current. What is learnt are the answers of the
    original network to the calibration data, which should be its training data (distillation, Hinton et al. 2015
    [recalled]): no labels are needed.

    Spikes do not come as a constant current, so two more things are done for simulations of `levels` steps. With
    `calibrate` the staircases become neurons by `Calibrated`: thresholds, potentials, weights and biases are fitted to
    the trains that really arrive; without it they have those of Bu et al. And in the last `spiking_epochs` of all
    `epochs` the spiking network itself learns, through all its steps, at `spiking_learning_rate`, which rises and falls
    in each of them (as in hybrid training, Rathi et al. 2020 [recalled]; gradients as in
    `neuro.kernels.if_through_time`). With 8 levels such an epoch takes some six times as long as one of the others.
    spiking_epochs=0 with calibrate=False is the method of Bu et al.
    shift, flip: images move by up to so many pixels, and are mirrored; off unless asked for.
    bf16: products in bfloat16 while training; None where the processor is made for it. Weights stay float32.
    checkpoint: a .safetensors file that keeps the training; where it exists the training goes on from it, to the same
    bytes as without the interruption (files with "-spiking-1" and so on in their names keep the last epochs).
    threads: None takes as many as torch uses now. progress: a bar on stderr.
    """

    levels: int = 8
    epochs: int = 5
    spiking_epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 1e-3
    spiking_learning_rate: float = 4e-4
    calibrate: bool = True
    per_channel: bool = True
    shift: int = 0
    flip: bool = False
    seed: int = 0
    bf16: bool | None = None
    checkpoint: Path | str | None = None
    threads: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        counts = {"levels": self.levels, "epochs": self.epochs, "batch_size": self.batch_size}
        for name, count in {**counts, "threads": self.threads or 1}.items():
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 2**16:
                raise ParameterError(f"QCFS: {name} must be a whole number in 1..65536, got {count!r}")
        if not 0 <= self.spiking_epochs <= self.epochs:
            raise ParameterError(f"QCFS: spiking_epochs must lie in 0..{self.epochs}, got {self.spiking_epochs}")
        for name in ("learning_rate", "spiking_learning_rate"):
            rate = getattr(self, name)
            if not (math.isfinite(rate) and rate > 0):
                raise ParameterError(f"QCFS: {name} must be finite and > 0, got {rate}")
        if self.checkpoint is not None and Path(self.checkpoint).suffix != ".safetensors":
            raise ParameterError(f"QCFS: checkpoint must be a .safetensors file, got {str(self.checkpoint)!r}")
        ShiftFlip(self.shift, self.flip)


@apply.register
def _(recipe: QCFS, plain: Graph, calibration: Tensor | None) -> Graph:
    x = check_calibration(plain, calibration)
    if (recipe.shift or recipe.flip) and x.ndim != 4:
        raise ShapeError(f"{plain.name!r}: shift and flip are for images (samples, channels, height, width)")
    student = staircases(recipe, plain, x[:: -(-len(x) // SEEN)])
    with_neurons(student)  # refuses what cannot be converted before any work
    before = recipe.epochs - recipe.spiking_epochs
    if before:
        student = taught(recipe, student, plain, x, before)
    snn = spiking(recipe, student, x)
    return with_spikes(recipe, snn, plain, x) if recipe.spiking_epochs else snn


def taught(
    recipe: QCFS, student: Graph, plain: Graph, x: Tensor, epochs: int, steps: int | None = None, cycle: int = 0
) -> Graph:
    """`student` after so many epochs of learning the answers of `plain` to x; steps: those that its rows stand for.

    The learning rate rises and falls once. cycle: how often it did before; the order of the samples is another one.
    """
    network, teacher = channels_last(Network(student)), channels_last(Network(plain)).eval()
    # the teacher gives the answers batch by batch, for images as they are moved: no labels
    unlabelled = torch.zeros(len(x), dtype=torch.int64)
    fit(
        network, (x, unlabelled), epochs=epochs, batch_size=recipe.batch_size, seed=recipe.seed + cycle, clip=CLIP,
        learning_rate=recipe.learning_rate if steps is None else recipe.spiking_learning_rate,
        augment=ShiftFlip(recipe.shift, recipe.flip) if recipe.shift or recipe.flip else None,
        loss=Lesson(_narrow(recipe), teacher, steps or 1), after_step=keep_positive,
        resume=recipe.checkpoint if steps is None else _beside(recipe.checkpoint, cycle),
        threads=recipe.threads, progress=recipe.progress,
    )  # fmt: skip
    return network.graph


def spiking(recipe: QCFS, student: Graph, x: Tensor) -> Graph:
    """The spiking graph of a network of staircases, calibrated on x if the recipe says so."""
    if not recipe.calibrate:
        return with_neurons(student)
    count = max(FEWEST_SAMPLES, Calibrated.image_steps // recipe.levels)
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(recipe.seed))[:count]
    return calibrated(Calibrated(recipe.levels, seed=recipe.seed), student, x[drawn])


def with_spikes(recipe: QCFS, snn: Graph, plain: Graph, x: Tensor) -> Graph:
    """The spiking graph after the epochs in which it learns through all its steps."""
    rows = as_rows(snn, recipe.levels)
    for cycle in range(recipe.spiking_epochs):
        rows = taught(recipe, rows, plain, x, 1, recipe.levels, cycle)
    return in_time(rows)


def channels_last(network: Network) -> Network:
    """The network with its weights in the order of memory in which convolutions of images are fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _beside(path: Path | str | None, cycle: int) -> Path | None:
    return None if path is None else Path(path).with_name(f"{Path(path).stem}-spiking-{cycle + 1}.safetensors")


def _narrow(recipe: QCFS) -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") if recipe.bf16 is None else recipe.bf16


def staircases(recipe: QCFS, plain: Graph, x: Tensor) -> Graph:
    """`plain` with staircases for activations; every lambda begins with the least squared error on x."""
    seen = sampled(plain, x, recipe.per_channel)

    def rule(builder: Builder, name: str) -> object:
        node = plain.nodes[name]
        if not is_activation(node):
            return builder.keep(name)
        ceiling = mmse(seen[name], recipe.levels)
        largest = ceiling.max()
        ceiling = torch.where(ceiling > 0, ceiling, largest if largest > 0 else torch.tensor(1.0))
        if isinstance(node, Clamp):
            ceiling = ceiling.clamp(max=node.high)
        return builder.keep(name, ClipFloorShift(channel_shape(ceiling, plain.shapes[name]), recipe.levels))

    return rebuild(plain, rule)


def with_neurons(student: Graph) -> Graph:
    """The spiking graph of a network of staircases: theta = lambda, v0 = theta / 2, soft reset."""
    neurons: dict[str, tuple[Neuron, Tensor]] = {
        name: (IF(node.ceiling, node.ceiling / 2), node.ceiling)
        for name, node in student.nodes.items()
        if isinstance(node, ClipFloorShift)
    }
    return spiking_graph(student, neurons, Readout())


def keep_positive(network: nn.Module) -> None:
    """Thresholds stay above zero."""
    assert isinstance(network, Network)
    with torch.no_grad():
        for node in network.live().nodes.values():
            if isinstance(node, ClipFloorShift):
                node.ceiling.clamp_(min=SMALLEST)


@dataclass(frozen=True)
class Lesson:
    """The loss of a batch: how far the network is from the answers of its teacher.

    KL(teacher || student) of softmax(logits / temperature), times temperature^2, mean per sample. Hinton et al. 2015,
    sec. 2 [recalled]. steps: the student sees every sample so many times, as rows of one batch.
    """

    bf16: bool
    teacher: Network = field(repr=False)
    steps: int = 1
    temperature: float = 2.0

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x = images_channels_last(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                wanted = self.teacher(x)
            found = network(images_channels_last(x.repeat(self.steps, *(1,) * (x.ndim - 1))))
        student, teacher = (F.log_softmax(logits.float() / self.temperature, 1) for logits in (found, wanted))
        return self.temperature**2 * F.kl_div(student, teacher, log_target=True, reduction="batchmean")


def images_channels_last(x: Tensor) -> Tensor:
    """The same tensor in the order of memory in which convolutions are fastest."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

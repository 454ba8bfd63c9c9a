"""QCFS: train the network a little further with the staircase that integrate-and-fire neurons make of a ReLU."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converters.calibrate import check_calibration, mmse, sampled
from converters.convert import apply
from converters.maxima import is_activation, reads_spikes
from converters.scales import channel_shape
from converters.spiking import spiking_graph
from converters.staircase import ClipFloorShift, Fires, Peaks
from neuro.errors import ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.graph import Graph, Node
from neuro.network import Network
from neuro.nodes import IF, Clamp, MaxPool, Neuron, Readout, ReLU
from neuro.rewrite import Builder, rebuild
from neuro.training import ShiftFlip, fit

SEEN = 512
"""Samples from which the first lambda is found."""

SMALLEST = 1e-6
"""No lambda is taken below it."""


@dataclass(frozen=True)
class QCFS:
    """Fine-tune with quantisation-clip-floor-shift activations, then put IF neurons in their place.

    h(z) = lambda clip(floor(z L / lambda + 1/2) / L, 0, 1) with L = `levels` and a lambda that is learnt, per channel
    or per layer: Bu et al. 2022 (arXiv 2303.04347) [recalled]. The IF neurons have theta = lambda, v0 = theta / 2 and
    soft reset; for a constant current their rate over L steps is h(z) / lambda exactly. What is learnt are the answers
    of the original network to the calibration data, which should be its training data (distillation, Hinton et al.
    2015 [recalled]): no labels are needed.

    epochs: passes over the data, all in all. In the last `spiking_epochs` of them the activations are the spikes that
    IF neurons really send in `levels` steps, so that the weights learn to live with their uneven arrival; gradients
    pass as before (tandem learning, Wu et al. 2021 [recalled]). With 8 levels such an epoch takes about three times as
    long as one without. Without any, this is the method of Bu et al.
    shift, flip: images move by up to so many pixels, and are mirrored; off unless asked for.
    bf16: products in bfloat16 while training; None where the processor is made for it. Weights stay float32.
    checkpoint: a .safetensors file that keeps the training; where it exists the training goes on from it, to the same
    bytes as without the interruption (a second file, with "-spiking" in its name, keeps the last epochs).
    threads: None takes as many as torch uses now. progress: a bar on stderr.
    """

    levels: int = 8
    epochs: int = 5
    spiking_epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 3e-4
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
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ParameterError(f"QCFS: learning_rate must be finite and > 0, got {self.learning_rate}")
        if self.checkpoint is not None and Path(self.checkpoint).suffix != ".safetensors":
            raise ParameterError(f"QCFS: checkpoint must be a .safetensors file, got {str(self.checkpoint)!r}")
        ShiftFlip(self.shift, self.flip)


@apply.register
def _(recipe: QCFS, plain: Graph, calibration: Tensor | None) -> Graph:
    return with_neurons(finetuned(recipe, plain, check_calibration(plain, calibration)))


def finetuned(recipe: QCFS, plain: Graph, x: Tensor) -> Graph:
    """The legalised network `plain` with `ClipFloorShift` activations, trained on its own answers to x."""
    moved = recipe.shift or recipe.flip
    if moved and x.ndim != 4:
        raise ShapeError(f"{plain.name!r}: shift and flip are for images (samples, channels, height, width)")
    student = staircases(recipe, plain, x[:: -(-len(x) // SEEN)])
    with_neurons(student)  # refuses what cannot be converted before any work
    network, teacher = channels_last(Network(student)), channels_last(Network(plain)).eval()
    lesson = Lesson(recipe.levels, _narrow(recipe), teacher)
    train = partial(
        fit, network, batch_size=recipe.batch_size, learning_rate=recipe.learning_rate, seed=recipe.seed,
        augment=ShiftFlip(recipe.shift, recipe.flip) if moved else None, after_step=keep_positive,
        threads=recipe.threads, progress=recipe.progress,
    )  # fmt: skip
    # the teacher gives the answers batch by batch, for images as they are moved: no labels
    unlabelled = torch.zeros(len(x), dtype=torch.int64)
    before = recipe.epochs - recipe.spiking_epochs
    if before:
        train((x, unlabelled), epochs=before, loss=lesson, resume=recipe.checkpoint)
    if recipe.spiking_epochs:
        with_spikes = replace(lesson, spiking=True)
        train((x, unlabelled), epochs=recipe.spiking_epochs, loss=with_spikes, resume=_beside(recipe.checkpoint))
    return network.graph


def channels_last(network: Network) -> Network:
    """The network with its weights in the order of memory in which convolutions of images are fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _beside(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path).with_name(f"{Path(path).stem}-spiking.safetensors")


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
    return spiking_graph(smooth(student), neurons, Readout())


def smooth(student: Graph) -> Graph:
    """The network of staircases with ReLU in their places again."""
    nodes = {name: ReLU() if isinstance(node, ClipFloorShift) else node for name, node in student.nodes.items()}
    return student.edit(nodes=nodes)


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
    sec. 2 [recalled].
    """

    levels: int
    bf16: bool
    teacher: Network = field(repr=False)
    spiking: bool = False
    temperature: float = 2.0

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(network, Network)
        x = images_channels_last(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                wanted = self.teacher(x)
            live = network.live()
            found = evaluate(with_counts(live, spike_counts(live, x, self.levels)) if self.spiking else live, x)
        student, teacher = (F.log_softmax(logits.float() / self.temperature, 1) for logits in (found, wanted))
        return self.temperature**2 * F.kl_div(student, teacher, log_target=True, reduction="batchmean")


def spike_counts(student: Graph, x: Tensor, steps: int) -> dict[str, Tensor]:
    """How many spikes every IF neuron in the place of a staircase sends in `steps` steps, (batch, *features)."""
    found: dict[str, Tensor] = {}
    plain = smooth(student)
    nodes: dict[str, Node] = {
        name: Fires(node.ceiling.detach(), steps, partial(found.__setitem__, name))
        if isinstance(node, ClipFloorShift)
        else Peaks(node, steps)
        if isinstance(node, MaxPool) and reads_spikes(plain, name)
        else node
        for name, node in student.nodes.items()
    }
    with torch.no_grad():
        rows = x.repeat(steps, *(1,) * (x.ndim - 1))
        evaluate(student.edit(nodes=nodes), images_channels_last(rows))
    return found


def images_channels_last(x: Tensor) -> Tensor:
    """The same tensor in the order of memory in which convolutions are fastest."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def with_counts(student: Graph, counts: dict[str, Tensor]) -> Graph:
    """The staircases with spikes that were counted in the place of those that a constant current would give."""
    nodes = {
        name: replace(node, counts=counts[name]) if isinstance(node, ClipFloorShift) else node
        for name, node in student.nodes.items()
    }
    return student.edit(nodes=nodes)

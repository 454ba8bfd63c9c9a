"""Networks whose sums are light: a mesh of interferometers made from a dense network, printed layers, a reservoir."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import pi
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from neuro.baselines.diffractive import DIFFRACTIVE
from neuro.baselines.reservoir import RESERVOIR
from neuro.baselines.rival import Build, Plan, Rival, Trained, along
from neuro.baselines.rows import ROWS as ELECTRONIC
from neuro.baselines.rows import macs_of, widest
from neuro.baselines.shot_noise import counted, trained_in_light
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.graph import Change, Graph, Node
from neuro.interferometers import depth, interferometers_for, phases_of, tiles_for
from neuro.nodes import Affine, MeshAffine
from neuro.training import accuracy

TILE = 64
PHASE_NOISE = 5e-3
"""Deviation of a phase in radians, as Shen et al. 2017 report of their chip [recalled]. Their noise of detectors,
0.1 %, is left out: the shot noise of so few photons is larger."""

Curve = tuple[Sequence[float], Sequence[float]]


def mesh_affine(
    node: Affine,
    tile: int = TILE,
    *,
    phase_bits: int | None = None,
    phase_noise: float = 0.0,
    photons: float | None = None,
    seed: int = 0,
) -> MeshAffine:
    """The same sums by light: each tile of W is U S V^T, two meshes and a row of attenuators between them.

    Without bits, noise and photons, it has the weights of `node` up to rounding. The matrix is padded with zeros to
    whole tiles. Singular values are divided by the largest of their tile, for attenuators only lose light.
    """
    if tile < 1:
        raise ParameterError(f"mesh_affine: tile must be >= 1, got {tile}")
    weight = node.weight.detach().double()
    outputs, inputs = weight.shape
    rows, columns = -(-outputs // tile), -(-inputs // tile)
    padded = pad(weight, (0, columns * tile - inputs, 0, rows * tile - outputs))
    tiles = padded.reshape(rows, tile, columns, tile).transpose(1, 2)
    u, s, v = torch.linalg.svd(tiles)
    gain = s[..., 0]
    cells, entering = phases_of(torch.stack((v, u)))
    theta = 2 * torch.asin((s / gain[..., None].clamp_min(torch.finfo(torch.float64).tiny)).clamp(0, 1))
    # the phases at the inputs of U stand behind the attenuators, whose own phi can hold them
    attenuators = torch.stack((theta, (entering[1] - (pi + theta) / 2) % (2 * pi)), -1)
    phases = torch.cat((cells[0], attenuators, cells[1]), dim=2)
    bias = None if node.bias is None else node.bias.detach()
    return MeshAffine(phases, entering[0], gain, inputs, outputs, bias, phase_bits, phase_noise, photons, seed)


def on_meshes(
    graph: Graph,
    tile: int = TILE,
    *,
    phase_bits: int | None = None,
    phase_noise: float = 0.0,
    photons: float | None = None,
    seed: int = 0,
) -> Graph:
    """`graph` with every `Affine` as a `MeshAffine`, each with a seed of its own. The rest stays digital.

    Raises ParameterError where there is nothing to replace.
    """
    nodes: dict[str, Node] = dict(graph.nodes)
    changes = []
    for number, (name, node) in enumerate(graph.nodes.items()):
        if isinstance(node, Affine):
            own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
            light = mesh_affine(
                node, tile, phase_bits=phase_bits, phase_noise=phase_noise, photons=photons, seed=own
            )  # fmt: skip
            nodes[name] = light
            changes.append(Change(name, "Affine", "MeshAffine", f"{light.tiles} tiles of {tile} x {tile}"))
    if not changes:
        raise ParameterError(f"on_meshes: {graph.name!r} has no Affine node")
    return graph.edit(*changes, nodes=nodes)


def _each_mesh(graph: Graph, change: Callable[[MeshAffine], MeshAffine]) -> Graph:
    nodes = {name: change(node) if isinstance(node, MeshAffine) else node for name, node in graph.nodes.items()}
    return graph.edit(nodes=nodes)


PHASE_BITS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
PHOTONS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
PHASE_NOISES = (0.001, 0.003, 0.01, 0.03, 0.1)


def noise_curves(graph: Graph, data: Split, seed: int = 0, *, samples: int = 1000) -> Mapping[str, Curve]:
    """Accuracy of a dense network on meshes against each of its imperfections alone, on validation samples.

    graph: with `Affine` or `MeshAffine` nodes. Of the latter, phases are kept, bits and noise are not. Maps "phase
    bits", "photons per MAC" and "phase noise (rad)" to values and accuracies in [0, 1].
    """
    x, y = data.validation_x[:samples], data.validation_y[:samples]
    on_light = any(isinstance(node, MeshAffine) for node in graph.nodes.values())
    light = graph if on_light else on_meshes(graph, seed=seed)
    ideal = _each_mesh(light, lambda mesh: replace(mesh, phase_bits=None, phase_noise=0.0, photons=None))
    changes: dict[str, tuple[Sequence[Any], Callable[[Any, MeshAffine], MeshAffine]]] = {
        "phase bits": (PHASE_BITS, lambda bits, mesh: replace(mesh, phase_bits=bits)),
        "photons per MAC": (PHOTONS, lambda photons, mesh: mesh.lit(photons)),
        "phase noise (rad)": (PHASE_NOISES, lambda deviation, mesh: replace(mesh, phase_noise=deviation)),
    }
    return {
        name: (values, [accuracy(_each_mesh(ideal, partial(change, value)), x, y) for value in values])
        for name, (values, change) in changes.items()
    }


def _mesh(title: str, most_photons: float, trained_for_it: bool) -> Build:
    """The dense network on meshes; half the budget goes into its light where it is trained for it."""

    def build(data: Split, seed: int, plan: Plan) -> Trained:
        electronic = replace(plan, epochs=max(2, plan.epochs // 2)) if trained_for_it else plan
        dense = ELECTRONIC["dense"].build(data, seed, electronic)
        photons = min(plan.photons, most_photons)
        network = dense.graph
        if trained_for_it:
            network = trained_in_light(
                network, data, photons, epochs=(plan.epochs + 1) // 2, seed=seed, threads=plan.threads
            )  # fmt: skip
        device = {"phase_bits": plan.phase_bits, "phase_noise": PHASE_NOISE, "photons": counted(photons)}
        graph = on_meshes(network, seed=seed, **device)  # type: ignore[arg-type]
        meshes = [node for node in graph.nodes.values() if isinstance(node, MeshAffine)]
        notes = (
            f"Dense {'-'.join(map(str, plan.sizes(data)))} on meshes of interferometers, {TILE} x {TILE}, "
            f"{2 * depth(TILE) + 1} deep; {plan.phase_bits} bits a phase, {PHASE_NOISE} rad of error, {photons:g} "
            f"photons per multiplication{', trained on with their noise' if trained_for_it else ''}. Bias, ReLU and "
            "sums of tiles are digital.",
            "A simulation: no such device was run. Energy counts converters, lasers and the phases that are held.",
        )
        facts = {
            "tiles": sum(node.tiles for node in meshes),
            "interferometers": sum(interferometers_for(node.outputs, node.inputs, node.tile) for node in meshes),
            "dense_validation_accuracy": dense.validation_accuracy,
        }
        right = accuracy(graph, data.validation_x, data.validation_y)
        return Trained(graph.edit(name=title), right, notes, facts)

    return build


def _as_many_phases(data: Split, plan: Plan) -> Plan | None:
    """A narrower network whose meshes hold no more phases than the dense one has weights: 2 a weight, in whole tiles.

    Few tiles make large steps: 29 of at most 32 stand for 784-300-100-10, a tenth less than it stores.
    """
    sizes = plan.sizes(data)
    per_tile = 2 * TILE**2 + TILE

    def fits(wanted: Sequence[int]) -> bool:
        tiles = sum(tiles_for(after, before, TILE) for before, after in pairwise(wanted))
        return tiles * per_tile <= macs_of(sizes)

    narrowest = (sizes[0], *(1 for _ in plan.hidden), sizes[-1])
    return replace(plan, hidden=widest(sizes, fits)[1:-1]) if fits(narrowest) else None


FEW_PHOTONS = 3.0
"""About the light with which Wang et al. 2022 read digits at 99 %: 3.1 detected photons per multiplication."""

_BY_BITS = along("phase_bits", 4, 6, 8, 12)

ROWS: Mapping[str, Rival] = {
    "photonic": Rival(
        "photonic mesh", _mesh("photonic mesh", float("inf"), False), _BY_BITS, _as_many_phases, family="photonic"
    ),
    "photonic-faint": Rival(
        "photonic mesh, trained in faint light", _mesh("photonic mesh, faint light", FEW_PHOTONS, True), _BY_BITS,
        _as_many_phases, family="photonic",
    ),
    "diffractive": DIFFRACTIVE,
    "reservoir": RESERVOIR,
}  # fmt: skip

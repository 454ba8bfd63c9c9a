"""Corrections per sample: each network against one built for the sample alone from plain populations, and the gain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_rate import BLOCKS, drawn
from torch import Tensor

from converters import Exact, OffsetSpikes, RateCode, ResidualPotential, activations_replaced, convert
from hardware_targets import compile, load_chip
from neuro.errors import ParameterError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.files import load, save
from neuro.flow import depth, lead
from neuro.graph import Graph, Node
from neuro.nodes import IF, MaxCountAgain, OffsetIF, ResidualIF, Scale
from neuro.rewrite import Builder, rebuild
from neuro.simulate import simulate

NETWORKS = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3)
SEEDS = st.integers(0, 10**6)


def put(graph: Graph, **nodes: Node) -> Graph:
    return graph.edit(nodes={**graph.nodes, **nodes})


def populations(graph: Graph) -> list[str]:
    return [name for name, node in graph.nodes.items() if isinstance(node, IF)]


def rehearsed(graph: Graph, name: str, x: Tensor, warmup: int, steps: int) -> Graph:
    """The network with the initial potentials of one population corrected for the one sample x, neuron by neuron."""
    node = graph.nodes[name]
    assert isinstance(node, IF)
    run = simulate(graph, x, steps=steps, record=["spikes", "v"])
    shape = graph.shapes[name]
    z, v = (run.recordings[what][name][:warmup, 0].flatten(1).T.tolist() for what in ("spikes", "v"))
    theta, v0 = (tensor.expand(shape).flatten().tolist() for tensor in (node.theta, node.v0))
    for n, one in enumerate(theta):
        above = [left + one for fired, left in zip(z[n], v[n], strict=True) if fired]
        below = [left for fired, left in zip(z[n], v[n], strict=True) if not fired]
        if v[n][-1] < 0 and above:
            v0[n] -= max(one, min(above) - 0.999 * one)
        elif v[n][-1] >= one and below:
            v0[n] += max(one, 1.001 * one - max(below))
    return put(graph, **{name: replace(node, v0=torch.tensor(v0).reshape(shape))})


@settings(max_examples=6)
@given(NETWORKS, st.integers(1, 4), st.integers(0, 3), SEEDS)
def test_offset_spikes_rehearse_layer_by_layer(kinds: list[str], warmup: int, more: int, seed: int) -> None:
    graph = drawn(kinds, seed)
    x = torch.rand(8, 2, 6, 6)
    steps = warmup + more
    found = simulate(convert(graph, OffsetSpikes(warmup), x), x[:1], steps=steps)
    by_hand = convert(graph, RateCode(), x)
    for name in populations(by_hand):
        by_hand = rehearsed(by_hand, name, x[:1], warmup, steps)
    assert torch.allclose(found.outputs, simulate(by_hand, x[:1], steps=steps).outputs, atol=1e-5)


@settings(max_examples=8)
@given(NETWORKS, st.integers(1, 5), st.integers(1, 6), SEEDS)
def test_residual_potential_is_a_run_of_the_neurons_left(kinds: list[str], warmup: int, steps: int, seed: int) -> None:
    graph = drawn(kinds, seed)
    x = torch.rand(8, 2, 6, 6)
    found = simulate(convert(graph, ResidualPotential(warmup), x), x[:1], steps=steps)
    plain = convert(graph, RateCode(), x)
    left = simulate(plain, x[:1], steps=warmup, record=["v"]).recordings["v"]

    def rule(builder: Builder, name: str) -> None:
        node = plain.nodes[name]
        spikes = builder.keep(name)
        if isinstance(node, IF):
            may_fire = (left[name][-1, 0] > 1e-3 * node.theta).float()
            builder.alias[name] = builder.add(f"{name}.left", Scale(may_fire), (spikes,))

    assert torch.allclose(found.outputs, simulate(rebuild(plain, rule), x[:1], steps=steps).outputs, atol=1e-5)


@settings(max_examples=4)
@given(NETWORKS, SEEDS)
def test_offset_spikes_converge(kinds: list[str], seed: int) -> None:
    graph = drawn(kinds, seed)
    x = torch.rand(4, 2, 6, 6)
    snn, wanted = convert(graph, OffsetSpikes(4, RateCode(100)), x), evaluate(graph, x)
    assert float((simulate(snn, x, steps=128).outputs - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def test_offset_spikes_pay_at_few_steps() -> None:
    """Mean error of the logits over random networks of five layers, in runs as long as the warm-up."""
    errors = dict.fromkeys((RateCode(), OffsetSpikes(8)), 0.0)
    for seed in range(4):
        for kinds in (["conv"] * 4, ["conv", "residual", "residual"]):
            graph = drawn(kinds, seed)
            x = torch.rand(16, 2, 6, 6)
            wanted = evaluate(graph, x)
            for recipe in errors:
                gap = simulate(convert(graph, recipe, x), x, steps=8, count=False).outputs - wanted
                errors[recipe] += float(gap.abs().mean() / (wanted - wanted.mean(0)).abs().mean())
    plain, offset = errors.values()
    assert offset < 0.9 * plain


@given(st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=4)
def test_latency_has_every_warm_up(warmup: int, steps: int) -> None:
    x = torch.rand(3, 2, 6, 6)
    for kinds in (["residual", "conv"], ["max", "mean"]):
        graph = drawn(kinds, 1)
        plain = simulate(convert(graph, RateCode(), x), x, steps=steps).counts
        snn = convert(graph, OffsetSpikes(warmup), x)
        offset = simulate(snn, x, steps=steps).counts
        assert offset.steps == plain.steps + depth(snn) * warmup
        snn = convert(graph, ResidualPotential(warmup), x)
        residual = simulate(snn, x, steps=steps).counts
        assert residual.steps == plain.steps + warmup == plain.steps + lead(snn)
        for name, node in snn.nodes.items():
            if isinstance(node, ResidualIF):
                neurons = plain.nodes[name].updates // steps
                assert residual.nodes[name].updates == neurons * (steps + warmup)
                assert offset.nodes[name].updates == neurons * (max(steps, warmup) + warmup)


@pytest.mark.parametrize("timed", [False, True])
def test_a_run_shorter_than_the_warm_up_is_read_early(timed: bool) -> None:
    """The published protocol: populations run for their readers to rehearse, the read-out takes the first steps."""
    graph = drawn(["residual", "max"], 2)
    x = torch.rand(5, 2, 6, 6)
    snn = convert(graph, OffsetSpikes(6), x)
    given = x.expand(2, *x.shape) if timed else x
    early = simulate(snn, given, steps=2, record=["outputs", "counts"])
    long = simulate(snn, x, steps=6, record=["outputs"])
    assert torch.equal(early.outputs, long.recordings["outputs"][snn.output][1])
    assert torch.equal(early.recordings["outputs"][snn.output], long.recordings["outputs"][snn.output][:2])
    assert torch.equal(early.outputs, simulate(snn, given, steps=2).outputs)
    assert early.counts.steps == long.counts.steps - 4
    assert early.counts.total.spikes == long.counts.total.spikes


@pytest.mark.parametrize("recipe", [OffsetSpikes(3), ResidualPotential(3)])
def test_samples_do_not_mix_and_chunks_do_not_matter(recipe: object) -> None:
    graph = drawn(["residual", "max", "concat"], 5)
    x = torch.rand(6, 2, 6, 6)
    snn = convert(graph, recipe, x)
    whole = simulate(snn, x, steps=5)
    singles = [simulate(snn, x[k : k + 1], steps=5) for k in range(6)]
    assert torch.allclose(whole.outputs, torch.cat([run.outputs for run in singles]), atol=1e-5)
    in_parts = simulate(snn, x, steps=5, memory=1e4)
    assert torch.allclose(in_parts.outputs, whole.outputs, atol=1e-5)
    assert in_parts.counts.total == whole.counts.total
    held = simulate(snn, x[None].expand(5, *x.shape).contiguous())
    assert torch.allclose(held.outputs, whole.outputs, atol=1e-5)
    series = simulate(snn, x, steps=5, record=["outputs", "counts"]).recordings
    last = series["outputs"][snn.output]
    assert last.shape == (5, 6, 3)
    assert torch.allclose(last[-1], whole.outputs, atol=1e-5)
    assert all(int(value.max()) <= 5 for value in series["counts"].values())


def test_a_correction_keeps_what_its_base_chose() -> None:
    graph = drawn(["residual", "max"], 3)
    x = torch.rand(20, 2, 6, 6)
    base = RateCode(thresholds="mmse", steps=4, v0=0.25, readout_start=2)
    plain = convert(graph, base, x)
    offset, residual = convert(graph, OffsetSpikes(5, base), x), convert(graph, ResidualPotential(5, base), x)
    for name in populations(plain):
        for snn, kind in ((offset, OffsetIF), (residual, ResidualIF)):
            node = snn.nodes[name]
            assert isinstance(node, kind)
            assert node.warmup == 5
            assert torch.equal(node.theta, plain.nodes[name].theta)  # type: ignore[attr-defined]
            assert torch.equal(node.v0, plain.nodes[name].v0)  # type: ignore[attr-defined]
    assert any(isinstance(node, MaxCountAgain) for node in residual.nodes.values())
    assert (offset.nodes[offset.output].start, residual.nodes[residual.output].start) == (2, 7)  # type: ignore[attr-defined]
    for snn in (offset, residual):
        assert activations_replaced(snn) == activations_replaced(plain)
        assert sum("after 5 steps" in change.why for change in snn.history) == len(populations(plain))


def test_files_bring_the_network_back(tmp_path: Path) -> None:
    graph, x = drawn(["residual", "max"], 4), torch.rand(3, 2, 6, 6)
    for recipe in (OffsetSpikes(2), ResidualPotential(2)):
        snn = convert(graph, recipe, x)
        save(snn, tmp_path / "snn.h5")
        again = load(tmp_path / "snn.h5")
        assert torch.equal(simulate(again, x, steps=3).outputs, simulate(snn, x, steps=3).outputs)
        assert str(again) == str(snn)


def test_refusals() -> None:
    graph, x = drawn(["conv"], 0), torch.rand(4, 2, 6, 6)
    for recipe in (OffsetSpikes, ResidualPotential):
        with pytest.raises(ParameterError, match=f"{recipe.__name__}: warmup must be an integer from 1"):
            recipe(0)
        with pytest.raises(ParameterError, match=r"gives .*CountThenFire.*need IF with reset 'subtract'"):
            convert(graph, recipe(4, Exact(4)), x)
        with pytest.raises(ParameterError, match="gives IF with reset 'zero'"):
            convert(graph, recipe(4, RateCode(reset="zero")), x)
        with pytest.raises(ParameterError, match="is no recipe"):
            convert(graph, recipe(4, "rate"), x)
        with pytest.raises(ParameterError, match="pass calibration"):
            convert(graph, recipe(4))
        with pytest.raises(UnsupportedNode, match=r"OffsetIF|ResidualIF"):
            compile(convert(graph, recipe(4), x), load_chip("loihi2"))

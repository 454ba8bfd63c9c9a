"""Break-even: at that many spikes both cost the same, and what is printed beside it is what was published."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_targets.break_even import (
    PUBLISHED,
    BreakEven,
    break_even,
    dense_counts,
    spiking_counts,
    split,
    textbook,
)
from hardware_targets.price import price
from hardware_targets.sensitivity import flips
from neuro.counts import Counts, Tally
from neuro.errors import ParameterError
from neuro.graph import Graph, Input
from neuro.nodes import IF, Affine
from neuro.simulate import simulate

LENET = 266_200


def points(found: BreakEven) -> dict[str, float | None]:
    return {point.model: point.break_even for point in found.points}


def test_the_textbook() -> None:
    """T x rate = 4.6 / 0.9 in FP32; an int8 rival leaves 0.26 for FP32 accumulates."""
    assert textbook() == pytest.approx(4.6 / 0.9) == pytest.approx(5.11, abs=2e-3)
    assert textbook("int8", "int8") == pytest.approx(0.23 / 0.03)
    assert textbook("int8", "float32") == pytest.approx(0.23 / 0.9)


def test_without_updates_model_a_is_the_textbook() -> None:
    found = break_even(
        dense_counts(LENET), spiking_counts(150_000, 0, 16), dense_words=LENET, spiking_words=LENET, pairs=()
    )
    operations, memory = found.points
    assert operations.break_even == pytest.approx(textbook())
    assert operations.range == pytest.approx((textbook(), textbook()))
    # a weight read for each multiply-accumulate, 3 words for each accumulate, in DRAM at 650 pJ each
    assert memory.break_even == pytest.approx((4.6 + 650) / (0.9 + 3 * 650))
    assert found.rate == pytest.approx(150_000 / LENET)


def test_updates_and_analogue_layers_come_first() -> None:
    rival = dense_counts(1000)
    found = break_even(
        rival, spiking_counts(10, 100, 4, analogue_macs=200), dense_words=9, spiking_words=9, synapses=500, pairs=()
    )
    # 1000 x 4.6 = 200 x 4.6 + 100 x (0.9 + 0.9) + 500 r x 0.9
    assert found.points[0].break_even == pytest.approx((800 * 4.6 - 180) / 450)
    assert found.points[0].wins
    dear = break_even(rival, spiking_counts(10, 3000, 4), dense_words=9, spiking_words=9, pairs=())
    assert dear.points[0].break_even is None
    assert not dear.points[0].wins
    assert "even a silent network would" in dear.points[0].verdict
    assert dear.points[0].range == (0.0, 0.0)


def test_within_the_range_nobody_wins() -> None:
    """A processor's spiking network may cost 2 operations an event, or one for every weight and step."""
    dense, spiking = dense_counts(LENET, "int8"), spiking_counts(150_000, 6560, 16, "int8")
    found = break_even(dense, spiking, dense_words=LENET, spiking_words=LENET, pairs=[("a100", "a100")])
    operations, memory, processor = found.points
    assert processor.range[0] < found.rate < processor.break_even == pytest.approx(processor.range[1])
    assert processor.wins is None
    assert processor.verdict == "undecided within the stated ranges"
    assert operations.wins is True
    assert operations.verdict.startswith("spiking wins")
    for point, (rival, own) in zip(found.points, (("45nm",) * 2, ("45nm-memory",) * 2, ("a100",) * 2), strict=True):
        bills = price(dense, rival, stored_words=LENET), price(spiking, own, stored_words=LENET)
        assert flips(*bills).certain == (point.wins is not None), "the same rule as in every ranking"
    assert memory.wins is False
    assert memory.verdict.startswith("spiking loses")


def test_what_was_given_is_not_called_measured() -> None:
    dense, spiking = dense_counts(1000), spiking_counts(500, 0, 4)
    given, measured = (
        break_even(dense, spiking, dense_words=9, spiking_words=9, **known) for known in ({"known": "given"}, {})
    )
    assert given.sheet()[1][-1] == "as given"
    assert "easured" not in str((*given.sheet()[:3], given.sheet()[3][:4]))
    assert measured.sheet()[1][-1] == "as measured"
    assert measured.sheet()[3][0].startswith("As measured: 0.5 spikes")


sizes = st.integers(1, 10**4)


@given(
    sizes, sizes, st.integers(0, 2000), st.integers(0, 500), st.integers(1, 64), st.sampled_from(["float32", "int8"])
)
def test_at_break_even_both_cost_the_same(
    macs: int, accumulates: int, updates: int, spikes: int, steps: int, precision: str
) -> None:
    """Scale what is in proportion to spikes, price again: equal bills, in every model that has a point."""
    unit = 10**9  # so that rounding to whole events does not show
    dense = dense_counts(macs * unit, precision)
    spiking = spiking_counts(accumulates * unit, updates * unit, steps, precision, spikes=spikes * unit)
    found = break_even(dense, spiking, dense_words=macs, spiking_words=macs)
    fixed, moving = split(spiking)
    assert found.rate == pytest.approx(accumulates / macs)
    for point in found.points:
        low, high = point.range
        if point.break_even is None:
            assert point.fixed >= point.dense * (1 - 1e-9)
            continue
        assert point.fixed + point.moving == pytest.approx(
            price(spiking, table_of(point.model)[1], stored_words=macs).per_sample
        )
        assert low * (1 - 1e-9) <= point.break_even <= high * (1 + 1e-9)
        factor = point.break_even / found.rate
        scaled = {
            name: Tally(*(round(factor * getattr(tally, item.name)) for item in fields(Tally)))
            for name, tally in moving.nodes.items()
        }
        there, here = table_of(point.model)
        own = fixed + Counts(0, steps, scaled, precision)
        mine, rival = (price(done, t, stored_words=macs).per_sample for done, t in ((own, here), (dense, there)))
        assert mine == pytest.approx(rival, rel=1e-6)
        assert point.wins == (None if low < found.rate < high else found.rate < point.break_even)


def table_of(model: str) -> tuple[str, str]:
    """Tables of the rival and of the spiking network."""
    if not model.startswith("C "):
        return ("45nm",) * 2 if model.startswith("A") else ("45nm-memory",) * 2
    here, _, there = model.removeprefix("C ").partition(" against ")
    return there or here, here


def counted(rate: float, steps: int = 6) -> Counts:
    generator = torch.Generator().manual_seed(0)
    nodes = {
        "x": Input((20,)),
        "fc": Affine(torch.rand(12, 20, generator=generator), None),
        "neurons": IF(torch.tensor(1e-6), torch.tensor(0.0)),
        "out": Affine(torch.rand(5, 12, generator=generator), None),
    }
    graph = Graph(nodes, {"fc": ("x",), "neurons": ("fc",), "out": ("neurons",)})
    return simulate(graph, torch.full((3, 20), rate), steps=steps).counts


def test_the_two_parts_of_a_run_are_the_run() -> None:
    done = counted(1.0)
    fixed, moving = split(done)
    for name, tally in done.nodes.items():
        assert fixed.nodes[name] + moving.nodes[name] == tally
    assert moving.total.accumulates == done.total.accumulates > 0
    assert fixed.total.accumulates == fixed.total.spikes == 0
    assert fixed.total.updates == done.total.updates > 0
    assert fixed.total.macs == done.total.macs > 0
    assert moving.total.updates == moving.total.macs == 0


def test_every_neuron_at_every_step_and_none_at_any() -> None:
    """Accumulates = T x fan-out when all fire; a silent network accumulates nothing and still updates."""
    steps, samples = 6, 3
    busy, silent = counted(1.0, steps), counted(0.0, steps)
    assert busy.total.accumulates == steps * samples * 12 * 5
    assert silent.total.accumulates == silent.total.spikes == 0
    assert silent.total.updates == busy.total.updates == steps * samples * 12
    with pytest.raises(ParameterError, match="counts no accumulate"):
        break_even(dense_counts(300), silent, dense_words=300, spiking_words=300)
    with pytest.raises(ParameterError, match="synapses > 0"):
        break_even(silent, busy, dense_words=300, spiking_words=300, synapses=0)


def test_graded_spikes_are_in_proportion_too() -> None:
    graded = Tally(macs=50, effective_macs=50, weight_words=50, state_words=100)
    dense = Tally(macs=50, effective_macs=20, weight_words=50, activation_words=30)
    fixed, moving = split(Counts(1, 1, {"graded": graded, "dense": dense}))
    assert moving.nodes["graded"] == graded
    assert moving.nodes["dense"] == Tally()
    assert fixed.nodes["dense"] == dense


def test_published_bands_stand_beside_and_are_quoted() -> None:
    first, second = PUBLISHED.values()
    assert (first.value, first.status, second.status) == ((0.15, 1.38), "quoted", "quoted")
    assert second.value == pytest.approx(5 * 0.057)
    found = break_even(dense_counts(1000), spiking_counts(500, 0, 4), dense_words=9, spiking_words=9)
    text = " ".join(found.sheet()[3])
    assert "Dampfhoffer" in text
    assert "The measured one lies inside." in text
    assert "The measured one lies above." in text
    assert "float32 against float32 accumulates 5.11" in text


def test_devices_are_paired_and_refusals_are_told() -> None:
    found = break_even(dense_counts(LENET), spiking_counts(10**5, 4000, 16), dense_words=LENET, spiking_words=LENET)
    known = points(found)
    others = {f"C {name} against h100" for name in ("loihi1", "truenorth", "brainscales2", "spinnaker2")}
    assert {"C a100"} | others <= set(known)
    assert "C tpu1" not in known
    analogue = spiking_counts(10**5, 4000, 16, analogue_macs=200)
    refused = break_even(dense_counts(LENET), analogue, dense_words=LENET, spiking_words=LENET).refused
    assert "no price for macs" in refused["C loihi1 against h100"]
    with pytest.raises(ParameterError, match="no device 'abacus'"):
        break_even(dense_counts(9), analogue, dense_words=9, spiking_words=9, pairs=[("abacus", "loihi1")])

"""What turns a ranking round: apply the factor, price again, and it is round."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hardware_targets.bill import Bill, Constant
from hardware_targets.chip import Quantity
from hardware_targets.price import price
from hardware_targets.sensitivity import Ranking, corners, flips, ranking, shares, together
from neuro.counts import Counts, Tally
from neuro.errors import ParameterError


def counts(precision: str = "float32", **tally: int) -> Counts:
    return Counts(1, 1, {"layer": Tally(**tally)}, precision)


def times(bill: Bill, name: str, factor: float) -> Bill:
    """The bill at other prices: one constant times a factor, all that comes from it with it."""
    prices = {
        cause: replace(own, value=factor * float(own.value), range=None) if bill.constants[cause].name == name else own  # type: ignore[arg-type]
        for cause, own in bill.provenance.items()
    }
    return replace(bill, provenance=prices, constants={})


names = ("macs", "accumulates", "additions", "comparisons")
tallies = st.fixed_dictionaries({name: st.integers(0, 10**6) for name in names})
precisions = st.sampled_from(["float32", "int8", "int32"])


@given(tallies, tallies, precisions, precisions)
def test_flips_flip(mine: dict[str, int], other: dict[str, int], mine_in: str, other_in: str) -> None:
    first, second = (price(counts(p, **t), "45nm") for p, t in ((mine_in, mine), (other_in, other)))
    assume(first.total != second.total)
    ahead = first.total < second.total
    for flip in flips(first, second).flips:
        if flip.factor is None:
            for factor in (1e-6, 0.5, 2.0, 1e6):
                a, b = (times(bill, flip.constant, factor).total for bill in (first, second))
                assert (a <= b * (1 + 1e-9)) if ahead else (b <= a * (1 + 1e-9))
            continue
        equal = [times(bill, flip.constant, flip.factor).total for bill in (first, second)]
        assert equal[0] == pytest.approx(equal[1], rel=1e-6, abs=1e-21)
        beyond = 1 + (flip.factor - 1) * 1.001
        assume(beyond > 0 and abs(flip.factor - 1) > 1e-3)
        a, b = (times(bill, flip.constant, beyond).total for bill in (first, second))
        assert (a > b) if ahead else (a < b)


def test_flips_by_hand() -> None:
    """An accumulate of 0.03 pJ against a multiply-accumulate of 0.23 pJ, 1000 of each: equal at 0.23 pJ."""
    spiking, dense = price(counts("int8", accumulates=1000), "45nm"), price(counts("int8", macs=1000), "45nm")
    found = flips(spiking, dense, ("spiking", "dense"))
    assert {flip.constant: flip.factor for flip in found.flips} == pytest.approx(
        {"int8 macs": 0.03 / 0.23, "int8 accumulates": 0.23 / 0.03}
    )
    assert {flip.within for flip in found.flips} == {False}
    assert found.cheaper == "spiking"
    assert found.certain
    assert "'spiking' is cheaper, 7.67 times; this is certain" in str(found)
    # 4000 accumulates: 0.12 nJ, up to 0.40 nJ, against 0.23 to 0.30 nJ
    close = flips(price(counts("int8", accumulates=4000), "45nm"), dense)
    assert {flip.constant: flip.within for flip in close.flips} == {"int8 accumulates": True, "int8 macs": False}
    assert not close.certain
    assert "not certain: it depends on the ranges" in close.verdict


def test_all_words_of_a_memory_change_together() -> None:
    moved = counts(weight_words=10, state_words=30)
    bill = price(moved, "45nm-memory", stored_words=10**7)
    (share,) = shares(bill).values()
    assert share.joules == pytest.approx(40 * 650e-12)
    assert share.quantity.value == 1300
    fewer = price(counts(weight_words=39, accumulates=800), "45nm-memory", stored_words=10**7)
    found = {flip.constant: flip for flip in flips(fewer, bill).flips}
    memory = found["DRAM, access of 64 bits"]
    # 39 x 650 pJ f + 800 x 0.9 pJ = 40 x 650 pJ f
    assert memory.factor == pytest.approx(720 / 650)
    assert memory.within
    assert found["float32 accumulates"].factor == pytest.approx(650 / 720)


def test_a_shared_price_alone_never_turns_a_ranking_round() -> None:
    """On one processor all operations have one price: only how many there are matters."""
    few, many = price(counts(macs=10), "a100"), price(counts(macs=11), "a100")
    (flip,) = flips(few, many).flips
    assert flip.factor is None
    assert flips(few, many).certain
    # ranges that overlap do not make it uncertain
    assert few.range[1] > many.range[0]


def test_two_devices_have_two_sets_of_constants() -> None:
    here, there = price(counts(macs=10), "a100"), price(counts(macs=10), "h100")
    found = flips(there, here, ("h100", "a100"))
    assert {flip.constant for flip in found.flips} == {"a100: float32 operation", "h100: float32 operation"}
    assert not found.certain


# binary fractions, so that sums of them are exact and a draw is a draw
price_ranges = st.tuples(*[st.integers(0, 1024).map(lambda n: n / 128) for _ in range(3)]).map(sorted)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), price_ranges), min_size=1, max_size=4),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_certain_means_certain(constants: list[tuple[int, int, list[float]]], anywhere: list[float]) -> None:
    """Wherever the prices lie in their ranges, a certain ranking holds; an uncertain one has a corner against it."""
    priced = {
        f"c{i}": Quantity(middle, "J", "x", "assumed", (low, high))
        for i, (_, _, (low, middle, high)) in enumerate(constants)
    }
    first, second = (
        Bill("t", 1, {f"c{i}": entry[which] for i, entry in enumerate(constants)}, priced) for which in (0, 1)
    )
    found = flips(first, second)
    differences = [a - b for a, b in corners(together((first, second)))]
    assert found.certain == (min(differences) > 0 or max(differences) < 0)
    inside = sum(
        (a - b) * (low + place * (high - low))
        for (a, b, (low, _, high)), place in zip(constants, anywhere, strict=False)
    )
    assert min(differences) - 1e-9 <= inside <= max(differences) + 1e-9


def test_a_ranking() -> None:
    bills = {
        "dense": price(counts(macs=1000), "45nm"),
        "int8": price(counts("int8", macs=1000), "45nm"),
        "spiking": price(counts("int8", accumulates=9000), "45nm"),
    }
    found = ranking(bills)
    assert found.names == ("int8", "spiking", "dense")
    assert found.certain == (False, True)
    assert found.verdict == "Depends on the ranges: 'int8' before 'spiking'."
    assert found.rows()[0] == ("int8", "230 pJ (230 pJ to 300 pJ)", "depends on ranges")
    assert "certain within" in ranking({"dense": bills["dense"]}).verdict
    twice = ranking({"dense": bills["dense"], "again": bills["dense"]})
    assert twice.rows()[0][2] == "the same"
    assert "Depends" not in twice.verdict


def test_a_verdict_names_six_pairs_at_most() -> None:
    names = tuple(f"dense, {width} wide" for width in range(10))
    pairs = [f"'dense, {width} wide' before 'dense, {width + 1} wide'" for width in range(9)]
    unsure = Ranking(names[:7], (1.0,) * 7, ((0.0, 2.0),) * 7, ("undecided",) * 6)
    assert unsure.verdict == f"Depends on the ranges: {', '.join(pairs[:5])} and {pairs[5]}."
    many = Ranking(names, (1.0,) * 10, ((0.0, 2.0),) * 10, ("undecided",) * 9)
    assert many.verdict == f"Depends on the ranges: {', '.join(pairs[:5])}, 3 others and {pairs[8]}."


def test_a_draw_and_bills_that_disagree() -> None:
    bill = price(counts(macs=3), "45nm")
    assert flips(bill, bill).cheaper is None
    other = replace(bill, constants={"macs": Constant("float32 macs", Quantity(5, "pJ", "x", "assumed"))})
    with pytest.raises(ParameterError, match=r"float32 macs is .* in one bill and 5 pJ in another"):
        flips(bill, other)

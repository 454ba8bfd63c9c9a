"""Which constant would have to change, and by how much, for a ranking by energy to flip; and whether it may.

Energy is linear in every price, so each answer is a closed form: with E = sum over constants of E_c, changing constant
c by a factor f makes two bills equal where E1 + (f - 1) E1_c = E2 + (f - 1) E2_c, that is f = 1 + (E2 - E1) / (E1_c -
E2_c).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from hardware_targets.bill import Bill, between
from hardware_targets.chip import Quantity
from neuro.errors import ParameterError
from neuro.report.prices import Order, order
from neuro.report.sheet import engineering, significant
from neuro.report.verdicts import listed
from neuro.shown import Sheet, Shown


@dataclass(frozen=True)
class Share:
    """Joules of one inference that one constant stands for: as it is, at the low end of its range, at the high end."""

    quantity: Quantity
    joules: float
    low: float
    high: float


def shares(bill: Bill, prefix: str = "") -> dict[str, Share]:
    """The bill of one inference by constant of its table, which several causes may share; unused ones left out."""
    found: dict[str, Share] = {}
    for cause, joules in bill.joules.items():
        constant = bill.constants[cause]
        if not bill.events[cause]:
            continue
        low, high = bill.range_of(cause)
        own = Share(constant.quantity, joules / bill.samples, low, high)
        name = prefix + constant.name
        found[name] = own if name not in found else _sum(found[name], own)
    return found


def _sum(one: Share, other: Share) -> Share:
    return Share(one.quantity, one.joules + other.joules, one.low + other.low, one.high + other.high)


def together(bills: Sequence[Bill]) -> list[dict[str, Share]]:
    """Shares of several bills; a constant has the same name in all bills of one table, and only there.

    Raises ParameterError where two bills say they are of one table but disagree about a constant.
    """
    several = len({bill.table for bill in bills}) > 1
    found = [shares(bill, f"{bill.table}: " if several else "") for bill in bills]
    known: dict[str, Quantity] = {}
    for part in found:
        for name, share in part.items():
            first = known.setdefault(name, share.quantity)
            if (first.value, first.unit) != (share.quantity.value, share.quantity.unit):
                raise ParameterError(f"{name} is {first} in one bill and {share.quantity} in another: two tables")
    return found


@dataclass(frozen=True)
class Flip:
    """What one constant does to a ranking of two bills.

    `factor`: it alone times this makes them equal, and beyond it the ranking is the other way round; None where no
    factor > 0 does. `within`: whether the factor lies inside its stated range; None where no range is stated.
    """

    constant: str
    quantity: Quantity
    first: float
    second: float
    factor: float | None
    within: bool | None


@dataclass(frozen=True)
class Flips(Shown):
    """The ranking of two bills (joules of one inference) and what could turn it round, the smallest change first.

    `certain`: one is cheaper wherever all constants lie in their stated ranges, at the same time. Constants without a
    range are taken as they are.
    """

    names: tuple[str, str]
    joules: tuple[float, float]
    ranges: tuple[tuple[float, float], tuple[float, float]]
    flips: tuple[Flip, ...]
    certain: bool

    @property
    def cheaper(self) -> str | None:
        """Which of the two is cheaper; None for a draw."""
        first, second = self.joules
        return None if first == second else self.names[0] if first < second else self.names[1]

    @property
    def verdict(self) -> str:
        """The ranking in one sentence."""
        if self.cheaper is None:
            return f"{self.names[0]!r} and {self.names[1]!r} cost the same."
        dear = max(self.joules)
        ratio = f"{significant(dear / min(self.joules))} times" if min(self.joules) > 0 else "infinitely"
        sure = "certain within the stated ranges" if self.certain else "not certain: it depends on the ranges"
        return f"{self.cheaper!r} is cheaper, {ratio}; this is {sure}."

    def rows(self) -> list[tuple[str, ...]]:
        """Constant, value, joules of it in both, the factor that flips the ranking, the value it gives, its range."""
        rows: list[tuple[str, ...]] = []
        for flip in self.flips:
            both = (engineering(flip.first, "J"), engineering(flip.second, "J"))
            if flip.factor is None:
                change, becomes = "none", ""
            else:
                value = flip.factor * float(flip.quantity.value)  # type: ignore[arg-type]
                change, becomes = f"x {significant(flip.factor)}", f"{significant(value)} {flip.quantity.unit}"
            inside = {None: "no range stated", True: "inside its range", False: "outside its range"}[flip.within]
            where = "" if flip.factor is None else inside
            rows.append((flip.constant, str(flip.quantity), *both, change, becomes, where))
        return rows

    def sheet(self) -> Sheet:
        headings = ("constant", "value", *self.names, "flips at", "which is", "range")
        both = "; ".join(
            f"{name}: {between(joules, ends)}"
            for name, joules, ends in zip(self.names, self.joules, self.ranges, strict=True)
        )
        return "What would turn the ranking round", headings, self.rows(), (f"{both} per inference.", self.verdict)


def flips(first: Bill, second: Bill, names: tuple[str, str] | None = None) -> Flips:
    """For each constant, the factor by which it alone must change so that the ranking of two bills turns round.

    names: what the bills are of, "first" and "second" otherwise. Raises ParameterError where two bills of one table
    disagree about a constant.
    """
    one, two = together((first, second))
    ahead = second.per_sample - first.per_sample
    found = []
    for name in dict.fromkeys((*one, *two)):
        mine, other = one.get(name), two.get(name)
        a, b = (0.0 if share is None else share.joules for share in (mine, other))
        factor = None if a == b else 1 + ahead / (a - b)
        if factor is not None and factor <= 0:
            factor = None
        some = mine or other
        assert some is not None
        within = _inside(factor, [share for share in (mine, other) if share is not None])
        found.append(Flip(name, some.quantity, a, b, factor, within))
    found.sort(key=lambda flip: float("inf") if flip.factor is None else max(flip.factor, 1 / flip.factor))
    titles = ("first", "second") if names is None else names
    joules, ranges = (first.per_sample, second.per_sample), (first.range, second.range)
    return Flips(titles, joules, ranges, tuple(found), _order(one, two) in ("less", "more"))


def _inside(factor: float | None, known: Sequence[Share]) -> bool | None:
    stated = [share for share in known if share.low != share.high]
    if factor is None or not stated:
        return None
    return any(share.low <= factor * share.joules <= share.high for share in stated)


def ends_of(part: Mapping[str, Share]) -> dict[str, tuple[float, float]]:
    """Joules of each constant at the low end of its range, and at the high end."""
    return {name: (share.low, share.high) for name, share in part.items()}


def _order(one: Mapping[str, Share], two: Mapping[str, Share]) -> Order:
    return order(ends_of(one), ends_of(two))


@dataclass(frozen=True)
class Ranking(Shown):
    """Bills from the cheapest to the dearest; `orders[i]`: of entry i and entry i + 1, wherever prices lie."""

    names: tuple[str, ...]
    joules: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...]
    orders: tuple[Order, ...]

    @property
    def certain(self) -> tuple[bool, ...]:
        """Whether entry i is cheaper than entry i + 1 within all ranges."""
        return tuple(found == "less" for found in self.orders)

    @property
    def verdict(self) -> str:
        """Whether the order is certain, in one sentence."""
        known = zip(pairwise(self.names), self.orders, strict=True)
        doubtful = [f"{one!r} before {other!r}" for (one, other), found in known if found == "undecided"]
        if not doubtful:
            return "The ranking is certain within the stated ranges; constants without a range are taken as they are."
        return f"Depends on the ranges: {listed(doubtful)}."

    def rows(self) -> list[tuple[str, ...]]:
        """Name, joules of one inference with their range, and whether it is certain to be cheaper than the next."""
        words: dict[Order, str] = {"less": "certain", "equal": "the same"}
        sure = [*(words.get(found, "depends on ranges") for found in self.orders), ""]
        spent = (between(joules, ends) for joules, ends in zip(self.joules, self.ranges, strict=True))
        return list(zip(self.names, spent, sure, strict=True))

    def sheet(self) -> Sheet:
        return (
            "Energy per inference, cheapest first",
            ("what", "energy", "before the next"),
            self.rows(),
            (self.verdict,),
        )


def ranking(bills: Mapping[str, Bill]) -> Ranking:
    """Bills of one model in the order of their energy per inference, and how certain that order is."""
    names = tuple(sorted(bills, key=lambda name: bills[name].per_sample))
    sure = tuple(_order(*together((bills[one], bills[two]))) for one, two in pairwise(names))
    costs = tuple(bills[name].per_sample for name in names)
    return Ranking(names, costs, tuple(bills[name].range for name in names), sure)


def corners(parts: Sequence[Mapping[str, Share]]) -> Iterator[tuple[float, ...]]:
    """Joules of several bills at every combination of low and high ends, each constant the same in all of them."""
    names = dict.fromkeys(name for part in parts for name in part)
    ranged = [name for name in names if any(name in part and part[name].low != part[name].high for part in parts)]
    fixed = [sum(share.joules for name, share in part.items() if name not in ranged) for part in parts]
    for ends in product(("low", "high"), repeat=len(ranged)):
        yield tuple(
            base + sum(getattr(part[name], end) for name, end in zip(ranged, ends, strict=True) if name in part)
            for base, part in zip(fixed, parts, strict=True)
        )

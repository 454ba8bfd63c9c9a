"""The picture of a mesh shows every core once, and every hop on its link."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hardware_targets.chip import Chip, load_chip
from hardware_targets.loihi.program import Dense, Input, Population, Program
from hardware_targets.picture import mesh
from hardware_targets.place import Placement, place
from hardware_targets.route import links

EVIL = "<b>a</b> $x$ %{y}"


def chip_with(**limits: int) -> Chip:
    chip = load_chip("loihi1")
    changed = {key: dataclasses.replace(q, value=limits.get(key, q.value)) for key, q in chip.limits.items()}
    return dataclasses.replace(chip, limits=changed)


def placed(chip: Chip, name: str = "a", effort: float = 1.0) -> Placement:
    rng = np.random.default_rng(0)
    program = Program(
        (Input("x", 9),),
        (Population(name, 12), Population("b", 7)),
        (
            Dense(source="x", target=name, weights=rng.integers(1, 9, (12, 9)) * 2),
            Dense(source=name, target="b", weights=rng.integers(1, 9, (7, 12)) * 2),
        ),
    )
    return place(program, chip, effort=effort)


@pytest.mark.parametrize("chips", [1, 2])
def test_every_core_and_every_hop_is_in_the_picture(chips: int) -> None:
    chip = chip_with(neurons_per_core=2, cores=8, cores_per_tile=2, mesh_width=2, mesh_height=2, chips=chips + 1)
    placement = placed(chip)
    rates = {"x": np.arange(9.0), "a": np.ones(12), "b": np.zeros(7)}
    cores, arrows = mesh(placement, rates).data
    assert np.isfinite(cores.z).sum() == 8 * (chips + 1)
    assert (cores.z > 0).sum() == len(placement.cores)
    told = [text for text in np.ravel(cores.customdata) if text and "empty" not in text]
    for core in placement.cores:
        assert any(text.startswith(f"core {core.number}:") for text in told)
    expected = placement.hops({name: rate.astype(int) for name, rate in rates.items()})
    assert np.nansum(arrows.z) == pytest.approx(expected)
    assert not (np.isfinite(cores.z) & np.isfinite(arrows.z)).any()


def test_links_by_hand() -> None:
    """Cores in order, one neuron each, two a tile, tiles in a row of two: row first, then column."""
    program = Program(
        (Input("x", 1),), (Population("a", 6),), (Dense(source="x", target="a", weights=np.full((6, 1), 2)),)
    )
    chip = chip_with(neurons_per_core=1, cores=8, cores_per_tile=2, mesh_width=2, mesh_height=2)
    found = links(place(program, chip, effort=0), {"x": np.array([3.0]), "a": np.zeros(6)})
    # cores 2 and 3 on tile (1, 0), cores 4 and 5 on tile (0, 1)
    assert found.east.tolist() == [[6, 0], [0, 0]]
    assert found.south.tolist() == [[6, 0], [0, 0]]
    assert not found.west.any()
    assert not found.north.any()
    assert (found.busiest, found.hops) == (6, 12)


def test_names_are_shown_letter_by_letter() -> None:
    drawn = mesh(placed(chip_with(neurons_per_core=5), EVIL), unit=EVIL)
    assert "<b>" not in drawn.to_json().replace("\\u003c", "<").replace("<br>", "")
    assert "%{y}" not in drawn.to_json()

"""Chips are values with sources; hostile files are refused with the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hardware_targets
from hardware_targets.chip import STATUSES, Chip, Quantity, chips, load_chip, worst
from neuro.errors import FileError, ParameterError

GOOD = """
title = "Mine"
family = "loihi"
[limits]
cores = { value = 3, unit = "", source = "me", status = "assumed" }
[arithmetic]
reset_modes = { value = ["zero"], unit = "", source = "me", status = "assumed" }
[energy]
synaptic_event = { value = 2.5, unit = "nJ", source = "me", status = "measured" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", chips())
def test_every_number_of_a_shipped_chip_says_where_it_comes_from(name: str) -> None:
    chip = load_chip(name)
    rows = chip.rows()
    assert rows
    assert all(source and status in STATUSES for *_, status, source in rows)
    assert chip.title in chip._repr_html_()


def test_a_chip_says_how_sure_it_is() -> None:
    chip = load_chip("loihi2")
    statuses = [
        quantity.status for section in (chip.limits, chip.arithmetic, chip.energy) for quantity in section.values()
    ]
    assert f"{len(statuses)} numbers: {statuses.count('quoted')} quoted, {statuses.count('recalled')} recalled" in str(
        chip
    )
    assert Chip("empty", "Empty", "loihi").sureness.startswith("0 numbers: none.")


def test_the_limits_of_the_two_loihis() -> None:
    one, two = load_chip("loihi1"), load_chip("loihi2")
    assert (one.limit("cores"), one.limit("neurons_per_core"), one.limit("in_axons_per_core")) == (128, 1024, 4096)
    assert one.limit("synapse_memory_bits") == 16384 * 64
    assert two.limit("neurons_per_core") == 8192
    assert two.limit("synapse_memory_bits") == 192 * 1024 * 8
    assert one.choices("reset_modes") == ("zero",)
    assert set(two.choices("reset_modes")) == {"zero", "subtract", "none"}
    mesh = one.limit("mesh_width") * one.limit("mesh_height") * one.limit("cores_per_tile")
    assert mesh == one.limit("cores")


def test_loihi_2_says_that_its_energies_are_a_stand_in() -> None:
    one, two = load_chip("loihi1"), load_chip("loihi2")
    assert {quantity.status for quantity in two.energy.values()} == {"assumed"}
    assert two.energy["synaptic_event"].value == one.energy["synaptic_event"].value == 23.6
    assert "stand-in" in " ".join(two.notes)
    assert one.energy["synaptic_event"].status == "modelled"


def test_a_users_file_works_the_same(tmp_path: Path) -> None:
    chip = load_chip(write(tmp_path, GOOD))
    assert (chip.name, chip.title, chip.family) == ("mine", "Mine", "loihi")
    assert chip.limit("cores") == 3
    assert chip.energy["synaptic_event"].in_base("J") == pytest.approx(2.5e-9)
    with pytest.raises(TypeError):
        chip.limits["cores"] = chip.limits["cores"]  # type: ignore[index]


def test_what_a_chip_does_not_say_is_unknown_not_zero() -> None:
    with pytest.raises(ParameterError, match=r"'empty': limits\.cores is not given"):
        Chip("empty", "Empty", "loihi").limit("cores")


def test_units() -> None:
    assert Quantity(23.6, "pJ", "x", "quoted").in_base("J") == pytest.approx(23.6e-12)
    assert Quantity(3, "s", "x", "quoted").in_base("s") == 3
    with pytest.raises(ParameterError, match="not in J"):
        Quantity(3.5, "ns", "x", "quoted").in_base("J")
    with pytest.raises(ParameterError, match="not in J"):
        Quantity(3.5, "qJ", "x", "quoted").in_base("J")


def test_micro_has_its_sign_and_a_users_u_is_understood() -> None:
    one, other = (Quantity(8.4, unit, "me", "assumed") for unit in ("µJ", "uJ"))
    assert one.in_base("J") == other.in_base("J") == pytest.approx(8.4e-6)
    home = Path(hardware_targets.__file__).parent
    texts = {path.name: path.read_text(encoding="utf-8") for path in home.rglob("*.toml")}
    assert len(texts) > 15
    assert [name for name, text in texts.items() if re.search(r"\bu[JsWm]\b", text)] == []


def test_the_least_sure_status_wins() -> None:
    assert worst(["quoted", "recalled", "modelled"]) == "recalled"
    assert worst([]) == "measured"


def test_unknown_chip_lists_the_known() -> None:
    with pytest.raises(ParameterError, match="loihi1, loihi2"):
        load_chip("loihi9")


@pytest.mark.parametrize(
    ("find", "put", "error", "names"),
    [
        ("value = 3", "value = nan", ParameterError, r"limits\.cores: value must be finite"),
        ("value = 3", "value = inf", ParameterError, r"limits\.cores"),
        ("value = 3", "value = {a = 1}", ParameterError, r"limits\.cores\.value"),
        ("value = 3", "value = []", ParameterError, r"limits\.cores\.value"),
        ("value = 3, ", "", ParameterError, r"limits\.cores must have exactly"),
        ('status = "measured"', 'status = "sure"', ParameterError, r"energy\.synaptic_event: status"),
        ('source = "me", status = "measured"', 'source = " ", status = "measured"', ParameterError, "source must say"),
        ('unit = "nJ"', "unit = 3", ParameterError, r"energy\.synaptic_event\.unit"),
        ('family = "loihi"', "", ParameterError, "family must be a text"),
        ("[limits]", "[limit]", ParameterError, "unknown key 'limit'"),
        ("[limits]", "[limits", FileError, "no valid TOML"),
        ("cores = {", "cores = 3 #", ParameterError, r"limits\.cores"),
        (
            'status = "measured"',
            'status = "measured", range = [3, 4]',
            ParameterError,
            r"energy\.synaptic_event: range",
        ),
        ('status = "measured"', 'status = "measured", range = [2, inf]', ParameterError, "low <= value <= high"),
        ('status = "measured"', 'status = "measured", range = [true, 4]', ParameterError, "two numbers"),
        ('["zero"], unit = ""', '["zero"], range = [0, 1], unit = ""', ParameterError, "range needs a single number"),
    ],
)
def test_bad_files_are_refused_with_the_key(
    tmp_path: Path, find: str, put: str, error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names) as caught:
        load_chip(write(tmp_path, GOOD.replace(find, put, 1)))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 50_000, encoding="utf-8")
    (tmp_path / "large.toml").write_text("#" * 1_000_001, encoding="utf-8")
    for name in ("bytes", "deep", "large", "absent"):
        with pytest.raises(FileError, match=name):
            load_chip(tmp_path / f"{name}.toml")


def test_fractions_are_no_counts(tmp_path: Path) -> None:
    chip = load_chip(write(tmp_path, GOOD.replace("value = 3", "value = 2.5")))
    with pytest.raises(ParameterError, match="whole number"):
        chip.limit("cores")


def test_html_is_escaped(tmp_path: Path) -> None:
    chip = load_chip(write(tmp_path, GOOD.replace('"me"', '"<script>"')))
    assert "<script>" not in chip._repr_html_()


def test_a_range_is_shown_and_scaled(tmp_path: Path) -> None:
    text = GOOD.replace('status = "measured"', 'status = "measured", range = [2, 4.25]')
    known = load_chip(write(tmp_path, text)).energy["synaptic_event"]
    assert str(known) == "2.5 nJ (2 to 4.25)"
    assert known.range_in_base("J") == pytest.approx((2e-9, 4.25e-9))
    assert Quantity(3, "s", "x", "quoted").range_in_base("s") == (3, 3)
    assert Quantity(2.4, "aJ", "x", "quoted").in_base("J") == pytest.approx(2.4e-18)
    assert Quantity(65, "GFLOPS/W", "x", "quoted").in_base("FLOPS/W") == 65e9

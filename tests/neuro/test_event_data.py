"""Event cameras: files written here are read back exactly, frames lose no event, false files are refused."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuro import datasets
from neuro.datasets import guard
from neuro.datasets.aedat import read_aedat
from neuro.datasets.events import Events, frames, from_tonic
from neuro.datasets.mnist_dvs import FILE, mnist_dvs_fold, read_recordings
from neuro.datasets.nmnist import read_nmnist
from neuro.errors import BackendMissing, DataError, ParameterError

SIZE = (6, 9)


@st.composite
def recordings(draw: st.DrawFn, size: tuple[int, int] = SIZE, longest: int = 10**6, most: int = 60) -> Events:
    count = draw(st.integers(0, most))
    column = lambda low, high: np.array(
        draw(st.lists(st.integers(low, high), min_size=count, max_size=count)), dtype=np.int64
    )
    t = np.sort(column(0, longest))
    return Events(t, column(0, size[1] - 1), column(0, size[0] - 1), column(0, 1), size)


def same(a: Events, b: Events) -> bool:
    pairs = zip((a.t, a.x, a.y, a.polarity), (b.t, b.x, b.y, b.polarity), strict=True)
    return a.size == b.size and all(np.array_equal(p, q) for p, q in pairs)


@given(events=recordings(), steps=st.integers(1, 20))
def test_frames_hold_every_event_once(events: Events, steps: int) -> None:
    for counts in (frames(events, steps), frames(events, steps, by="count")):
        assert counts.shape == (steps, 2, *SIZE)
        assert counts.min() >= 0
        assert counts.sum() == len(events)
        assert counts[:, 1].sum() == events.polarity.sum()
        # Summed over time they are the picture of the recording, whatever the windows.
        picture = np.zeros((2, *SIZE), np.int64)
        np.add.at(picture, (events.polarity.astype(int), events.y, events.x), 1)
        assert np.array_equal(counts.sum(0), picture)


@given(events=recordings(), steps=st.integers(1, 20), start=st.integers(-5, 0), extra=st.integers(1, 1000))
def test_windows_are_those_of_the_formula(events: Events, steps: int, start: int, extra: int) -> None:
    span = 10**6 - start + extra
    counts = frames(events, steps, start=start, span=span)
    wanted = np.zeros_like(counts)
    for t, x, y, p in zip(events.t.tolist(), events.x, events.y, events.polarity, strict=True):
        wanted[(t - start) * steps // span, int(p), y, x] += 1
    assert np.array_equal(counts, wanted)


@given(events=recordings(), steps=st.integers(1, 20))
def test_windows_by_count_differ_by_one_event_at_most(events: Events, steps: int) -> None:
    per_step = frames(events, steps, by="count").sum((1, 2, 3))
    assert per_step.max() - per_step.min() <= 1


@given(events=recordings(), factor=st.integers(1, 10), cut=st.integers(0, 10**6))
def test_coarser_pixels_and_cuts_in_time_conserve_events(events: Events, factor: int, cut: int) -> None:
    coarse = frames(events.coarser(factor), 3)
    fine = frames(events, 3)
    height, width = coarse.shape[2:]
    padded = np.zeros((3, 2, height * factor, width * factor), np.int64)
    padded[:, :, : SIZE[0], : SIZE[1]] = fine
    assert np.array_equal(coarse, padded.reshape(3, 2, height, factor, width, factor).sum((3, 5)))
    before, after = events.between(0, cut), events.between(cut, 10**6 + 1)
    assert len(before) + len(after) == len(events)
    whole = frames(events, 4, start=0, span=10**6 + 1)
    assert np.array_equal(frames(before, 4, start=0, span=10**6 + 1) + frames(after, 4, start=0, span=10**6 + 1), whole)


def test_nothing_is_dropped_unseen() -> None:
    events = Events(np.array([5, 90]), np.zeros(2, int), np.zeros(2, int), np.ones(2, int), SIZE)
    assert frames(events, 2, start=0, span=91).sum() == 2
    for start, span in ((6, 100), (0, 90)):
        with pytest.raises(DataError, match="do not lie within"):
            frames(events, 2, start=start, span=span)
    with pytest.raises(ParameterError, match="span must be"):
        frames(events, 2, span=0)
    with pytest.raises(ParameterError, match="steps must be"):
        frames(events, 0)
    with pytest.raises(ParameterError, match="neither start nor span"):
        frames(events, 2, by="count", start=0)
    with pytest.raises(ParameterError, match="bytes"):
        frames(events, 10**9)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"x": np.array([0, 9])}, "x must lie in 0..8"),
        ({"y": np.array([-1, 0])}, "y must lie in 0..5"),
        ({"polarity": np.array([0, 2])}, "polarity must lie in 0..1"),
        ({"t": np.array([2, 1])}, "must not decrease"),
        ({"t": np.array([0.5, 1.0])}, "whole numbers"),
        ({"t": np.array([1])}, "one shape"),
        ({"t": np.array([0, 2**63], dtype=np.uint64)}, "2\\*\\*62"),
        ({"size": (0, 9)}, "size must be"),
        ({"size": (6, 2**20)}, "size must be"),
    ],
)
def test_events_are_checked_at_birth(changed: dict, reason: str) -> None:
    fields = {"t": np.array([1, 2]), "x": np.array([0, 8]), "y": np.array([5, 0]), "polarity": np.array([0, 1])}
    good = Events(**fields, size=SIZE)
    assert not good.t.flags.writeable
    with pytest.raises(DataError, match=reason):
        Events(**{**fields, "size": SIZE, **changed})


def nmnist_bytes(events: Events) -> bytes:
    """As the camera writes them: times of 23 bits; a record of row 240 moves the clock on by 2**13 us."""
    out, wrapped = b"", 0
    for t, x, y, p in zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.polarity, strict=True):
        while t - wrapped >= 2**23:
            wrapped += 2**13
            out += bytes([0, 240, 0, 0, 0])
        rest = t - wrapped
        out += bytes([x, y, int(p) << 7 | rest >> 16, rest >> 8 & 255, rest & 255])
    return out


@given(events=recordings(size=(34, 34), longest=2**23 + 2**16))
def test_nmnist_files_are_read_back(events: Events, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("nmnist") / "00001.bin"
    path.write_bytes(nmnist_bytes(events))
    assert same(read_nmnist(path), events)


def test_false_nmnist_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1.bin"
    for data, reason in ((bytes(7), "5-byte records"), (bytes([34, 0, 0, 0, 0]), "x must lie in 0..33")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=reason) as refusal:
            read_nmnist(path)
        assert str(refusal.value).startswith(str(path))
        assert "\n" not in str(refusal.value)
    monkeypatch.setattr(guard, "LARGEST_RECORDING", 4)
    with pytest.raises(DataError, match="too much"):
        read_nmnist(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_nmnist(tmp_path / "absent.bin")


def aedat2_bytes(events: Events, chip: str = "") -> bytes:
    """As jAER writes them: x mirrored, y from below; OFF sets the polarity bit of a DVS128, ON that of a DAVIS."""
    head = b"#!AER-DAT2.0\r\n# Timestamps tick is 1 us\r\n" + (f"# AEChip: a.b.{chip}\r\n".encode() if chip else b"")
    height, width = events.size
    column, row = width - 1 - events.x, height - 1 - events.y
    if chip.startswith("DAVIS"):
        address = row << 22 | column << 12 | events.polarity.astype(int) << 11
    else:
        address = row << 8 | column << 1 | (~events.polarity).astype(int)
    return head + np.stack([address, events.t & 2**32 - 1], 1).astype(">u4").tobytes()


def aedat3_bytes(events: Events, source: str = "DVS128", per_packet: int = 7) -> bytes:
    head = f"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: {source}\r\n#!END-HEADER\r\n".encode()
    word = events.x.astype(np.int64) << 17 | events.y << 2 | events.polarity.astype(int) << 1 | 1
    out = head + struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)  # a packet of special events
    for overflow in range(int(events.t[-1] >> 31) + 1 if len(events) else 0):
        chosen = np.flatnonzero(events.t >> 31 == overflow)
        for k in range(0, len(chosen), per_packet):
            part = chosen[k : k + per_packet]
            out += struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, len(part), len(part), len(part))
            out += np.stack([word[part], events.t[part] & 2**31 - 1], 1).astype("<u4").tobytes()
    return out


@given(events=recordings(size=(128, 128)))
def test_aedat_2_of_a_dvs128_is_read_back(events: Events, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("aedat") / "a.aedat"
    path.write_bytes(aedat2_bytes(events))
    assert same(read_aedat(path, sensor="dvs128"), events)
    path.write_bytes(aedat2_bytes(events, chip="DVS128"))
    assert same(read_aedat(path), events)


@given(events=recordings(size=(180, 240)))
def test_aedat_2_of_a_davis_is_read_back(events: Events, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("aedat") / "a.aedat"
    path.write_bytes(aedat2_bytes(events, chip="DAVIS240C"))
    assert same(read_aedat(path), events)


@given(events=recordings(size=(128, 128), longest=2**33))
def test_aedat_3_is_read_back_beyond_31_bits_of_time(events: Events, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("aedat") / "a.aedat"
    path.write_bytes(aedat3_bytes(events))
    assert same(read_aedat(path), events)


def few(size: tuple[int, int] = (128, 128)) -> Events:
    return Events(np.array([10, 20, 35]), np.array([1, 100, 7]), np.array([3, 4, 90]), np.array([1, 0, 1]), size)


def test_clocks_that_wrap_triggers_and_invalid_events(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    events = few()
    late = Events(events.t + 2**32 - 25, events.x, events.y, events.polarity, events.size)
    path.write_bytes(aedat2_bytes(late))  # the third event is after the wrap
    assert same(read_aedat(path, sensor="dvs128"), late)
    path.write_bytes(aedat2_bytes(events) + struct.pack(">II", 1 << 15, 40))
    assert same(read_aedat(path, sensor="dvs128"), events)
    data = aedat3_bytes(events)
    word = struct.unpack_from("<I", data, len(data) - 8)[0]
    path.write_bytes(data[:-8] + struct.pack("<I", word & ~1) + data[-4:])
    assert same(read_aedat(path), events.between(0, 35))


def test_an_address_that_begins_with_a_hash_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    # Row 140 from below and column 48 from the right give the address 0x23030000: "#", 3, 0, 0.
    events = Events(np.array([0x4141410A]), np.array([239 - 48]), np.array([179 - 140]), np.array([0]), (180, 240))
    data = aedat2_bytes(events, chip="DAVIS240C")
    assert data[-8:-4] == b"#\x03\0\0"
    path.write_bytes(data)
    assert same(read_aedat(path), events)


V3_HEAD = b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not AEDAT"),
        (b"PK\x03\x04", "not AEDAT"),
        (b"#!AER-DAT9.9\r\n", "not AEDAT"),
        (b"#" * 100, "not AEDAT"),
        (b"#!AER-DAT2.0\r\n" + bytes(8), "names no sensor"),
        (b"#!AER-DAT2.0\r\n# AEChip: x.Unheard\r\n" + bytes(8), "'unheard'"),
        (b"#!AER-DAT2.0\r\n# AEChip: DVS128\r\n" + bytes(9), "8-byte records"),
        (b"#!AER-DAT2.0\r\n# AEChip: DVS128\r\n\x00\x01" + bytes(6), "16 bits"),
        (b"#!AER-DAT2.0\r\n# AEChip: DAVIS240\r\n" + struct.pack(">II", 511 << 22, 0), "y must lie"),
        (b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n", "END-HEADER"),
        (V3_HEAD + bytes(27), "inside the header"),
        (V3_HEAD + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 2**31 - 1, 2**31 - 1, 0), "claims 2,147,483,647"),
        (V3_HEAD + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 2, 2, 0) + bytes(15), "claims"),
        (V3_HEAD + struct.pack("<hhiiiiii", 1, 1, 0, 4, 0, 2, 2, 0), "claims"),
        (V3_HEAD + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, -1, -1, 0), "claims"),
        (V3_HEAD + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 2, 0) + bytes(16), "claims"),
        (V3_HEAD + struct.pack("<hhiiiiii", 1, 1, 16, 4, 0, 1, 1, 0) + bytes(16), "not 8"),
        (V3_HEAD + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 1, 0) + struct.pack("<II", 1 | 500 << 17, 0), "x must"),
    ],
)
def test_false_aedat_files_are_refused_in_one_line(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(data)
    with pytest.raises(DataError, match=reason) as refusal:
        read_aedat(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


@given(data=st.binary(max_size=200), version=st.sampled_from(["2.0", "3.1"]))
def test_noise_after_a_good_header_is_events_or_a_refusal(
    data: bytes, version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("noise") / "a.aedat"
    path.write_bytes(f"#!AER-DAT{version}\r\n#!END-HEADER\r\n".encode() + data)
    refusal = ""
    try:
        assert len(read_aedat(path, sensor="davis640")) <= len(data) // 8
    except DataError as error:
        refusal = str(error)
    assert "\n" not in refusal


def test_an_unknown_sensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="dvs128, "):
        read_aedat(tmp_path / "a.aedat", sensor="eye")


def test_aedat_4_goes_through_tonic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.aedat4"
    path.write_bytes(b"#!AER-DAT4.0\r\n" + bytes(20))
    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.io", None)
    with pytest.raises(BackendMissing, match="pip install tonic aedat"):
        read_aedat(path, sensor="davis346")
    with pytest.raises(DataError, match="names no sensor"):
        read_aedat(path)
    events = few((260, 346))
    stand_in = ModuleType("tonic.io")  # gives what tonic 1.7 gives for AEDAT 4.0
    monkeypatch.setitem(sys.modules, "tonic.io", stand_in)
    stand_in.read_aedat4 = lambda name: structured(events, "on")  # type: ignore[attr-defined]
    assert same(read_aedat(path, sensor="davis346"), events)


def structured(events: Events, polarity: str = "p") -> np.ndarray:
    array = np.empty(len(events), dtype=[("x", "i2"), ("y", "i2"), ("t", "i8"), (polarity, "?")])
    array["x"], array["y"], array["t"], array[polarity] = events.x, events.y, events.t, events.polarity
    return array


def test_recordings_of_tonic_become_events() -> None:
    events = few()
    assert same(from_tonic(structured(events), events.size), events)
    assert same(from_tonic(structured(events)[::-1], events.size), events)  # sorted by time
    with pytest.raises(DataError, match="lacks the fields t, y"):
        from_tonic(np.zeros(2, dtype=[("x", "i2"), ("p", "?")]), events.size)


def test_tonic_reads_the_same_from_our_files(tmp_path: Path) -> None:
    io = pytest.importorskip("tonic.io", reason="tonic is not installed; its readers are the independent check")
    events = Events(np.array([3, 70, 9000]), np.array([1, 33, 7]), np.array([3, 4, 30]), np.array([1, 0, 1]), (34, 34))
    path = tmp_path / "1.bin"
    path.write_bytes(nmnist_bytes(events))
    assert same(from_tonic(io.read_mnist_file(str(path), dtype=io.events_struct), (34, 34)), read_nmnist(path))
    path = tmp_path / "2.aedat"
    path.write_bytes(aedat2_bytes(few((260, 346)), chip="DAVIS346cBSI"))
    assert same(from_tonic(io.read_davis_346(str(path))[-1], (260, 346)), read_aedat(path))
    path = tmp_path / "3.aedat"
    path.write_bytes(aedat3_bytes(few()).replace(struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8), b""))
    version, start = io.read_aedat_header_from_file(str(path))[:2]
    theirs, ours = io.get_aer_events_from_file(str(path), version, start), read_aedat(path)
    assert theirs["timeStamp"].tolist() == ours.t.tolist()
    assert (theirs["address"] >> 17).tolist() == ours.x.tolist()


def mnist_dvs_file(path: Path, **changed: np.ndarray) -> list[Events]:
    """100 recordings; the k-th of a digit has k + 1 events, all at time 1000 (10 digit + k)."""
    rng = np.random.default_rng(0)
    made = []
    for digit in range(10):
        for k in range(10):
            t = np.full(k + 1, 1000 * (10 * digit + k))
            x, y, p = (rng.integers(0, high, k + 1) for high in (128, 128, 2))
            made.append(Events(t, x, y, p, (128, 128)))
    arrays = {
        "x": np.concatenate([r.x for r in made]).astype(np.uint8),
        "y": np.concatenate([r.y for r in made]).astype(np.uint8),
        "t_us": np.concatenate([r.t for r in made]).astype(np.int32),
        "p": np.concatenate([r.polarity for r in made]).astype(np.uint8),
        "offset": np.cumsum([0, *map(len, made)]),
        "label": np.repeat(np.arange(10), 10).astype(np.uint8),
    }
    np.savez(path, **(arrays | changed))
    return made


def test_mnist_dvs_recordings_are_read_back(tmp_path: Path) -> None:
    made = mnist_dvs_file(tmp_path / FILE)
    read, label = read_recordings(tmp_path / FILE)
    assert all(same(a, b) for a, b in zip(read, made, strict=True))
    assert label.tolist() == [k // 10 for k in range(100)]


def test_mnist_dvs_folds_leave_each_recording_out_once(tmp_path: Path) -> None:
    folder = tmp_path / "mnist-dvs"
    folder.mkdir()
    made = mnist_dvs_file(folder / FILE)
    seen = []
    for fold in range(10):
        split = mnist_dvs_fold(fold, folder)
        assert split.timed
        assert split.features == (20, 2, 32, 32)
        assert [split.label_counts(part) for part in split.parts] == [[8] * 10, [1] * 10, [1] * 10]
        counts = {part: (64 * x).sum((1, 2, 3, 4)) for part, (x, _) in split.parts.items()}
        assert counts["test"].tolist() == [fold + 1] * 10  # k + 1 events tell which recording it is
        assert counts["validation"].tolist() == [(fold + 1) % 10 + 1] * 10
        assert sum(float(c.sum()) for c in counts.values()) == sum(map(len, made))
        assert f"fold {fold} of 10" in split.provenance
        seen.append(split.test_x)
    assert len({sample.numpy().tobytes() for part in seen for sample in part}) == 100
    loaded = datasets.load("mnist-dvs", tmp_path)
    assert torch.equal(loaded.test_x, seen[0])
    assert torch.equal(datasets.load("mnist-dvs", tmp_path, validation=7, seed=3).test_x, seen[0])
    with pytest.raises(ParameterError, match="fold"):
        mnist_dvs_fold(10, folder)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"offset": np.array([0, 5])}, "one sequence"),
        ({"label": np.zeros(100, np.uint8)}, "10 recordings of each"),
        ({"x": np.full(550, 200, np.uint8)}, "x must lie"),
        ({"t_us": np.full(550, 200_000)}, "do not lie within"),
        ({"p": np.zeros(3, np.uint8)}, "one sequence"),
        ({"label": np.full(100, -1)}, "10 recordings of each"),
    ],
)
def test_damaged_mnist_dvs_files_are_refused(changed: dict, reason: str, tmp_path: Path) -> None:
    mnist_dvs_file(tmp_path / FILE, **changed)
    with pytest.raises(DataError, match=reason) as refusal:
        mnist_dvs_fold(0, tmp_path)
    assert str(refusal.value).startswith(str(tmp_path / FILE))


def test_the_real_mnist_dvs_keeps_all_its_events(shared: Path) -> None:
    split = datasets.load("mnist-dvs", shared / "data")
    assert sum(float((64 * x).sum()) for x, _ in split.parts.values()) == 538_009

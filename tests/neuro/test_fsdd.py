"""Spoken digits: the cochlea answers as its formulas say, recordings are divided by take, false sounds refused."""

from __future__ import annotations

import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuro import datasets
from neuro.datasets import fsdd
from neuro.datasets.cochlea import Cochlea
from neuro.datasets.fsdd import Speech, encode_speech, read_speech, read_wave, spoken_digits
from neuro.errors import DataError, ParameterError

RATE = 8000
SMALL = Cochlea(bands=12, fibres=3, bins=30)


def tone(frequency: float, seconds: float, amplitude: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


def write_wave(path: Path, sound: np.ndarray, rate: int = RATE, channels: int = 1, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(sound.astype(f"<i{width}").tobytes())


def test_centres_are_equally_spaced_on_the_erb_scale() -> None:
    ear = Cochlea(bands=20, lowest=150.0, highest=3000.0)
    assert ear.centres[[0, -1]].tolist() == pytest.approx([150.0, 3000.0])
    steps = np.diff(np.log(24.7 + 0.108 * ear.centres))
    assert steps == pytest.approx(np.full(19, steps[0]))


def test_a_tone_at_its_centre_passes_a_band_with_its_amplitude_and_others_less() -> None:
    ear = Cochlea(bands=8, lowest=300.0, highest=3000.0)
    for band, frequency in enumerate(ear.centres):
        late = ear.filtered(tone(frequency, 0.5))[RATE // 4 :]
        peaks = np.abs(late).max(0)
        # The real part also sees the tone's image at -f, weakly: 2 %.
        assert peaks[band] == pytest.approx(1.0, abs=0.02)
        assert peaks.argmax() == band
        away = np.delete(peaks, band)
        assert away.max() < 0.4


def test_the_bank_is_linear_causal_and_has_the_published_impulse_response() -> None:
    from scipy.signal import gammatone  # Slaney's independent construction, another digital form

    ear = Cochlea(bands=6, lowest=300.0, highest=2500.0)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 400))
    assert np.allclose(ear.filtered(a + 2 * b), ear.filtered(a) + 2 * ear.filtered(b), atol=1e-4)
    later = np.concatenate([np.zeros(50), a])
    assert np.allclose(ear.filtered(later)[50:], ear.filtered(a), atol=1e-6)
    impulse = np.zeros(600)
    impulse[0] = 1.0
    ours = ear.filtered(impulse)
    for band, frequency in enumerate(ear.centres):
        theirs, _ = gammatone(frequency, "fir", order=4, numtaps=600, fs=RATE)
        # Phase conventions differ by at most a sample: magnitudes of the spectra must agree.
        mine, other = (np.abs(np.fft.rfft(response, 8192)) for response in (ours[:, band], theirs))
        cosine = mine @ other / np.linalg.norm(mine) / np.linalg.norm(other)
        assert cosine > 0.995
        assert abs(mine.argmax() - other.argmax()) * RATE / 8192 < 0.03 * frequency


@given(scale=st.floats(1e-3, 1e4), seed=st.integers(0, 20))
def test_loudness_does_not_matter(scale: float, seed: int) -> None:
    sound = np.random.default_rng(seed).standard_normal(1600)
    reference = SMALL.spikes(sound)
    assert (SMALL.spikes(scale * sound) != reference).mean() < 2e-3  # rounding may move a spike over an edge
    assert np.array_equal(SMALL.spikes(2.0**7 * sound), reference)  # a power of two rounds nothing


def test_silence_is_silent_and_short_sounds_end_in_silence() -> None:
    assert not SMALL.spikes(np.zeros(4000, np.int16)).any()
    assert not SMALL.spikes(np.zeros(0, np.int16)).any()
    spikes = SMALL.spikes(tone(700, 0.1))
    assert spikes.shape == (30, 36)
    assert spikes.dtype == np.bool_
    assert spikes[:10].any(1).all()
    assert not spikes[10:].any()


def test_a_tone_fires_the_fibres_of_its_band_and_the_first_fibre_most() -> None:
    for frequency in (250.0, 800.0, 2200.0):
        counts = SMALL.spikes(tone(frequency, 0.3)).sum(0).reshape(12, 3)
        loudest = int(counts.sum(1).argmax())
        assert abs(loudest - int(np.abs(SMALL.centres - frequency).argmin())) <= 1
        assert (np.diff(counts, axis=1) <= 0).all()  # a higher floor never fires more


@given(cut=st.integers(1, 29), seed=st.integers(0, 20))
def test_what_comes_later_does_not_change_what_was_heard(cut: int, seed: int) -> None:
    sound = np.random.default_rng(seed).standard_normal(30 * 80)
    # One overall loudness: give both the same by mirroring the end, which keeps the squares.
    other = sound.copy()
    other[cut * 80 :] *= -1
    assert np.array_equal(SMALL.spikes(sound)[:cut], SMALL.spikes(other)[:cut])
    longer = replace(SMALL, bins=40)
    assert np.array_equal(longer.spikes(sound)[:30], SMALL.spikes(sound))


@given(seed=st.integers(0, 20))
def test_spikes_follow_the_equations_of_the_docstring(seed: int) -> None:
    ear = Cochlea(bands=3, fibres=2, bins=6, highest=2000.0)
    sound = np.random.default_rng(seed).standard_normal(6 * 80)
    y = ear.filtered(sound / np.sqrt(np.mean(sound**2)))
    keep = lambda tau: np.float32(np.exp(-1 / (tau * RATE)))
    k_hair, k, k_adapt, theta, one = keep(ear.tau_hair), keep(ear.tau), keep(ear.tau_adapt), np.float32(ear.theta), 1
    e = np.zeros(3, np.float32)
    v, w = np.zeros((2, 3, 2), np.float32)
    seen = np.zeros((6, 3, 2), bool)
    for n in range(len(y)):
        e = k_hair * e + (np.float32(one) - k_hair) * np.maximum(y[n], 0) ** np.float32(ear.exponent)
        v = k * v + (np.float32(one) - k) * (e[:, None] - np.linspace(*ear.floors, 2, dtype=np.float32))
        w = k_adapt * w
        z = v >= theta + w
        v, w = v - z * (theta + w), w + z * np.float32(ear.jump)
        seen[n // 80] |= z
    assert (ear.spikes(sound).reshape(6, 3, 2) != seen).mean() <= 0.03  # a rounding may move a spike over an edge


@pytest.mark.parametrize(
    "changed",
    [
        {"bands": 0},
        {"fibres": 2.0},
        {"bins": 10**9},
        {"tau": 0.0},
        {"theta": float("nan")},
        {"jump": -0.1},
        {"lowest": 0.0},
        {"highest": 4000.0},
        {"floors": (0.1, float("inf"))},
        {"bin_s": 1e-5},
    ],
)
def test_bad_parameters_are_refused(changed: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(changed))):
        Cochlea(**changed)


@pytest.mark.parametrize("sound", [np.full(5, np.nan), np.zeros((2, 5)), np.zeros(5, complex)])
def test_bad_sounds_are_refused(sound: np.ndarray) -> None:
    with pytest.raises(DataError, match="sound must be"):
        Cochlea().spikes(sound)


def folder_of_digits(root: Path) -> Path:
    """Two speakers, takes 0-11: the digit is the pitch."""
    recordings = root / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    for digit in range(10):
        for speaker, length in (("ann", 0.11), ("bob", 0.08)):
            for take in range(12):
                sound = tone(200 * 1.3**digit, length + 0.001 * take, 9000)
                write_wave(recordings / f"{digit}_{speaker}_{take}.wav", sound)
    return root / "fsdd"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_digits(tmp_path_factory.mktemp("speech"))


def test_waves_are_read_back_with_their_labels(digits: Path) -> None:
    speech = read_speech(digits)
    assert len(speech) == 240
    for k in (0, 100, 239):
        digit, speaker, take = int(speech.digit[k]), str(speech.speaker[k]), int(speech.take[k])
        wanted = tone(200 * 1.3**digit, (0.11 if speaker == "ann" else 0.08) + 0.001 * take, 9000).astype("<i2")
        assert np.array_equal(speech.audio[speech.offset[k] : speech.offset[k + 1]], wanted)


def test_takes_divide_the_recordings(digits: Path, tmp_path: Path) -> None:
    speech = read_speech(digits)
    split = spoken_digits(digits, SMALL, cache=tmp_path)
    assert split.timed
    assert split.features == (30, 36)
    assert [split.label_counts(part) for part in split.parts] == [[4] * 10, [10] * 10, [10] * 10]
    assert "takes 0-4 are test" in split.provenance
    assert "takes 5-9 validation" in split.provenance
    rows = {}
    for k in range(len(speech)):
        spikes = SMALL.spikes(speech.audio[speech.offset[k] : speech.offset[k + 1]]).astype(np.float32)
        part = "test" if speech.take[k] < 5 else "validation" if speech.take[k] < 10 else "train"
        rows.setdefault((part, int(speech.digit[k])), []).append(spikes.tobytes())
    for part, (x, y) in split.parts.items():
        found: dict = {}
        for spikes, digit in zip(x, y.tolist(), strict=True):
            found.setdefault((part, digit), []).append(spikes.numpy().tobytes())
        assert all(sorted(found[key]) == sorted(rows[key]) for key in found)


def test_one_npz_file_gives_the_same_as_the_waves(digits: Path, tmp_path: Path) -> None:
    speech = read_speech(digits)
    fields = ("audio", "offset", "digit", "speaker", "take")
    np.savez(tmp_path / fsdd.FILE, **{name: getattr(speech, name) for name in fields})
    again = read_speech(tmp_path)
    assert all(np.array_equal(getattr(again, name), getattr(speech, name)) for name in fields)


def test_load_knows_it_and_keeps_the_spikes(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuro.datasets.fsdd.user_cache", lambda: tmp_path)
    first = datasets.load("fsdd", digits.parent)
    assert first.features == (80, 128)
    (kept,) = (tmp_path / "encoded").iterdir()
    monkeypatch.setattr(Cochlea, "spikes", lambda self, sound: pytest.fail("encoded again"))
    again = datasets.load("fsdd", digits.parent)
    assert torch.equal(first.train_x, again.train_x)
    assert torch.equal(first.test_x, again.test_x)
    assert kept.stat().st_size < 200_000


def test_the_cache_knows_sounds_and_parameters_and_mends_itself(digits: Path, tmp_path: Path) -> None:
    speech = read_speech(digits)
    three = {name: getattr(speech, name)[:3] for name in ("digit", "speaker", "take")}
    few = Speech(speech.audio[: speech.offset[3]], speech.offset[:4], **three)
    spikes = encode_speech(few, SMALL, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole.replace(whole[60:70], bytes(10))):
        path.write_bytes(damaged)
        assert np.array_equal(encode_speech(few, SMALL, tmp_path), spikes)
        assert path.read_bytes() == whole
    np.savez(path, spikes=np.zeros(3, np.uint8))
    assert np.array_equal(encode_speech(few, SMALL, tmp_path), spikes)
    encode_speech(few, replace(SMALL, theta=0.05), tmp_path)
    encode_speech(replace(few, audio=few.audio[::-1].copy()), SMALL, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert np.array_equal(encode_speech(few, SMALL, blocked), spikes)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"rate": 16000}, "needs \\(1, 16, 8000\\)"),
        ({"channels": 2}, "needs \\(1, 16, 8000\\)"),
        ({"width": 4}, "needs \\(1, 16, 8000\\)"),
    ],
)
def test_other_waves_are_refused(form: dict, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "0_ann_0.wav"
    write_wave(path, tone(300, 0.1, 100), **form)
    with pytest.raises(DataError, match=reason):
        read_wave(path)


def test_damaged_waves_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "0_ann_0.wav"
    write_wave(path, tone(300, 0.1, 100))
    good = path.read_bytes()
    assert len(read_wave(path)) == 800
    huge = good[:40] + (2**31 - 2).to_bytes(4, "little") + good[44:]
    for data in (b"", b"RIFF", good[:30], good[:200], b"PK" + good[2:], huge, good[:40] + bytes(4)):
        path.write_bytes(data)
        with pytest.raises(DataError) as refusal:
            read_wave(path)
        assert str(refusal.value).startswith(str(path))
        assert "\n" not in str(refusal.value)
    write_wave(path, np.zeros(31 * RATE))
    with pytest.raises(DataError, match="248,000 samples"):
        read_wave(path)


@given(data=st.binary(max_size=120), at=st.integers(0, 60))
def test_noise_in_a_wave_is_read_or_refused(data: bytes, at: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("noise") / "0_ann_0.wav"
    write_wave(path, tone(300, 0.02, 100))
    good = path.read_bytes()
    path.write_bytes(good[:at] + data + good[at + len(data) :])
    refusal = ""
    try:
        assert read_wave(path).dtype == np.int16
    except DataError as error:
        refusal = str(error)
    assert "\n" not in refusal


def test_folders_that_are_no_data_set_are_refused(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    with pytest.raises(DataError, match="cannot be read"):
        read_speech(tmp_path)
    recordings.mkdir()
    with pytest.raises(DataError, match=r"no \.wav"):
        read_speech(tmp_path)
    write_wave(recordings / "0_ann_0.wav", tone(300, 0.1, 100))
    with pytest.raises(DataError, match="no takes 5-9"):
        spoken_digits(tmp_path, SMALL, cache=tmp_path)
    write_wave(recordings / "hello.wav", tone(300, 0.1, 100))
    with pytest.raises(DataError, match="is not named"):
        read_speech(tmp_path)


def test_recordings_that_do_not_fit_together_are_refused(digits: Path) -> None:
    good = read_speech(digits)
    for changed in (
        {"offset": good.offset[::-1]},
        {"offset": good.offset + 1},
        {"audio": good.audio.astype(np.int32)},
        {"take": good.take[1:]},
        {"digit": good.digit.astype(float)},
        {"offset": np.array([0, len(good.audio)])},
    ):
        with pytest.raises(DataError, match="one sequence"):
            replace(good, **changed)
    with pytest.raises(DataError, match="no single digit"):
        Speech(np.zeros(31 * RATE, np.int16), np.array([0, 31 * RATE]), *(np.zeros(1, int) for _ in range(3)))


def test_the_real_recordings_have_the_published_sizes(shared: Path) -> None:
    speech = read_speech(shared / "data" / "fsdd")
    assert len(speech) == 3000
    assert set(speech.take.tolist()) == set(range(50))
    assert len(set(speech.speaker.tolist())) == 6

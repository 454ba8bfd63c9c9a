"""Free Spoken Digit Dataset (Z. Jackson et al., CC BY-SA 4.0): digits 0-9 spoken by six people, as spikes.

3,000 recordings of 8 kHz, 16 bit, one channel: 6 speakers x 10 digits x 50 takes. The authors' split: takes 0-4 are
test. Ours within the rest: takes 5-9 are validation, 10-49 train. Sound becomes spikes in `Cochlea`, our own encoding.
"""

from __future__ import annotations

import hashlib
import re
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuro.atomic import replacing
from neuro.datasets.cochlea import VERSION, Cochlea
from neuro.datasets.guard import named, reading
from neuro.datasets.npz import read_npz
from neuro.datasets.source import user_cache
from neuro.datasets.split import Arrays, Pair, Split, assemble
from neuro.errors import DataError, FileError
from neuro.progress import track

FILE = "fsdd_8khz_int16.npz"
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^\W_]+)_(?P<take>\d{1,6})\.wav")
RATE = 8000
DIGITS = tuple("0123456789")
TEST_TAKES, VALIDATION_TAKES = range(0, 5), range(5, 10)
#: Longer recordings are none of single digits; the longest of the data set has 2.3 s.
MOST_SECONDS = 30


@dataclass(frozen=True, eq=False)
class Speech:
    """Recordings laid end to end: recording k is audio[offset[k]:offset[k + 1]], int16 at 8 kHz.

    digit, take: int64 (N,); speaker: str (N,).
    """

    audio: np.ndarray
    offset: np.ndarray
    digit: np.ndarray
    speaker: np.ndarray
    take: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.offset) - 1 if self.offset.ndim == 1 and self.offset.dtype.kind in "iu" else -1
        if (
            count < 1
            or self.audio.dtype != np.int16
            or self.audio.ndim != 1
            or self.offset[0] != 0
            or self.offset[-1] != len(self.audio)
            or np.any(self.offset[1:] <= self.offset[:-1])
            or any(array.shape != (count,) for array in (self.digit, self.speaker, self.take))
            or any(array.dtype.kind not in "iu" for array in (self.digit, self.take))
        ):
            raise DataError("audio, offset, digit, speaker and take do not describe one sequence of recordings")
        longest = int(np.diff(self.offset).max())
        if longest > MOST_SECONDS * RATE:
            raise DataError(f"a recording of {longest / RATE:,.1f} s is no single digit; {MOST_SECONDS} s are allowed")

    def __len__(self) -> int:
        return len(self.digit)


def holds_fsdd(folder: Path) -> bool:
    return (folder / FILE).is_file() or (folder / "recordings").is_dir()


def read_speech(folder: str | Path) -> Speech:
    """All recordings below `folder`: one .npz file, or recordings/{digit}_{speaker}_{take}.wav as published.

    DataError where one of them is damaged, not 8 kHz mono of 16 bits, or longer than 30 s. 21 MB.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        return _read_waves(folder / "recordings")
    data = read_npz(folder / FILE, ("audio", "offset", "digit", "speaker", "take"))
    with named(folder / FILE):
        return Speech(**data)


def _read_waves(folder: Path) -> Speech:
    with reading(folder):
        files = sorted((path.name, path) for path in folder.iterdir() if path.suffix.lower() == ".wav")
    if not files:
        raise DataError(f"{folder}: holds no .wav files; put those of the Free Spoken Digit Dataset there")
    labels, sounds = [], []
    for name, path in files:
        label = NAME.fullmatch(name)
        if label is None:
            raise DataError(f"{path}: is not named {{digit}}_{{speaker}}_{{take}}.wav; rename or remove it")
        labels.append(label)
        sounds.append(read_wave(path))
    lengths = [len(sound) for sound in sounds]
    return Speech(
        audio=np.concatenate(sounds),
        offset=np.concatenate([[0], np.cumsum(lengths)]),
        digit=np.array([int(label["digit"]) for label in labels]),
        speaker=np.array([label["speaker"] for label in labels]),
        take=np.array([int(label["take"]) for label in labels]),
    )


def read_wave(path: Path) -> np.ndarray:
    """int16 (samples,) of a .wav file of 8 kHz, one channel, 16 bits. DataError for any other, or a damaged one."""
    try:
        with reading(path), wave.open(str(path), "rb") as file:
            form = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            if form != (1, 16, RATE):
                raise DataError(f"{path}: has (channels, bits, Hz) {form}, needs (1, 16, {RATE}); convert it")
            declared = file.getnframes()
            if not 1 <= declared <= MOST_SECONDS * RATE:
                raise DataError(f"{path}: claims {declared:,} samples, needs 1 to {MOST_SECONDS * RATE:,}")
            data = file.readframes(declared)
    except wave.Error as error:
        raise DataError(f"{path}: cannot be read as .wav ({error}); get an intact copy") from error
    if len(data) != 2 * declared:
        raise DataError(f"{path}: claims {declared:,} samples but stores {len(data) // 2:,}; get an intact copy")
    return np.frombuffer(data, "<i2").astype(np.int16)


def encode_speech(speech: Speech, cochlea: Cochlea, cache: str | Path | None = None) -> np.ndarray:
    """Spikes of every recording, bool (N, cochlea.bins, cochlea.size).

    Kept in `cache` (None: a folder of the user's cache) under a fingerprint of sounds, parameters and version of the
    formulas; a damaged file there is made anew, and where none can be written the result is the same.
    """
    folder = user_cache() / "encoded" if cache is None else Path(cache)
    path = folder / f"fsdd-{_fingerprint(speech, cochlea)}.npz"
    shape = (len(speech), cochlea.bins, cochlea.size)
    kept = _kept(path, shape)
    if kept is not None:
        return kept
    spikes = np.empty(shape, dtype=bool)
    for k in track(range(len(speech)), len(speech), "sound into spikes", wanted=True):
        spikes[k] = cochlea.spikes(speech.audio[speech.offset[k] : speech.offset[k + 1]])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as file:
            np.savez_compressed(file, spikes=np.packbits(spikes))
    except (OSError, FileError):
        pass  # a cache saves time, it is no part of the result
    return spikes


def _fingerprint(speech: Speech, cochlea: Cochlea) -> str:
    digest = hashlib.sha256(f"{VERSION} {cochlea!r}".encode())
    digest.update(np.ascontiguousarray(speech.offset, "<i8").tobytes())
    digest.update(np.ascontiguousarray(speech.audio, "<i2").tobytes())
    return digest.hexdigest()[:24]


def _kept(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        packed = read_npz(path, ("spikes",))["spikes"]
    except DataError:
        return None
    wanted = shape[0] * shape[1] * shape[2]
    if packed.dtype != np.uint8 or packed.shape != (-(-wanted // 8),):
        return None
    return np.unpackbits(packed, count=wanted).reshape(shape).astype(bool)


def read_fsdd(folder: Path, cochlea: Cochlea | None = None, cache: str | Path | None = None) -> Arrays:
    """Spikes, bool (N, bins, fibres): test takes 0-4 (300), validation takes 5-9 (300), train takes 10-49 (2,400)."""
    ear = Cochlea() if cochlea is None else cochlea
    speech = read_speech(folder)
    test, validation = np.isin(speech.take, TEST_TAKES), np.isin(speech.take, VALIDATION_TAKES)
    parts = {"takes 0-4 (test)": test, "takes 5-9 (validation)": validation, "later takes": ~test & ~validation}
    absent = [name for name, chosen in parts.items() if not chosen.any()]
    if absent:
        raise DataError(f"{folder}: has no {', no '.join(absent)}; get the whole Free Spoken Digit Dataset")
    x, digit = encode_speech(speech, ear, cache), speech.digit.astype(np.int64)

    def pair(chosen: np.ndarray) -> Pair:
        return x[chosen], digit[chosen]

    provenance = (
        f"Free Spoken Digit Dataset (Jackson et al., CC BY-SA 4.0) in {folder}; official split, takes 0-4 are test; "
        f"takes 5-9 validation; our cochlea version {VERSION}: {ear.bands} bands x {ear.fibres} fibres, "
        f"{ear.bins} steps of {1000 * ear.bin_s:g} ms"
    )
    return Arrays(pair(~test & ~validation), pair(test), provenance, DIGITS, validation=pair(validation), timed=True)


def spoken_digits(folder: str | Path, cochlea: Cochlea | None = None, cache: str | Path | None = None) -> Split:
    """The data set through a cochlea of one's own; `load("fsdd")` is the one with `Cochlea()`.

    x float32 (N, bins, fibres), 0 or 1; about 100 MB for 3,000 recordings. `folder`, `cache`: as in `read_speech` and
    `encode_speech`.
    """
    return assemble("fsdd", read_fsdd(Path(folder), cochlea, cache), None, 0)

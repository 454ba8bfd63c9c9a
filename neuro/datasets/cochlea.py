"""A small filter-bank cochlea: sound into spikes. This encoding is our own; its parts are classical.

Every band has a gammatone filter, a hair cell and a few nerve fibres:

1. Loudness. The recording is scaled to a root mean square of 1: a far speaker is as loud as a near one.
2. Gammatone filter of order 4 at centre frequency f [Hz], in the complex all-pole form of Hohmann (2002, Acta Acustica
   88, 433) [recalled]: y[n] = s[n] + a y[n-1] four times over, a = exp(2 pi (i f - b) / rate), b = 1.019 ERB(f), with
   the gain 2 (1 - |a|)^4 that passes a tone at f with its amplitude. ERB(f) = 24.7 + 0.108 f is the equivalent
   rectangular bandwidth, and the f are equally spaced in E(f) = ln(1 + 0.108 f / 24.7) (Glasberg and Moore 1990)
   [recalled].
3. Hair cell. Half-wave rectification, compression by a power, and a leaky integrator of time constant `tau_hair`:
   de/dt = (max(Re y, 0)^exponent - e) / tau_hair.
4. Fibres. Leaky integrate-and-fire neurons, tau dv/dt = e - floor - v, with an adaptive threshold: at v >= theta + w a
   spike, v -= theta + w, w += jump; tau_adapt dw/dt = -w. The floors of a band's fibres are spread evenly over
   `floors`, so a quiet sound drives the first fibre and a loud one all of them, as with nerve fibres of high and low
   spontaneous rate (Liberman 1978) [recalled]. Exact decay from sample to sample.
5. Steps. Time is cut into `bins` steps of `bin_s` seconds: 1 where a fibre has spiked at least once. Shorter recordings
   end in silence, longer ones are cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from neuro.errors import DataError, ParameterError

ORDER = 4
#: Of the formulas above: change it whenever the same parameters give other spikes.
VERSION = 1


@dataclass(frozen=True)
class Cochlea:
    """Parameters of the encoding: `rate` of the sound, `lowest` and `highest` centre in Hz; times in seconds.

    floors, theta, jump are in units of the compressed sound, of root mean square 1 before the filters. ParameterError
    outside their domain. One recording takes 8 bytes x samples x bands; one second of sound about 5 ms.
    """

    rate: int = 8000
    bands: int = 32
    lowest: float = 100.0
    highest: float = 3700.0
    exponent: float = 0.4
    tau_hair: float = 0.008
    fibres: int = 4
    floors: tuple[float, float] = (0.05, 0.8)
    tau: float = 0.010
    theta: float = 0.03
    jump: float = 0.02
    tau_adapt: float = 0.05
    bin_s: float = 0.010
    bins: int = 80

    def __post_init__(self) -> None:
        counts = {"rate": 10**6, "bands": 512, "fibres": 64, "bins": 10**5}
        for name, most in counts.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ParameterError(f"Cochlea: {name} must be a whole number in 1..{most:,}, got {value!r}")
        for name in ("exponent", "tau_hair", "tau", "theta", "tau_adapt", "bin_s"):
            value = getattr(self, name)
            if not (value > 0.0 and math.isfinite(value)):
                raise ParameterError(f"Cochlea: {name} must be > 0 and finite, got {value}")
        if not (self.jump >= 0.0 and math.isfinite(self.jump)):
            raise ParameterError(f"Cochlea: jump must be >= 0 and finite, got {self.jump}")
        if not 0.0 < self.lowest <= self.highest < self.rate / 2:
            raise ParameterError(
                f"Cochlea: needs 0 < lowest <= highest < rate / 2 = {self.rate / 2:g} Hz, "
                f"got {self.lowest} and {self.highest}"
            )
        if not (len(self.floors) == 2 and all(math.isfinite(floor) for floor in self.floors)):
            raise ParameterError(f"Cochlea: floors must be two finite numbers, got {self.floors}")
        if round(self.bin_s * self.rate) < 1:
            raise ParameterError(f"Cochlea: bin_s must be at least one sample of {1 / self.rate:g} s, got {self.bin_s}")

    @property
    def size(self) -> int:
        """Nerve fibres in all: bands x fibres, the fibres of a band side by side."""
        return self.bands * self.fibres

    @property
    def centres(self) -> np.ndarray:
        """Centre frequencies in Hz, float64 (bands,)."""
        low, high = (math.log1p(0.108 * f / 24.7) for f in (self.lowest, self.highest))
        return np.expm1(np.linspace(low, high, self.bands)) * 24.7 / 0.108

    def filtered(self, sound: np.ndarray) -> np.ndarray:
        """The gammatone bank's real output, float32 (samples, bands), for sound (samples,)."""
        width = 1.019 * (24.7 + 0.108 * self.centres)
        pole = np.exp(2 * math.pi * (1j * self.centres - width) / self.rate)
        gain = 2 * (1 - np.abs(pole)) ** ORDER
        out = np.empty((len(sound), self.bands), np.float32)
        _gammatone(sound.astype("f4"), pole.real.astype("f4"), pole.imag.astype("f4"), gain.astype("f4"), out)
        return out

    def spikes(self, sound: np.ndarray) -> np.ndarray:
        """bool (bins, size) of sound (samples,), whole numbers or floats of any scale. DataError if not finite."""
        if sound.ndim != 1 or sound.dtype.kind not in "iuf":
            raise DataError(f"sound must be real numbers (samples,), got {sound.dtype} {sound.shape}")
        wave = sound.astype(np.float64)
        if not np.isfinite(wave).all():
            raise DataError("sound must be finite")
        loudness = math.sqrt(np.mean(wave**2)) if len(wave) else 0.0
        per_bin = round(self.bin_s * self.rate)
        heard = self.filtered((wave / loudness if loudness > 0 else wave)[: self.bins * per_bin])
        envelope = np.maximum(heard, 0.0) ** np.float32(self.exponent)
        _integrate(envelope, self._decay(self.tau_hair))
        out = np.zeros((self.bins, self.bands, self.fibres), np.bool_)
        floors = np.linspace(*self.floors, self.fibres, dtype=np.float32)
        leaks = self._decay(self.tau), self._decay(self.tau_adapt)
        _fire(envelope, floors, *leaks, np.float32(self.theta), np.float32(self.jump), per_bin, out)
        return out.reshape(self.bins, self.size)

    def _decay(self, tau: float) -> np.float32:
        return np.float32(math.exp(-1.0 / (tau * self.rate)))


# No fast mathematics below: the order of additions stays as written, and bands become vectors all the same.


@numba.njit(cache=True, error_model="numpy")
def _gammatone(wave, real, imaginary, gain, out):
    bands = len(gain)
    re = np.zeros((ORDER, bands), np.float32)
    im = np.zeros((ORDER, bands), np.float32)
    for n in range(len(wave)):
        for c in range(bands):
            x, y = wave[n] * gain[c], np.float32(0)
            for k in range(ORDER):
                u, v = re[k, c], im[k, c]
                x, y = x + (real[c] * u - imaginary[c] * v), y + (real[c] * v + imaginary[c] * u)
                re[k, c], im[k, c] = x, y
            out[n, c] = x


@numba.njit(cache=True, error_model="numpy")
def _integrate(signal, keep):
    take = np.float32(1) - keep
    e = np.zeros(signal.shape[1], np.float32)
    for n in range(len(signal)):
        for c in range(len(e)):
            e[c] = keep * e[c] + take * signal[n, c]
            signal[n, c] = e[c]


@numba.njit(cache=True, error_model="numpy")
def _fire(envelope, floors, keep, keep_adapt, theta, jump, per_bin, out):
    bands, zero = envelope.shape[1], np.float32(0)
    take = np.float32(1) - keep
    v = np.zeros((len(floors), bands), np.float32)
    w = np.zeros((len(floors), bands), np.float32)
    z = np.zeros((len(floors), bands), np.bool_)
    for n in range(len(envelope)):
        for k in range(len(floors)):
            for c in range(bands):
                level = keep * v[k, c] + take * (envelope[n, c] - floors[k])
                grown = keep_adapt * w[k, c]
                spike = level >= theta + grown
                v[k, c] = level - (theta + grown if spike else zero)
                w[k, c] = grown + (jump if spike else zero)
                z[k, c] |= spike
        if (n + 1) % per_bin == 0 or n + 1 == len(envelope):
            out[n // per_bin] = z.T
            z[:] = False

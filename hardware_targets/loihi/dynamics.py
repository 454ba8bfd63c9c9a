"""One tick of every population in plain NumPy: the meaning of its numbers, restated for speed in `neuron_kernels`.

Each function follows one fixed-point model of lava-nc 0.10.0 to the bit, 32-bit wrap-around included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from hardware_targets.loihi.connections import IntArray
from hardware_targets.loihi.graded import Delta, GradedVector, Product, Sigma, SigmaDelta
from hardware_targets.loihi.populations import DECAY_UNITY, STATE_SHIFT, VOLTAGE_LIMIT, Neurons, Population
from hardware_targets.loihi.resonators import ROTATION_SHIFT, PhaseVector, Resonator

State = Mapping[str, IntArray]


def decay(state: IntArray, keep: int) -> NDArray[np.int64]:
    """state keep / 4096, rounded toward zero. The product needs more than 32 bits."""
    return toward_zero(state.astype(np.int64) * keep, 12)


def toward_zero(product: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """product / 2**bits, rounded toward zero."""
    return np.sign(product) * (np.abs(product) >> bits)


def wrap24_once(u: IntArray) -> IntArray:
    """Lava's overflow of the current: one 2**24 back beyond +2**23, one 2**24 up at -2**23 and below; never twice."""
    return np.where(u > 2**23, u - 2**24, np.where(u <= -(2**23), u + 2**24, u)).astype(np.int32)


@singledispatch
def step(population: Neurons, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    """One tick of `population`: its events and its new state, every array (batch, size) int32.

    arriving: what its ports receive. tick: counted from 0. Equations in the docstring of the population.
    """
    raise NotImplementedError(type(population).__name__)


@step.register
def _(population: Population, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    u, v, (a,) = state["u"], state["v"], arriving
    if population.reset_interval and (tick + 1 - population.reset_offset) % population.reset_interval == 0:
        u, v = np.zeros_like(u), np.zeros_like(v)
    u = wrap24_once(decay(u, DECAY_UNITY - population.du - 1).astype(np.int32) + np.left_shift(a, STATE_SHIFT))
    driven = decay(v, DECAY_UNITY - population.dv).astype(np.int32) + u + population.bias
    driven = np.clip(driven, -VOLTAGE_LIMIT, VOLTAGE_LIMIT)
    waiting = state.get("refractory", np.zeros_like(u))
    v = np.where(waiting > 0, v, driven)
    above, below = v > population.threshold, v < population.low_threshold
    spikes = above.astype(np.int32) - below
    passed = np.where(above, population.threshold, population.low_threshold)
    v = np.where(spikes != 0, v - passed if population.reset == "subtract" else 0, v)
    after: dict[str, IntArray] = {"u": u, "v": v}
    if population.refractory:
        after["refractory"] = np.where(spikes != 0, population.refractory, np.maximum(waiting - 1, 0)).astype(np.int32)
    return spikes, after


@step.register
def _(population: Sigma, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    sigma = state["sigma"] + arriving[0]
    return sigma, {"sigma": sigma}


@step.register
def _(population: Delta, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    return _send_change(population, state, np.left_shift(arriving[0], population.scale))


@step.register
def _(population: SigmaDelta, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    sigma = state["sigma"] + arriving[0]
    x = sigma + population.raised_bias
    sent, after = _send_change(population, state, np.maximum(x, 0) if population.activation == "relu" else x)
    return sent, {"sigma": sigma, **after}


def _send_change(population: Delta, state: State, x: IntArray) -> tuple[IntArray, State]:
    delta, error = x - state["act"] + state["residue"], state["error"]
    if population.cum_error:
        error = error + delta
        sent = np.where(np.abs(error) >= population.threshold, delta, 0)
        error = np.where(np.abs(sent) > 0, 0, error)
    else:
        sent = np.where(np.abs(delta) >= population.threshold, delta, 0)
    return np.right_shift(sent, population.state_exp), {"act": x, "residue": delta - sent, "error": error}


@step.register
def _(population: GradedVector, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    (a,) = arriving
    return a * ((a if population.rectify else np.abs(a)) > population.vth), {}


@step.register
def _(population: Product, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    product = np.right_shift(arriving[0] * arriving[1], population.exp)
    return product * (np.abs(product) > population.vth), {}


@step.register
def _(population: Resonator, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    real, imag = state["real"].astype(np.int64), state["imag"].astype(np.int64)
    a_real, a_imag = (np.left_shift(a, population.state_exp) for a in arriving)
    sine, cosine, bits = population.sine, population.cosine, population.decay_bits
    turned_real = toward_zero(cosine * real, bits) - toward_zero(sine * imag, bits) + a_real
    turned_imag = toward_zero(sine * real, bits) + toward_zero(cosine * imag, bits) + a_imag
    turned_real, turned_imag = (np.clip(x, -VOLTAGE_LIMIT, VOLTAGE_LIMIT) for x in (turned_real, turned_imag))
    if population.fires == "phase":
        spikes = (turned_real >= population.threshold) & (turned_imag >= 0) & (imag < 0)
    else:
        spikes = turned_imag >= population.threshold
        turned_real, turned_imag = (
            np.where(spikes, 0, turned_real),
            np.where(spikes, population.threshold - 1, turned_imag),
        )
    return spikes.astype(np.int32), {"real": turned_real.astype(np.int32), "imag": turned_imag.astype(np.int32)}


@step.register
def _(population: PhaseVector, tick: int, state: State, arriving: Sequence[IntArray]) -> tuple[IntArray, State]:
    u, v, sine, cosine = state["u"], state["v"], population.sine, population.cosine

    def turned(product: IntArray) -> IntArray:
        return np.right_shift(product, ROTATION_SHIFT)

    new_u = turned(u * cosine) - turned(v * sine) + arriving[0]
    new_v = turned(v * cosine) + turned(u * sine) + arriving[1]
    return new_u * ((new_u > population.vth) & (new_v >= 0) & (v < 0)), {"u": new_u, "v": new_v}


__all__: Sequence[str] = ("State", "decay", "step", "toward_zero", "wrap24_once")

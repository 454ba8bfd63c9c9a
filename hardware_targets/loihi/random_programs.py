"""Random Loihi programs for parity tests: every connection kind, format and overflow that Lava's models allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware_targets.loihi.graded import Delta, GradedVector, Product, Sigma, SigmaDelta
from hardware_targets.loihi.program import Connection, Conv2d, Dense, Input, Neurons, Population, Program, Sparse
from hardware_targets.loihi.resonators import PhaseVector, Resonator, phase_vector_decays, resonator_decays

STEPS = 16


def random_program(rng: np.random.Generator, lava_only: bool = False) -> tuple[Program, dict[str, NDArray[np.int32]]]:
    """A program of one to three populations in a chain, with shortcuts, loops and delays, and inputs for 1-3 samples.

    lava_only: what Lava has a process of its own for: hard reset, one threshold and one decay per population, no start
    tick, no refractory period, one sample, convolution exponents >= 0.
    """
    image = (int(rng.integers(1, 4)) * 2, int(rng.integers(3, 7)), int(rng.integers(3, 7)))
    inputs = [Input("image", int(np.prod(image)))]
    sizes = {"image": inputs[0].size}
    populations: list[Neurons] = []
    connections: list[Connection] = []
    for number in range(int(rng.integers(1, 4))):
        name, source = f"layer{number}", list(sizes)[-1]
        if number == 0 and rng.random() < 0.5:
            connection: Connection = random_convolution(rng, source, name, image, lava_only)
        else:
            connection = random_matrix(rng, source, name, sizes[source], int(rng.integers(2, 20)))
        sizes[name] = connection.target_size
        populations.append(random_population(rng, name, sizes[name], lava_only))
        connections.append(connection)
        if len(populations[-1].ports) == 2:
            connections.append(random_matrix(rng, source, name, sizes[source], sizes[name], f"{name}, port 1", port=1))
    if rng.random() < 0.4:
        connections.append(random_matrix(rng, "image", name, sizes["image"], sizes[name], "shortcut"))
    if rng.random() < 0.4:
        connections.append(random_matrix(rng, name, name, sizes[name], sizes[name], "recurrent"))
    batch = 1 if lava_only else int(rng.integers(1, 4))
    spikes = rng.random((int(rng.integers(1, STEPS + 1)), batch, sizes["image"])) < pick(rng, [0.02, 0.2, 0.6])
    payload = rng.integers(-9, 100, spikes.shape) if rng.random() < 0.5 else 1
    return Program(tuple(inputs), tuple(populations), tuple(connections)), {
        "image": (spikes * payload).astype(np.int32)
    }


def random_population(rng: np.random.Generator, name: str, size: int, lava_only: bool) -> Neurons:
    """LIF neurons in every second case, one of the others in the rest."""
    start = 0 if lava_only else int(pick(rng, [0, 0, 3]))
    if rng.random() < 0.5:
        return random_lif(rng, name, size, start, lava_only)
    vth, each = int(pick(rng, [0, rng.integers(0, 300), rng.integers(0, 20_000)])), 1 if lava_only else size
    change: dict[str, Any] = {
        "vth": vth,
        "spike_exp": int(rng.integers(0, 8)) * int(rng.integers(0, 2)),
        "state_exp": int(rng.integers(0, 8)) * int(rng.integers(0, 2)),
        "cum_error": bool(rng.integers(0, 2)),
        "start": start,
    }
    kind = pick(rng, [Sigma, Delta, SigmaDelta, SigmaDelta, GradedVector, Product, Resonator, Resonator, PhaseVector])
    if kind is Sigma:
        return Sigma(name, size, start=start)
    if kind is Delta:
        return Delta(name, size, **change)
    if kind is SigmaDelta:
        activation, bias = pick(rng, ["relu", "unit"]), rng.integers(-500, 500, size)
        return SigmaDelta(name, size, bias=bias, activation=activation, **change)
    if kind is GradedVector:
        return GradedVector(name, size, vth, bool(rng.integers(0, 2)), start=start)
    if kind is Product:
        return Product(name, size, vth, int(rng.integers(0, 12)), start=start)
    if kind is Resonator:
        bits = int(rng.integers(1, 13))
        cosine, sine = resonator_decays(rng.uniform(2, 30, each), rng.uniform(0, 0.4, each), bits)
        fires, state_exp = pick(rng, ["phase", "threshold"]), int(rng.integers(0, 7))
        return Resonator(
            name,
            size,
            cosine=cosine,
            sine=sine,
            decay_bits=bits,
            vth=vth,
            state_exp=state_exp,
            fires=fires,
            start=start,
        )
    cosine, sine = phase_vector_decays(rng.uniform(5, 400, size), rng.uniform(0.001, 0.5, size))
    return PhaseVector(name, size, cosine=cosine, sine=sine, vth=vth, start=start)


def random_lif(rng: np.random.Generator, name: str, size: int, start: int, lava_only: bool) -> Population:
    each = None if lava_only else pick(rng, [None, size])
    ternary = rng.random() < 0.2
    lowest = {"vth_low": -rng.integers(0, pick(rng, [30, 500, 2**17]), each)} if ternary else {}
    extras: dict[str, int] = {}
    if rng.random() < 0.2 and not (lava_only and ternary):
        extras |= {"reset_interval": int(rng.integers(1, 9)), "reset_offset": int(rng.integers(0, 9))}
    if rng.random() < 0.2 and not lava_only:
        extras["refractory"] = int(rng.integers(1, 5))
    return Population(
        name,
        size,
        vth=rng.integers(0, pick(rng, [30, 500, 2**17]), each),
        du=int(pick(rng, [0, 4095, rng.integers(0, 4096)])),
        dv=int(pick(rng, [0, 4095, rng.integers(0, 4096)])),
        bias_mant=rng.integers(-4096, 4096, size) * (rng.random(size) < pick(rng, [0, 0.5])),
        bias_exp=rng.integers(-2, 8, size),
        reset="zero" if lava_only else pick(rng, ["zero", "subtract", "none"]),
        v0=rng.integers(-5000, 5000, size) * int(rng.integers(0, 2)),
        u0=rng.integers(-5000, 5000, size) * int(rng.integers(0, 2)),
        start=start,
        **lowest,
        **extras,
    )


def pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """One of `options`, whatever their types."""
    return options[int(rng.integers(len(options)))]


def random_format(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "weight_exp": int(pick(rng, [0, 7, rng.integers(-8, 8)])),
        "num_weight_bits": int(pick(rng, [8, 8, rng.integers(1, 9)])),
        "num_message_bits": int(pick(rng, [0, 0, 8, 24])),
        "sign_mode": pick(rng, [None, None, None, "mixed", "excitatory", "inhibitory"]),
    }


def random_weights(rng: np.random.Generator, shape: tuple[int, ...], beyond: int = 0) -> NDArray[np.int64]:
    low, high = (-256, 255) if rng.random() < 0.6 else ((0, 255) if rng.random() < 0.5 else (-255, 0))
    return rng.integers(low - beyond, high + 1 + beyond, shape)


def random_matrix(
    rng: np.random.Generator, source: str, target: str, sources: int, targets: int, name: str = "", port: int = 0
) -> Dense | Sparse:
    ends: dict[str, Any] = {"source": source, "target": target, "name": name, "port": port}
    beyond = int(pick(rng, [0, 0, 60]))
    if rng.random() < 0.3:
        places = rng.choice(sources * targets, rng.integers(1, sources * targets + 1), replace=False)
        delays = rng.integers(0, 9, places.size) if rng.random() < 0.3 else None
        return Sparse(
            weights=random_weights(rng, places.shape, beyond),
            rows=places // sources,
            columns=places % sources,
            shape=(targets, sources),
            delays=delays,
            **random_format(rng),
            **ends,
        )
    delays = rng.integers(0, pick(rng, [1, 9, 64]), (targets, sources)) if rng.random() < 0.4 else None
    return Dense(weights=random_weights(rng, (targets, sources), beyond), delays=delays, **random_format(rng), **ends)


def random_convolution(
    rng: np.random.Generator, source: str, target: str, image: tuple[int, int, int], lava_only: bool
) -> Conv2d:
    channels = image[0]
    groups = int(pick(rng, [1, 2, channels]))
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    options = random_format(rng)
    if lava_only:
        options["weight_exp"] = max(0, options["weight_exp"])
    return Conv2d(
        source=source,
        target=target,
        weights=random_weights(rng, (groups * int(rng.integers(1, 4)), channels // groups, *kernel)),
        input_shape=image,
        stride=(int(rng.integers(1, 3)), int(rng.integers(1, 4))),
        padding=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        dilation=(int(rng.integers(1, 3)) if kernel[0] > 1 else 1, int(rng.integers(1, 3)) if kernel[1] > 1 else 1),
        groups=groups,
        **options,
    )

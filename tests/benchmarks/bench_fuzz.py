"""Seeded mutants of every format that is read: what is refused, what is read, and what it costs.

python tests/benchmarks/bench_fuzz.py --mutants 5000
python tests/benchmarks/bench_fuzz.py --mutants 500 --only onnx,nir

Every format runs in a process of its own, so that a crash is seen and its memory is its own. Exit code 1 where a
process died or hung, or an exception was not one of ours.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "converters" / "read")]

COLUMNS = ("mutants", "refused", "read", "slowest s", "peak MB", "untyped")
MOST_SECONDS = 3600


def mutant(whole: bytes, draw: random.Random) -> bytes:
    """Flipped, cut out, doubled or truncated bytes."""
    found = bytearray(whole)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place, way = draw.randrange(len(found)), draw.randrange(8)
        if way == 0:
            del found[place:]
        elif way == 1:
            del found[place : place + draw.randrange(1, 9)]
        elif way == 2:
            found[place:place] = found[place : place + draw.randrange(1, 40)]
        else:
            found[place] = found[place] ^ draw.choice((1, 2, 128, 255)) if way < 6 else draw.randrange(256)
        if not found:
            return b"\x00"
    return bytes(found)


def ours(folder: Path) -> list[bytes]:
    import torch

    import neuro

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32, 3))
    neuro.save(neuro.trace(net, torch.zeros(1, 1, 6, 6)), folder / "a.h5")
    return [(folder / "a.h5").read_bytes()]


def keras(folder: Path, ending: str) -> list[bytes]:
    import test_keras_hostile as keras_tests
    from keras_fixtures import write_h5, write_keras

    write = write_h5 if ending == "h5" else write_keras
    return [write(folder / f"a.{ending}", keras_tests.network(), keras_tests.SHAPE).read_bytes()]


def onnx(folder: Path) -> list[bytes]:
    from test_onnx_hostile import samples

    return [model.SerializeToString() for model in samples()]


def nir(folder: Path) -> list[bytes]:
    from test_nir_hostile import small

    from converters.read.nir_file import write_raw

    write_raw(folder / "a.nir", small())
    return [(folder / "a.nir").read_bytes()]


def tflite(folder: Path) -> list[bytes]:
    from test_from_tflite import example

    return [example()[0].write(folder / "a.tflite").read_bytes()]


def pt2(folder: Path) -> list[bytes]:
    import torch

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3), torch.nn.ReLU()).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(2, 3, 4),)), folder / "a.pt2")
    return [(folder / "a.pt2").read_bytes()]


def weights(folder: Path, ending: str) -> list[bytes]:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    tensors = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.zeros(3), "count": torch.tensor(7)}
    path = folder / f"a.{ending}"
    if ending == "safetensors":
        save_file(tensors, path)
    elif ending == "npz":
        np.savez(path, **{name: value.numpy() for name, value in tensors.items()})  # type: ignore[arg-type]
    else:
        torch.save(tensors, path)
    return [path.read_bytes()]


FORMATS: dict[str, tuple[str, Callable[[Path], list[bytes]]]] = {
    "ours": ("h5", ours),
    "onnx": ("onnx", onnx),
    "keras-h5": ("h5", lambda folder: keras(folder, "h5")),
    "keras": ("keras", lambda folder: keras(folder, "keras")),
    "tflite": ("tflite", tflite),
    "nir": ("nir", nir),
    "pt2": ("pt2", pt2),
    "pt": ("pt", lambda folder: weights(folder, "pt")),
    "safetensors": ("safetensors", lambda folder: weights(folder, "safetensors")),
    "npz": ("npz", lambda folder: weights(folder, "npz")),
}
"""The suffix of a format, and honest files of it."""


def run(name: str, count: int, seed: int) -> dict[str, Any]:
    """One format, in this process."""
    import torch
    from memory import peak_megabytes, reset_peak

    from converters.read import read
    from neuro.errors import NeuroError
    from neuro.weights import load_weights

    ending, make = FORMATS[name]
    told: Counter[str] = Counter()
    untyped: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(place)
        wholes = make(folder)
        example = torch.zeros(2, 3, 4)
        is_weights = ending in ("pt", "safetensors", "npz")

        def opened(path: Path) -> object:
            return load_weights(path) if is_weights else read(path, example=example, dt=1e-4)

        for whole in wholes:
            (folder / f"good.{ending}").write_bytes(whole)
            opened(folder / f"good.{ending}")
        reset_peak()
        before, draw = peak_megabytes(), random.Random(seed)
        for number in range(count):
            # Tensors of the last file may be mapped from it, so no file is written twice.
            path = folder / f"mutant{number}.{ending}"
            path.write_bytes(mutant(wholes[number % len(wholes)], draw))
            start = time.process_time()
            try:
                opened(path)
                told["read"] += 1
            except NeuroError as error:
                told["refused"] += 1
                if str(folder) not in str(error):
                    untyped.append(f"mutant {number}: does not name its file: {error}"[:200])
            except BaseException as error:  # whatever it is: it should have been one of ours
                untyped.append(f"mutant {number}: {type(error).__name__}: {error}"[:200])
            slowest = max(slowest, time.process_time() - start)
            path.unlink()
        peak = peak_megabytes() - before
    return {
        "mutants": count, "refused": told["refused"], "read": told["read"], "slowest s": round(slowest, 3),
        "peak MB": round(peak, 1), "untyped": len(untyped), "examples": untyped[:5],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mutants", type=int, default=5000, help="of every format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(FORMATS), help=f"formats with commas: {', '.join(FORMATS)}")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(run(given.here, given.mutants, given.seed)))
        return 0
    print(f"{'format':<12}" + "".join(f"{name:>11}" for name in COLUMNS), flush=True)
    failed = False
    for name in given.only.split(","):
        command = [sys.executable, __file__, "--here", name, "--mutants", str(given.mutants), "--seed", str(given.seed)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{name:<12} hangs", flush=True)
            failed = True
            continue
        if done.returncode:
            print(f"{name:<12} died with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            failed = True
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:<12}" + "".join(f"{result[column]!s:>11}" for column in COLUMNS), flush=True)
        for line in result["examples"]:
            print(f"             {line}", flush=True)
        failed |= result["untyped"] > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

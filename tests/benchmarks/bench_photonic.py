"""Accuracy of a dense network on meshes of interferometers, against phase bits, photons and phase errors: a page.

python tests/benchmarks/bench_photonic.py --data-root ../shared/data --epochs 15   # LeNet-300-100: minutes
python tests/benchmarks/bench_photonic.py --data mnist-5k --epochs 15                 # a minute

All rows of light are trained, then the curves of the mesh are drawn. Everything is of validation samples; no test
sample is touched.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from neuro import datasets
from neuro.baselines.photonic import FEW_PHOTONS, ROWS, noise_curves
from neuro.baselines.rival import Plan
from neuro.baselines.rows import ROWS as ELECTRONIC
from neuro.baselines.shot_noise import trained_in_light
from neuro.report.noise import accuracy_against_noise
from neuro.report.page import Section, write_page
from neuro.simulate import simulate

TITLES = {
    "phase bits": ("Fewer bits for a phase", False),
    "photons per MAC": ("Less light", True),
    "phase noise (rad)": ("Phases that are off", True),
}


COUNTED = ("optical_macs", "photons", "modulations", "detections", "phase_symbols", "additions", "macs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("photonic.html"))
    parser.add_argument("--only", default=",".join(ROWS))
    args = parser.parse_args()
    data = datasets.load(args.data, args.data_root)
    plan = Plan(epochs=args.epochs)
    for name in args.only.split(","):
        started = time.process_time()
        row = ROWS[name].build(data, args.seed, plan)
        spent = time.process_time() - started
        print(f"{ROWS[name].title}: validation {100 * row.validation_accuracy:.2f} %, {spent:.1f} s of processor time")
        counts = simulate(row.graph, data.validation_x[:100]).counts
        told = (f"{what} {counts.per_sample(what):,.0f}" for what in COUNTED if counts.per_sample(what))
        print(f"  per sample: {', '.join(told)}", flush=True)
    dense = ELECTRONIC["dense"].build(data, args.seed, plan)
    faint = trained_in_light(dense.graph, data, FEW_PHOTONS, epochs=(args.epochs + 1) // 2, seed=args.seed)
    started = time.process_time()
    found = {
        name: noise_curves(graph, data, args.seed, samples=args.samples)
        for name, graph in (("dense", dense.graph), (f"trained on with {FEW_PHOTONS:g} photons", faint))
    }
    print(f"curves: {time.process_time() - started:.1f} s of processor time for two networks")
    sections = []
    for quantity, (title, logarithmic) in TITLES.items():
        curves = {name: of_network[quantity] for name, of_network in found.items()}
        for name, (values, right) in curves.items():
            listed = ", ".join(f"{value:g}: {100 * share:.1f}" for value, share in zip(values, right, strict=True))
            print(f"  {quantity}, {name}: {listed}")
        levels = {"dense, digital": dense.validation_accuracy}
        drawn = accuracy_against_noise(curves, quantity, levels=levels, logarithmic=logarithmic)
        text = f"{data.name}, seed {args.seed}, at most {args.samples} validation samples; one thing at a time."
        sections.append(Section(title, text, drawn))
    print(write_page(args.out, [], title="Dense networks on interferometers", sections=sections))


if __name__ == "__main__":
    main()

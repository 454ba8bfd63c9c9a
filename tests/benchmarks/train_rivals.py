"""Train the sparse, mixed and quantised rivals of a spiking network: how accurate each becomes, at what counted cost.

python tests/benchmarks/train_rivals.py --task mnist --rows dense,sparse-momentum,rigl,static --densities 0.05,0.1
    --seeds 0,1,2 --epochs 40 --data-root ../shared/data --results rivals.jsonl

Every result is a line of JSON, and what is in the file already is not trained again, so a comparison that was stopped
goes on. Choose by the validation accuracy, without --test; with it, test samples are looked at once, in the state that
did best on validation. Sparse rows are also timed against the dense product (--batches), in processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

from neuro import datasets
from neuro.baselines.compressed import measured_speed, stored_words
from neuro.baselines.rows import ROWS, Plan
from neuro.counts import active_parameters
from neuro.datasets import Split
from neuro.nodes import Affine
from neuro.simulate import simulate
from neuro.training import accuracy


def result(data: Split, row: str, seed: int, plan: Plan, batches: list[int], test: bool) -> dict[str, object]:
    began = time.process_time()
    trained = ROWS[row].build(data, seed, plan)
    spent = time.process_time() - began
    graph = trained.graph
    counts = simulate(graph, data.validation_x).counts
    shares = {
        name: round(float((node.weight != 0).double().mean()), 4)
        for name, node in graph.nodes.items()
        if isinstance(node, Affine)
    }
    sparse = any(share < 0.5 for share in shares.values())
    return {
        "validation": trained.validation_accuracy,
        "test": accuracy(graph, data.test_x, data.test_y) if test else None,
        "words_stored": stored_words(graph),
        "parameters_active": active_parameters(graph),
        "macs": counts.per_sample("macs"),
        "effective_macs": counts.per_sample("effective_macs"),
        "layers": shares,
        "times_as_fast": {batch: measured_speed(graph, data.validation_x, batch) for batch in batches if sparse},
        "notes": trained.notes,
        "facts": dict(trained.facts),
        "seconds": spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mnist", choices=sorted(datasets.SOURCES))
    parser.add_argument("--data-root")
    parser.add_argument("--rows", default="all", help=f"all, or some of {','.join(ROWS)}")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--densities", default="0.05")
    parser.add_argument("--hidden", default="300,100")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=15, help="T of the spiking network that `quantised` matches")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--optimizer", default="sgd", choices=["sgd", "adamw"])
    parser.add_argument("--batches", default="1,128")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("rivals.jsonl"))
    asked = parser.parse_args()
    data = datasets.load(asked.task, asked.data_root)
    rows = list(ROWS) if asked.rows == "all" else asked.rows.split(",")
    base = Plan(
        hidden=tuple(map(int, asked.hidden.split(","))), experts=asked.experts, steps=asked.steps, epochs=asked.epochs,
        batch_size=asked.batch_size, optimizer=asked.optimizer, progress=True,
    )  # fmt: skip
    text = asked.results.read_text() if asked.results.exists() else ""
    known = {json.dumps(line["asked"]): line for line in map(json.loads, text.splitlines())}
    found: dict[tuple[str, float | None], list[dict]] = {}
    for row in rows:
        sparse = (
            row in ("pruned", "gradual", "sparse-momentum", "rigl", "rigl-uniform", "set", "small") or "static" in row
        )
        for density in map(float, asked.densities.split(",")) if sparse else (None,):
            for seed in map(int, asked.seeds.split(",")):
                largest = ROWS[row].ladder(data, base)[-1] if ROWS[row].family == "experts" else base
                plan = largest if density is None else replace(base, density=density)
                wish = [asked.task, row, density, seed, asked.test, asked.hidden, asked.experts, asked.steps,
                        asked.epochs, asked.batch_size, asked.optimizer]  # fmt: skip
                line = known.get(json.dumps(wish))
                if line is None:
                    batches = [int(batch) for batch in asked.batches.split(",")]
                    line = {"asked": wish, **result(data, row, seed, plan, batches, asked.test)}
                    with asked.results.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                found.setdefault((row, density), []).append(line)
                print(json.dumps(line), flush=True)
    print(f"\n{data.provenance}; {asked.epochs} epochs, {asked.optimizer}")
    for (row, density), lines in found.items():
        name = ROWS[row].title if density is None else f"{ROWS[row].title} {100 * density:g} %"
        said = [f"{name:<36}"]
        for part in ("validation", "test") if asked.test else ("validation",):
            errors = [100 * (1 - line[part]) for line in lines]
            spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
            said.append(f"{part} error {statistics.mean(errors):5.2f} ± {spread:.2f} %")
        said.append(f"MACs {statistics.mean(line['macs'] for line in lines):>9,.0f}")
        said += [
            f"{what} {statistics.mean(line['facts'][what] for line in lines):.2f}" for what in ("unevenness",)
            if what in lines[0]["facts"]
        ]  # fmt: skip
        print("  ".join(said))


if __name__ == "__main__":
    main()

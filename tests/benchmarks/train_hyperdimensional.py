"""Train the hyperdimensional rivals: how accurate each becomes at which dimensions, and the operations it counts.

python tests/benchmarks/train_hyperdimensional.py --data-root ../shared/data --results hyperdimensional.jsonl

As it is: OnlineHD on scikit-learn's digits with 1,024 dimensions, three seeds, and the trained encoder with 64
on MNIST. Every result is a line of JSON, and what is in the file already is not trained again. Everything is
chosen on validation; with --test, test samples are looked at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

from neuro import datasets
from neuro.baselines.hyperdimensional import ROWS
from neuro.baselines.rival import Plan
from neuro.datasets import Split
from neuro.simulate import simulate
from neuro.training import accuracy

SHOWN = ("hd-online:digits:1024", "hd-trained:mnist:64")
COUNTED = ("macs", "additions", "multiplications", "comparisons", "exponentials", "weight_words")


def result(data: Split, row: str, seed: int, plan: Plan, test: bool) -> dict[str, object]:
    began = time.process_time()
    trained = ROWS[row].build(data, seed, plan)
    spent = time.process_time() - began
    counts = simulate(trained.graph, data.validation_x[:100]).counts
    return {
        "validation": trained.validation_accuracy,
        "test": accuracy(trained.graph, data.test_x, data.test_y) if test else None,
        "operations": {name: counts.per_sample(name) for name in COUNTED},
        "precision": counts.precision,
        "notes": trained.notes,
        "facts": dict(trained.facts),
        "seconds": spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(SHOWN), help=f"row:task:dimensions; rows are {', '.join(ROWS)}")
    parser.add_argument("--data-root")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("hyperdimensional.jsonl"))
    asked = parser.parse_args()
    text = asked.results.read_text() if asked.results.exists() else ""
    known = {json.dumps(line["asked"]): line for line in map(json.loads, text.splitlines())}
    said: list[str] = []
    for wanted in asked.rows.split(","):
        row, task, dimensions = wanted.split(":")
        data = datasets.load(task, asked.data_root)
        plan = replace(Plan(), dimensions=int(dimensions), epochs=asked.epochs)
        lines = []
        for seed in map(int, asked.seeds.split(",")):
            wish = [row, task, plan.dimensions, plan.epochs, seed, asked.test]
            line = known.get(json.dumps(wish))
            if line is None:
                line = {"asked": wish, **result(data, row, seed, plan, asked.test)}
                with asked.results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            lines.append(line)
        found = [f"{ROWS[row].title} on {task}, {plan.dimensions:,} dimensions:"]
        for part in ("validation", "test") if asked.test else ("validation",):
            right = [100 * line[part] for line in lines]
            spread = statistics.stdev(right) if len(right) > 1 else 0.0
            found.append(f"{part} {statistics.mean(right):.2f} ± {spread:.2f} %")
        counted = {name: statistics.mean(line["operations"][name] for line in lines) for name in COUNTED}
        found += [f"{name} {count:,.0f}" for name, count in counted.items() if count]
        said.append("  ".join(found))
    print("\n" + "\n".join(said))


if __name__ == "__main__":
    main()

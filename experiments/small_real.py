"""A table of methods on a small real Decathlon: what the recipe is worth, and what the masks and the norms do in it.

    python -m experiments.small_real OFFICIAL_ROOT OUT [--seeds 0,1,2] [--rows ours,...] [--set key=value ...]

Rows: the majority class and a logistic regression on the pixels; our recipe (preset `small`); the same with all masks
fixed to 1; the same with one set of batch norms and one domain after the other (the authors' way, which knows no weight
averaging either), without and with re-estimated statistics. Every run sees the same number of images to within 2 %. What is
done is not done again; `OUT/table.md` and `OUT/results.json` hold what there is so far.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from decathlon.config import RunConfig, load_config
from decathlon.data.prepare import prepare
from decathlon.data.store import Store, open_store
from decathlon.environment import environment
from decathlon.reports import evaluate_run, submit_run
from decathlon.runs import Run, load_run
from decathlon.submission import score_results
from decathlon.training import train
from mtan_core.files import write_json, write_text

TRAINED: dict[str, tuple[str, ...]] = {
    "ours": (),
    "masks fixed to 1": ('network.mask_activation="ones"',),
    # a pass leaves out the rest of each domain that fills no batch: 42 passes see as many images as 40 joint epochs
    "authors' way": ('norm="shared"', 'sampling="sequential"', "ema=0", "phases.0.epochs=42"),
}
WITHOUT = "authors' way, not re-estimated"  # the same runs, with the statistics that training left
Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default=",".join(TRAINED))
    parser.add_argument("--set", dest="changes", action="append", default=[])
    options = parser.parse_args(arguments)
    prepare(options.root, options.out / "store")
    store = open_store(options.out / "store")
    results = baselines(store)
    for seed in options.seeds.split(","):
        for row in options.rows.split(","):
            results += trained(options.root, options.out, store, row, int(seed), options.changes)
            write(options.out, results)


def baselines(store: Store) -> list[Result]:
    """Validation accuracy of the majority class and of scikit-learn's logistic regression on 72x72 pixels."""
    return [
        {"row": "majority class", "seed": 0, "val": {name: majority(store, name) for name in store.domains}},
        {"row": "logistic regression", "seed": 0, "val": {name: regression(store, name) for name in store.domains}},
    ]


def majority(store: Store, domain: str) -> float:
    """Share of the most frequent training class among the validation images."""
    learnt, asked = (_labels(store, domain, split) for split in ("train", "val"))
    return float((asked == np.bincount(learnt).argmax()).mean())


def regression(store: Store, domain: str) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pixels, labels = zip(*(_pixels(store, domain, split) for split in ("train", "val")), strict=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=2000))
    return float(model.fit(pixels[0], labels[0]).score(pixels[1], labels[1]))


def _labels(store: Store, domain: str, split: str) -> np.ndarray:
    labels = store.split(domain, split).labels
    assert labels is not None
    return labels


def _pixels(store: Store, domain: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from decathlon.batches import DomainImages

    stored = store.split(domain, split)
    images = DomainImages(stored, store.specs[domain].fit, 72, torch.device("cpu"), store.specs[domain])
    return images.evaluation(np.arange(len(stored))).flatten(1).numpy(), _labels(store, domain, split)


def configuration(row: str, seed: int, changes: Sequence[str]) -> RunConfig:
    """The preset `small` with the row's changes; the number of images seen is that of `ours`."""
    return load_config("small", None, [f"seed={seed}", *changes, *TRAINED[row]])


def trained(root: Path, out: Path, store: Store, row: str, seed: int, changes: Sequence[str]) -> list[Result]:
    """Train (or find trained) one row with one seed, and measure it on val and test."""
    folder = out / f"{row.replace(' ', '-').replace(chr(39), '')}-{seed}"
    summary = train(configuration(row, seed, changes), str(out / "store"), folder / "run", resume=True)
    results = [measured(load_run(folder / "run"), store, root, folder / "results.json", row, seed, summary)]
    if row == "authors' way":
        run = load_run(folder / "run")
        run.network.drop_own_statistics()
        results.append(measured(run, store, root, folder / "unestimated.json", WITHOUT, seed, summary))
    return results


def measured(run: Run, store: Store, root: Path, file: Path, row: str, seed: int, summary: Result) -> Result:
    """Accuracies on val and, from a submission, on test."""
    validation = {name: answer.tally.accuracy for name, answer in evaluate_run(run, store).answers.items()}
    submit_run(run, store, file)
    scored = score_results(file, root / "annotations_hidden")
    return {
        "row": row, "seed": seed, "val": validation, "score": scored.score,
        "test": {name: 1 - domain.error for name, domain in scored.domains.items()},
        "images": summary["images"], "seconds": summary["seconds"], "commit": summary["commit"],
    }  # fmt: skip


def write(out: Path, results: Sequence[Result]) -> None:
    """The results so far, as JSON and as a Markdown table of means and standard deviations over seeds."""
    import torch

    write_json(
        out / "results.json", {"environment": environment(torch.device("cpu")), "results": list(results)}, indent=1
    )
    lines = ["| row | seeds | mean val | mean test | images seen |", "|---|---|---|---|---|"]
    for row in dict.fromkeys(result["row"] for result in results):
        own = [result for result in results if result["row"] == row]
        seen = f"{own[0]['images']:,}" if "images" in own[0] else ""
        lines.append(f"| {row} | {len(own)} | {_spread(own, 'val')} | {_spread(own, 'test')} | {seen} |")
    write_text(out / "table.md", "\n".join(lines) + "\n")


def _spread(results: Sequence[Result], split: str) -> str:
    means = [mean(result[split].values()) for result in results if split in result]
    if not means:
        return ""
    return f"{mean(means):.3f}" + (f" ± {stdev(means):.3f}" if len(means) > 1 else "")


if __name__ == "__main__":
    main()

"""What `mtan dense` says of runs, networks and imported checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dense_tasks.config import load_config, preset_names
from dense_tasks.data.frames import Frames
from dense_tasks.data.root import open_root
from dense_tasks.datasets import DATASETS, Dataset
from dense_tasks.evaluation import evaluate, measures
from dense_tasks.import_weights import Imported, import_network
from dense_tasks.metrics import SCHEMES, Scheme, delta_mtl
from dense_tasks.networks import build_network, methods, parameter_counts
from dense_tasks.runs import DenseFolder, DenseRun, Facts, load_run, make_network, write_imported
from dense_tasks.tasks import choose_tasks, tasks
from mtan_core.choices import Choice
from mtan_core.curves import Panel, training_curves
from mtan_core.dense import DenseNetwork
from mtan_core.errors import UserError, nearest
from mtan_core.tables import print_table

CURVES = {
    "loss": Panel("training loss"), "weight": Panel("weight of the loss"), "val_loss": Panel("validation loss"),
    "val_key_metric": Panel("val: key metric (%)", share=True),
}  # fmt: skip


def evaluate_run(
    path: Path,
    data: Path,
    split: str = "val",
    checkpoint: Choice = "last",
    metric: str | None = None,
    against: Path | None = None,
    chunk: int = 4,
    device: str | None = None,
) -> dict[str, Any]:
    """The JSON document of `evaluate`. Raises UserError for another root, split or metric than there are."""
    if split not in ("val", "train"):
        raise UserError(f"--split: expected val or train, found {split}.")
    run = load_run(path, checkpoint, device)
    scheme = _scheme(metric or run.config.metric)
    other = load_run(against, checkpoint, device) if against else None
    found = _evaluated(run, data, split, scheme, chunk)
    delta = None if other is None else _delta(run, found, _evaluated(other, data, split, scheme, chunk), str(against))
    return {
        "run": str(path), "split": split, "checkpoint": checkpoint, "metric": scheme, "tasks": found,
        "against": str(against) if against else None, "delta_mtl": delta,
    }  # fmt: skip


def _scheme(name: str) -> Scheme:
    for scheme in SCHEMES:
        if scheme == name:
            return scheme
    raise UserError(f"--metric: expected {', '.join(SCHEMES)}, found '{name}'{nearest(name, SCHEMES)}.")


def _evaluated(run: DenseRun, data: Path, split: str, scheme: Scheme, chunk: int) -> dict[str, dict[str, Any]]:
    named = run.config.dataset or None
    root = open_root(data, list(run.facts.tasks), named, [split], run.config.missing_labels, run.network.raw.divisor)
    if root.dataset != run.facts.dataset:
        raise UserError(f"--data: expected a root of {run.facts.dataset.name}, found {root.dataset.name}: {data}.")
    frames = Frames(root, split, run.device)
    return measures(evaluate(run.network.raw, frames, root.tasks, run.config.precision, scheme, chunk))


def _delta(run: DenseRun, own: Mapping[str, Any], single: Mapping[str, Any], where: str) -> float:
    absent = [task for task in own if task not in single]
    if absent:
        raise UserError(f"--against: expected a run of the same tasks, found none of {absent[0]} in {where}.")
    try:
        return delta_mtl(own, single, {name: run.facts.tasks[name].measures for name in own})
    except ValueError as problem:  # a measure of 0, to which nothing is relative, or none at all
        raise UserError(f"--against {where}: {str(problem).removeprefix('delta_mtl: ')}") from None


def print_measures(title: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each task and measure."""
    rows = [
        (task, name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
        for task, own in results.items()
        for name, value in own.items()
    ]
    print_table(title, ("task", "measure", "value"), rows)


def draw_curves(path: Path, figure: Path) -> None:
    """Draw a run's losses, weights and validation over its epochs. Raises UserError for one that was not trained here."""
    import pandas as pd

    folder, table = DenseFolder(path), path / "metrics.parquet"
    metric = folder.config().metric
    if not table.is_file():
        raise UserError(f"--figure: expected a run with metrics.parquet, found none in {path}.")
    metrics, known = pd.read_parquet(table), folder.facts().tasks
    firsts = {
        f"val_{task.measures[0].name}": Panel(f"val: {task.measures[0].name} ({name})") for name, task in known.items()
    }
    present = {column: panel for column, panel in {**CURVES, **firsts}.items() if column in metrics}
    training_curves(figure, metrics, f"{path}, metric {metric}", "task", present)


def import_run(file: Path, run: Path, task: str | None) -> dict[str, Any]:
    """Write a run of the authors' network; returns its summary. Raises UserError as `import_network` does."""
    found = import_network(file, task)
    dataset = _dataset_of(found, file)
    known = choose_tasks(list(found.tasks), dataset)
    options = ["network.paper=true", f"network.filters={list(found.filters)}", "norm=shared", "channels_last=false"]
    config = load_config("paper", None, [f"method={found.method}", "weighting.kind=uncertainty", *options])
    summary = {
        "kind": "dense", "imported": file.name, "method": found.method, "tasks": list(found.tasks), "filters": list(found.filters),
        "dataset": dataset.name, "log_variances": found.log_variances, **parameter_counts(found.network),
    }  # fmt: skip
    write_imported(run, config, Facts(dataset, known), found.network, summary)
    return summary


def _dataset_of(found: Imported, file: Path) -> Dataset:
    """The first data set on which the tasks have these outputs."""
    for dataset in DATASETS.values():
        known = tasks(dataset)
        if all(name in known and known[name].channels == channels for name, channels in found.tasks.items()):
            return dataset
    told = ", ".join(f"{name} {channels}" for name, channels in found.tasks.items())
    raise UserError(f"{file}: expected the outputs of a known data set ({', '.join(DATASETS)}), found {told}.")


def method_counts() -> dict[str, dict[str, int]]:
    """Of every method as in its paper: parameters for the NYUv2 tasks (one for methods of one task), and those shared."""
    nyuv2 = {name: task.channels for name, task in tasks().items() if name in DATASETS["nyuv2"].tasks}
    counts = {}
    for name, method in methods().items():
        outputs = {"semantic": nyuv2["semantic"]} if method.one_task else nyuv2
        with torch.device("meta"):
            counts[name] = _counts(build_network(name, outputs, paper=True))
    return counts


def preset_counts() -> dict[str, dict[str, int]]:
    """Of every preset's network for the NYUv2 tasks."""
    chosen = choose_tasks(None, DATASETS["nyuv2"])
    counts = {}
    for name in preset_names():
        with torch.device("meta"):
            counts[name] = _counts(make_network(load_config(name, None), chosen))
    return counts


def _counts(network: DenseNetwork) -> dict[str, int]:
    counts = parameter_counts(network)
    return {"parameters": counts["parameters"], "pool_parameters": counts["shared_parameters"]}

"""What a search's metric compares with: the challenge's baselines, or single-task runs. All is checked before Ray starts."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from dense_tasks.metrics import Measure
from experiments.compare.measured import Measured, read_runs
from experiments.search.config import NAMED, SearchConfig, trial_config
from experiments.search.metric import References
from mtan_core.errors import UserError, nearest

if TYPE_CHECKING:
    from dense_tasks.data.root import Root

ACCURACY = (Measure("accuracy", True),)
DENSE_SINGLES = ("single", "stan")  # dense methods whose tasks share nothing


def references(search: SearchConfig, data: str) -> References:
    """What the search's metric needs to know of these data. Raises UserError for baselines that cannot be compared with."""
    if search.metric == "delta_mtl":
        runs = read_runs([Path(run) for run in search.baselines])
        if runs[0].kind != search.task:
            raise UserError(f"`baselines`: expected {search.task} runs, found {runs[0].path}, a {runs[0].kind} one.")
        for run in runs:
            _refuse_joint(run)
        return _decathlon(search, data, runs) if search.task == "decathlon" else _dense(search, data, runs)
    if search.metric == "decathlon_score":
        from decathlon.data.store import open_store

        specs = open_store(data).specs
        return References(
            {name: spec.baseline_error for name, spec in specs.items() if spec.baseline_error is not None}
        )
    return References()


def refuse_unknown(search: SearchConfig, data: str) -> None:
    """Raises UserError for a metric that no trial on these data would report, and for data that none could be trained on."""
    known = _reported_decathlon(search, data) if search.task == "decathlon" else _reported_dense(search, data)
    if search.metric not in {*NAMED, *known}:
        raise UserError(f"`metric`: there is no measure '{search.metric}'{nearest(search.metric, known)}.")


def _reported_decathlon(search: SearchConfig, data: str) -> set[str]:
    from decathlon.data.store import open_store

    chosen = () if "domains" in search.space else trial_config(search, {}).domains
    names = ("weight", "images", "loss", "accuracy", "val_loss", "val_accuracy")
    return {f"{name}.{domain}" for domain in chosen or open_store(data).domains for name in names}


def _reported_dense(search: SearchConfig, data: str) -> set[str]:
    names = ("weight", "pixels", "loss", "key_metric", "val_loss", "val_key_metric")
    return {
        f"{name}.{task.name}"
        for task in _root(search, data).tasks.values()
        for name in (*names, *(f"val_{measure.name}" for measure in task.measures))
    }


def _root(search: SearchConfig, data: str) -> "Root":
    """The root, all of whose files are looked at; what its images must divide by depends on the trial."""
    from dense_tasks.training import training_root

    config = trial_config(search, {})
    return training_root(config.model_copy(update={"tasks": ()}) if "tasks" in search.space else config, Path(data))


def _refuse_joint(run: Measured) -> None:
    """Raises UserError for a run of several tasks that share anything."""
    from mtan_core.methods import methods

    method = str(run.config["method"])
    apart = method in DENSE_SINGLES
    if run.kind == "decathlon":
        apart = methods()[method].conv == "own" and not methods()[method].ladder
    tasks = list(run.tasks or run.data["domains"])
    if len(tasks) > 1 and not apart:
        raise UserError(
            f"`baselines`: expected runs of one task each, found {run.path}, where {', '.join(tasks)} share a network."
        )


def _decathlon(search: SearchConfig, data: str, runs: list[Measured]) -> References:
    from decathlon.data.store import open_store

    store, chosen = open_store(data), trial_config(search, {}).domains
    domains = [name for name in store.domains if name in (chosen or store.domains) and "val" in store.splits(name)]
    accuracies: dict[str, dict[str, list[float]]] = {name: {"accuracy": []} for name in domains}
    for run in runs:
        for name in (name for name in domains if name in run.measures):
            division = {split: store.split(name, split).digest() for split in ("train", "val")}
            if run.data["divisions"].get(name) != division:
                raise UserError(
                    f"`baselines`: expected runs on {data}, found {run.path}, which saw other images of {name}."
                )
            accuracies[name]["accuracy"].append(run.measures[name])
    return References(single=_means(accuracies), tasks=dict.fromkeys(domains, ACCURACY))


def _dense(search: SearchConfig, data: str, runs: list[Measured]) -> References:
    from dense_tasks.runs import Facts

    root, metric = _root(search, data), trial_config(search, {}).metric
    facts = Facts.of(root)
    own = {"dataset": root.dataset.name, "size": facts.size, "frames": facts.frames, "metric": metric}
    tasks = {name: tuple(each for each in task.measures if each.in_delta) for name, task in root.tasks.items()}
    found: dict[str, dict[str, list[float]]] = {name: {each.name: [] for each in tasks[name]} for name in tasks}
    for run in runs:
        if other := [key for key, value in own.items() if run.data[key] != value]:
            raise UserError(f"`baselines`: expected runs on {data}, found {run.path}, whose {other[0]} is another.")
        for name, measures in found.items():
            for measure, values in measures.items():
                if f"{name}/{measure}" in run.measures:
                    values.append(run.measures[f"{name}/{measure}"])
    return References(single=_means(found), tasks=tasks)


def _means(found: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, dict[str, float]]:
    """Means over runs. Raises UserError for a measure that no run has, or that is 0, to which nothing is relative."""
    for task, measures in found.items():
        for name, values in measures.items():
            if not values or not mean(values):
                told = "none" if not values else "0"
                raise UserError(f"`baselines`: expected the {name} of {task} alone, found {told} in these runs.")
    return {task: {name: mean(values) for name, values in measures.items()} for task, measures in found.items()}

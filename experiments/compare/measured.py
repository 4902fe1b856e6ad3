"""Finished runs of either kind, as plain facts: what was configured, on what data, and what was measured."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decathlon.runs import RunFolder
from dense_tasks.metrics import Measure
from dense_tasks.runs import DenseFolder
from mtan_core.config import flat
from mtan_core.errors import UserError
from mtan_core.runs import Folder

UNLIKE_SEEDS = ("device", "threads")  # these keys, and where checkpoints fall, change at most a run's last bits
MEAN, TEST_MEAN, SCORE = "mean", "test mean", "score"
RESULTS = "results.json"  # a submission in its run's folder
RUNS = ("pool_from", "distillation.teachers")  # keys whose values are runs


@dataclass(frozen=True)
class Measured:
    """One finished run. `measures` are of validation, with the last checkpoint; `data` is what identifies the data, and of
    dense runs the `metric` by which segmentation was measured."""

    path: Path
    kind: str  # decathlon or dense
    config: Mapping[str, Any]  # keys with dots, without the seed and what makes no difference
    seed: int
    protocol: str
    data: Mapping[str, Any]
    official: tuple[str, ...]  # domains that are the official ones, in their official split sizes
    measures: Mapping[str, float]
    better: Mapping[str, bool]  # by measure: whether higher is better
    main: tuple[str, ...]  # the measures that a short table shows
    parameters: int | None
    seconds: float | None
    summary: Mapping[str, Any] = field(repr=False)
    tasks: Mapping[str, tuple[Measure, ...]] = field(default_factory=dict, repr=False)

    @property
    def commit(self) -> str | None:
        return self.summary.get("commit")


def kind_of(path: Path) -> str:
    """decathlon or dense. Raises UserError for a folder that is no run."""
    if (path / "config.toml").is_file():
        for kind, document in (("decathlon", "domains.json"), ("dense", "tasks.json")):
            if (path / document).is_file():
                return kind
    raise UserError(f"Expected a run's folder (with config.toml and domains.json or tasks.json), found {path}.")


def folder_of(path: Path) -> RunFolder | DenseFolder:
    """The folder of a run of either kind. Raises UserError for one that is no run."""
    return RunFolder(path) if kind_of(path) == "decathlon" else DenseFolder(path)


def read_runs(paths: Sequence[Path], annotations: Path | None = None) -> list[Measured]:
    """Read finished runs of one kind; with `annotations` (labelled test files), submissions in their folders are scored.

    Raises UserError for no run, one named twice, one unfinished, and runs of two kinds.
    """
    if not paths:
        raise UserError("Expected at least one run's folder, found none.")
    twice = [path for place, path in enumerate(paths) if path.resolve() in {p.resolve() for p in paths[:place]}]
    if twice:
        raise UserError(f"Expected every run once, found {twice[0]} twice.")
    kinds = {path: kind_of(path) for path in paths}
    other = [path for path in paths if kinds[path] != kinds[paths[0]]]
    if other:
        raise UserError(
            f"Expected runs of one kind, found {paths[0]} ({kinds[paths[0]]}) and {other[0]} ({kinds[other[0]]})."
        )
    if annotations is not None and kinds[paths[0]] != "decathlon":
        raise UserError(
            f"--annotations: expected runs of the Decathlon, which have submissions, found {paths[0]} ({kinds[paths[0]]})."
        )
    return [_decathlon(path, annotations) if kinds[path] == "decathlon" else _dense(path) for path in paths]


def finished(folder: Folder[Any]) -> dict[str, Any]:
    """The summary of a run. Raises UserError, by name, for one that is not finished."""
    summary = folder.summary()
    if summary is None:
        raise UserError(
            f"Expected a finished run, found one without summary.json: {folder.path} (go on with --resume)."
        )
    return summary


def _decathlon(path: Path, annotations: Path | None) -> Measured:
    folder = RunFolder(path)
    config, summary, specs = folder.config(), finished(folder), folder.specs()
    measures = {name: float(value) for name, value in (summary.get("val_accuracy") or {}).items()}
    mean = {MEAN: float(summary["mean_val_accuracy"])} if summary.get("mean_val_accuracy") is not None else {}
    tested = _tested(path / RESULTS, annotations) if annotations is not None else {}
    return Measured(
        path, "decathlon", _comparable(config.model_dump(mode="json")), config.seed, config.protocol,
        {"domains": list(specs), "divisions": folder.divisions()},
        tuple(name for name, spec in specs.items() if spec.source == "official"),
        mean | measures | tested, dict.fromkeys([*mean, *measures, *tested], True),
        tuple(mean) or tuple(name for name in tested if name == TEST_MEAN),
        summary.get("parameters"), summary.get("seconds"), summary,
    )  # fmt: skip


def _tested(results: Path, annotations: Path) -> dict[str, float]:
    """Test accuracies, their mean, and the score of a submission; nothing where there is none."""
    if not results.is_file():
        return {}
    from decathlon.submission import score_results

    scored = score_results(results, annotations)
    accuracy = {f"test {name}": 1 - own.error for name, own in scored.domains.items()}
    if scored.split != "test":
        raise UserError(f"{results}: expected predictions for test images, found those for {scored.split}.")
    return {TEST_MEAN: sum(accuracy.values()) / len(accuracy), **accuracy, SCORE: scored.score}


def _dense(path: Path) -> Measured:
    folder = DenseFolder(path)
    config, summary, facts = folder.config(), finished(folder), folder.facts()
    found = summary.get("val_last") or {}
    measures, better = {}, {}
    for name, task in facts.tasks.items():
        for measure in task.measures:
            if measure.name in found.get(name, {}):
                measures[f"{name}/{measure.name}"] = float(found[name][measure.name])
                better[f"{name}/{measure.name}"] = measure.higher_is_better
    main = tuple(f"{name}/{task.measures[0].name}" for name, task in facts.tasks.items() if name in found)
    return Measured(
        path, "dense", _comparable(config.model_dump(mode="json")), config.seed, "train",
        {"dataset": facts.dataset.name, "size": facts.size, "frames": facts.frames, "metric": config.metric}, (),
        measures, better, main, summary.get("parameters"), summary.get("seconds"), summary,
        {name: task.measures for name, task in facts.tasks.items()},
    )  # fmt: skip


def _comparable(tree: Mapping[str, Any]) -> dict[str, Any]:
    """All keys that make a difference, with dots; a run that was built upon counts by its own, not by its folder."""
    keys = {
        key: value
        for key, value in flat(tree).items()
        if key not in (*UNLIKE_SEEDS, "seed") and not key.startswith("checkpoint.")
    }
    built = {key: [keys[key]] if isinstance(keys[key], str) else keys[key] for key in RUNS if keys.get(key)}
    return keys | {key: [_built_upon(Path(run)) for run in runs] for key, runs in built.items()}


def _built_upon(run: Path) -> str:
    """A run in a word that is the same for all seeds; its path where it is not there."""
    try:
        own = _comparable(folder_of(run).config().model_dump(mode="json"))
    except UserError:
        return str(run)
    digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()
    return f"{own['method']} {digest[:8]}"

"""One trial, in a worker of Ray's: the training that `mtan decathlon train` runs, with each epoch reported."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.search.config import SearchConfig, trial_config
from experiments.search.metric import Row, measures, value_of

RUN = "run"  # in the trial's working folder, which Ray makes and removes


@dataclass(frozen=True)
class Work:
    """What all trials have in common."""

    search: SearchConfig
    data: str


def run_trial(config: dict[str, Any], work: Work) -> None:
    """Train at `config["point"]`, going on from the checkpoint that Ray hands out, if any."""
    from ray import tune

    run = Path.cwd() / RUN
    shutil.rmtree(run, ignore_errors=True)  # what a failed attempt on this machine left
    if checkpoint := tune.get_checkpoint():
        checkpoint.to_directory(str(run))
    train_trial(work, config["point"], run)


def train_trial(work: Work, point: dict[str, Any], run: Path) -> None:
    """The training itself, each validated epoch of which is reported with the whole run's folder as its checkpoint."""
    from ray import tune

    settings = trial_config(work.search, point)
    baselines = _baselines(work)
    total = sum(phase.epochs for phase in settings.phases)

    def report(rows: Sequence[Row], checkpoint: Path | None) -> None:
        found = measures(rows)
        metric = value_of(work.search.metric, found, baselines)
        if metric is None:
            return
        told = {"epoch": rows[0]["epoch"], "epochs": total, "metric": metric, **found}
        tune.report(told, checkpoint=tune.Checkpoint.from_directory(str(run)) if checkpoint else None)

    if work.search.task == "decathlon":
        from decathlon.training import train as train_decathlon

        train_decathlon(settings, work.data, run, resume=True, report=report)
    else:
        from dense_tasks.training import train as train_dense

        train_dense(settings, Path(work.data), run, resume=True, report=report)


def _baselines(work: Work) -> dict[str, float]:
    """Baseline errors of the data's own domains, for the Decathlon score."""
    if work.search.task != "decathlon":
        return {}
    from decathlon.data.store import open_store

    specs = open_store(work.data).specs
    return {name: spec.baseline_error for name, spec in specs.items() if spec.baseline_error is not None}

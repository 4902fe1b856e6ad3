"""One trial, in a worker of Ray's: the training that `mtan decathlon train` runs, with each epoch reported."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.search.config import SearchConfig, total_epochs, trial_config
from experiments.search.metric import References, Row, measures, value_of
from experiments.search.schedules import changes_of, first_point
from mtan_core.runs import Folder, amend

RUN = "run"  # in the trial's working folder, which Ray makes and removes


@dataclass(frozen=True)
class Work:
    """What all trials have in common."""

    search: SearchConfig
    data: str
    references: References


def run_trial(config: dict[str, Any], work: Work) -> None:
    """Train at `config["point"]`, going on from the checkpoint that Ray hands out, if any."""
    from ray import tune

    run = Path.cwd() / RUN
    shutil.rmtree(run, ignore_errors=True)  # what a failed attempt on this machine left
    if checkpoint := tune.get_checkpoint():
        stored(checkpoint).to_directory(str(run))
    lineage = config.get("lineage", [])
    settings = trial_config(work.search, first_point(config["point"], lineage), changes_of(lineage))
    if lineage and run.is_dir():  # perhaps a copy of another trial's, which did not know of the last exchange
        amend(training_folder(work.search, run), settings)
    train_trial(work, settings, run)


def stored(checkpoint: Any) -> Any:
    """The checkpoint itself, or a later one of the trial where it was pruned already.

    A search may be killed after a checkpoint was pruned and before Ray wrote down that there are later ones. The last
    one may not be whole, the last but one is: the pruned one made room for it.
    """
    from pyarrow import fs

    filesystem, path = checkpoint.filesystem, checkpoint.path
    if filesystem.get_file_info(path).type != fs.FileType.NotFound:
        return checkpoint
    beside = filesystem.get_file_info(fs.FileSelector(str(PurePosixPath(path).parent)))
    later = sorted(info.path for info in beside if info.base_name.startswith("checkpoint_"))
    return type(checkpoint)(later[-2:][0], filesystem) if later else checkpoint


def train_trial(work: Work, settings: Any, run: Path) -> None:
    """The training itself, each validated epoch of which is reported with the whole run's folder as its checkpoint."""
    from ray import tune

    total = total_epochs(settings)

    def report(rows: Sequence[Row], checkpoint: Path | None) -> None:
        found = measures(rows)
        metric = value_of(work.search.metric, found, work.references)
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


def training_folder(search: SearchConfig, run: Path) -> Folder[Any]:
    """A trial's run, as its task knows it."""
    if search.task == "decathlon":
        from decathlon.runs import RunFolder

        return RunFolder(run)
    from dense_tasks.runs import DenseFolder

    return DenseFolder(run)

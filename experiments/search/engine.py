"""The search: a thin adapter between our configuration and Ray Tune (2.60)."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pandas as pd
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import TrialScheduler

from experiments.cluster.session import cluster
from experiments.cluster.storage import (
    Storage,
    absolute,
    open_storage,
    refuse_absent,
    refuse_foreign,
    refuse_unwritable,
)
from experiments.search.actors import outlive_memory
from experiments.search.config import KIND, SearchConfig, total_epochs, trial_config
from experiments.search.figures import draw_figures
from experiments.search.live import Board, shown
from experiments.search.pbt import Population
from experiments.search.references import references, refuse_unknown
from experiments.search.results import SCHEDULE, Trial, metric_of, summarize, write_lineage, write_results
from experiments.search.schedulers import Halving, Median
from experiments.search.space import base_point, enqueued, points, suggest
from experiments.search.trial import Work, run_trial
from mtan_core.config import dump_config, read_toml
from mtan_core.errors import UserError
from mtan_core.files import check_output, held, taken, write_json, write_text
from mtan_core.runs import check_format

FORMAT = 1
NAME, REPLAY = "ray", "replay"  # Ray's own folders within the search's, or within the storage
ENDLESS = 2**31  # epochs


def search(settings: SearchConfig, data: str, out: Path, address: str | None, storage: str | None) -> dict[str, Any]:
    """Search from the beginning. Raises UserError for bad input before anything is written or started."""
    check_data(settings, data)
    _refuse_existing(out)
    if storage:
        storage = absolute(storage)
        place = open_storage(storage)
        refuse_unwritable(place, storage)
        if _begun(place):
            raise UserError(f"--storage: expected a place without a search, found one in {storage}.")
    with cluster(address, settings.resources):
        out.mkdir(parents=True, exist_ok=True)
        with held(out, "a search"):
            _refuse_existing(out)  # somebody may have been quicker
            write_text(out / "search.toml", dump_config(settings))
            where = {"data": absolute(data), "storage": storage, "address": address}
            write_json(out / "search.json", {"format": FORMAT, **where}, indent=2)
            return _run(out, settings, where)


def _refuse_existing(out: Path) -> None:
    check_output(out / "search.json")
    if taken(out):
        raise UserError(
            f"--out: expected a new folder, found {out} (go on with a search by `mtan experiments resume`, or choose another)."
        )


def resume(out: Path) -> dict[str, Any]:
    """Go on with a search: finished trials stay, others go on from their last checkpoint. Raises as `search` does."""
    path = out / "search.json"
    if not path.is_file():
        raise UserError(f"Expected a search's folder (with search.json), found {out}.")
    where = _read_where(path)
    refuse_foreign(out, path, *(Path(where["storage"] or out) / name for name in (".", NAME, REPLAY)))
    settings = KIND.parse(read_toml(out / "search.toml"), str(out / "search.toml"))
    check_data(settings, where["data"])
    if where["storage"]:
        refuse_absent(open_storage(where["storage"]), where["storage"])
    with held(out, "a search"), cluster(where["address"], settings.resources):
        return _run(out, settings, where)


def _read_where(path: Path) -> dict[str, Any]:
    try:
        where = json.loads(path.read_text())
    except (ValueError, RecursionError) as problem:
        raise UserError(f"Expected what a search wrote, found a damaged file: {path}: {problem}.") from None
    check_format(where, path)
    return dict(where)


def _begun(storage: Storage, name: str = NAME) -> bool:
    return bool(tune.Tuner.can_restore(f"{storage.path}/{name}", storage_filesystem=storage.filesystem))


def check_data(settings: SearchConfig, data: str) -> None:
    """Raises UserError where the data are not there or damaged, or lack what the configuration names."""
    if settings.task == "decathlon":
        from decathlon.data.store import open_store
        from decathlon.training import check_keys

        check_keys(trial_config(settings, {}), list(open_store(data).domains))
    elif not Path(data).is_dir():
        raise UserError(f"--data: expected a folder of dense data, found none: {data}.")
    refuse_unknown(settings, data)
    references(settings, data)


def _run(out: Path, settings: SearchConfig, where: dict[str, Any]) -> dict[str, Any]:
    storage = open_storage(where["storage"] or str(out))
    with watched(settings, _count(settings)):
        found = tuner(settings, where["data"], storage).fit()
    trials = sorted((summarize(found[place]) for place in range(len(found))), key=lambda trial: trial["trial"])
    left = [trial for trial in trials if trial["status"] == "unfinished"]
    if left or len(trials) < _count(settings):
        _stopped(out)
    best = write_results(out, settings, trials)
    draw_figures(out / "figures", settings, pd.read_parquet(out / "trials.parquet"))
    document = _document(out, settings, trials, best)
    if settings.scheduler.kind == "pbt":
        write_lineage(out, settings, trials, best, None)
        document["best"]["replay_metric"] = _replay(out, settings, where["data"], storage, best)
        write_lineage(out, settings, trials, best, document["best"]["replay_metric"])
    return document


def _replay(out: Path, settings: SearchConfig, data: str, storage: Storage, best: Trial) -> float | None:
    """The metric of one training by the best trial's schedule, from the beginning; None where it fails."""
    config = {"point": best["point"], "lineage": best["lineage"]}
    with watched(settings, 1, REPLAY):
        result = tuner(settings, data, storage, REPLAY, config).fit()[0]
    trial = summarize(result)
    if trial["status"] == "finished":
        return metric_of(trial)
    if not trial["error"]:
        _stopped(out)
    print(f"mtan: warning: the replay of {SCHEDULE} failed: {trial['error']}", file=sys.stderr)
    return None


def _stopped(out: Path) -> NoReturn:
    print(f"mtan: stopped; go on with `mtan experiments resume {out}`.", file=sys.stderr)
    raise SystemExit(130)


def _document(out: Path, settings: SearchConfig, trials: list[Trial], best: Trial) -> dict[str, Any]:
    statuses = [trial["status"] for trial in trials]
    return {
        "search": str(out), "trials": len(trials), **{name: statuses.count(name) for name in ("finished", "stopped", "failed")},
        "metric": settings.metric, "best": {"trial": best["trial"], "metric": metric_of(best), "point": best["point"]},
        "base": _base(settings, trials),
    }  # fmt: skip


def _base(settings: SearchConfig, trials: list[Trial]) -> dict[str, Any] | None:
    """What became of the trial of the configuration that all begin from, where there was one."""
    first, base = trials[0], base_point(settings)
    if base is None or first["point"] != base:  # as in a search that an earlier version began
        return None
    return {"trial": first["trial"], "status": first["status"], "metric": metric_of(first) if first["rows"] else None}


def _count(settings: SearchConfig) -> int:
    known = points(settings)
    return settings.trials if known is None else len(known)


def tuner(
    settings: SearchConfig, data: str, storage: Storage, name: str = NAME, replayed: Any = None, trial: Any = run_trial
) -> tune.Tuner:
    """The search, or the training again of one trial's configuration; where it was begun before, it goes on."""
    warnings.filterwarnings(
        "ignore", "Consider boosting PBT"
    )  # whose processes, left in the middle, are not used again
    outlive_memory()
    wanted = settings.resources
    resources = {"cpu": wanted.cpus, "gpu": wanted.gpus}
    trainable = tune.with_resources(
        tune.with_parameters(trial, work=Work(settings, data, references(settings, data))), resources
    )
    if _begun(storage, name):
        return tune.Tuner.restore(
            f"{storage.path}/{name}", trainable, resume_unfinished=True, storage_filesystem=storage.filesystem
        )
    known = points(settings)
    population = settings.scheduler.kind == "pbt"  # which pauses its trials, and deals them out itself
    space = {"point": tune.grid_search(known)} if known is not None else None
    return tune.Tuner(
        trainable,
        param_space=replayed or space,
        tune_config=tune.TuneConfig(
            metric="metric", mode=settings.mode, search_alg=None if known is not None else _tpe(settings),
            scheduler=None if replayed else _scheduler(settings), num_samples=1 if known is not None else settings.trials,
            max_concurrent_trials=None if population else settings.concurrency or None,
            reuse_actors=not population,  # a new process for each trial would spend seconds on imports
            trial_dirname_creator=partial(_trial_folder, first=0 if known is not None else 1),
        ),
        run_config=tune.RunConfig(
            name=name, storage_path=storage.path, storage_filesystem=storage.filesystem, verbose=0,
            callbacks=[Watcher(), JsonLoggerCallback()],
            stop={"time_total_s": settings.seconds} if settings.seconds else None,
            failure_config=tune.FailureConfig(max_failures=settings.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=settings.scheduler.interval + 2 if population else 2),
        ),
    )  # fmt: skip


def _trial_folder(trial: Any, first: int) -> str:
    """A trial's number, from 0: its tag begins with Ray's own count, which is from `first`. `summarize` reads it."""
    return f"{int(trial.experiment_tag.partition('_')[0]) - first:05d}"


def _tpe(settings: SearchConfig) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=settings.seed)
    return OptunaSearch(
        space=partial(suggest, search=settings), metric="metric", mode=settings.mode, sampler=sampler,
        points_to_evaluate=enqueued(settings),
    )  # fmt: skip


def _scheduler(settings: SearchConfig) -> TrialScheduler | None:
    chosen = settings.scheduler
    if chosen.kind == "asha":
        total = total_epochs(trial_config(settings, {}))
        grace = min(chosen.grace, total)
        return Halving(time_attr="epoch", max_t=total, grace_period=grace, reduction_factor=chosen.reduction)
    if chosen.kind == "pbt":
        return Population(settings)
    if chosen.kind == "median":
        # Without the endless time slice a trial is put aside after each epoch until there are others to compare it with.
        return Median(time_attr="epoch", grace_period=chosen.grace, min_time_slice=ENDLESS)
    return None


class Watcher(tune.Callback):
    """Lets this process's board look at the trials. Ray keeps a callback in a file and takes it from there when a search goes
    on, so that it has no state of its own.
    """

    board: ClassVar[Board | None] = None

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if Watcher.board:
            Watcher.board.look(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        if Watcher.board:
            Watcher.board.look(trials, at_once=True)


@contextmanager
def watched(settings: SearchConfig, total: int, title: str = "search") -> Iterator[None]:
    """Show the trials that are run in the block."""
    with shown(settings, total, title) as show:
        Watcher.board = Board(show)
        try:
            yield
        finally:
            Watcher.board = None

"""The search: a thin adapter between our configuration and Ray Tune (2.60)."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

from experiments.search.cluster import cluster, refuse_storage
from experiments.search.config import KIND, SearchConfig, trial_config
from experiments.search.results import Trial, metric_of, summarize, write_results
from experiments.search.space import points, suggest
from experiments.search.trial import Work, run_trial
from mtan_core.config import dump_config, read_toml
from mtan_core.errors import UserError
from mtan_core.files import check_output, held, taken, write_json, write_text
from mtan_core.progress import Advance, progress
from mtan_core.runs import check_format

FORMAT = 1
NAME = "ray"  # Ray's own folder within the search's, or within the storage
ENDED = {"TERMINATED", "ERROR"}


def search(settings: SearchConfig, data: str, out: Path, address: str | None, storage: str | None) -> dict[str, Any]:
    """Search from the beginning. Raises UserError for bad input before anything is written or started."""
    check_data(settings, data)
    _refuse_existing(out)
    if storage:
        refuse_storage(storage)
        if tune.Tuner.can_restore(f"{storage.rstrip('/')}/{NAME}"):
            raise UserError(f"--storage: expected a place without a search, found one in {storage}.")
    with cluster(address, settings.resources):
        out.mkdir(parents=True, exist_ok=True)
        with held(out, "a search"):
            _refuse_existing(out)  # somebody may have been quicker
            write_text(out / "search.toml", dump_config(settings))
            where = {"data": _absolute(data), "storage": storage, "address": address}
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
    where = json.loads(path.read_text())
    check_format(where, path)
    settings = KIND.parse(read_toml(out / "search.toml"), str(out / "search.toml"))
    check_data(settings, where["data"])
    with held(out, "a search"), cluster(where["address"], settings.resources):
        return _run(out, settings, where)


def _absolute(data: str) -> str:
    """Workers stand in other folders."""
    return data if "://" in data else str(Path(data).absolute())


def check_data(settings: SearchConfig, data: str) -> None:
    """Raises UserError where the data are not there, or lack what the configuration names."""
    if settings.task == "decathlon":
        from decathlon.data.store import open_store
        from decathlon.training import check_keys

        check_keys(trial_config(settings, {}), list(open_store(data).domains))
    elif not Path(data).is_dir():
        raise UserError(f"--data: expected a folder of dense data, found none: {data}.")


def _run(out: Path, settings: SearchConfig, where: dict[str, Any]) -> dict[str, Any]:
    storage = (where["storage"] or str(out.absolute())).rstrip("/")
    with progress("search", total=_count(settings)) as advance:
        results = _tuner(settings, where["data"], storage, Progress(advance)).fit()
        trials = [summarize(number, results[number]) for number in range(len(results))]
    left = [trial for trial in trials if trial["status"] == "unfinished"]
    if left or len(trials) < _count(settings):
        print(f"mtan: stopped; go on with `mtan experiments resume {out}`.", file=sys.stderr)
        raise SystemExit(130)
    return _document(out, settings, trials, write_results(out, settings, trials))


def _document(out: Path, settings: SearchConfig, trials: list[Trial], best: Trial) -> dict[str, Any]:
    statuses = [trial["status"] for trial in trials]
    return {
        "search": str(out), "trials": len(trials), **{name: statuses.count(name) for name in ("finished", "stopped", "failed")},
        "metric": settings.metric, "best": {"trial": best["trial"], "metric": metric_of(best), "point": best["point"]},
    }  # fmt: skip


def _count(settings: SearchConfig) -> int:
    known = points(settings)
    return settings.trials if known is None else len(known)


def _tuner(settings: SearchConfig, data: str, storage: str, told: "Progress") -> tune.Tuner:
    wanted = settings.resources
    resources = {"cpu": wanted.cpus, "gpu": wanted.gpus}
    trainable = tune.with_resources(tune.with_parameters(run_trial, work=Work(settings, data)), resources)
    if tune.Tuner.can_restore(f"{storage}/{NAME}"):
        return tune.Tuner.restore(f"{storage}/{NAME}", trainable, resume_unfinished=True)
    known = points(settings)
    return tune.Tuner(
        trainable,
        param_space={"point": tune.grid_search(known)} if known is not None else None,
        tune_config=tune.TuneConfig(
            metric="metric", mode=settings.mode, search_alg=None if known is not None else _tpe(settings),
            scheduler=_scheduler(settings), num_samples=1 if known is not None else settings.trials,
            max_concurrent_trials=settings.concurrency or None, trial_dirname_creator=_trial_folder,
        ),
        run_config=tune.RunConfig(
            name=NAME, storage_path=storage, verbose=0, callbacks=[told],
            stop={"time_total_s": settings.seconds} if settings.seconds else None,
            failure_config=tune.FailureConfig(max_failures=settings.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
        ),
    )  # fmt: skip


def _trial_folder(trial: Any) -> str:
    return str(trial.trial_id)


def _tpe(settings: SearchConfig) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=settings.seed)
    return OptunaSearch(space=partial(suggest, search=settings), metric="metric", mode=settings.mode, sampler=sampler)


def _scheduler(settings: SearchConfig) -> TrialScheduler | None:
    chosen = settings.scheduler
    if chosen.kind == "asha":
        total = sum(phase.epochs for phase in trial_config(settings, {}).phases)
        grace = min(chosen.grace, total)
        return ASHAScheduler(time_attr="epoch", max_t=total, grace_period=grace, reduction_factor=chosen.reduction)
    if chosen.kind == "median":
        return MedianStoppingRule(time_attr="epoch", grace_period=chosen.grace)
    return None


class Progress(tune.Callback):
    """Tells the bar of every trial that has ended."""

    def __init__(self, advance: Advance | None = None) -> None:
        self.advance = advance

    def __getstate__(self) -> dict[str, Any]:
        return {"advance": None}  # a bar lives in its own process

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.status in ENDED:
            self._ended(trial)

    def _ended(self, trial: Any) -> None:
        metric = (trial.last_result or {}).get("metric")
        if self.advance:
            self.advance(1, note=f"trial {trial.trial_id}" + (f": {metric:.4g}" if metric is not None else ""))

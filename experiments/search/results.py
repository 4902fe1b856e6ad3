"""What a search leaves: `trials.parquet`, one row for each trial and epoch, and `best.toml`, or `best_schedule.toml`."""

import math
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.search.config import SearchConfig, trial_config
from experiments.search.schedules import changes_of, first_point
from mtan_core.config import dump_config
from mtan_core.errors import UserError
from mtan_core.files import replacing, write_json, write_text

FORMAT = 1
BEST, SCHEDULE, LINEAGE = "best.toml", "best_schedule.toml", "lineage.json"
NO_MEMORY = "Ray ended the process, as the machine ran low on memory."
Trial = dict[str, Any]  # trial, point, status, error, seconds, epochs: rows


def summarize(result: Any) -> Trial:
    """One of Ray's results, in our words; its folder is named by its number."""
    last = result.metrics or {}
    frame = result.metrics_dataframe
    rows: list[dict[str, Any]] = []
    if frame is not None and "epoch" in frame:
        kept = [name for name in frame if name in ("epoch", "metric") or "." in name]
        frame = frame.drop_duplicates("epoch", keep="last").sort_values("epoch")
        frame, kept = _values_by_epoch(frame, kept)
        rows = frame[[name for name in kept if not name.startswith("config/")]].to_dict("records")
    config = result.config or {}
    complete = bool(rows) and rows[-1]["epoch"] == last.get("epochs")
    ended = "finished" if complete else "stopped" if last.get("done") else "unfinished"  # Ray marks what it stops
    status = "failed" if result.error else ended
    return {
        "trial": int(PurePosixPath(result.path).name), "point": config.get("point", {}), "status": status,
        "error": error_told(result.error), "seconds": last.get("time_total_s"), "rows": rows,
        "lineage": config.get("lineage", []),
        "exchanges": [*config.get("lineage", []), *_exchanges(frame)],
    }  # fmt: skip


def _values_by_epoch(frame: Any, kept: list[str]) -> tuple[Any, list[str]]:
    """In population based training, where a trial's values change: those of each epoch, as `config.<key>`."""
    if "config/exchanged" not in frame:
        return frame, kept
    names = {name: name.replace("config/point/", "config.") for name in frame if name.startswith("config/point/")}
    return frame.rename(columns=names), [*(name for name in kept if name not in names), *names.values()]


def _exchanges(frame: Any) -> list[Any]:
    """What population based training decided, as each epoch's ancestry tells; later copies have forgotten some of it."""
    if frame is None or "config/lineage" not in frame:
        return []
    return [exchange for known in frame["config/lineage"] if isinstance(known, list) for exchange in known]


def error_told(error: Exception | None) -> str | None:
    """The last line that says something: Ray wraps the trial's exception in its traceback."""
    if error is None:
        return None
    if "running low on memory" in str(error):  # Ray's words, at whose end is advice on its own variables
        return NO_MEMORY
    cause = getattr(error, "cause", None)
    lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()]
    return lines[-1].removeprefix("mtan_core.errors.UserError: ") if lines else type(error).__name__


def write_results(folder: Path, search: SearchConfig, trials: list[Trial]) -> Trial:
    """Write both files; returns the best trial that trained to its end. Raises UserError when no trial did."""
    import pandas as pd

    with replacing(folder / "trials.parquet") as temporary:
        pd.DataFrame(list(_lines(trials))).to_parquet(temporary, index=False)
    finished = [trial for trial in trials if trial["status"] == "finished" and math.isfinite(metric_of(trial))]
    if not finished:
        errors = [trial["error"] for trial in trials if trial["error"]]
        found = f"that {len(errors)} of {len(trials)} failed: {errors[0]}" if errors else f"none of {len(trials)}"
        raise UserError(f"{folder}: expected a trial that trains to its end, found {found.rstrip('.')}.")
    sign = 1 if search.mode == "max" else -1
    best = max(finished, key=lambda trial: sign * metric_of(trial))
    write_text(folder / (SCHEDULE if search.scheduler.kind == "pbt" else BEST), dump_config(best_config(search, best)))
    return best


def best_config(search: SearchConfig, best: Trial) -> Any:
    """The whole configuration of a trial, with what changed on its way."""
    lineage = best.get("lineage", [])
    return trial_config(search, first_point(best["point"], lineage), changes_of(lineage))


def write_lineage(folder: Path, search: SearchConfig, trials: list[Trial], best: Trial, replayed: float | None) -> None:
    """Write who became a copy of whom, after which epoch and with which changes, and what the replay came to."""
    known = {(each["epoch"], each["trial"]): each for trial in trials for each in trial["exchanges"]}
    write_json(folder / LINEAGE, {
        "format": FORMAT, "metric": search.metric, "interval": search.scheduler.interval,
        "exchanges": [known[place] for place in sorted(known)],
        "best": {
            "trial": best["trial"], "metric": metric_of(best), "replay_metric": replayed,
            "first_point": first_point(best["point"], best["lineage"]),
            "ancestry": [{key: each[key] for key in ("epoch", "source", "trial")} for each in best["lineage"]],
        },
    }, indent=2)  # fmt: skip


def metric_of(trial: Trial) -> float:
    """The metric after the trial's last epoch."""
    return float(trial["rows"][-1]["metric"])


def _lines(trials: list[Trial]) -> list[dict[str, Any]]:
    """A row for each epoch; one without metrics for a trial that reported none."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial["point"]))
    lines = []
    for trial in trials:
        fixed = {name: trial[name] for name in ("trial", "status", "error", "seconds")}
        point = {f"config.{key}": _cell(trial["point"].get(key)) for key in keys}
        lines += [{**fixed, **point, **row} for row in trial["rows"] or [{"epoch": None, "metric": None}]]
    return lines


def _cell(value: Any) -> Any:
    """Lists as text: a column of a table is of one type."""
    return str(value) if isinstance(value, list | tuple | dict) else value

"""What a search leaves: `trials.parquet`, one row for each trial and epoch, and `best.toml`."""

import math
from pathlib import Path
from typing import Any

from experiments.search.config import SearchConfig, trial_config
from mtan_core.config import dump_config
from mtan_core.errors import UserError
from mtan_core.files import replacing, write_text

Trial = dict[str, Any]  # trial, point, status, error, seconds, epochs: rows


def summarize(number: int, result: Any) -> Trial:
    """One of Ray's results, in our words."""
    last = result.metrics or {}
    frame = result.metrics_dataframe
    rows: list[dict[str, Any]] = []
    if frame is not None and "epoch" in frame:
        kept = [name for name in frame if name in ("epoch", "metric") or "." in name]
        frame = frame.drop_duplicates("epoch", keep="last").sort_values("epoch")
        rows = frame[[name for name in kept if not name.startswith("config")]].to_dict("records")
    complete = bool(rows) and rows[-1]["epoch"] == last.get("epochs")
    status = "failed" if result.error else "finished" if complete else "stopped" if rows else "unfinished"
    return {
        "trial": number, "point": (result.config or {}).get("point", {}), "status": status,
        "error": error_told(result.error), "seconds": last.get("time_total_s"), "rows": rows,
    }  # fmt: skip


def error_told(error: Exception | None) -> str | None:
    """The last line that says something: Ray wraps the trial's exception in its traceback."""
    if error is None:
        return None
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
    write_text(folder / "best.toml", dump_config(trial_config(search, best["point"])))
    return best


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

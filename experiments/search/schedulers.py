"""Ray's schedulers that compare trials with each other. After a restart they know again what all trials had reached.

Ray 2.60 begins them anew when a search goes on. A trial would then be held against the others' later epochs, and be stopped for being
younger than they are.
"""

import json
from collections.abc import Mapping
from typing import Any

from pyarrow import fs
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

Result = Mapping[str, Any]  # with the trial's `epoch` and `metric`


class Halving(ASHAScheduler):
    """ASHA (Li et al. 2020), by epochs."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take note of what the trial reported before the search was stopped; what had followed from that is decided."""
        super().on_trial_add(tune_controller, trial)
        for result in reported(trial):
            self.on_trial_result(tune_controller, trial, dict(result))


class Median(MedianStoppingRule):
    """Median stopping (Golovin et al. 2017), by epochs."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take note of what the trial reported before the search was stopped."""
        super().on_trial_add(tune_controller, trial)
        if found := reported(trial):
            self._results[trial] = found


def reported(trial: Trial) -> list[Result]:
    """A trial's epochs so far, as Ray has written them down; none of one that begins."""
    if trial.storage is None or trial.storage.trial_dir_name is None:  # it has no folder before it begins
        return []
    filesystem, file = trial.storage.storage_filesystem, f"{trial.storage.trial_fs_path}/result.json"
    if filesystem.get_file_info(file).type == fs.FileType.NotFound:
        return []
    with filesystem.open_input_stream(file) as stream:
        lines = stream.read().decode(errors="replace").splitlines()
    return [result for line in lines if (result := _read(line))]


def _read(line: str) -> Result | None:
    """A line's result; None for one that was only begun, and for what Ray says without an epoch of ours."""
    try:
        result = json.loads(line)
    except ValueError:
        return None
    return result if isinstance(result, dict) and {"epoch", "metric"} <= result.keys() else None

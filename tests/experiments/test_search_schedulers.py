"""Schedulers that compare trials know after a restart what these had reached."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from experiments.search.schedulers import Halving, Median, reported

METRIC = {"metric": "metric", "mode": "max"}


def trial(folder: Path, number: int, values: Sequence[float], tail: str = "") -> Trial:
    """A trial that reported these values in its first epochs; one without any is new, and has no folder yet."""
    storage = StorageContext(str(folder), "ray", trial_dir_name=f"{number:05d}" if values else None)
    if values:
        file = Path(storage.trial_fs_path) / "result.json"
        file.parent.mkdir(parents=True)
        lines = [json.dumps({"epoch": epoch, "metric": value}) for epoch, value in enumerate(values, 1)]
        file.write_text("\n".join([*lines, tail]))
    return Trial("training", stub=True, storage=storage, trial_id=f"t_{number}")


def test_what_was_reported_is_read_again(tmp_path: Path) -> None:
    assert reported(trial(tmp_path, 0, [])) == []
    half = trial(tmp_path, 1, [0.1, 0.2], '{"done": true}\n{"epoch": 3, "met')
    assert [result["metric"] for result in reported(half)] == [0.1, 0.2]


@pytest.mark.parametrize(("young", "decision"), [(0.5, TrialScheduler.CONTINUE), (0.2, TrialScheduler.STOP)])
def test_a_young_trial_is_held_against_what_older_ones_were_at_its_age(
    tmp_path: Path, young: float, decision: str
) -> None:
    scheduler = Halving(time_attr="epoch", max_t=20, grace_period=2, reduction_factor=3)
    scheduler.set_search_properties(**METRIC)
    for number, values in enumerate([[0.1, 0.3, 0.8, 0.9], [0.1, 0.4, 0.8]]):
        scheduler.on_trial_add(None, trial(tmp_path, number, values))
    newcomer = trial(tmp_path, 9, [])
    scheduler.on_trial_add(None, newcomer)
    assert scheduler.on_trial_result(None, newcomer, {"epoch": 2, "metric": young}) == decision


def test_a_trial_that_goes_on_after_a_restart_does_not_pass_for_its_younger_self(tmp_path: Path) -> None:
    scheduler = Halving(time_attr="epoch", max_t=20, grace_period=2, reduction_factor=3)
    scheduler.set_search_properties(**METRIC)
    older, newcomer = trial(tmp_path, 0, [0.1, 0.2, 0.3]), trial(tmp_path, 1, [])
    for each in (older, newcomer):
        scheduler.on_trial_add(None, each)
    assert scheduler.on_trial_result(None, older, {"epoch": 4, "metric": 0.9}) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, newcomer, {"epoch": 2, "metric": 0.25}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize(("young", "decision"), [(0.5, TrialScheduler.CONTINUE), (0.1, TrialScheduler.STOP)])
def test_medians_are_those_of_all_trials_so_far(tmp_path: Path, young: float, decision: str) -> None:
    scheduler = Median(time_attr="epoch", grace_period=2, min_samples_required=3, min_time_slice=100)
    scheduler.set_search_properties(**METRIC)
    for number in range(3):
        scheduler.on_trial_add(None, trial(tmp_path, number, [0.2, 0.4, 0.9]))
    newcomer = trial(tmp_path, 9, [])
    scheduler.on_trial_add(None, newcomer)
    assert scheduler.on_trial_result(None, newcomer, {"epoch": 2, "metric": young}) == decision

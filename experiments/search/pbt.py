"""Population based training (Jaderberg et al. 2017): Ray's scheduler, made to find the same whatever runs when, and to go on
after any failure.

Ray's own synchronous form waits for ever for a trial that has failed, forgets after a restart who waits for whom, and may
exchange while a checkpoint is being written. Here every trial pauses at a common epoch; the exchange is made when all that
live have arrived, and what it decided is in the trials' own state.
"""

from random import Random
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from experiments.search.config import SearchConfig
from experiments.search.schedules import Exchange, explored


def _unchanged(config: dict[str, Any]) -> dict[str, Any]:
    return config


def _number(trial: Trial) -> int:
    """Ray counts in the last part of the name what it draws from a list."""
    return int(trial.trial_id.rpartition("_")[2])


class Population(PopulationBasedTraining):
    """Trials that pause every `interval` epochs, when the worst go on as copies of the best with other values.

    A trial's configuration holds its present `point`, its ancestry as `lineage`, and the epoch of the last exchange that it
    took part in as `exchanged`.
    """

    def __init__(self, search: SearchConfig) -> None:
        options = search.scheduler
        super().__init__(
            time_attr="epoch", perturbation_interval=options.interval, quantile_fraction=options.quantile,
            custom_explore_fn=_unchanged, log_config=False, synch=True,
        )  # fmt: skip
        self._search = search
        self._draws = Random(search.seed)
        self._next_perturbation_sync = -(-options.grace // options.interval) * options.interval

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Every trial waits to be chosen; one that comes back after a restart has what its checkpoint says."""
        if trial in self._trial_state:  # it failed and is tried again
            return
        super().on_trial_add(tune_controller, trial)
        if trial.is_finished():
            return
        if found := trial.latest_checkpoint_result:
            state = self._trial_state[trial]
            self._save_trial_state(state, found.metrics["epoch"], found.metrics, trial)
        synced = trial.config.get("exchanged", 0) + self._search.scheduler.interval
        self._next_perturbation_sync = max(self._next_perturbation_sync, synced)
        trial.set_status(Trial.PAUSED)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Pause at the epoch of the next exchange. After a trial's last epoch there is nothing left to change."""
        epoch = result.get("epoch", 0)
        if epoch < self._next_perturbation_sync or epoch >= result["epochs"]:
            return str(TrialScheduler.CONTINUE)
        self._save_trial_state(self._trial_state[trial], epoch, result, trial)
        return str(TrialScheduler.PAUSE)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The trial that is furthest behind; Ray asks at every step, so that here is seen when all have arrived."""
        live = sorted((t for t in tune_controller.get_trials() if not t.is_finished()), key=lambda t: str(t.trial_id))
        paused = [trial for trial in live if trial.status == Trial.PAUSED]
        waiting = [trial for trial in paused if self._epoch(trial) < self._next_perturbation_sync]
        if live and len(paused) == len(live) and not waiting:
            self._exchange(tune_controller, live)
            waiting = live
        if self._search.concurrency and len(live) - len(paused) >= self._search.concurrency:
            return None
        return min(waiting, key=self._epoch, default=None)

    def _epoch(self, trial: Trial) -> int:
        return self._trial_state[trial].last_train_time

    def _exchange(self, tune_controller: Any, live: list[Trial]) -> None:
        """The worst of those that live become copies of the best. What is drawn depends on the seed and the epoch alone."""
        epoch = self._next_perturbation_sync
        self._draws = Random(f"{self._search.seed}/{epoch}")
        self._trial_state = dict(sorted(self._trial_state.items(), key=lambda item: str(item[0].trial_id)))
        worst, best = self._quantiles()
        for trial in best:
            self._trial_state[trial].last_checkpoint = trial.checkpoint
        for trial in worst:
            self._exploit(tune_controller, trial, self._draws.choice(best))
        for trial in live:
            trial.set_config({**trial.config, "exchanged": epoch})
            trial.run_metadata.invalidate_cache()
            tune_controller._mark_trial_to_checkpoint(trial)  # so that a restart knows of it
        self._next_perturbation_sync = epoch + self._search.scheduler.interval

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        before = trial_to_clone.config["point"]
        exchange: Exchange = {
            "epoch": int(self._next_perturbation_sync), "source": _number(trial_to_clone), "trial": _number(trial),
            "before": before, "after": explored(self._search, before, self._draws),
        }  # fmt: skip
        lineage = [*trial_to_clone.config.get("lineage", []), exchange]
        return {**trial_to_clone.config, "point": exchange["after"], "lineage": lineage}, {}

"""What a search with Ray costs beyond its trainings: against a plain loop over the same trainings on the same cores."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

from decathlon.training import train
from experiments.bench.data import generated
from experiments.cluster.resources import ResourcesConfig
from experiments.cluster.session import cluster
from experiments.cluster.storage import open_storage
from experiments.cluster.watchdog import members
from experiments.search.config import Dimension, SearchConfig, trial_config
from experiments.search.engine import tuner
from experiments.search.space import drawn
from experiments.search.trial import Work, run_trial
from mtan_core.progress import progress

# Trainings of about a second: what Ray adds is to be seen beside them.
TINY = (
    "threads=1", "device=cpu", "batch_size=8", "image_size=24", "network.depth=10", "network.width=1",
    "steps_per_epoch=10", "phases=[{epochs = 2}]",
)  # fmt: skip
PAUSE = 0.25  # seconds between two looks at the memory


@dataclass
class Cost:
    """What a number of trials took: seconds, and the most memory that all processes together held, in bytes."""

    trials: int
    seconds: float = 0.0
    peak: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "trials": self.trials, "seconds": self.seconds, "seconds_per_trial": self.seconds / self.trials,
            "trials_per_hour": 3600 * self.trials / self.seconds, "peak_memory_gb": self.peak / 1e9,
        }  # fmt: skip


def measure_search(nothings: int, trainings: int, cores: int) -> dict[str, Any]:
    """`nothing`: a search of so many trials that do nothing; `search` and `loop`: the same tiny trainings, `cores` at once.

    `start_seconds` is what Ray takes to begin and to end. `overhead_seconds` is what a training takes more of a core in
    the search than in the loop.
    """
    load = os.getloadavg()[0]
    with (
        generated(["daimlerpedcls"]) as (_, made),
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        progress("trials", nothings + 2 * trainings) as advance,
    ):
        store, resources = str(made), ResourcesConfig(cpus=1)
        settings = SearchConfig(preset="quickstart", set=TINY, trials=trainings, concurrency=cores, resources=resources,
                                space={"optimizer.lr": Dimension(log_uniform=(1e-3, 1e-1))})  # fmt: skip
        loop = _loop(settings, store, Path(folder) / "loop", cores)
        advance(trainings, note="the loop is done")
        begun = perf_counter()
        with cluster(None, resources) as own:
            started = perf_counter() - begun
            assert own is not None
            nothing = _search(
                settings.model_copy(update={"trials": nothings}), store, f"{folder}/nothing", own, _nothing
            )
            advance(nothings, note="what does nothing is done")
            search = _search(settings, store, f"{folder}/search", own, run_trial)
            advance(trainings)
            ending = perf_counter()
        start = started + perf_counter() - ending
    return {
        "cores": cores, "load_before": load, "start_seconds": start, "nothing": nothing.to_dict(),
        "search": search.to_dict(), "loop": loop.to_dict(),
        "overhead_seconds": cores * (search.seconds - loop.seconds) / trainings,
    }  # fmt: skip


def _nothing(config: dict[str, Any], work: Work) -> None:
    """A trial that reports and ends."""
    from ray import tune

    tune.report({"epoch": 1, "epochs": 1, "metric": 0.0})


def _search(settings: SearchConfig, store: str, out: str, own: Path, trial: Callable[..., None]) -> Cost:
    cost = Cost(settings.trials)
    with _measured(cost, lambda: members(str(own))):
        found = tuner(settings, store, open_storage(out), trial=trial).fit()
    assert len(found) == settings.trials and not found.num_errors
    return cost


def _loop(settings: SearchConfig, store: str, out: Path, cores: int) -> Cost:
    """The trainings one after the other in each of `cores` processes."""
    cost = Cost(settings.trials)
    jobs = [(settings, point, store, out / str(number)) for number, point in enumerate(drawn(settings))]
    with get_context("spawn").Pool(cores) as pool:
        own = [process.pid for process in pool._pool]  # type: ignore[attr-defined]
        with _measured(cost, lambda: own):
            pool.starmap(_train, jobs, chunksize=1)
    return cost


def _train(settings: SearchConfig, point: dict[str, Any], store: str, run: Path) -> None:
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        train(trial_config(settings, point), store, run)


@contextmanager
def _measured(cost: Cost, processes: Callable[[], list[int]]) -> Iterator[None]:
    """Measure the block's time, and the memory of this process and the others."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PAUSE):
            cost.peak = max(cost.peak, sum(map(memory, (os.getpid(), *processes()))))

    watching = threading.Thread(target=watch)
    watching.start()
    begun = perf_counter()
    try:
        yield
    finally:
        cost.seconds = perf_counter() - begun
        over.set()
        watching.join()


def memory(process: int) -> int:
    """Bytes that a process holds; what several share counts once among them (Linux's proportional set size)."""
    try:
        lines = (Path("/proc") / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def print_search(document: dict[str, Any]) -> None:
    """The document of `measure_search` for people."""
    print(f"{document['cores']} trials at once; load of the machine before: {document['load_before']:.1f}; Ray starts and "
          f"ends in {document['start_seconds']:.1f} s")  # fmt: skip
    print(f"{'side':8}  {'trials':>6}  {'s/trial':>8}  {'trials/h':>8}  peak memory")
    for name in ("nothing", "search", "loop"):
        row = document[name]
        print(
            f"{name:8}  {row['trials']:6}  {row['seconds_per_trial']:8.2f}  {row['trials_per_hour']:8.0f}  "
            f"{row['peak_memory_gb']:.1f} GB"
        )
    print(f"A training takes {document['overhead_seconds']:.2f} s more of a core in the search than in the loop.")

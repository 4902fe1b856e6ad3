"""A thin adapter of Ray Train (2.60) around the training loop."""

import json
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import train
from ray.train.torch import TorchTrainer

from experiments.cluster.resources import ResourcesConfig
from experiments.cluster.session import cluster
from experiments.cluster.storage import absolute, open_storage, remove_leftovers
from experiments.train.copies import copies_in, refuse_copy
from experiments.train.desk import new_desk
from experiments.train.worker import TaskKind, Work, work
from mtan_core.config import Frozen
from mtan_core.errors import UserError
from mtan_core.files import LOCK, held
from mtan_core.parallel import Group
from mtan_core.progress import progress
from mtan_core.stopping import INTERRUPTED

LOOK = 0.2  # seconds between two looks at how far it is


@dataclass(frozen=True)
class Workers:
    """How many processes, what each of them takes, and how often all are started anew when one is lost.

    With `fewest` training also begins, and goes on, with fewer than `count`.
    """

    count: int
    fewest: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    restarts: int = 3


def train_together(
    task: TaskKind,
    config: Frozen,
    data: str,
    run: Path,
    workers: Workers,
    resume: bool = False,
    synchronised: bool = True,
    address: str | None = None,
    storage: str | None = None,
) -> dict[str, Any]:
    """Train a run in several processes; returns its summary. Raises UserError for bad input before anything is started.

    The batch of the configuration is that of all processes together. Without a `storage` they all write and read `run`
    itself; with one they pass copies on there, the last of which is brought to `run` at the end.
    """
    check(task, config, data, run, workers, resume)
    if storage and not resume:
        refuse_copy(storage)
    resources = ResourcesConfig(cpus=workers.cpus, gpus=workers.gpus)
    with cluster(address, resources) as scratch, _marked(run) as mark, _fetched(storage, run):
        _refuse_too_many(workers)
        told = Work(
            task, config.model_dump(mode="json"), absolute(data), str(run.absolute()), mark, resume, synchronised,
            absolute(storage) if storage else None, str(scratch) if scratch else None,
        )  # fmt: skip
        _fit(told, workers)
    return dict(json.loads((run / "summary.json").read_text()))


@contextmanager
def _fetched(storage: str | None, run: Path) -> Iterator[None]:
    """Bring the last copy of a run home, however its training ends."""
    if storage is None:
        yield
        return
    with held(run, "a run"):
        try:
            yield
        finally:
            copies_in(storage).pull(run)


def check(task: TaskKind, config: Any, data: str, run: Path, workers: Workers, resume: bool) -> None:
    """Put everything together in this process, once, to hear of mistakes before anything starts."""
    from mtan_core.runs import refuse_differences, refuse_existing

    group, begun = Group(), resume and (run / "config.toml").exists()
    group.size = workers.count
    if task == "decathlon":
        from decathlon.runs import RunFolder
        from decathlon.training import inherited_specs, prepare_training

        folder: Any = RunFolder(run)
        inherited = inherited_specs(folder, config) if begun else []
        start = folder.checkpoint() if inherited else None
        prepare_training(config, data, run, inherited=inherited, start=start, group=group)
    else:
        from dense_tasks.runs import DenseFolder
        from dense_tasks.training import prepare_training as prepare_dense

        folder = DenseFolder(run)
        prepare_dense(config, Path(data), run, group=group)
    if begun:
        refuse_differences(folder.config(), config)
    else:
        refuse_existing(run)


@contextmanager
def _marked(run: Path) -> Iterator[str]:
    """Yield the name of a file in the run's folder by which workers know that they reach it."""
    there = run.exists()
    run.mkdir(parents=True, exist_ok=True)
    with held(run, "a run"):
        remove_leftovers(open_storage(str(run)))
    mark = run / f".tmp-{secrets.token_hex(4)}-reached"
    mark.touch()
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)
        if not there and not any(child.name != LOCK for child in run.iterdir()):
            shutil.rmtree(run)


def _refuse_too_many(workers: Workers) -> None:
    """Raises UserError for more workers than the machines have room for, who would be waited for without end."""
    wanted = {"CPU": workers.cpus, "GPU": workers.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(kind, 0) // each) for kind, each in wanted.items() if each) for node in nodes)
    needed = workers.fewest or workers.count
    if room < needed:
        raise UserError(
            f"--workers: expected at most the {room} that the machines have room for, found {needed} of "
            f"{workers.cpus:g} CPUs and {workers.gpus:g} GPUs each."
        )


def _fit(told: Work, workers: Workers) -> None:
    """Let Ray run the workers, and show how far they are. Raises UserError for what they refused."""
    desk, place = new_desk(), open_storage(told.storage or told.run)
    trainer = TorchTrainer(
        work,
        train_loop_config={"work": told, "desk": desk},
        scaling_config=train.ScalingConfig(
            num_workers=(workers.fewest, workers.count) if workers.fewest else workers.count,  # type: ignore[arg-type]
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=train.RunConfig(
            name=f"{told.mark}-ray", storage_path=place.path, storage_filesystem=place.filesystem,
            failure_config=train.FailureConfig(max_failures=workers.restarts),
        ),
    )  # fmt: skip
    try:
        with ThreadPoolExecutor(1) as pool, _stopping(desk):
            fitted = pool.submit(trainer.fit)
            _watch(fitted, desk)
    finally:
        remove_leftovers(place)
    standing = ray.get(desk.read.remote())
    if standing.mistake:
        raise UserError(standing.mistake)
    if standing.stopped:
        print(
            f"mtan: stopped; {standing.stopped} is written. Go on with the same command and --resume ({told.run}).",
            file=sys.stderr,
        )
        raise SystemExit(INTERRUPTED)
    if problem := fitted.exception():
        raise _told_shortly(problem, workers, told.run)


def _told_shortly(problem: BaseException, workers: Workers, run: str) -> BaseException:
    """What was wrong with the workers, without what Ray's own functions have to do with it."""
    failures = getattr(problem, "worker_failures", None)
    if not failures:
        return problem
    rank, first = next(iter(failures.items()))
    lines = [line for line in str(first).splitlines() if line.strip()]
    return UserError(
        f"Expected {workers.count} workers that train to the end, found that worker {rank} failed {workers.restarts + 1} "
        f"times: {lines[-1] if lines else type(first).__name__}; go on with the same command and --resume ({run})."
    )


def _watch(fitted: "Future[Any]", desk: Any) -> None:
    """A bar of the steps of all workers, until they have ended; a restart takes it back to the last checkpoint."""
    standing = ray.get(desk.read.remote())
    while standing.total is None and not fitted.done():
        _wait(fitted)
        standing = ray.get(desk.read.remote())
    if standing.total is None:
        return
    shown = standing.steps
    with progress("training", total=standing.total, start=shown) as advance:
        while not fitted.done():
            standing = ray.get(desk.read.remote())
            if standing.steps != shown:
                advance(standing.steps - shown, note=standing.note)
                shown = standing.steps
            _wait(fitted)


def _wait(fitted: "Future[Any]") -> None:
    with suppress(TimeoutError):
        fitted.exception(timeout=LOOK)


@contextmanager
def _stopping(desk: Any) -> Iterator[None]:
    """Ctrl-C and SIGTERM are a wish that the leader is told; a second one ends everything at once."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        desk.write.remote(stopping=True)
        print("mtan: stopping after this step (Ctrl-C again: at once, without a checkpoint).", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The sweep: trainings dealt out to Ray's workers as soon as those they build upon are done."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray

from experiments.cluster.mirror import Mirror
from experiments.cluster.session import cluster
from experiments.cluster.storage import absolute, open_storage, refuse_unwritable
from experiments.compare.comparison import Comparison
from experiments.compare.measured import folder_of
from experiments.search.results import error_told
from experiments.sweep.cell import Job, done, train_cell
from experiments.sweep.config import KIND, Cell, TableConfig, cells, check_table, configuration, sources
from experiments.sweep.results import compared, write_tables
from mtan_core.config import dump_config, read_toml
from mtan_core.errors import UserError, nearest
from mtan_core.files import check_output, held, taken, write_json, write_text
from mtan_core.progress import progress
from mtan_core.runs import check_format, refuse_differences

FORMAT = 1
Ended = Callable[[Cell, str | None], None]  # told of a training that has ended, and of its error


@dataclass(frozen=True)
class Where:
    """What a table is trained on, and where."""

    data: str
    storage: str | None = None
    address: str | None = None
    annotations: str | None = None

    def absolute(self) -> "Where":
        """Workers stand in other folders."""
        paths = {name: value for name, value in asdict(self).items() if value and name != "address"}
        return replace(self, **{name: absolute(value) for name, value in paths.items()})


@dataclass(frozen=True)
class Sweep:
    """A table in its folder."""

    out: Path
    table: TableConfig
    where: Where

    @property
    def runs(self) -> Path:
        return self.out.absolute() / "runs"

    @cached_property
    def cells(self) -> list[Cell]:
        return cells(self.table)

    def run(self, cell: Cell) -> Path:
        return self.runs / cell.name

    def done(self, cell: Cell) -> bool:
        return done(self.run(cell), self.where.annotations is not None)

    def sources(self, cell: Cell) -> list[Cell]:
        return sources(cell, self.cells)

    def job(self, cell: Cell) -> Job:
        upon = tuple(self.run(other) for other in self.sources(cell))
        config = configuration(self.table, cell, self.runs)
        where = self.where
        return Job(self.table.task, config, where.data, self.run(cell), upon, bool(where.annotations), where.storage)

    def check(self) -> None:
        """Raises UserError where the data are not there or lack what a row names, and for runs of another configuration."""
        _check_data(self)
        for cell in self.cells:
            if (self.run(cell) / "config.toml").is_file():
                try:
                    refuse_differences(folder_of(self.run(cell)).config(), self.job(cell).config)
                except UserError as problem:
                    raise UserError(f"{self.run(cell)}: {problem}") from None


@dataclass(frozen=True)
class Swept:
    """What became of a table."""

    made: Sweep
    found: Comparison
    errors: Mapping[Cell, str]

    @property
    def finished(self) -> int:
        return sum(map(self.made.done, self.made.cells))

    def to_dict(self) -> dict[str, Any]:
        failures = [{"row": cell.row.name, "seed": cell.seed, "error": error} for cell, error in self.errors.items()]
        return {
            "sweep": str(self.made.out), "runs": len(self.made.cells), "finished": self.finished,
            "failed": len(failures), "failures": failures, "comparison": self.found.to_dict(),
        }  # fmt: skip


def sweep(table: TableConfig, out: Path, where: Where) -> Swept:
    """Train a table from the beginning. Raises UserError for bad input before anything is written or started."""
    _refuse_existing(out)
    made = Sweep(out, table, where.absolute())
    made.check()
    if where.storage:
        refuse_unwritable(open_storage(where.storage), where.storage)
    with cluster(where.address, table.resources):
        out.mkdir(parents=True, exist_ok=True)
        with held(out, "a sweep"):
            _refuse_existing(out)  # somebody may have been quicker
            write_text(out / "sweep.toml", dump_config(table))
            write_json(out / "sweep.json", {"format": FORMAT, **asdict(made.where)}, indent=2)
            return _run(made)


def _refuse_existing(out: Path) -> None:
    check_output(out / "sweep.json")
    if taken(out):
        raise UserError(
            f"--out: expected a new folder, found {out} (go on with a sweep by `mtan experiments resume`, or choose another)."
        )


def read_sweep(out: Path) -> Sweep:
    """A sweep from its folder. Raises UserError for a damaged one."""
    path = out / "sweep.json"
    try:
        where = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise UserError(f"Expected a sweep's folder, found a damaged file: {path}: {problem}.") from None
    check_format(where, path)
    table = KIND.parse(
        read_toml(out / "sweep.toml", "Expected a table, found a damaged file:"), str(out / "sweep.toml")
    )
    check_table(table)
    return Sweep(out, table, Where(**{name: value for name, value in where.items() if name != "format"}))


def resume(out: Path) -> Swept:
    """Go on with a sweep: what is finished stays. Raises as `sweep` does."""
    made = read_sweep(out)
    made.check()
    with held(out, "a sweep"):
        _bring_finished(made)
        if all(map(made.done, made.cells)):
            return _conclude(made, {})
        with cluster(made.where.address, made.table.resources):
            return _run(made)


def _run(made: Sweep) -> Swept:
    left = {cell: made.job(cell) for cell in made.cells if not made.done(cell)}
    errors: dict[Cell, str] = {}
    with progress("sweep", total=len(made.cells), start=len(made.cells) - len(left)) as advance:

        def ended(cell: Cell, error: str | None) -> None:
            if error is not None:
                errors[cell] = error
            elif made.where.storage is not None and not made.done(cell):
                Mirror(made.where.storage, cell.name).pull(made.run(cell))
            _write_status(made, errors)
            advance(1, note=f"{cell.name}" + (": failed" if error else ""))

        try:
            deal(left, made, ended)
        except KeyboardInterrupt:
            print(f"mtan: stopped; go on with `mtan experiments resume {made.out}`.", file=sys.stderr)
            raise SystemExit(130) from None
    return _conclude(made, errors)


def _bring_finished(made: Sweep) -> None:
    """Runs that other machines finished while nobody was there to fetch them."""
    if made.where.storage is not None:
        for cell in made.cells:
            if not made.run(cell).is_dir():
                Mirror(made.where.storage, cell.name).pull(made.run(cell))


def deal(jobs: Mapping[Cell, Job], made: Sweep, ended: Ended) -> None:
    """Run all jobs, as many at once as the resources and the table's concurrency allow."""
    table, resources = made.table, made.table.resources
    remote = ray.remote(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=table.retries, retry_exceptions=True
    )(train_cell)
    waiting, failed = dict(jobs), set[Cell]()
    running: dict[Any, Cell] = {}
    while waiting or running:
        for cell in list(waiting):
            before = made.sources(cell)
            broken = [other for other in before if other in failed]
            if broken:
                failed.add(cell)
                del waiting[cell]
                ended(cell, f"it builds upon '{broken[0].row.name}', which failed")
            elif not any(other in waiting or other in running.values() for other in before) and (
                not table.concurrency or len(running) < table.concurrency
            ):
                running[remote.remote(waiting.pop(cell))] = cell
        over, _ = ray.wait(list(running), timeout=1) if running else ([], [])  # so that signals are heard
        for reference in over:
            cell, error = running.pop(reference), _error(reference)
            failed |= {cell} if error else set()
            ended(cell, error)


def _error(reference: Any) -> str | None:
    """What went wrong in a worker, in a line; None when nothing did."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as problem:
        return error_told(problem)


def _write_status(made: Sweep, errors: Mapping[Cell, str]) -> None:
    """`status.json`: how far each training is."""
    rows = []
    for cell in made.cells:
        status = "finished" if made.done(cell) else "failed" if cell in errors else "unfinished"
        rows.append({"row": cell.row.name, "seed": cell.seed, "run": str(made.run(cell)), "status": status,
                     "error": errors.get(cell)})  # fmt: skip
    write_json(made.out / "status.json", rows, indent=1)


def failures(made: Sweep) -> dict[Cell, str]:
    """What `status.json` says of trainings that failed."""
    path = made.out / "status.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    told = {(row["row"], row["seed"]): row["error"] for row in rows if row["status"] == "failed"}
    return {cell: told[cell.row.name, cell.seed] for cell in made.cells if (cell.row.name, cell.seed) in told}


def _conclude(made: Sweep, errors: Mapping[Cell, str]) -> Swept:
    """Write the tables of what is finished. Raises UserError where nothing is."""
    _write_status(made, errors)
    found = finished_rows(made, errors)
    write_tables(made.out, found)
    return Swept(made, found, errors)


def finished_rows(made: Sweep, errors: Mapping[Cell, str] = MappingProxyType({})) -> Comparison:
    """What is finished, row by row, beside the reference. Raises UserError where nothing is."""
    shown = {row.name: [made.run(cell) for cell in made.cells if cell.row == row and made.done(cell)]
             for row in dict.fromkeys(cell.row for cell in made.cells) if not row.hidden}  # fmt: skip
    if not any(shown.values()):
        first = next(iter(errors.values()), "none").rstrip(".")
        raise UserError(f"{made.out}: expected a training that reaches its end, found that {len(errors)} of "
                        f"{len(made.cells)} failed: {first}.")  # fmt: skip
    told = [f"{cell.row.name}, seed {cell.seed}: failed: {error.rstrip('.')}" for cell, error in errors.items()]
    annotations = Path(made.where.annotations) if made.where.annotations else None
    return compared(shown, made.table.reference, annotations, told)


def _check_data(made: Sweep) -> None:
    if made.table.task == "dense":
        if not Path(made.where.data).is_dir():
            raise UserError(f"--data: expected a folder of dense data, found none: {made.where.data}.")
        if made.where.annotations is not None:
            raise UserError("--annotations: expected a table of the Decathlon, found a dense one.")
        _check_root(made)
        return
    from decathlon.data.store import open_store
    from decathlon.training import check_keys

    domains = list(open_store(made.where.data).domains)
    for cell in made.cells:
        config = made.job(cell).config
        check_keys(config, domains)  # type: ignore[arg-type]
        for name in config.domains:  # type: ignore[attr-defined]
            if name not in domains:
                raise UserError(
                    f"`domains`: the store {made.where.data} has no domain '{name}'{nearest(name, domains)}."
                )
    if made.where.annotations is not None:
        _check_annotations(Path(made.where.annotations), domains)


def _check_root(made: Sweep) -> None:
    """Look at all files of the root, once for each way in which rows read it."""
    from dense_tasks.training import training_root

    configs: list[Any] = [made.job(cell).config for cell in made.cells]
    for config in {(each.tasks, each.dataset, each.missing_labels): each for each in configs}.values():
        training_root(config, Path(made.where.data))


def _check_annotations(annotations: Path, domains: list[str]) -> None:
    """Raises UserError where there are no labels of the test images of a domain."""
    from decathlon.answers import read_answers

    if not annotations.exists():
        raise UserError(f"--annotations: expected labelled test files, found nothing: {annotations}.")
    for answer in read_answers(annotations, "test", domains):
        if answer.labels is None:
            raise UserError(f"--annotations: expected labels to score with, found a file without: {answer.where}.")

"""A table of trainings: dimensions whose combinations are its rows, what is left out, what comes beside, and the seeds."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, model_validator

from decathlon.config import KIND as DECATHLON
from dense_tasks.config import KIND as DENSE
from experiments.cluster.resources import ResourcesConfig
from experiments.search.config import Point, Value, toml_value
from mtan_core import config as core
from mtan_core.config import Frozen, Names, read_toml
from mtan_core.errors import UserError, nearest

OWN_KEYS = ("seed", "threads", "pool_from", "distillation.teachers")  # what a table says otherwise than by these


def _listed(values: Any) -> Any:
    """One value is a list of one."""
    return {key: value if isinstance(value, list) else [value] for key, value in values.items()} \
        if isinstance(values, dict) else values  # fmt: skip


Some = Annotated[dict[str, tuple[Value, ...]], BeforeValidator(_listed)]  # values by key of the configuration


class Built(Frozen):
    """Changes to the configuration, and the rows whose runs (of the same seed) a training begins with."""

    set: tuple[str, ...] = Field((), description="changes to the configuration, as KEY=VALUE")
    pool_from: str = Field("", description="the row whose trained pool it begins with")
    teachers: Names = Field((), description="the rows that it learns from as well")


class RowConfig(Built):
    """A row beside the combinations."""

    name: str = Field(min_length=1, description="what it is called")
    preset: str | None = Field(None, description="the preset that it begins from (default: the table's)")
    hidden: bool = Field(False, description="whether it is only there for others to build upon")


class RuleConfig(Built):
    """What holds for some of the combinations."""

    when: Some = Field(description="for combinations in which these keys have one of these values")


class TableConfig(Frozen):
    """A table of trainings of one task."""

    task: Literal["decathlon", "dense"] = Field("decathlon", description="decathlon or dense")
    preset: str | None = Field(None, description="the preset that rows begin from (default: the task's)")
    config: str | None = Field(None, description="or a configuration file, relative to the table's own")
    set: tuple[str, ...] = Field((), description="changes to it, as KEY=VALUE")
    seeds: tuple[NonNegativeInt, ...] = Field((0, 1, 2), min_length=1, description="every row is trained with each")
    dimensions: dict[str, tuple[Value, ...]] = Field(
        default_factory=dict, description="values by key of the configuration; every combination is a row"
    )
    exclude: tuple[Some, ...] = Field((), description="combinations with all of these are left out")
    where: tuple[RuleConfig, ...] = Field((), description="what holds for some of the combinations")
    rows: tuple[RowConfig, ...] = Field((), description="rows beside the combinations")
    reference: str | None = Field(None, description="the row that others are compared with (default: the first)")
    resources: ResourcesConfig = ResourcesConfig()
    concurrency: NonNegativeInt = Field(0, description="trainings at once; 0: as many as the resources allow")
    retries: NonNegativeInt = Field(1, description="how often a training that fails is tried again")

    @model_validator(mode="after")
    def _consistent(self) -> "TableConfig":
        if not self.dimensions and not self.rows:
            raise ValueError("expected `dimensions` or `rows`, found neither")
        if self.preset is not None and self.config is not None:
            raise ValueError("expected `preset` or `config`, found both")
        if len({*self.seeds}) < len(self.seeds):
            raise ValueError(f"`seeds`: expected each once, found {', '.join(map(str, self.seeds))}")
        for key, values in self.dimensions.items():
            if not values or any(value in values[:place] for place, value in enumerate(values)):
                raise ValueError(f"`dimensions.{key}`: expected different values, found {list(values)}")
            if key in OWN_KEYS:
                raise ValueError(f"`dimensions.{key}`: expected a key that the table does not set by itself")
        for place, chosen in enumerate(self.exclude):
            self._check(chosen, f"exclude.{place}")
        for place, rule in enumerate(self.where):
            self._check(rule.when, f"where.{place}.when")
        return self

    def _check(self, chosen: Mapping[str, tuple[Value, ...]], where: str) -> None:
        for key, values in chosen.items():
            if key not in self.dimensions:
                raise ValueError(f"`{where}`: there is no dimension '{key}'{nearest(key, self.dimensions)}")
            for value in values:
                if value not in self.dimensions[key]:
                    known = nearest(str(value), map(str, self.dimensions[key]))
                    raise ValueError(f"`{where}.{key}`: the dimension has no value {value!r}{known}")


KIND = core.Kind(TableConfig, "experiments.sweep", "")


@dataclass(frozen=True)
class Row:
    """One configuration, but for its seed."""

    name: str
    preset: str | None
    changes: tuple[str, ...]
    pool_from: str = ""
    teachers: tuple[str, ...] = ()
    hidden: bool = False

    @property
    def upon(self) -> tuple[str, ...]:
        """The rows that must be trained before."""
        return (*((self.pool_from,) if self.pool_from else ()), *self.teachers)

    @property
    def folder(self) -> str:
        return re.sub(r"[^A-Za-z0-9+.=_]+", "-", self.name).strip("-.") or "row"


@dataclass(frozen=True)
class Cell:
    """One training: a row and a seed."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        """What its run's folder is called."""
        return f"{self.row.folder}-{self.seed}"


def shipped() -> list[str]:
    """The names of the tables that come with the package."""
    listed = (files("experiments.sweep") / "tables").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in listed if file.name.endswith(".toml"))


def read_table(name: str) -> TableConfig:
    """A table from a file, or one that is shipped, by its name; a file of the training's is made absolute.

    Raises UserError with all that is wrong, before anything is trained.
    """
    file = Path(name)
    if file.suffix != ".toml" and not file.is_file():
        if name not in shipped():
            raise UserError(f"TABLE: expected a file or the name of a table, found '{name}'{nearest(name, shipped())}.")
        text = files("experiments.sweep") / "tables" / f"{name}.toml"
        table = KIND.parse(read_toml(Path(str(text))), name)
    elif not file.is_file():
        raise UserError(f"TABLE: expected a file, found none: {file}.")
    else:
        table = KIND.load(None, file)
    if table.config is not None:
        table = table.model_copy(update={"config": str((file.parent / table.config).absolute())})
        if not Path(str(table.config)).is_file():
            raise UserError(f"`config`: expected a configuration file, found none: {table.config}.")
    check_table(table)
    return table


def check_table(table: TableConfig) -> None:
    """Raises UserError for rows that are alike, build upon what is not there, or have a configuration that is refused."""
    rows = rows_of(table)
    if all(row.hidden for row in rows.values()):
        raise UserError("Table: expected at least one row that is shown, found none.")
    folders: dict[str, str] = {}
    for row in rows.values():
        if row.folder in folders:
            raise UserError(
                f"Table: expected rows whose names make different folders, found '{folders[row.folder]}' and '{row.name}'."
            )
        folders[row.folder] = row.name
        try:
            configuration(table, Cell(row, table.seeds[0]), Path("runs"))
        except UserError as problem:
            raise UserError(f"Table, row '{row.name}': {problem}") from None
    if table.reference is not None and table.reference not in [name for name, row in rows.items() if not row.hidden]:
        raise UserError(f"`reference`: there is no row '{table.reference}'{nearest(table.reference, rows)}.")
    cells(table)


def rows_of(table: TableConfig) -> dict[str, Row]:
    """All rows by name: the combinations, then those beside. Raises UserError for two of one name and for unknown ones."""
    rows: dict[str, Row] = {}
    for row in (*_combinations(table), *(_beside(table, one) for one in table.rows)):
        if row.name in rows:
            raise UserError(f"Table: expected rows of different names, found two called '{row.name}'.")
        rows[row.name] = row
    for row in rows.values():
        for other in row.upon:
            if other not in rows:
                raise UserError(
                    f"Table, row '{row.name}': there is no row '{other}' to build upon{nearest(other, rows)}."
                )
    return rows


def _beside(table: TableConfig, row: RowConfig) -> Row:
    return Row(row.name, row.preset, row.set, row.pool_from, row.teachers, row.hidden)


def _combinations(table: TableConfig) -> Iterator[Row]:
    named = [key for key, values in table.dimensions.items() if len(values) > 1] or list(table.dimensions)[:1]
    for values in product(*table.dimensions.values()) if table.dimensions else ():
        point: Point = dict(zip(table.dimensions, values, strict=True))
        if not any(_matches(chosen, point) for chosen in table.exclude):
            rules = [rule for rule in table.where if _matches(rule.when, point)]
            changes = [f"{key}={toml_value(value)}" for key, value in point.items()]
            yield Row(
                " ".join(_told(key, point[key]) for key in named), None,
                (*changes, *(change for rule in rules for change in rule.set)),
                next((rule.pool_from for rule in reversed(rules) if rule.pool_from), ""),
                next((rule.teachers for rule in reversed(rules) if rule.teachers), ()),
            )  # fmt: skip


def _matches(chosen: Mapping[str, tuple[Value, ...]], point: Point) -> bool:
    return all(point[key] in values for key, values in chosen.items())


def _told(key: str, value: Value) -> str:
    return value if isinstance(value, str) else f"{key.rpartition('.')[2]}={toml_value(value)}"


def cells(table: TableConfig) -> list[Cell]:
    """All trainings, each behind those it builds upon. Raises UserError for rows that wait for each other."""
    rows, ordered = rows_of(table), []
    for seed in table.seeds:
        ordered += [Cell(row, seed) for row in _ordered(rows)]
    return ordered


def _ordered(rows: Mapping[str, Row]) -> list[Row]:
    done: dict[str, Row] = {}

    def visit(row: Row, waiting: Sequence[str]) -> None:
        if row.name in waiting:
            raise UserError(f"Table: expected rows that can be trained one after the other, found that "
                            f"{' waits for '.join([*waiting[waiting.index(row.name):], row.name])}.")  # fmt: skip
        if row.name not in done:
            for other in row.upon:
                visit(rows[other], [*waiting, row.name])
            done[row.name] = row

    for row in rows.values():
        visit(row, [])
    return list(done.values())


def sources(cell: Cell, among: Iterable[Cell]) -> list[Cell]:
    """The trainings of the same seed that one builds upon."""
    return [other for other in among if other.seed == cell.seed and other.row.name in cell.row.upon]


def training_kind(table: TableConfig) -> "core.Kind[Any]":
    """The kind of configuration that rows have."""
    return DECATHLON if table.task == "decathlon" else DENSE


def configuration(table: TableConfig, cell: Cell, runs: Path) -> Any:
    """The configuration of a training whose sources lie in `runs`; its threads are its CPUs."""
    row, rows = cell.row, rows_of(table)
    changes = [*table.set, f"threads={max(1, int(table.resources.cpus))}", *row.changes, f"seed={cell.seed}"]
    where = {name: str(runs / Cell(rows[name], cell.seed).name) for name in row.upon}
    if row.pool_from:
        changes.append(f"pool_from={toml_value(where[row.pool_from])}")
    if row.teachers:
        changes.append(f"distillation.teachers={toml_value([where[name] for name in row.teachers])}")
    file = Path(table.config) if table.config is not None and row.preset is None else None
    return training_kind(table).load(None if file else row.preset or table.preset, file, changes)

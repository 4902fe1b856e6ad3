"""Rows of a table: each is trained once per seed, measured once, and written down beside the others.

What is done is not done again, so that a table can be made in any number of sittings, and by several processes at once
that take different rows or seeds.
"""

import argparse
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from experiments.compare.statistics import said
from mtan_core.files import write_json

Result = dict[str, Any]
AnyRow = TypeVar("AnyRow")


@dataclass(frozen=True)
class Rows(ABC, Generic[AnyRow]):
    """Rows by name on the data under `root`; runs, measurements and the table lie in `out`. `changes` hold for all rows."""

    rows: Mapping[str, AnyRow]
    root: Path
    out: Path
    changes: Sequence[str] = ()

    @abstractmethod
    def measure(self, name: str, seed: int) -> list[Result]:
        """Train and measure a row: its result, and those of further rows of the same run."""

    @abstractmethod
    def write(self, seeds: Sequence[int], first: Sequence[Result] = ()) -> str:
        """Write `table.md` and `results.json` of all rows that are measured, after those that are given; returns the table."""

    def folder(self, name: str, seed: int) -> Path:
        return self.out / f"{file_name(name)}-{seed}"

    def results(self, name: str, seed: int) -> list[Result]:
        """Train and measure a row, unless that is done."""
        file = self.folder(name, seed) / "measured.json"
        if not file.is_file():
            write_json(file, self.measure(name, seed), indent=1)
        return list(json.loads(file.read_text()))

    def measured(self, name: str, seeds: Sequence[int]) -> list[Result]:
        """What is known of a row by now."""
        files = [self.folder(name, seed) / "measured.json" for seed in seeds]
        return [result for file in files if file.is_file() for result in json.loads(file.read_text())]


def file_name(name: str) -> str:
    return name.replace(" ", "-").replace("'", "")


def cpu_seconds(run: Path, train: Callable[[], object]) -> float | None:
    """The processor time that the whole training took, which other work does not change much; None for a resumed one."""
    began, resumed = time.process_time(), run.exists()
    train()
    return None if resumed else time.process_time() - began


def by_row(results: Sequence[Result]) -> dict[str, list[Result]]:
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result["row"], []).append(result)
    return rows


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and, of several, standard deviation; empty of none."""
    return said(values, digits) if values else ""


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def parser(
    description: str | None, rows: Mapping[str, object], root: str = "a Decathlon in the official layout, with annotations_hidden/"
) -> argparse.ArgumentParser:  # fmt: skip
    """The arguments that all tables take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("root", type=Path, help=root)
    made.add_argument("out", type=Path, help="where runs, measurements, results.json and table.md go")
    made.add_argument("--seeds", default="0,1,2", type=lambda text: [int(seed) for seed in text.split(",")])
    made.add_argument("--rows", default=list(rows), type=lambda text: text.split(","))
    made.add_argument("--set", dest="changes", action="append", default=[], help="KEY=VALUE, for all rows")
    return made


def fill(table: Rows[Any], seeds: Sequence[int], rows: Sequence[str], first: Sequence[Result] = ()) -> None:
    """Train and measure these rows with these seeds, and write the table after each."""
    for seed in seeds:
        for row in rows:
            table.results(row, seed)
            table.write(seeds, first)
    print(table.write(seeds, first))

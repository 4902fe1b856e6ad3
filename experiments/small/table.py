"""Rows of a table: each is trained once per seed, measured once on val and test, and written down beside the others.

What is done is not done again, so that a table can be made in any number of sittings, and by several processes at once
that take different rows or seeds.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from decathlon.building import multiple
from decathlon.config import RunConfig, load_config
from decathlon.data.prepare import prepare
from decathlon.data.store import Store, open_store
from decathlon.reports import evaluate_run, submit_run
from decathlon.runs import Run, load_run
from decathlon.submission import score_results
from decathlon.training import train
from mtan_core.files import write_json, write_text

Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A configuration: the preset `small` with `changes`.

    `pool_from` and `teachers` name rows whose runs (of the same seed) it builds upon. `also` are further rows of the same
    run, altered in memory. A `hidden` row is only there for others.
    """

    changes: tuple[str, ...] = ()
    pool_from: str | None = None
    teachers: str | None = None
    also: Mapping[str, Callable[[Run], None]] = field(default_factory=dict)
    hidden: bool = False


@dataclass(frozen=True)
class Table:
    """Rows by name on the Decathlon under `root`; runs, measurements and the store lie in `out`."""

    rows: Mapping[str, Row]
    root: Path
    out: Path
    changes: Sequence[str] = ()

    def __post_init__(self) -> None:
        prepared(self.root, self.out)

    @property
    def store(self) -> Store:
        return open_store(self.out / "store")

    def folder(self, name: str, seed: int) -> Path:
        return self.out / f"{_file_name(name)}-{seed}"

    def configuration(self, name: str, seed: int) -> RunConfig:
        row = self.rows[name]
        sources = {"pool_from": row.pool_from, "distillation.teachers": row.teachers}
        upon = [f'{key}="{self.folder(other, seed) / "run"}"' for key, other in sources.items() if other]
        return load_config("small", None, [f"seed={seed}", *self.changes, *row.changes, *upon])

    def results(self, name: str, seed: int) -> list[Result]:
        """Train and measure a row, after those it builds upon, unless that is done."""
        row, folder = self.rows[name], self.folder(name, seed)
        file = folder / "measured.json"
        if not file.is_file():
            before = [self.results(other, seed)[0] for other in (row.pool_from, row.teachers) if other]
            facts = {
                "before": sum(result["images"] + result["before"] for result in before),
                "cpu_seconds": self._train(self.configuration(name, seed), folder / "run"),
            }
            write_json(file, [self._measured(name, seed, label) | facts for label in (name, *row.also)], indent=1)
        return list(json.loads(file.read_text()))

    def _train(self, config: RunConfig, run: Path) -> float | None:
        """The processor time that the whole training took, which other work does not change much; None for a resumed one."""
        began, resumed = time.process_time(), run.exists()
        train(config, str(self.out / "store"), run, resume=True)
        return None if resumed else time.process_time() - began

    def _measured(self, name: str, seed: int, label: str) -> Result:
        """Accuracies on val and, from a submission, on test."""
        run = load_run(self.folder(name, seed) / "run")
        if alter := self.rows[name].also.get(label):
            alter(run)
        file = self.folder(name, seed) / f"{_file_name(label)}.json"
        validation = {domain: answer.tally.accuracy for domain, answer in evaluate_run(run, self.store).answers.items()}
        submit_run(run, self.store, file)
        scored = score_results(file, self.root / "annotations_hidden")
        summary = run.folder.summary() or {}
        return {
            "row": label, "seed": seed, "val": validation, "score": scored.score,
            "test": {domain: 1 - own.error for domain, own in scored.domains.items()},
            "multiple": multiple(run.network) if run.config.pool in ("wrn", "resnet26") else None,
            **{key: summary[key] for key in ("parameters", "images", "commit", "threads")},
        }  # fmt: skip

    def write(self, seeds: Sequence[int], first: Sequence[Result] = ()) -> str:
        """Write `table.md` and `results.json` of all rows that are measured; returns the table."""
        results = [*first]
        for name, row in self.rows.items():
            measured = [self.folder(name, seed) / "measured.json" for seed in seeds]
            held = [result for file in measured if file.is_file() for result in json.loads(file.read_text())]
            if not row.hidden:
                results += [result for label in (name, *row.also) for result in held if result["row"] == label]
        write_json(self.out / "results.json", results, indent=1)
        text = f"{markdown(results)}\n\n{by_domain(results)}\n"
        write_text(self.out / "table.md", text)
        return text


def prepared(root: Path, out: Path) -> Store:
    """The store of a table, made where it is not there yet."""
    prepare(root, out / "store")
    return open_store(out / "store")


def _file_name(name: str) -> str:
    return name.replace(" ", "-").replace("'", "")


def markdown(results: Sequence[Result]) -> str:
    """Means and standard deviations over seeds of the mean accuracy over domains; what is not known is empty."""
    lines = [
        "| row | seeds | mean val | mean test | parameters | `#P` | images seen | before | CPU seconds |",
        "|" + " --- |" * 9,
    ]
    for row, own in _by_row(results).items():
        known = own[0] if "images" in own[0] else None
        cells = [row, str(len(own)), spread(own, "val"), spread(own, "test")]
        if known:
            cells += [f"{known['parameters']:,}", f"{known['multiple']:.2f}" if known["multiple"] else ""]
            seconds = [result["cpu_seconds"] for result in own if result["cpu_seconds"]]
            cells += [f"{known['images']:,}", f"{known['before']:,}", f"{mean(seconds):,.0f}" if seconds else ""]
        lines.append("| " + " | ".join([*cells, *[""] * (9 - len(cells))]) + " |")
    return "\n".join(lines)


def by_domain(results: Sequence[Result], split: str = "test") -> str:
    """Mean accuracy over seeds by domain, a column per row."""
    rows = {row: [result[split] for result in own] for row, own in _by_row(results).items() if split in own[0]}
    domains = sorted({domain for own in rows.values() for accuracies in own for domain in accuracies})
    lines = ["| domain | " + " | ".join(rows) + " |", "|" + " --- |" * (len(rows) + 1)]
    for domain in domains:
        cells = [f"{mean(a[domain] for a in own):.2f}" if domain in own[0] else "" for own in rows.values()]
        lines.append(f"| {domain} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(results: Sequence[Result], split: str) -> str:
    means = [mean(result[split].values()) for result in results if split in result]
    if not means:
        return ""
    return f"{mean(means):.3f}" + (f" ± {stdev(means):.3f}" if len(means) > 1 else "")


def _by_row(results: Sequence[Result]) -> dict[str, list[Result]]:
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result["row"], []).append(result)
    return rows


def parser(description: str | None, rows: Mapping[str, Row]) -> argparse.ArgumentParser:
    """The arguments that all tables take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("root", type=Path, help="a Decathlon in the official layout, with annotations_hidden/")
    made.add_argument("out", type=Path, help="where runs, measurements, results.json and table.md go")
    made.add_argument("--seeds", default="0,1,2", type=lambda text: [int(seed) for seed in text.split(",")])
    made.add_argument("--rows", default=list(rows), type=lambda text: text.split(","))
    made.add_argument("--set", dest="changes", action="append", default=[], help="KEY=VALUE, for all rows")
    return made


def fill(table: Table, seeds: Sequence[int], rows: Sequence[str], first: Sequence[Result] = ()) -> None:
    """Train and measure these rows with these seeds, and write the table after each."""
    for seed in seeds:
        for row in rows:
            table.results(row, seed)
            table.write(seeds, first)
    print(table.write(seeds, first))

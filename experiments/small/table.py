"""Tables of classification: the preset `small` on a Decathlon, measured on val and, from a submission, on test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from decathlon.building import multiple
from decathlon.config import RunConfig, load_config
from decathlon.data.prepare import prepare
from decathlon.data.store import Store, open_store
from decathlon.reports import evaluate_run, submit_run
from decathlon.runs import Run, load_run
from decathlon.submission import score_results
from decathlon.training import train
from experiments.small.rows import Result, Rows, by_row, cpu_seconds, file_name, fill, parser, spread, table_lines
from mtan_core.files import write_json, write_text

__all__ = ["Result", "Row", "Table", "fill", "parser", "prepared"]


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
class Table(Rows[Row]):
    """Rows on the Decathlon under `root`, whose store lies in `out`, too."""

    def __post_init__(self) -> None:
        prepared(self.root, self.out)

    @property
    def store(self) -> Store:
        return open_store(self.out / "store")

    def configuration(self, name: str, seed: int) -> RunConfig:
        row = self.rows[name]
        sources = {"pool_from": row.pool_from, "distillation.teachers": row.teachers}
        upon = [f'{key}="{self.folder(other, seed) / "run"}"' for key, other in sources.items() if other]
        return load_config("small", None, [f"seed={seed}", *self.changes, *row.changes, *upon])

    def measure(self, name: str, seed: int) -> list[Result]:
        """Train and measure a row, after those it builds upon."""
        row, run = self.rows[name], self.folder(name, seed) / "run"
        before = [self.results(other, seed)[0] for other in (row.pool_from, row.teachers) if other]
        config = self.configuration(name, seed)
        facts = {
            "before": sum(result["images"] + result["before"] for result in before),
            "cpu_seconds": cpu_seconds(run, lambda: train(config, str(self.out / "store"), run, resume=True)),
        }
        return [self._measured(name, seed, label) | facts for label in (name, *row.also)]

    def _measured(self, name: str, seed: int, label: str) -> Result:
        """Accuracies on val and, from a submission, on test."""
        run = load_run(self.folder(name, seed) / "run")
        if alter := self.rows[name].also.get(label):
            alter(run)
        file = self.folder(name, seed) / f"{file_name(label)}.json"
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
        results = [*first]
        for name, row in self.rows.items():
            if not row.hidden:
                held = self.measured(name, seeds)
                results += [result for label in (name, *row.also) for result in held if result["row"] == label]
        write_json(self.out / "results.json", results, indent=1)
        text = f"{markdown(results)}\n\n{by_domain(results)}\n"
        write_text(self.out / "table.md", text)
        return text


def prepared(root: Path, out: Path) -> Store:
    """The store of a table, made where it is not there yet."""
    prepare(root, out / "store")
    return open_store(out / "store")


def markdown(results: Sequence[Result]) -> str:
    """Means and standard deviations over seeds of the mean accuracy over domains; what is not known is empty."""
    head = ("row", "seeds", "mean val", "mean test", "parameters", "`#P`", "images seen", "before", "CPU seconds")
    rows = []
    for row, own in by_row(results).items():
        known = own[0] if "images" in own[0] else None
        cells = [row, str(len(own)), *(spread(_means(own, split)) for split in ("val", "test"))]
        if known:
            cells += [f"{known['parameters']:,}", f"{known['multiple']:.2f}" if known["multiple"] else ""]
            seconds = [result["cpu_seconds"] for result in own if result["cpu_seconds"]]
            cells += [f"{known['images']:,}", f"{known['before']:,}", f"{mean(seconds):,.0f}" if seconds else ""]
        rows.append([*cells, *[""] * (len(head) - len(cells))])
    return "\n".join(table_lines(head, rows))


def by_domain(results: Sequence[Result], split: str = "test") -> str:
    """Mean accuracy over seeds by domain, a column per row."""
    rows = {row: [result[split] for result in own] for row, own in by_row(results).items() if split in own[0]}
    domains = sorted({domain for own in rows.values() for accuracies in own for domain in accuracies})
    lines = [
        [domain, *(f"{mean(a[domain] for a in own):.2f}" if domain in own[0] else "" for own in rows.values())]
        for domain in domains
    ]
    return "\n".join(table_lines(("domain", *rows), lines))


def _means(results: Sequence[Result], split: str) -> list[float]:
    return [mean(result[split].values()) for result in results if split in result]

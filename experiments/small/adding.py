"""Each domain added to the nine others, against that domain alone and all ten together.

    python -m experiments.small.adding OFFICIAL_ROOT OUT [--seeds 0] [--domains svhn,...] [--set key=value ...]

Everything trains the preset `small` for 20 epochs, so that a domain is seen equally often: nine domains together, then
`add-domain` of the tenth (pool and shared ladder frozen); the domain alone; all ten together. OUT may be that of
`experiments.small.methods`, whose row `mtan` is the last of these.
"""

import argparse
import json
from collections.abc import Sequence
from statistics import mean

from decathlon.adding import add_domain
from decathlon.addition import Addition
from decathlon.data.store import open_store
from decathlon.own_store import with_added
from decathlon.reports import evaluate_run, submit_run
from decathlon.runs import load_run
from decathlon.submission import score_results
from experiments.small.methods import EPOCHS
from experiments.small.rows import spread, table_lines
from experiments.small.table import Result, Row, Table, parser, prepared
from mtan_core.files import write_json, write_text

ALL = "mtan"


def rows(domains: Sequence[str]) -> dict[str, Row]:
    made = {ALL: Row((EPOCHS,))}
    for name in domains:
        others = ",".join(other for other in domains if other != name)
        made[f"without {name}"] = Row((f'domains="{others}"', EPOCHS))
        made[f"{name} alone"] = Row((f'domains="{name}"', EPOCHS))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = arguments_of(parser(__doc__, {})).parse_args(arguments)
    names = prepared(options.root, options.out).domains
    table = Table(rows(names), options.root, options.out, options.changes)
    for seed in options.seeds:
        for name in options.domains or names:
            table.results(ALL, seed), table.results(f"{name} alone", seed)
            added(table, name, seed)
            print(write(table, names, options.seeds))


def arguments_of(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    made.set_defaults(seeds=[0])
    made.add_argument("--domains", default=[], type=lambda text: text.split(","), help="which to add (default: all)")
    return made


def added(table: Table, name: str, seed: int) -> Result:
    """Add a domain to the run of the others, unless that is done, and measure it."""
    folder = table.folder(f"{name} added", seed)
    file = folder / "measured.json"
    if not file.is_file():
        before = table.results(f"without {name}", seed)[0]
        source = table.folder(f"without {name}", seed) / "run"
        told = add_domain(Addition(source, name, table.root, folder / "run"), resume=True)
        run, store = load_run(folder / "run"), with_added(open_store(str(table.out / "store")), folder / "run")
        submit_run(run, store, folder / "results.json", domains=name)
        write_json(file, {
            "row": f"{name} added", "seed": seed, "val": {name: evaluate_run(run, store, domains=name).answers[name].tally.accuracy},
            "test": {name: 1 - score_results(folder / "results.json", table.root / "annotations_hidden", name).domains[name].error},
            "others_unchanged": told["others_unchanged"], "own": told["parameters"]["total"], "share_of_pool": told["share_of_pool"],
            "others_test": mean(before["test"].values()), "commit": (run.folder.summary() or {})["commit"],
        }, indent=1)  # fmt: skip
    return dict(json.loads(file.read_text()))


def write(table: Table, names: Sequence[str], seeds: Sequence[int]) -> str:
    """Write `adding.md`: test accuracy of each domain added, alone and among all ten, where it is measured."""
    lines: list[list[str]] = []
    columns: list[list[float]] = [[], [], []]
    for name in names:
        files = [
            table.folder(row, seed) / "measured.json"
            for seed in seeds
            for row in (f"{name} alone", f"{name} added", ALL)
        ]
        if not all(file.is_file() for file in files):
            continue
        results = [json.loads(file.read_text()) for file in files]
        values = [(r if isinstance(r, dict) else r[0])["test"][name] for r in results]
        by_row = [values[place::3] for place in range(3)]
        for column, own in zip(columns, by_row, strict=True):
            column.append(mean(own))
        lines.append([name, *(spread(own) for own in by_row)])
    lines.append(["mean", *(f"{mean(column):.3f}" for column in columns)])
    text = "\n".join(table_lines(("domain", "alone", "added to the nine others", "all ten together"), lines)) + "\n"
    write_text(table.out / "adding.md", text)
    return text


if __name__ == "__main__":
    main()

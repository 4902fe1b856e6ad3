"""Runs: train, evaluate, submit, import-weights, presets."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from decathlon.commands import app
from mtan_core.choices import choose_checkpoint
from mtan_core.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Data = Annotated[
    str,
    typer.Option(metavar="STORE", help="The image store (a folder, or a URI that Arrow can open).", show_default=False),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.", show_default=False)]


@app.command(rich_help_panel="Training")
def train(
    data: Data,
    run: Annotated[Path, typer.Option(help="The folder of the run, a new one unless resumed.", show_default=False)],
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A preset, see `presets` (default: wrn28-4).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A configuration file (TOML), see `configuration`.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key, after preset or file; repeatable."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="See `methods`. Short for --set method=NAME.")
    ] = None,
    pool_from: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Begin with that run's trained pool. Short for --set pool_from=RUN."),
    ] = None,
    teachers: Annotated[
        str | None,
        typer.Option(
            metavar="RUN,...", help="Learn from these runs as well. Short for --set distillation.teachers=RUN,..."
        ),
    ] = None,
    weighting: Annotated[str | None, typer.Option(metavar="NAME", help="Short for --set weighting.kind=NAME.")] = None,
    domains: Annotated[str | None, typer.Option(help="Only these domains, e.g. 'svhn,dtd' (default: all).")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="What is trained on: train, or train+val. Short for --set protocol=...")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint; without one, start anew.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, FLOPs, memory and time expected; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train one network on the domains of a store."""
    from decathlon.config import KIND
    from decathlon.training import train
    from mtan_core.runs import resolve
    from mtan_core.stopping import stoppable

    short = {
        "method": method, "pool_from": pool_from, "distillation.teachers": teachers, "weighting.kind": weighting,
        "domains": domains, "protocol": protocol,
    }  # fmt: skip
    resolved = resolve(KIND, preset, config, changes or [], short, run, resume)
    if dry_run:
        from decathlon.dry_run import estimate, print_estimate

        print_estimate(estimate(resolved, data), as_json)
        return
    with stoppable(f"the same command and --resume ({run})") as stop:
        summary = train(resolved, data, run, resume, stop)
    if as_json:
        print(json.dumps(summary))
    elif summary["mean_val_accuracy"] is not None:
        print(
            f"{run}: trained; mean validation accuracy {summary['mean_val_accuracy']:.1%} ({summary['protocol']} protocol)."
        )
    else:
        print(f"{run}: trained ({summary['protocol']} protocol, no validation).")


Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:N or mps; default: the run's own.", show_default=False)
]
Checkpoint = Annotated[str, typer.Option(help="last, or best (by mean validation accuracy).")]
Domains = Annotated[str | None, typer.Option(help="Only these domains, e.g. 'svhn,dtd' (default: all).")]


@app.command(rich_help_panel="Training")
def evaluate(
    run: RunPath,
    data: Data,
    split: Annotated[str, typer.Option(help="val, or train (test is for `submit` alone).")] = "val",
    checkpoint: Checkpoint = "last",
    domains: Domains = None,
    device: Device = None,
    reestimate: Annotated[
        bool, typer.Option("--reestimate", help="Make batch-norm statistics anew from the training split, in memory.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images per forward pass; the result does not depend on it.")
    ] = 100,
    confusion: Annotated[
        Path | None, typer.Option(help="Also write the confusion matrices (rows: true class) to this JSON file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Accuracy (a fraction) and loss (nats) of a run on a labelled split."""
    from decathlon.data.store import open_store
    from decathlon.own_store import with_added
    from decathlon.reports import evaluate_run
    from decathlon.runs import load_run
    from mtan_core.files import check_output, write_json
    from mtan_core.tables import print_table

    if confusion is not None:
        check_output(confusion)
    loaded, store = load_run(run, choose_checkpoint(checkpoint), device), with_added(open_store(data), run)
    evaluation = evaluate_run(loaded, store, split, domains, reestimate, batch_size)
    if confusion is not None:
        write_json(confusion, {d: answer.confusion.tolist() for d, answer in evaluation.answers.items()})
    if as_json:
        print(json.dumps(evaluation.to_dict()))
        tell(evaluation.notes(), as_json)
        return
    rows = [
        (name, f"{a.tally.accuracy:.1%}", str(a.tally.correct), str(a.tally.seen), f"{a.tally.mean_loss:.3f}")
        for name, a in evaluation.answers.items()
    ]
    mean = sum(a.tally.accuracy for a in evaluation.answers.values()) / len(rows)
    title = f"{run}: {split}, {checkpoint} checkpoint, protocol {evaluation.run.config.protocol}"
    print_table(title, ("domain", "accuracy", "correct", "seen", "loss"), [*rows, ("mean", f"{mean:.1%}", "", "", "")])
    tell(evaluation.notes(), as_json)


@app.command(rich_help_panel="Submission and score")
def submit(
    run: RunPath,
    data: Data,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("results.json"),
    split: Annotated[str, typer.Option(help="test, or val for the practice form.")] = "test",
    checkpoint: Checkpoint = "last",
    domains: Domains = None,
    device: Device = None,
    views: Annotated[
        bool, typer.Option("--views", help="Average over mirror images and crops where the domain allows.")
    ] = False,
    zipped: Annotated[
        bool, typer.Option("--zip", help="Also write the .zip that the challenge's server took.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Predict every test image and write results.json; the one command that looks at test images."""
    from decathlon.data.store import open_store
    from decathlon.own_store import with_added
    from decathlon.reports import notes, submit_run
    from decathlon.runs import load_run

    if split not in ("test", "val"):
        raise UserError(f"--split: expected test or val, found '{split}'.")
    loaded = load_run(run, choose_checkpoint(checkpoint), device)
    written = submit_run(loaded, with_added(open_store(data), run), out, split, domains, views, zipped)
    without = [f"{name} has no {split} split and was left out" for name in written["without_split"]]
    told = [*notes(loaded, split, written["domains"], written["not_in_store"]), *without]
    if as_json:
        print(json.dumps(written))
        tell(told, as_json)
        return
    print(f"{out}: {written['images']} {split} images of {len(written['domains'])} domains "
          f"({checkpoint} checkpoint, protocol {written['protocol']}).")  # fmt: skip
    tell(told, as_json)


@app.command("import-weights", rich_help_panel="Training")
def import_weights(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint of the MTAN authors' code.", show_default=False)
    ],
    run: Annotated[Path, typer.Option(help="The folder of the run.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Make a run of a checkpoint of the MTAN authors' code."""
    from decathlon.import_weights import import_weights

    summary = import_weights(file, run)
    if as_json:
        print(json.dumps(summary))
        return
    print(
        f"{run}: WRN-{summary['depth']}-{summary['width']}, {summary['parameters']:,} parameters, {len(summary['domains'])} domains."
    )


@app.command(rich_help_panel="Training")
def presets(as_json: Json = False) -> None:
    """List the presets, with the parameters of their networks under the ten official heads."""
    from decathlon.building import build, parameter_counts
    from decathlon.config import preset_names
    from mtan_core.tables import print_table

    counts = {name: parameter_counts(build(name)) for name in preset_names()}
    if as_json:
        print(json.dumps(counts))
        return
    rows = [
        (name, f"{c['parameters']:,}", f"{c['pool_parameters']:,}", f"{c['norm_parameters']:,}")
        for name, c in counts.items()
    ]
    print_table("presets", ("name", "parameters", "in the pool", "further batch norms"), rows)


@app.command(rich_help_panel="Training")
def configuration(
    as_json: Annotated[bool, typer.Option("--json", help="The JSON schema instead, for editors and scripts.")] = False,
) -> None:
    """Print the reference of the configuration: every key with its values, default and meaning, and the presets."""
    from decathlon.reference import json_schema, markdown

    print(json.dumps(json_schema(), indent=2) if as_json else markdown(), end="\n" if as_json else "")


def tell(notes: Sequence[str], as_json: bool) -> None:
    """Print notes for people: beside a JSON document they go to standard error."""
    for note in notes:
        print(f"Note: {note}.", file=sys.stderr if as_json else sys.stdout)


@app.command(rich_help_panel="Training")
def methods(as_json: Json = False) -> None:
    """List the methods, with the parameters of their networks (WRN-28-4) under the ten official heads."""
    from decathlon.building import method_counts
    from mtan_core.methods import methods as known
    from mtan_core.tables import print_table

    counts = method_counts()
    if as_json:
        print(json.dumps(counts))
        return
    begins = {name: "a pool" if m.pretrained else "teachers" if m.distilled else "" for name, m in known().items()}
    rows = [(name, f"{c['parameters']:,}", f"{c['multiple']:.2f}", begins[name]) for name, c in counts.items()]
    print_table("methods", ("name", "parameters", "of the pool", "begins with"), rows)
    for name in counts:
        print(f"{name}: {known()[name].summary}")

"""Dense runs: train, evaluate, predict, import-weights, methods, presets, configuration."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dense_tasks.commands import app
from mtan_core.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Data = Annotated[Path, typer.Option(metavar="ROOT", help="A root in the npy layout.", show_default=False)]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.", show_default=False)]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:N or mps; default: the run's own.", show_default=False)
]
Checkpoint = Annotated[str, typer.Option(help="last, or best (by the tasks' mean key metric on val).")]


@app.command(rich_help_panel="Training")
def train(
    data: Data,
    run: Annotated[Path, typer.Option(help="The folder of the run, a new one unless resumed.", show_default=False)],
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A preset, see `presets` (default: segnet).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A configuration file (TOML), see `configuration`.", exists=True, dir_okay=False)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key, after preset or file; repeatable."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="See `methods`. Short for --set method=NAME.")
    ] = None,
    weighting: Annotated[str | None, typer.Option(metavar="NAME", help="Short for --set weighting.kind=NAME.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks, e.g. 'semantic,depth' (default: all).")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint; without one, start anew.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train one network on the tasks of a root."""
    from dense_tasks.config import KIND
    from dense_tasks.reports import print_measures
    from dense_tasks.training import train
    from mtan_core.runs import resolve
    from mtan_core.stopping import stoppable

    short = {"method": method, "weighting.kind": weighting, "tasks": tasks}
    resolved = resolve(KIND, preset, config, changes or [], short, run, resume)
    with stoppable(f"the same command and --resume ({run})") as stop:
        summary = train(resolved, data, run, resume, stop)
    if as_json:
        print(json.dumps(summary))
    else:
        print_measures(f"{run}: val, last epoch, metric {summary['metric']}", summary["val_last"])


@app.command(rich_help_panel="Training")
def evaluate(
    run: RunPath,
    data: Data,
    split: Annotated[str, typer.Option(help="val or train.")] = "val",
    checkpoint: Checkpoint = "last",
    metric: Annotated[
        str | None,
        typer.Option(help="whole-set, legacy or legacy-defined (default: the run's own).", show_default=False),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Also give Delta-MTL against this run of single-task networks.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw losses, weights and validation over the run's epochs, as a PNG.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass; no result depends on it.")] = 4,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Every task's metrics of a run on a split, over all of its pixels."""
    from dense_tasks.reports import draw_curves, evaluate_run, print_measures
    from mtan_core.choices import choose_checkpoint
    from mtan_core.files import check_output

    if figure:
        check_output(figure, (".png",))
        draw_curves(run, figure)
    document = evaluate_run(run, data, split, choose_checkpoint(checkpoint), metric, against, batch_size, device)
    if as_json:
        print(json.dumps(document))
        return
    print_measures(f"{run}: {split}, {checkpoint} checkpoint, metric {document['metric']}", document["tasks"])
    if document["delta_mtl"] is not None:
        print(f"Delta-MTL against {against}: {document['delta_mtl']:+.1%}")


@app.command(rich_help_panel="See and use a run")
def predict(
    run: RunPath,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder that the pictures go to.")] = Path("predictions"),
    masks: Annotated[bool, typer.Option("--masks", help="Also draw each task's attention masks.")] = False,
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Draw what a run sees in images: classes with a legend, depth with a scale, normals as colours."""
    from dense_tasks.predicting import predict_files
    from dense_tasks.runs import load_run
    from mtan_core.choices import choose_checkpoint
    from mtan_core.files import check_output

    if out.exists() and not out.is_dir():
        raise UserError(f"--out: expected a folder, found a file: {out}.")
    check_output(out / "image.png")
    written = predict_files(load_run(run, choose_checkpoint(checkpoint), device), images, out, masks)
    if as_json:
        print(json.dumps(written))
        return
    for each in written:
        print(f"{each['image']}: {each['figure']}" + (f", {each['masks']}" if masks else ""))


@app.command("import-weights", rich_help_panel="Training")
def import_weights(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A state dict of the authors.", exists=True, dir_okay=False, show_default=False
        ),
    ],
    run: Annotated[Path, typer.Option(help="The run to write, a new folder.", show_default=False)],
    task: Annotated[
        str | None, typer.Option(help="The task of a network of one (default: told by its outputs).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a run of a checkpoint of the authors' code."""
    from dense_tasks.reports import import_run

    summary = import_run(file, run, task)
    if as_json:
        print(json.dumps(summary))
    else:
        print(
            f"{run}: {summary['method']} on SegNet {'-'.join(map(str, summary['filters']))}, tasks {', '.join(summary['tasks'])}."
        )


@app.command(rich_help_panel="Training")
def methods(as_json: Json = False) -> None:
    """List the networks, with their parameters for the NYUv2 tasks."""
    from dense_tasks.networks import methods as known
    from dense_tasks.reports import method_counts
    from mtan_core.tables import print_table

    counts = method_counts()
    if as_json:
        print(json.dumps(counts))
        return
    rows = [(name, f"{c['parameters']:,}", f"{c['pool_parameters']:,}") for name, c in counts.items()]
    print_table("methods", ("name", "parameters", "shared"), rows)
    for name in counts:
        print(f"{name}: {known()[name].summary}")


@app.command(rich_help_panel="Training")
def presets(as_json: Json = False) -> None:
    """List the presets, with the parameters of their networks for the NYUv2 tasks."""
    from dense_tasks.reports import preset_counts
    from mtan_core.tables import print_table

    counts = preset_counts()
    if as_json:
        print(json.dumps(counts))
        return
    rows = [(name, f"{c['parameters']:,}", f"{c['pool_parameters']:,}") for name, c in counts.items()]
    print_table("presets", ("name", "parameters", "shared"), rows)


@app.command(rich_help_panel="Training")
def configuration(
    as_json: Annotated[bool, typer.Option("--json", help="The JSON schema instead, for editors and scripts.")] = False,
) -> None:
    """Print the reference of the configuration: every key with its values, default and meaning, and the presets."""
    from dense_tasks.reference import json_schema, markdown

    print(json.dumps(json_schema(), indent=2) if as_json else markdown(), end="\n" if as_json else "")

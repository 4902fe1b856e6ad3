"""From official files to a root in the npy layout, and what is in one: prepare, inspect."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dense_tasks.commands import app

if TYPE_CHECKING:
    from dense_tasks.data.prepare import Source

prepare_app = typer.Typer(no_args_is_help=True, help="Make a root in the npy layout from a data set's official files.")
app.add_typer(prepare_app, name="prepare", rich_help_panel="Data")

Root = Annotated[Path, typer.Argument(metavar="ROOT", help="The folder to make, new or empty.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@prepare_app.command()
def nyuv2(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="The folder of nyu_depth_v2_labeled.mat, splits.mat and classMapping40.mat.",
            show_default=False,
        ),
    ],
    root: Root,
    size: Annotated[str, typer.Option(help="Height x width.")] = "288x384",
    raw_depth: Annotated[
        bool, typer.Option("--raw-depth", help="The sensor's depth, with its holes undefined.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the root of NYUv2: 13 classes, depth in metres, normals fitted to the depth; run again, it goes on."""
    from dense_tasks.data.nyuv2 import nyuv2_source
    from dense_tasks.data.resizing import parse_size

    _prepare(nyuv2_source(source, parse_size(size), raw_depth), root, as_json)


@prepare_app.command()
def cityscapes(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="The folder of leftImg8bit, gtFine and disparity.", show_default=False),
    ],
    root: Root,
    classes: Annotated[int, typer.Option(help="2, 7 or 19.")] = 7,
    size: Annotated[str, typer.Option(help="Height x width.")] = "128x256",
    as_json: Json = False,
) -> None:
    """Make the root of Cityscapes: classes and inverse depth; run again, it goes on."""
    from dense_tasks.data.cityscapes import cityscapes_source
    from dense_tasks.data.resizing import parse_size

    _prepare(cityscapes_source(source, classes, parse_size(size)), root, as_json)


def _prepare(source: "Source", root: Path, as_json: bool) -> None:
    from dense_tasks.data.prepare import write_root
    from mtan_core.stopping import repeatable

    with repeatable("Run it again to go on."):
        made = write_root(source, root)
    if as_json:
        document = {"root": str(made.root), "dataset": made.dataset, "frames": made.frames, "written": made.written}
        print(json.dumps(document))
        return
    counts = ", ".join(f"{count} {split}" for split, count in made.frames.items())
    print(f"{made.root}: {made.dataset}, {counts}; {made.written} written now.")


@app.command(rich_help_panel="Data")
def inspect(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A root in the npy layout.", show_default=False)],
    tasks: Annotated[str, typer.Option(help="Only these tasks, e.g. 'semantic,depth' (default: the data set's).")] = "",
    dataset: Annotated[
        str, typer.Option(help="nyuv2, cityscapes2, cityscapes7 or cityscapes19, where the root does not tell.")
    ] = "",
    missing_labels: Annotated[
        bool, typer.Option("--missing-labels", help="Allow images without a task's file.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw the first images of val with their labels, as a PNG.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at all files of a root, as training does before it starts, and tell what is there."""
    from dense_tasks.data import inspect as work
    from mtan_core.files import check_output

    if figure:
        check_output(figure, (".png",))
    names = [name.strip() for name in tasks.split(",")] if tasks else None
    work.inspect(root, names, dataset or None, missing_labels, figure, as_json)

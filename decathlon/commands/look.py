"""A trained run at work: predict, export, masks."""

import json
from pathlib import Path
from typing import Annotated

import typer

from decathlon.commands import app
from decathlon.commands.runs import Checkpoint, Device, Domains, Json, RunPath
from mtan_core.choices import choose_checkpoint

PANEL = "See and use a run"
Domain = Annotated[str, typer.Option(metavar="NAME", help="The domain whose classes are meant.", show_default=False)]


@app.command(rich_help_panel=PANEL)
def predict(
    run: RunPath,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.", show_default=False)
    ],
    domain: Domain,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="How many classes to show, likeliest first.")] = 5,
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """The likeliest classes of image files of any size, with their probabilities."""
    from decathlon.prediction import predict_paths
    from decathlon.runs import load_run
    from mtan_core.images import find_images

    find_images(images)  # before anything long
    loaded = load_run(run, choose_checkpoint(checkpoint), device)
    predictions = predict_paths(loaded, images, domain, top)
    if as_json:
        rows = [prediction.to_dict() for prediction in predictions]
        print(json.dumps({"run": str(run), "checkpoint": checkpoint, "domain": domain, "predictions": rows}))
        return
    for one in predictions:
        classes = zip(one.labels, one.probabilities, strict=True)
        print(f"{one.path}: {', '.join(f'{name} {probability:.1%}' for name, probability in classes)}")


@app.command(rich_help_panel=PANEL)
def export(
    run: RunPath,
    domain: Domain,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="The file to write, a new one.", show_default=False)],
    checkpoint: Checkpoint = "last",
    as_json: Json = False,
) -> None:
    """Write one domain's network alone as an ONNX file: uint8 images in, probabilities out, any batch size."""
    from decathlon.export import TIMED, check_export, export_domain
    from decathlon.runs import load_run

    check_export(out)
    written = export_domain(load_run(run, choose_checkpoint(checkpoint), "cpu"), domain, out)
    if as_json:
        print(json.dumps(written.to_dict()))
        return
    size = written.image_size
    print(f"{out}: {domain}, images uint8 (batch, {size}, {size}, 3) to probabilities of {written.classes} classes; "
          f"differs from the run by at most {written.largest_difference:.1e}.")  # fmt: skip
    print(f"Parameters {written.parameters:,} of the full model's {written.full_parameters:,}; "
          f"{written.bytes / 1e6:.1f} MB of {written.full_bytes / 1e6:.1f} MB.")  # fmt: skip
    print(f"{written.images_per_second:.0f} images a second by onnxruntime, {written.full_images_per_second:.0f} by the "
          f"full model in torch (CPU, fp32, batches of {TIMED}).")  # fmt: skip


@app.command(rich_help_panel=PANEL)
def masks(
    run: RunPath,
    data: Annotated[
        str | None, typer.Option(metavar="STORE", help="The image store; needed unless --image is given.")
    ] = None,
    split: Annotated[str, typer.Option(help="val, or train.")] = "val",
    domains: Domains = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many images of each domain.")] = 500,
    batches: Annotated[
        int, typer.Option(min=0, help="Training batches of each domain for the cosines of gradients; 0: none.")
    ] = 16,
    figure: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw all this.")] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="Draw the masks on this image beside the features; repeatable."),
    ] = None,
    domain: Annotated[str | None, typer.Option(metavar="NAME", help="The domain whose masks are drawn.")] = None,
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """What the masks select: use of the pool by domain, overlap between domains, and whose gradients agree.

    With --image, FILE.png shows features, masks and what passes; together with --data it is FILE-images.png.
    """
    from decathlon.looking import Wanted, look, print_look

    wanted = Wanted(run, data, split, domains, limit, batches, figure, tuple(images or ()), domain)
    found = look(wanted, choose_checkpoint(checkpoint), device)
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        print_look(found)

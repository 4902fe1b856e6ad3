"""A dense run on the page."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlon.masks import MaskUse, moments
from dense_tasks.data.frames import Frames
from dense_tasks.data.root import Root, open_root
from dense_tasks.runs import DenseRun, load_run
from experiments.compare.comparison import compare
from experiments.compare.measured import Measured
from experiments.compare.published import DENSE_SIZES
from experiments.compare.rendering import Table, all_notes, tables
from experiments.report import parts, tiles
from experiments.report.common import curves, what_was_run
from experiments.report.mask_parts import example_rows, mask_parts
from experiments.report.painting import paint
from experiments.report.parts import Part
from mtan_core.errors import UserError
from mtan_core.step import autocast

SHOWN = 3  # validation images whose predictions are drawn
LOOKED_AT = 20  # images for the masks
PANELS = {
    "loss": "training loss", "weight": "weight of the loss", "key_metric": "training key metric",
    "val_loss": "validation loss", "val_key_metric": "validation key metric",
}  # fmt: skip


def dense_parts(run: Measured, data: str | None) -> list[Part]:
    """All parts of a run's section. Raises UserError for a root that is not the run's."""
    size = run.data["size"]
    shown = what_was_run(run, {"data": run.data["dataset"], "size": f"{size[0]} x {size[1]}" if size else None,
                               "metric": run.data["metric"]})  # fmt: skip
    rows = [[name, f"{value:.4f}", "higher" if run.better[name] else "lower"] for name, value in run.measures.items()]
    shown.append(parts.heading("Measures"))
    if rows:
        shown.append(
            parts.table(
                Table(
                    f"Validation, last epoch, metric {run.data['metric']}", ["task and measure", "val", "better"], rows
                )
            )
        )
    else:
        shown.append(parts.note("Nothing was validated (imported)."))
    if run.data["dataset"] in DENSE_SIZES:
        found = compare([run], published=True)
        table = tables(found)[-1]
        shown += [parts.note(f"{all_notes(found)[-1]}.", warning=True), parts.folded(table.title, [parts.table(table)])]
    shown += curves(run, "task", PANELS)
    if data is None:
        return [*shown, parts.note("Left out without --data ROOT: predictions, masks.")]
    return shown + _from_images(load_run(run.path), Path(data))


@torch.inference_mode()
def _from_images(run: DenseRun, data: Path) -> list[Part]:
    """What needs validation images, some of which are taken at even distances."""
    root = open_root(data, list(run.facts.tasks), run.config.dataset or None, ["val"], run.config.missing_labels,
                     run.network.raw.divisor)  # fmt: skip
    if root.dataset != run.facts.dataset:
        raise UserError(f"--data: expected a root of {run.facts.dataset.name}, found {root.dataset.name}: {data}.")
    frames = Frames(root, "val", run.device)
    shown = [
        part for place in _spaced(len(frames), SHOWN) for part in _prediction(run, root, frames, place)
    ]  # fmt: skip
    return [parts.heading("Predictions"), *shown, parts.heading("Masks"), *_masks(run, root, frames)]


def _spaced(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def _prediction(run: DenseRun, root: Root, frames: Frames, place: int) -> list[Part]:
    """An image, what is predicted for it, and its labels, which share their colours."""
    batch = frames.batch(np.array([place]))
    with autocast(run.device, run.config.precision):
        outputs = run.network(batch.images)
    title = f"val {root.frames['val'][place]}"
    labels = {name: paint(task, _array(batch.labels[name])) for name, task in root.tasks.items()}
    predicted = {name: paint(task, _array(outputs[name]), labels[name].limits) for name, task in root.tasks.items()}
    pictures = [parts.picture(tiles.data_uri(_shown(batch.images[0])), f"Validation image {title}", title)]
    for kind, painted in (("predicted", predicted), ("label", labels)):
        for name, own in painted.items():
            told = f"{name}, {kind}"
            pictures.append(parts.picture(tiles.data_uri(own.pixels), f"{title}: {told}", told))
    legends = [own.legend(name, labels[name]) for name, own in predicted.items()]
    return [parts.figures(pictures, "maps", 1 + len(root.tasks)), *legends]


def _masks(run: DenseRun, root: Root, frames: Frames) -> list[Part]:
    """What masks select on some validation images."""
    try:
        by_task = [
            run.network.raw.masks(frames.batch(np.array([place])).images) for place in _spaced(len(frames), LOOKED_AT)
        ]
    except UserError as without:
        return [parts.note(str(without))]
    rows = [moments(masks[name] for masks in by_task) for name in root.tasks]
    stages = list(zip(*rows, strict=True))
    use = MaskUse(
        "val", dict.fromkeys(root.tasks, len(by_task)), [np.stack([mean for mean, _ in stage]) for stage in stages],
        [np.array([spread for _, spread in stage]) for stage in stages],
    )  # fmt: skip
    image = _shown(frames.batch(np.array([0])).images[0])
    examples = [
        (name, image, {f"stage {stage}": _array(mask).mean(0) for stage, mask in enumerate(by_task[0][name])})
        for name in root.tasks
    ]
    told = "The first validation image, beside each task's masks on it (means over channels)."
    return [*mask_parts(use, "task"), *example_rows(examples, told)]


def _shown(image: Tensor) -> tiles.Picture:
    """(3, H, W) in [0, 1] as bytes."""
    pixels: tiles.Picture = (image.permute(1, 2, 0).float().cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def _array(values: Tensor) -> NDArray[Any]:
    """The first of a batch."""
    found: NDArray[Any] = values[0].float().cpu().numpy() if values.is_floating_point() else values[0].cpu().numpy()
    return found

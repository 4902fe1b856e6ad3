"""A dense run on the page."""

from pathlib import Path

import numpy as np
import torch

from dense_tasks.data.frames import Frames
from dense_tasks.data.root import open_root
from dense_tasks.drawing import Drawn, draw_predictions
from dense_tasks.runs import DenseRun, load_run
from experiments.compare.measured import Measured
from experiments.compare.rendering import Table
from experiments.report import charts, parts
from experiments.report.common import curves, what_was_run
from experiments.report.parts import Part
from mtan_core.errors import UserError
from mtan_core.step import autocast

SHOWN = 3  # validation images whose predictions are drawn
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
        shown.append(parts.table(Table("Validation, last epoch", ["task and measure", "val", "better"], rows)))
    else:
        shown.append(parts.note("Nothing was validated (imported)."))
    shown += curves(run, "task", PANELS)
    if data is None:
        return [*shown, parts.note("Left out without --data ROOT: predictions.")]
    return [*shown, parts.heading("Predictions"), *_predictions(load_run(run.path), Path(data))]


@torch.inference_mode()
def _predictions(run: DenseRun, data: Path) -> list[Part]:
    """A few validation images at even distances, what is predicted for them, and their labels."""
    root = open_root(data, list(run.facts.tasks), run.config.dataset or None, ["val"], run.config.missing_labels,
                     run.network.raw.divisor)  # fmt: skip
    if root.dataset != run.facts.dataset:
        raise UserError(f"--data: expected a root of {run.facts.dataset.name}, found {root.dataset.name}: {data}.")
    frames = Frames(root, "val", run.device)
    places = np.unique(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int))
    shown = []
    for place in places:
        batch = frames.batch(places[places == place])
        with autocast(run.device, run.config.precision):
            outputs = run.network(batch.images)
        one = Drawn(
            f"val {root.frames['val'][place]}",
            batch.images[0].permute(1, 2, 0).cpu().numpy(),
            {name: output[0].float().cpu().numpy() for name, output in outputs.items()},
            {name: labels[0].cpu().numpy() for name, labels in batch.labels.items()},
        )
        source = charts.drawn(lambda path, one=one: draw_predictions(path, [one], root.tasks))  # type: ignore[misc]
        alt = f"Validation image {one.title}: predictions of {', '.join(root.tasks)}, above their labels"
        shown.append(parts.figures([parts.picture(source, alt)], "wide"))
    return shown

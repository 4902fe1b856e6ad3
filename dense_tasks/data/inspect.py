"""What a root holds, in words, as JSON, and as a picture."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dense_tasks.data.frames import Frames
from dense_tasks.data.root import Root, open_root
from dense_tasks.drawing import Drawn, draw_predictions

_DRAWN = 3


def inspect(
    path: Path,
    tasks: Sequence[str] | None,
    dataset: str | None,
    missing_labels: bool,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Look at the root and tell. Raises UserError as `open_root` does."""
    root = open_root(path, tasks, dataset, missing_labels=missing_labels)
    for warning in root.warnings:
        print(f"mtan: {warning}", file=sys.stderr)
    if figure:
        draw_labels(root, figure)
    if as_json:
        print(json.dumps(_document(root)))
        return
    height, width = root.size
    print(f"{path}: {root.dataset.name}, {len(root.dataset.classes)} classes, {height}x{width} pixels")
    for split, frames in root.frames.items():
        labelled = (f"{len(frames) - len(without)} with {task}" for task, without in root.unlabelled[split].items())
        print(f"{split:5} {len(frames)} images, {', '.join(labelled)}")


def _document(root: Root) -> dict[str, object]:
    splits = {
        split: {
            "images": len(frames),
            "labelled": {task: len(frames) - len(without) for task, without in root.unlabelled[split].items()},
        }
        for split, frames in root.frames.items()
    }
    return {
        "dataset": root.dataset.name, "classes": root.dataset.classes, "inverse_depth": root.dataset.inverse_depth,
        "size": root.size, "tasks": list(root.tasks), "splits": splits, "warnings": root.warnings,
    }  # fmt: skip


def draw_labels(root: Root, figure: Path) -> None:
    """The first images of val with their labels, as a PNG."""
    frames = Frames(root, "val", torch.device("cpu"))
    places = np.arange(min(_DRAWN, len(frames)))
    batch = frames.batch(places)
    rows = [
        Drawn(
            f"val {root.frames['val'][place]}",
            batch.images[place].permute(1, 2, 0).numpy(),
            {},
            {name: labels[place].numpy() for name, labels in batch.labels.items()},
        )
        for place in places
    ]
    draw_predictions(figure, rows, root.tasks, f"{root.dataset.name}: labels")

"""What a store holds, as a table and as a contact sheet."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from decathlon.data.store import Store, StoredSplit
from decathlon.specs import official_domains
from mtan_core.files import replacing

SHEET_IMAGES = 8
FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp")  # of those that matplotlib writes


def describe(store: Store) -> dict[str, Any]:
    """The store's content as one document: for every domain its spec and, by split, counts, sizes and statistics."""
    domains = {}
    for name, spec in store.specs.items():
        splits = {split: _describe_split(store.split(name, split)) for split in store.splits(name)}
        metadata = store.metadata(name, store.splits(name)[0])
        official = official_domains().get(name)
        domains[name] = {
            "number": spec.number,
            "classes": spec.classes,
            "source": spec.source,
            "note": spec.note,
            "fit": spec.fit,
            "mirror": spec.mirror,
            "skipped": metadata["skipped"],
            "resplit": metadata["resplit"],
            "mean": spec.mean,
            "std": spec.std,
            "published_mean": official.mean if official else None,
            "published_std": official.std if official else None,
            "splits": splits,
        }
    return {"store": store.where, "domains": domains}


def _describe_split(images: StoredSplit) -> dict[str, Any]:
    counts = None if images.labels is None else np.bincount(images.labels, minlength=images.spec.classes)
    return {
        "images": len(images),
        "classes": None if counts is None else int(np.count_nonzero(counts)),
        "widths": [int(images.widths.min()), int(images.widths.max())] if len(images) else None,
        "heights": [int(images.heights.min()), int(images.heights.max())] if len(images) else None,
        "biggest_class": None if counts is None or not len(images) else float(counts.max() / counts.sum()),
        "measured_mean": images.metadata["measured_mean"],
        "measured_std": images.metadata["measured_std"],
    }


def show(document: dict[str, Any], as_json: bool) -> None:
    """Print what `describe` found, as a table and one line of remarks for each domain that has any."""
    if as_json:
        print(json.dumps(document, allow_nan=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=document["store"], title_justify="left")
    for heading in (
        "domain",
        "split",
        "images",
        "classes",
        "width x height",
        "biggest class",
        "mean R G B",
        "std R G B",
    ):
        table.add_column(
            heading, justify="right" if heading in ("images", "classes", "biggest class") else "left", no_wrap=True
        )
    for name, domain in document["domains"].items():
        for split, row in domain["splits"].items():
            table.add_row(name if split == "train" else "", split, *_cells(row, domain["classes"]))
        if domain["published_mean"]:
            published = _colour(domain["published_mean"]), _colour(domain["published_std"])
            table.add_row("", "published", "", "", "", "", *published, style="dim", end_section=True)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe has no width: nothing is to be cut
    console.print(table)
    for name, domain in document["domains"].items():
        console.print(f"{name}: {_remarks(domain)}", markup=False, highlight=False)


def _cells(row: dict[str, Any], classes: int) -> list[str]:
    sizes = ""
    if row["widths"]:
        (narrow, wide), (low, high) = row["widths"], row["heights"]
        sizes = f"{narrow}x{low}" if (narrow, low) == (wide, high) else f"{narrow}-{wide} x {low}-{high}"
    found = "" if row["classes"] is None else f"{row['classes']}/{classes}"
    share = "" if row["biggest_class"] is None else f"{row['biggest_class']:.1%}"
    return [str(row["images"]), found, sizes, share, _colour(row["measured_mean"]), _colour(row["measured_std"])]


def _colour(values: list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _remarks(domain: dict[str, Any]) -> str:
    remarks = [f"source {domain['source']}"]
    remarks += [f"{domain['skipped']} left out"] if domain["skipped"] else []
    remarks += [f"train and val divided anew by seed {domain['resplit']}"] if domain["resplit"] is not None else []
    remarks += [domain["note"]] if domain["note"] else []
    return "; ".join(remarks)


def contact_sheet(store: Store, path: Path) -> None:
    """Draw some training images of every domain, of classes spread over the list, with their names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = store.domains
    figure = Figure(figsize=(1.5 * SHEET_IMAGES, 1.9 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    for part, name in zip(figure.subfigures(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        images = store.split(name, "train")
        part.suptitle(f"{name} ({images.spec.source})", x=0.01, ha="left", fontsize=10, weight="bold")
        shown = _spread(images)
        for place, axis in enumerate(part.subplots(1, SHEET_IMAGES)):
            axis.set_axis_off()
            if place < len(shown):
                axis.imshow(images.image(shown[place]))
                axis.set_title(_class_name(images, shown[place]), fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100, format=path.suffix.lstrip(".") or "png")


def _spread(images: StoredSplit) -> list[int]:
    """Up to eight images: the first of classes evenly spread over the list, then second ones where classes are few."""
    assert images.labels is not None  # a training split
    present = np.unique(images.labels)
    if not len(present):
        return []
    classes = present[np.linspace(0, len(present) - 1, min(SHEET_IMAGES, len(present))).round().astype(int)]
    queues = [np.flatnonzero(images.labels == label) for label in classes]
    depth = max(len(queue) for queue in queues)
    candidates = [int(queue[turn]) for turn in range(depth) for queue in queues if turn < len(queue)]
    return candidates[:SHEET_IMAGES]


def _class_name(images: StoredSplit, index: int) -> str:
    assert images.labels is not None  # a training split
    name = images.spec.class_names[int(images.labels[index])]
    return name if len(name) <= 18 else f"{name[:17]}…"

"""A Decathlon run on the page."""

from typing import Any

import numpy as np

from decathlon.data.store import StoredSplit, open_store
from decathlon.evaluation import confusions, predict_domain
from decathlon.masks import mask_use
from decathlon.own_store import with_added
from decathlon.quickstart import mask_rows
from decathlon.reports import checked_split, common_domains, notes
from decathlon.runs import Run, RunFolder, load_run
from experiments.compare.measured import Measured
from experiments.report import charts, parts, tiles
from experiments.report.common import curves, what_was_run
from experiments.report.mask_parts import example_rows, mask_parts
from experiments.report.parts import Part
from experiments.report.score_card import score_card
from mtan_core.errors import UserError
from mtan_core.progress import progress

FEW = 20  # classes whose whole confusion matrix is shown
WORST = 5  # confusions of a domain with more
LOOKED_AT = 100  # images of each domain for its masks
PANELS = {
    "loss": "training loss", "weight": "weight of the loss", "accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
}  # fmt: skip
LEFT_OUT = "Left out without --data STORE: confusion matrices, worst confusions, masks."


def decathlon_parts(run: Measured, data: str | None) -> list[Part]:
    """All parts of a run's section. Raises UserError for a store that is not the run's."""
    specs = RunFolder(run.path).specs()
    sources = ", ".join(sorted({spec.source for spec in specs.values()}))
    shown = what_was_run(run, {"data": f"{sources} ({len(specs)} domains)"})
    shown += score_card(run, {name: spec.classes for name, spec in specs.items()})
    shown += curves(run, "domain", PANELS)
    if data is None:
        return [*shown, parts.note(LEFT_OUT)]
    return shown + _from_images(load_run(run.path), data)


def _from_images(run: Run, data: str) -> list[Part]:
    """What needs the validation images."""
    store = with_added(open_store(data), run.folder.path)
    names = [name for name in common_domains(run, store, None) if "val" in store.splits(name)]
    shown: list[Part] = [parts.heading("Confusions on val")]
    small: list[Part] = []
    large: list[Part] = []
    with progress("confusions on val", total=len(names)) as advance:
        for name in names:
            split = checked_split(run, store, name, "val")
            answers = predict_domain(run.network, name, run.images(split), run.config.precision)
            if run.spec(name).classes <= FEW:
                small.append(_matrix(run, name, split, answers))
            else:
                large += _worst(run, name, split, answers)
            advance(note=name)
    shown += [parts.figures(small)] if small else []
    shown += [*large, *(parts.note(f"{text}.") for text in notes(run, "val", names, []))]
    return shown + _masks(run, store, ",".join(names))


def _matrix(run: Run, name: str, split: StoredSplit, answers: Any) -> Part:
    names = run.spec(name).class_names
    assert split.labels is not None
    counts = confusions(split.labels, answers, len(names))
    label = f"Confusion matrix of {name}: {int(counts.trace())} of {len(split)} validation images right"
    return parts.chart(charts.matrix(label, names, counts), f"{name}: rows are true classes, columns answers.")


def _worst(run: Run, name: str, split: StoredSplit, answers: Any) -> list[Part]:
    """The most frequent confusions of a domain, each with one image."""
    names = run.spec(name).class_names
    assert split.labels is not None
    counts = confusions(split.labels, answers, len(names))
    right = int(counts.trace())
    np.fill_diagonal(counts, 0)
    thumbs = []
    for cell in np.argsort(-counts, axis=None, kind="stable")[:WORST]:
        truth, answer = divmod(int(cell), len(names))
        count = int(counts[truth, answer])
        if count:
            place = int(np.flatnonzero((split.labels == truth) & (answers == answer))[0])
            told = f"{names[truth]} taken for {names[answer]}"
            thumbs.append(parts.picture(tiles.data_uri(split.image(place), 96), f"{name}: {told}", f"{told} ({count})"))
    told = f"{name}, {len(names)} classes: {right} of {len(split)} right; the most frequent confusions"
    return [parts.note(told + ("." if thumbs else ": none.")), *([parts.figures(thumbs, "thumbs")] if thumbs else [])]


def _masks(run: Run, store: Any, names: str) -> list[Part]:
    shown: list[Part] = [parts.heading("Masks")]
    try:
        use = mask_use(run, store, "val", names, LOOKED_AT)
    except UserError as without:
        return [*shown, parts.note(str(without))]
    shown += mask_parts(use, "domain")
    if set(run.specs) <= set(use.domains):
        rows = [(name, image, dict(masks)) for name, image, masks in mask_rows(run, store)]
        told = "Validation images, each beside the masks that all domains lay on the first group's features (means over channels)."
        shown += example_rows(rows, told)
    return shown

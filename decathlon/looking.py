"""The work of `masks`: what was asked for, checked, computed, drawn and told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlon.data.store import open_store
from decathlon.gradients import GradientCosines, gradient_cosines
from decathlon.mask_figures import Heat, feature_grid, heat_maps
from decathlon.masks import Channel, MaskUse, check_masks, feature_maps, mask_use
from decathlon.runs import Run, load_run
from mtan_core.choices import Choice
from mtan_core.errors import UserError
from mtan_core.files import check_output
from mtan_core.tables import print_table


@dataclass(frozen=True)
class Wanted:
    """The options of `masks`."""

    run: Path
    data: str | None
    split: str
    domains: str | None
    limit: int
    batches: int
    figure: Path | None
    images: tuple[Path, ...]
    domain: str | None

    def check(self) -> None:
        """Raises UserError for options that do not go together, and for a figure that cannot be written."""
        if self.data is None and not self.images:
            raise UserError("masks: expected --data STORE, or --image FILE with --domain and --figure.")
        if self.images and (self.domain is None or self.figure is None):
            raise UserError("masks: expected --domain NAME and --figure FILE.png together with --image.")
        if self.domain is not None and not self.images:
            raise UserError("masks: expected --image FILE together with --domain (or --domains to choose some).")
        if self.figure is not None:
            check_output(self.figure, [".png"])

    @property
    def image_figure(self) -> Path | None:
        """Where single images are drawn: beside the figure of the whole, or in its place."""
        if self.figure is None or self.data is None:
            return self.figure
        return self.figure.with_name(f"{self.figure.stem}-images.png")


@dataclass(frozen=True)
class Found:
    """What `masks` saw."""

    run: Path
    checkpoint: Choice
    use: MaskUse | None
    gradients: GradientCosines | None
    figures: list[Path]

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run), "checkpoint": self.checkpoint, **(self.use.to_dict() if self.use else {}),
            "gradients": self.gradients.to_dict() if self.gradients else None, "figures": [str(f) for f in self.figures],
        }  # fmt: skip


def look(wanted: Wanted, checkpoint: Choice = "last", device: str | None = None) -> Found:
    """Compute and draw what is wanted. Raises UserError before anything is written."""
    wanted.check()
    run = load_run(wanted.run, checkpoint, device)
    check_masks(run)
    figures: list[Path] = []
    maps = feature_maps(run, wanted.images, wanted.domain, 2) if wanted.images and wanted.domain else []
    use = gradients = None
    if wanted.data is not None:
        store = open_store(wanted.data)
        use = mask_use(run, store, wanted.split, wanted.domains, wanted.limit)
        gradients = gradient_cosines(run, store, wanted.domains, wanted.batches) if wanted.batches else None
        if wanted.figure is not None:
            draw(wanted.figure, run, use, gradients)
            figures.append(wanted.figure)
    if maps and wanted.image_figure is not None:
        feature_grid(wanted.image_figure, maps, f"{wanted.domain}: masks beside the features")
        figures.append(wanted.image_figure)
    return Found(wanted.run, checkpoint, use, gradients, figures)


def draw(path: Path, run: Run, use: MaskUse, gradients: GradientCosines | None) -> None:
    """One figure of the use of the stages, the overlap, the gradients, and every channel's mean masks."""
    names = use.domains
    stages = [f"stage {s}" for s in range(len(use.means))]
    margin = max(0.01, float(np.abs(use.use - 0.5).max()))
    spreads = np.stack(use.spreads, axis=1)
    heats = [
        Heat("mean of\nthe masks", use.use, stages, 0.5 - margin, 0.5 + margin, 3),
        Heat("spread of\nthe masks", spreads, stages, 0, float(spreads.max()) or 1.0, 3),
    ]
    heats.append(
        Heat("overlap: correlation of\nmean masks per channel", np.mean(use.correlations, axis=0), names, -1, 1)
    )
    if gradients is not None:
        title = "cosine of gradients on the pool\n(diagonal: own other batches)"
        heats.append(Heat(title, gradients.cosines, names, -1, 1))
    strips = [
        (f"stage {s}: mean mask of every channel (domains from top to bottom as above)", means)
        for s, means in enumerate(use.means)
    ]
    heat_maps(path, names, heats, strips, f"{run.folder.path.name}: masks on {use.split}")


def print_look(found: Found) -> None:
    """Tables and sentences for people."""
    if found.use is not None:
        _print_use(found.use)
    if found.gradients is not None:
        _print_gradients(found.gradients)
    for path in found.figures:
        print(f"{path}: drawn.")


def _print_use(use: MaskUse) -> None:
    stages = [f"stage {s}" for s in range(len(use.means))]
    rows = [
        (
            name,
            *(f"{mean:.3f} ({spread:.2f})" for mean, spread in zip(use.use[place], spreads, strict=True)),
            str(count),
        )
        for place, (name, count, spreads) in enumerate(
            zip(use.domains, use.images.values(), np.stack(use.spreads, axis=1), strict=True)
        )
    ]
    print_table(f"Mean mask on {use.split} (± spread)", ("domain", *stages, "images"), rows)
    print("Overlap: correlation of the mean masks per channel, mean over stages; 0: unrelated, 1: the same channels.")
    _print_matrix(use.domains, np.mean(use.correlations, axis=0))
    print("Most shared channels (lowest to highest mean mask of a domain):")
    print("\n".join(map(_channel, use.most_shared())))
    print("Least shared channels:")
    print("\n".join(map(_channel, use.least_shared())))


def _channel(channel: Channel) -> str:
    return (f"  stage {channel.stage} channel {channel.channel}: {channel.lowest:.2f} {channel.lowest_domain} "
            f"to {channel.highest:.2f} {channel.highest_domain}")  # fmt: skip


def _print_gradients(gradients: GradientCosines) -> None:
    print(f"Cosines of gradients on the shared pool, mean over its convolutions and {gradients.batches} batches; "
          "on the diagonal between batches of one domain.")  # fmt: skip
    _print_matrix(gradients.domains, gradients.cosines)
    for word, sign in (("help each other", 1), ("are in conflict", -1)):
        pairs = [f"{a} and {b} {cosine:.2f} (±{error:.2f})" for a, b, cosine, error in gradients.pairs(sign)]
        told = ", ".join(pairs) or "no pair beyond the noise of the batches"
        print(f"Which {word}: {told}.")


def _print_matrix(names: Sequence[str], values: NDArray[np.float64]) -> None:
    """Columns are numbered as the rows are, as names would not fit."""
    width = max(map(len, names))
    print(f"{'':{width + 4}}" + "".join(f"{place:6}" for place in range(1, len(names) + 1)))
    for place, (name, row) in enumerate(zip(names, values, strict=True), start=1):
        print(f"{place:3} {name:{width}}" + "".join(f"{value:6.2f}" for value in row))

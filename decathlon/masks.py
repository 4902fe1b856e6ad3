"""What the masks of a run select: how much of the pool each domain uses, and how far domains share it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from decathlon.data.store import Store
from decathlon.mask_figures import FeatureMaps
from decathlon.prediction import read_image, square
from decathlon.reports import checked_split, common_domains
from decathlon.runs import Run
from decathlon.views import normalise
from mtan_core.errors import UserError
from mtan_core.images import find_images
from mtan_core.progress import progress
from mtan_core.segments import Segments

Matrix = NDArray[np.float64]
CHUNK = 32  # images per forward pass: all stages' masks are held at once
LISTED = 5  # channels in the lists of the most and least shared
MOST_IMAGES = 6  # in one figure of feature maps


class Channel(NamedTuple):
    """One channel of a stage, with the smallest and the largest mean mask that a domain puts on it."""

    stage: int
    channel: int
    lowest: float
    lowest_domain: str
    highest: float
    highest_domain: str


@dataclass(frozen=True)
class MaskUse:
    """Mean masks on validation images: each domain's own masks on its own images."""

    split: str
    images: dict[str, int]  # how many were looked at, by domain; in the order of all rows below
    means: list[Matrix]  # a stage's: (domains, channels), means over images and pixels
    spreads: list[NDArray[np.float64]]  # a stage's: (domains,), standard deviation over images, channels and pixels

    @property
    def domains(self) -> list[str]:
        return list(self.images)

    @cached_property
    def use(self) -> Matrix:
        """(domains, stages): the mean mask, which is the share of the stage's features that passes."""
        return np.stack([means.mean(1) for means in self.means], axis=1)

    @cached_property
    def cosines(self) -> list[Matrix]:
        """A stage's (domains, domains): cosine similarity of the mean masks per channel; near 1 as masks are positive."""
        return [cosine_matrix(means) for means in self.means]

    @cached_property
    def correlations(self) -> list[Matrix]:
        """A stage's (domains, domains): the same after each domain's mean is taken off; 0 where choices are unrelated."""
        return [cosine_matrix(means - means.mean(1, keepdims=True)) for means in self.means]

    def channels(self) -> list[Channel]:
        """Every channel of every stage."""
        found = []
        for stage, means in enumerate(self.means):
            low, high = means.argmin(0), means.argmax(0)
            found += [
                Channel(stage, c, float(means[low[c], c]), self.domains[low[c]], float(means[high[c], c]), self.domains[high[c]])
                for c in range(means.shape[1])
            ]  # fmt: skip
        return found

    def most_shared(self, count: int = LISTED) -> list[Channel]:
        """The channels of which even the domain that takes least takes most."""
        return sorted(self.channels(), key=lambda channel: -channel.lowest)[:count]

    def least_shared(self, count: int = LISTED) -> list[Channel]:
        """The channels in which domains differ most: one takes what another leaves."""
        return sorted(self.channels(), key=lambda channel: channel.lowest - channel.highest)[:count]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; matrices have their rows and columns in the order of `domains`."""
        stages = [
            {
                "channels": self.means[s].shape[1],
                "use": dict(zip(self.domains, self.use[:, s].tolist(), strict=True)),
                "spread": dict(zip(self.domains, self.spreads[s].tolist(), strict=True)),
                "channel_use": dict(zip(self.domains, self.means[s].tolist(), strict=True)),
                "cosine": self.cosines[s].tolist(),
                "correlation": self.correlations[s].tolist(),
            }
            for s in range(len(self.means))
        ]
        return {
            "split": self.split, "domains": self.domains, "images": self.images, "stages": stages,
            "overlap": {"cosine": np.mean(self.cosines, axis=0).tolist(),
                        "correlation": np.mean(self.correlations, axis=0).tolist()},
            "most_shared": [channel._asdict() for channel in self.most_shared()],
            "least_shared": [channel._asdict() for channel in self.least_shared()],
        }  # fmt: skip


def check_masks(run: Run) -> None:
    """Raises UserError for a run whose network has no masks."""
    if run.network.ladder is None:
        raise UserError(
            f"masks: expected a run of a method with masks, found {run.folder.path}, of method '{run.config.method}'."
        )
    if run.config.network.mask_activation == "ones":
        raise UserError(
            f"masks: expected a run with masks, found {run.folder.path}, whose masks are switched off "
            '(network.mask_activation = "ones").'
        )


def mask_use(run: Run, store: Store, split: str = "val", domains: str | None = None, limit: int = 500) -> MaskUse:
    """Mean masks of the domains (default: all that run and store share), over up to `limit` images of each split.

    They lie at even distances in the split. Raises UserError for a run without masks, and for the test split.
    """
    check_masks(run)
    if split not in ("val", "train"):
        raise UserError(
            f"masks: expected --split val or train, found {split}: only `submit` runs a network on test images."
        )
    names = common_domains(run, store, domains)
    images, rows = {}, []
    with progress(f"masks on {split}", total=len(names)) as advance:
        for name in names:
            source = run.images(checked_split(run, store, name, split))
            places = np.unique(np.linspace(0, len(source.split) - 1, min(limit, len(source.split))).round().astype(int))
            batches = (source.evaluation(places[i : i + CHUNK]) for i in range(0, len(places), CHUNK))
            rows.append(moments(run.network.masks(batch, name) for batch in batches))
            images[name] = len(places)
            advance(note=name)
    stages = list(zip(*rows, strict=True))
    means = [np.stack([mean for mean, _ in stage]) for stage in stages]
    return MaskUse(split, images, means, [np.array([spread for _, spread in stage]) for stage in stages])


@torch.inference_mode()
def moments(batches: Iterable[Sequence[torch.Tensor]]) -> list[tuple[NDArray[np.float64], float]]:
    """From masks by batch and stage, (B, C, H, W): for each stage the mean mask of every channel, and the standard deviation
    over all values."""
    sums: list[torch.Tensor] = []
    squares: list[torch.Tensor] = []
    count = 0
    for masks in batches:
        added = (
            [mask.double().mean((2, 3)).sum(0) for mask in masks],
            [m.double().square().mean((2, 3)).sum(0) for m in masks],
        )
        sums = [a + b for a, b in zip(sums, added[0], strict=True)] if sums else added[0]
        squares = [a + b for a, b in zip(squares, added[1], strict=True)] if squares else added[1]
        count += len(masks[0])
    return [
        (
            (total / count).cpu().numpy(),
            float((square.mean() / count - (total.mean() / count) ** 2).clamp(min=0).sqrt()),
        )
        for total, square in zip(sums, squares, strict=True)
    ]


def cosine_matrix(rows: NDArray[Any]) -> Matrix:
    """Cosine similarity of all pairs of rows; 0 with a row of zeros."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    units = rows / np.where(lengths > 0, lengths, 1)
    return np.clip(units @ units.T, -1, 1)


@torch.inference_mode()
def feature_maps(run: Run, paths: Sequence[Path], domain: str, channels: int = 2) -> list[FeatureMaps]:
    """For image files, each stage's features, the domain's mask on them, and what passes.

    Of each stage: means over channels (of absolute values where there are signs), and the `channels` whose mask varies most over
    the image. Raises UserError for a run without masks, files that cannot be read, and more than a figure can hold.
    """
    check_masks(run)
    spec, fit = run.spec(domain), run.fit(domain)
    files = find_images(paths)
    if len(files) > MOST_IMAGES:
        raise UserError(f"masks: expected at most {MOST_IMAGES} images for one figure, found {len(files)}.")
    rows = []
    for path in files:
        seen = square(read_image(path), fit, run.config.image_size, run.device)
        images = normalise(seen, spec)
        taps = run.network.pool(images, Segments((domain,), (1,)))
        for stage, (tap, mask) in enumerate(zip(taps, run.network.masks(images, domain), strict=True)):
            features, masks = tap.features[0].float().cpu().numpy(), mask[0].float().cpu().numpy()
            rows.append(_stage_maps(seen[0].round().byte().cpu().numpy(), path.name, stage, features, masks, channels))
    return rows


def _stage_maps(
    image: NDArray[np.uint8], name: str, stage: int, features: NDArray[Any], masks: NDArray[Any], channels: int
) -> FeatureMaps:
    chosen = np.argsort(-masks.std((1, 2)), kind="stable")[:channels]
    mean = "all channels", np.abs(features).mean(0), masks.mean(0), np.abs(features * masks).mean(0)
    single = [(f"channel {c}", features[c], masks[c], features[c] * masks[c]) for c in chosen.tolist()]
    return FeatureMaps(name, image, f"stage {stage}", [mean, *single])

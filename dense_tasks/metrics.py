"""Metrics over all pixels of a set: sums and counts, divided once, so that no result depends on the batch size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Scheme = Literal["whole-set", "legacy", "legacy-defined"]
SCHEMES: Mapping[Scheme, str] = {
    "whole-set": "one confusion matrix over all pixels of the set",
    "legacy": "mean over images, predictions on undefined pixels count as wrong (the paper of 2019)",
    "legacy-defined": "mean over images, undefined pixels left out (the authors' code of July 2020)",
}


@dataclass(frozen=True)
class Measure:
    """A number that a task's metrics give. `in_delta`: it counts in Delta-MTL, as in the benchmarks that report it."""

    name: str
    higher_is_better: bool
    in_delta: bool = True


class Metrics(Protocol):
    """What adds up a task's metrics over a set."""

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        """Add a batch of final predictions and labels."""

    def result(self, scheme: Scheme = "whole-set") -> dict[str, float] | None:
        """The measures by name; None where no pixel had a label."""


@dataclass
class SemanticMetrics:
    """Mean intersection over union, and the share of pixels that are right, under every scheme at once."""

    classes: int
    _matrix: Tensor = field(init=False, repr=False)  # [true class, predicted class], pixels of the whole set
    _images: dict[Scheme, tuple[float, float]] = field(init=False, repr=False)  # sums over images of both measures
    _seen: int = field(default=0, init=False, repr=False)  # images with any label

    def __post_init__(self) -> None:
        self._matrix = torch.zeros(self.classes, self.classes, dtype=torch.int64)
        self._images = {"legacy": (0.0, 0.0), "legacy-defined": (0.0, 0.0)}

    def add(
        self, outputs: Float[Tensor, "batch classes height width"], labels: Int[Tensor, "batch height width"]
    ) -> None:
        """Add logits and labels, -1 undefined."""
        counts = _confusion_by_image(outputs.argmax(1), labels, self.classes)
        counts = counts[counts[:, :-1].sum((1, 2)) > 0]  # an image without labels says nothing
        self._matrix += counts[:, :-1].sum(0)
        self._seen += len(counts)
        right = counts.diagonal(dim1=1, dim2=2).sum(1).double() / counts[:, :-1].sum((1, 2))
        for scheme, (iou, pixels) in self._images.items():
            predicted = counts.sum(1) if scheme == "legacy" else counts[:, :-1].sum(1)
            self._images[scheme] = iou + float(_mean_iou(counts[:, :-1], predicted).sum()), pixels + float(right.sum())

    def result(self, scheme: Scheme = "whole-set") -> dict[str, float] | None:
        """`miou` and `pixel_accuracy` as fractions; classes that are neither in the labels nor predicted are left out."""
        if not self._seen:
            return None
        if scheme == "whole-set":
            iou = float(_mean_iou(self._matrix[None], self._matrix.sum(0)[None]))
            return {"miou": iou, "pixel_accuracy": int(self._matrix.trace()) / int(self._matrix.sum())}
        iou, right = self._images[scheme]
        return {"miou": iou / self._seen, "pixel_accuracy": right / self._seen}


def _confusion_by_image(
    predicted: Int[Tensor, "batch height width"], labels: Int[Tensor, "batch height width"], classes: int
) -> Int[Tensor, "batch rows classes"]:
    """Pixels of each image by true class (the last row: undefined) and predicted class, on the CPU."""
    truth = torch.where(labels >= 0, labels.long(), classes)
    image = torch.arange(len(labels), device=labels.device)[:, None, None]
    cells = (image * (classes + 1) + truth) * classes + predicted
    return (
        cells.flatten().bincount(minlength=len(labels) * (classes + 1) * classes).view(len(labels), -1, classes).cpu()
    )


def _mean_iou(
    matrices: Int[Tensor, "images classes classes"], predicted: Int[Tensor, "images classes"]
) -> Float[Tensor, " images"]:
    """Mean over the classes that occur; `predicted` is given apart, as it may hold predictions on undefined pixels."""
    hits = matrices.diagonal(dim1=1, dim2=2).double()
    union = matrices.sum(2) + predicted - hits
    occurs = union > 0
    return torch.where(occurs, hits / union.clamp(min=1), 0.0).sum(1) / occurs.sum(1)


@dataclass
class DepthMetrics:
    """Errors of depth (or of inverse depth) over all defined pixels."""

    _sums: Tensor = field(default_factory=lambda: torch.zeros(7, dtype=torch.float64), init=False, repr=False)

    def add(
        self, outputs: Float[Tensor, "batch 1 height width"], labels: Float[Tensor, "batch 1 height width"]
    ) -> None:
        """Add depths and labels, 0 undefined."""
        defined = labels > 0
        predicted, true = outputs[defined].double(), labels[defined].double()
        error = (predicted - true).abs()
        # What is predicted at or behind the camera is within no ratio.
        ratio = torch.where(predicted > 0, torch.maximum(predicted / true, true / predicted), torch.inf)
        shares = [(ratio < 1.25**power).double() for power in (1, 2, 3)]
        parts = [torch.ones_like(error), error, error / true, error.square(), *shares]
        self._sums += torch.stack([part.sum() for part in parts]).cpu()

    def result(self, scheme: Scheme = "whole-set") -> dict[str, float] | None:
        """Errors in the labels' unit, `relative_error` and shares as fractions; all schemes give the same."""
        seen, *sums = self._sums.tolist()
        if not seen:
            return None
        absolute, relative, square, *within = (value / seen for value in sums)
        errors = {"absolute_error": absolute, "relative_error": relative, "rmse": square**0.5}
        return errors | dict(zip(("within_1.25", "within_1.25^2", "within_1.25^3"), within, strict=True))


ANGLES = (11.25, 22.5, 30.0)
_IN_MEMORY = 64 * 2**20  # bytes of angles that are kept in memory before they go to a temporary file
_CHUNK = 2**22


class AngleMetrics:
    """The angle between predicted and true normals, over all defined pixels.

    The median is exact, in bounded memory: the angles (degrees, float32) are written to a temporary file once there are
    many, and the two middle ones are found in two passes over it, first by the upper, then by the lower half of their bits
    (numbers that are not negative are ordered as their bits are). Means and shares are made from float64.
    """

    def __init__(self) -> None:
        self._angles = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - lives as long as this object
        self._sums = torch.zeros(2 + len(ANGLES), dtype=torch.float64)  # pixels, angles, pixels within each angle

    def __del__(self) -> None:
        self._angles.close()

    def add(
        self, outputs: Float[Tensor, "batch 3 height width"], labels: Float[Tensor, "batch 3 height width"]
    ) -> None:
        """Add normals of any length and labels, (0, 0, 0) undefined. A prediction of no length is 90 degrees off."""
        angles = angles_between(outputs, labels)[(labels != 0).any(1)]
        parts = [torch.ones_like(angles), angles, *((angles < limit).double() for limit in ANGLES)]
        self._sums += torch.stack([part.sum() for part in parts]).cpu()
        self._angles.seek(0, 2)
        self._angles.write(angles.float().cpu().numpy().tobytes())

    def result(self, scheme: Scheme = "whole-set") -> dict[str, float] | None:
        """`angle_mean` and `angle_median` in degrees, shares as fractions; all schemes give the same."""
        seen, total, *within = self._sums.tolist()
        if not seen:
            return None
        errors = {"angle_mean": total / seen, "angle_median": self._median(int(seen))}
        return errors | {f"within_{limit:g}": value / seen for limit, value in zip(ANGLES, within, strict=True)}

    def _median(self, seen: int) -> float:
        """The middle angle; of an even number the mean of the two middle ones."""
        ranks = {(seen - 1) // 2, seen // 2}
        upper = _histogram(bits >> 16 for bits in self._chunks())
        values = []
        for rank in ranks:
            high, before = _bucket(upper, rank)
            lower = _histogram(bits[bits >> 16 == high] & 0xFFFF for bits in self._chunks())
            values.append(np.uint32(high << 16 | _bucket(lower, rank - before)[0]).view(np.float32))
        return float(np.mean(values, dtype=np.float64))

    def _chunks(self) -> Iterator[np.ndarray]:
        self._angles.seek(0)
        while part := self._angles.read(4 * _CHUNK):
            yield np.frombuffer(part, dtype=np.uint32)


def _histogram(chunks: Iterator[np.ndarray]) -> np.ndarray:
    return sum((np.bincount(chunk, minlength=2**16) for chunk in chunks), start=np.zeros(2**16, dtype=np.int64))


def _bucket(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bucket in which the element of this rank (from 0) lies, and how many elements lie in the buckets before it."""
    upto = counts.cumsum()
    bucket = int(np.searchsorted(upto, rank, side="right"))
    return bucket, int(upto[bucket] - counts[bucket])


def angles_between(
    first: Float[Tensor, "batch 3 height width"], second: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch height width"]:
    """Angles in degrees, float64, by the arc tangent: the arc cosine loses half of the digits of small angles."""
    first, second = first.double(), second.double()
    cross, dot = torch.linalg.cross(first, second, dim=1).norm(dim=1), (first * second).sum(1)
    angles = torch.rad2deg(torch.atan2(cross, dot))
    return torch.where((cross == 0) & (dot == 0), 90.0, angles)


def delta_mtl(
    results: Mapping[str, Mapping[str, float]],
    single: Mapping[str, Mapping[str, float]],
    measures: Mapping[str, tuple[Measure, ...]],
) -> float:
    """How much better than single-task networks, as a fraction: the mean over tasks of the mean over a task's measures of
    the relative change, with the sign turned where lower is better (Maninis et al. 2019; LibMTL's Delta_p).

    All three are by task; `results` and `single` by measure within. Raises ValueError for a task or measure that is missing
    in either, or a single-task value of 0.
    """
    if not results:
        raise ValueError("delta_mtl: expected results of at least one task, found none.")
    return sum(_change(task, results[task], single.get(task, {}), measures[task]) for task in results) / len(results)


def _change(task: str, own: Mapping[str, float], alone: Mapping[str, float], measures: tuple[Measure, ...]) -> float:
    changes = []
    for measure in measures:
        if not measure.in_delta:
            continue
        if measure.name not in own or not alone.get(measure.name):
            raise ValueError(f"delta_mtl: expected {task}'s {measure.name} of both networks, the single one's not 0.")
        change = own[measure.name] / alone[measure.name] - 1
        changes.append(change if measure.higher_is_better else -change)
    return sum(changes) / len(changes)

"""One domain on its way into the store: images arrive in any order, and the folder appears only when all are there."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlon.data.official import Listing
from decathlon.data.pipeline import Block, Job, Moments
from decathlon.data.problems import Kind, Problem
from decathlon.data.store import FORMAT, SPLITS
from decathlon.data.writer import SplitWriter
from decathlon.specs import Colour
from mtan_core.files import naming, replacing

_NO_STATISTICS = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Assembly:
    """Takes decoded images of one domain, writes them under a temporary name, and renames that at the end.

    With `skip` an image that has a problem is left out and counted; else the first one ends the writing (not the
    looking for more).
    """

    def __init__(
        self, listing: Listing, store: Path, *, skip: bool, options: dict[str, Any], told: list[Problem]
    ) -> None:
        """`options` goes into the metadata; `told`: problems that the annotations alone have shown."""
        self.listing, self.skip, self.options = listing, skip, options
        self.problems: list[Problem] = []
        self.skipped = len(told)
        self.finished = False
        self._final = store / listing.name
        self._folder = store / f".tmp-{listing.name}"
        self._failed = bool(told) and not skip
        self._told = {problem.file for problem in told}
        self._places = {
            file: (split, row) for split, rows in listing.splits.items() for row, file in enumerate(rows.files)
        }
        self._taken = 0
        self._seen = {split: np.zeros(len(rows), bool) for split, rows in listing.splits.items()}
        self._writers: dict[str, SplitWriter] = {}
        self._moments = {split: Moments(0, np.zeros(3), np.zeros(3)) for split in SPLITS}
        self._sizes: dict[str, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def failed(self) -> bool:
        return self._failed

    @property
    def any_seen(self) -> bool:
        return any(seen.any() for seen in self._seen.values())

    def job(self, file: str, data: bytes | str) -> Job | None:
        """The decoding of a file; None where it is not annotated (a problem) or was met before (the first one counts)."""
        place = self._places.get(file)
        if place is None:
            if file not in self._told:
                self._add("image without annotation", file, "not in the annotations")
            return None
        split, row = place
        if self._seen[split][row]:
            return None
        self._seen[split][row] = True
        rows = self.listing.splits[split]
        return Job(self.listing.name, split, row, int(rows.heights[row]), int(rows.widths[row]), data)

    def take(self, block: Block) -> None:
        """Write the images of a block, and note what is wrong with others of it."""
        self._taken += len(block)
        rows = self.listing.splits[block.split]
        for row, kind, detail in block.troubles:
            self._add(kind, rows.files[row], detail)
        if self._failed or not block.rows:
            return
        labels = None if block.split == "test" else rows.labels[block.rows]
        with naming(self._final):
            self._writer(block.split).append(rows.image_ids[block.rows], labels, block.sizes, block.pixels)
        self._moments[block.split] += block.moments

    def finish(self) -> None:
        """Name the images that never came; where nothing stands against it, put the domain in its place."""
        for split, seen in self._seen.items():
            for row in np.flatnonzero(~seen).tolist():
                self._add("missing image", self.listing.splits[split].files[row], "")
        self._require_images()
        if self._failed:
            self.abort()
            return
        with naming(self._final):
            for split in self.listing.splits:
                self._writer(split).close(self._metadata(split))
        self._writers = {}
        with replacing(self._final) as temporary:
            self._folder.rename(temporary)
        self.finished = True

    def finish_if_complete(self) -> None:
        """Finish as soon as every annotated image came, so that what follows in an archive cannot undo it."""
        if not self.finished and not self._failed and self._taken == len(self):  # jobs seen may still be under way
            self.finish()

    def abort(self) -> None:
        """Leave nothing of the domain but what `finish` put in its place and nothing speaks against."""
        for writer in self._writers.values():
            writer.abort()
        self._writers = {}
        shutil.rmtree(self._folder, ignore_errors=True)
        if self.finished and self._failed:  # an image that nothing annotates came after the last annotated one
            shutil.rmtree(self._final, ignore_errors=True)

    def _add(self, kind: Kind, file: str, detail: str) -> None:
        self.problems.append(Problem(self.listing.name, kind, file, detail))
        self.skipped += 1
        if not self.skip:
            self._failed = True
            self.abort()

    def _require_images(self) -> None:
        """A split of which nothing is left is no split, whatever may be skipped."""
        bad = {problem.file for problem in self.problems}
        for split, rows in self.listing.splits.items():
            if not rows.files or bad.issuperset(rows.files):
                self._failed = True
                self.problems.append(
                    Problem(self.listing.name, "annotations", f"data/{self.listing.name}/{split}", "no image is left")
                )

    def _writer(self, split: str) -> SplitWriter:
        if split not in self._writers:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writers[split] = SplitWriter(self._folder / f"{split}.arrow", self._metadata(split))
        return self._writers[split]

    def _metadata(self, split: str) -> dict[str, Any]:
        mean, std = _statistics(self._moments["train"])
        measured_mean, measured_std = _statistics(self._moments[split])
        return {
            "format": FORMAT,
            "spec": self.listing.spec(mean, std).to_dict(),
            "split": split,
            "source": self.listing.source,
            "measured_mean": measured_mean,
            "measured_std": measured_std,
            "skipped": self.skipped,  # in the whole domain
            "annotations": self.listing.digest,
            **self.options,
        }


def _statistics(moments: Moments) -> tuple[Colour, Colour]:
    """Mean and standard deviation over all pixels, of values in [0, 1]."""
    if not moments.count:
        return _NO_STATISTICS
    mean = moments.total / moments.count
    variance = np.maximum(moments.squares / moments.count - mean**2, 0)
    std = np.maximum(np.sqrt(variance), 1e-3)  # a channel of one value must not divide by zero
    return _colour(mean / 255), _colour(std / 255)


def _colour(values: NDArray[np.float64]) -> Colour:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue

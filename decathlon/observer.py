"""What is written and said of a run after each epoch."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from decathlon.specs import DomainSpec
from mtan_core.loop import Row
from mtan_core.recording import Recorder

if TYPE_CHECKING:
    from decathlon.training import Training


class Observer:
    """Told each epoch's rows: writes `metrics.parquet` and TensorBoard events, and warns about domains stuck at chance."""

    def __init__(self, parts: "Training") -> None:
        self.parts = parts
        self.warned: set[str] = set()
        self.record = Recorder(parts.folder.path)

    def __call__(self, rows: Sequence[Row]) -> None:
        all_rows = self.parts.trainer.rows
        self.record(all_rows, rows)
        for spec in self.parts.specs:
            if spec.name in self.parts.train_images:
                self._warn_if_stuck(spec, [row for row in all_rows if row["domain"] == spec.name])

    def _warn_if_stuck(self, spec: DomainSpec, rows: Sequence[Row]) -> None:
        """By validation; by the training batches under train+val, which validates nothing."""
        key, labels = self._measure(spec.name)
        patience = self.parts.config.stuck_epochs
        accuracies = [row[key] for row in rows if row[key] is not None][-patience:]
        if len(accuracies) < patience or spec.name in self.warned:
            return
        if max(accuracies) <= np.bincount(labels).max() / len(labels) + 1 / len(labels):
            self.warned.add(spec.name)
            print(
                f"mtan: warning: {spec.name} has been at chance ({key} {max(accuracies):.1%}) {patience} times in a row; "
                f'consider a lower optimizer.lr or norm = "domain".',
                file=sys.stderr,
            )

    def _measure(self, domain: str) -> tuple[str, np.ndarray]:
        """Which accuracy of the rows tells how a domain fares, and the labels that it is measured on."""
        images = self.parts.val_images.get(domain)
        parts = [images] if images else self.parts.train_images[domain].parts
        labels = [part.split.labels for part in parts if part.split.labels is not None]
        return "val_accuracy" if images else "accuracy", np.concatenate(labels)

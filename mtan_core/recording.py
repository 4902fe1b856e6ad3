"""What is written of a run after each epoch: `metrics.parquet` and TensorBoard events."""

from collections.abc import Sequence
from pathlib import Path

from mtan_core.events import ScalarEvents
from mtan_core.files import replacing
from mtan_core.loop import Columns, Row


class Recorder:
    """Writes the rows of metrics into a run's folder."""

    def __init__(self, folder: Path, columns: Columns = Columns()) -> None:  # noqa: B008 -- it never changes
        self.folder, self.columns = folder, columns
        self.events = ScalarEvents(folder / "tensorboard")

    def __call__(self, all_rows: Sequence[Row], rows: Sequence[Row]) -> None:
        """Write all rows to the table, and those of the epoch that ended as events."""
        import pandas as pd

        with replacing(self.folder / "metrics.parquet") as temporary:
            pd.DataFrame(all_rows).to_parquet(temporary, index=False)
        aside = {"epoch", "step", "lr", self.columns.task, self.columns.seen}
        for row in rows:
            kept = {key: value for key, value in row.items() if key not in aside and value is not None}
            self.events.write(row["step"], {f"{key}/{row[self.columns.task]}": value for key, value in kept.items()})
        if rows:
            self.events.write(rows[0]["step"], {"lr": rows[0]["lr"]})

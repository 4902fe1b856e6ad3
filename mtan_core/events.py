"""Scalars for TensorBoard, written at once.

TensorBoard's own writer works in a thread of its own, which a full disk ends with a traceback; this one raises OSError
where it is called, and keeps no file open.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboard.summary.writer.record_writer import RecordWriter


@dataclass
class ScalarEvents:
    """An event file in `folder`, begun at the first `write`."""

    folder: Path
    path: Path | None = field(default=None, init=False)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append scalars of one step. Events that an earlier file has from the first step on are no longer shown."""
        events = [Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
                  for tag, value in values.items()]  # fmt: skip
        if self.path is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path = self.folder / f"events.out.tfevents.{time.time_ns()}"
            start = SessionLog(status=SessionLog.START)
            events = [Event(file_version="brain.Event:2"), Event(step=step, session_log=start), *events]
        with self.path.open("ab") as file:
            writer = RecordWriter(file)  # type: ignore[no-untyped-call]
            for event in events:
                event.wall_time = time.time()
                writer.write(event.SerializeToString())  # type: ignore[no-untyped-call]

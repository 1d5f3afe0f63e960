"""Write a run's history as TensorBoard events, to follow its training: tensorboard --logdir STUDY/events."""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Events:
    """Writer of the events of one process's part of a run.

    The file is opened, flushed and closed at every epoch. Each process has a file of its own, since one that was killed
    may have left half a record at the end of its file.
    """

    def __init__(self, folder: Path, finished_epochs: int) -> None:
        """Open the events of a run.

        Args:
            folder: The folder of the run's events, which stays where it is while processes come and go.
            finished_epochs: Epochs of earlier processes that stay visible.
        """
        # TensorBoard reads them in the order of their names, and leaves one for good when there is a later one: what a
        # process still writes that was presumed dead is not seen.
        name = f"{int(time.time()):010d}.{platform.node()}.{os.getpid()}"
        self.path = folder / f"events.out.tfevents.{name}"
        start = SessionLog(status=SessionLog.START)
        self._pending = [
            Event(wall_time=time.time(), file_version="brain.Event:2"),
            Event(wall_time=time.time(), step=finished_epochs + 1, session_log=start),  # later steps are forgotten
        ]

    def write(self, row: Mapping[str, Any], lost: Mapping[str, bool] | None = None) -> None:
        """Append one epoch: a row of history.csv, and of classes whether they are lost (`alarm.lost_classes`).

        If that fails, training continues: the run's own files matter, and they report a full disk.
        """
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(row)]
        alarms = (lost or {}).items()
        values += [Summary.Value(tag=f"class_lost/{name}", simple_value=is_lost) for name, is_lost in alarms]
        self._pending.append(Event(wall_time=time.time(), step=int(row["epoch"]), summary=Summary(value=values)))
        with suppress(OSError):
            with self._opened() as file:
                records = RecordWriter(file)
                for event in self._pending:
                    records.write(event.SerializeToString())
            self._pending.clear()

    def _opened(self) -> BinaryIO:
        try:
            return self.path.open("ab")
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True)
            return self.path.open("ab")


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Return the values of a row of history.csv that are curves, by tag."""
    yield "loss/train", float(row["train_loss"])
    yield "loss/validation", float(row["validation_loss"])
    yield "dice/validation", float(row["validation_dice"])
    yield "training/learning_rate", float(row["learning_rate"])
    yield "training/seconds", float(row["seconds"])
    yield "training/waiting", float(row["waiting"])
    for part in row["gradient_shares"].split():
        term, share = part.rsplit("=", 1)
        yield f"gradient_share/{term}", float(share)
    for name, share in json.loads(row.get("patches_with_class") or "{}").items():
        yield f"patches_with_class/{name}", float(share)

"""TensorBoard's event files, written record by record: whole records, an epoch never twice."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlcls import durable
from mlcls.reports.record import Record

NAME = "events.out.tfevents.{seconds:010d}.mlcls"


def append_events(
    folder: Path,
    epochs: Sequence[tuple[int, Mapping[str, float]]],
    final: Mapping[str, float],
    record: Record,
    state: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Add figures to the folder's event file, or begin one in the place of those that stand there.

    Args:
        epochs: number and figures by tag of those that are new.
        final: figures by tag that stand at the best epoch.
        state: what this returned the last time, among others; None to begin anew.

    Returns:
        `file`, its name; `size`, its bytes: what is beyond them was not finished.

    Raises:
        OSError: the disk is full, the folder cannot be written.
    """
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    path, size = _begun(folder, state)
    text = io.BytesIO()
    writer = RecordWriter(text)
    events = [] if size else _head(record)
    events += [_scalars(number, figures) for number, figures in epochs]
    if final:
        events.append(_scalars(record.best_epoch or 0, final))
    for event in events:
        writer.write(event.SerializeToString())
    with open(path, "r+b" if size else "xb", buffering=0) as file:
        file.truncate(size)  # what a kill left of a record
        file.seek(size)
        durable.write_all(file, text.getvalue())
        durable.flush(file)
    return {"file": path.name, "size": size + len(text.getvalue())}


def _begun(folder: Path, state: Mapping[str, Any] | None) -> tuple[Path, int]:
    """The event file to go on with, and how many bytes of it count; else a new name, once those of before are gone."""
    if state is not None:
        name, size = str(state.get("file")), state.get("size")
        path = folder / Path(name).name
        if isinstance(size, int) and path.is_file() and path.stat().st_size >= size > 0:
            return path, size
    numbers = [int(time.time())]
    for old in folder.glob(NAME.format(seconds=0).replace("0" * 10, "*")):
        number = old.name.split(".")[3]
        numbers.append(int(number) + 1 if number.isdecimal() else 0)
        durable.remove(old)
    return folder / NAME.format(
        seconds=max(numbers)
    ), 0  # TensorBoard reads the files in the order of their names


def _head(record: Record) -> list[Any]:
    """The events that a file begins with: its version, and the recipe as a text."""
    from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

    version = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
    lines = json.dumps(record.recipe, ensure_ascii=True, indent=1).splitlines()
    text = f"{record.command}\n\n" + "\n".join(
        f"    {line}" for line in lines
    )  # an indented block of Markdown
    value = summary_pb2.Summary.Value(
        tag="recipe/text_summary",
        metadata=summary_pb2.SummaryMetadata(
            plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
        ),
        tensor=tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING,
            string_val=[text.encode("utf-8", "backslashreplace")],
            tensor_shape=tensor_shape_pb2.TensorShapeProto(
                dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)]
            ),
        ),
    )
    summary = summary_pb2.Summary(value=[value])
    return [version, event_pb2.Event(wall_time=time.time(), step=0, summary=summary)]


def _scalars(step: int, figures: Mapping[str, float]) -> Any:
    """An event of scalars."""
    from tensorboard.compat.proto import event_pb2, summary_pb2

    values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
    return event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=values))

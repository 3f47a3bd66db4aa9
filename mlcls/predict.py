"""`python -m mlcls.predict --image x.jpg`: which attributes do these images show?"""

import contextlib
import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from mlcls.commandline import (
    FAILED_IN_PART,
    Parser,
    add_models_flag,
    add_tta_flag,
    check_output,
    console_on,
    run_command,
)
from mlcls.errors import RecipeError
from mlcls.naming import suggest

FORMATS = ("table", "json", "csv")
ENGINES = ("auto", "onnx", "torch", "openvino")
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Predict; returns the exit code."""
    return run_command(_predict, argv)


def _predict(argv: Sequence[str] | None) -> int:
    parser = Parser("predict", "Which attributes do these images show?")
    parser.add_argument(
        "--image", action="extend", nargs="+", default=[], metavar="FILE", help="an image, or several"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="every image in a folder and its subfolders, but for names that begin with a dot",
    )
    add_models_flag(parser)
    parser.add_argument("--format", choices=FORMATS, help="default: table, or what the ending of --out says")
    parser.add_argument("--out", metavar="FILE", help="write there instead of to the terminal")
    parser.add_argument(
        "--threshold", type=_threshold, metavar="T", help="one for all, instead of the tuned ones"
    )
    parser.add_argument(
        "--raw", action="store_true", help="the network's own scores, not calibrated; decisions stay the same"
    )
    add_tta_flag(parser)
    parser.add_argument(
        "--max-pixels",
        type=_max_pixels,
        metavar="N",
        help="largest image that is read, width times height; its header tells before it is decoded "
        "(default: 200000000)",
    )
    parser.add_argument(
        "--engine",
        type=_engine,
        default="auto",
        metavar="{" + ",".join(ENGINES) + "}",
        help="default: auto, onnx on the CPU where it can, else torch",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:N or mps (default: auto, which is the CPU, through ONNX Runtime; cuda predicts on "
        "the GPU, through PyTorch)",
    )
    arguments = parser.parse_args(argv)
    if not arguments.image and arguments.images is None:
        raise RecipeError("name what to predict: --image FILE or --images DIR")
    form = arguments.format or _format_of(arguments.out)
    if arguments.out is not None:  # any ending will do
        check_output("--out", arguments.out, ".json", Path(arguments.out).suffix.lower())

    from mlcls.bundle.unfinished import unfinished_notes
    from mlcls.workflows.photos import open_predictor, paths_to_predict

    paths, unread = paths_to_predict(arguments.image, arguments.images)
    _check_not_an_image(arguments.out, paths)
    models = arguments.model or ["outputs"]
    predictor = open_predictor(
        models,
        arguments.device,
        arguments.threshold,
        raw=arguments.raw,
        engine=arguments.engine,
        max_pixels=arguments.max_pixels,
        tta=arguments.tta,
    )
    sys.stderr.writelines(unfinished_notes(*models))
    if predictor.note:
        sys.stderr.write(predictor.note + "\n")
    quiet = form == "table" and not arguments.out  # the rows themselves show how far it is
    with contextlib.ExitStack() as stack:
        advance = None if quiet or len(paths) == 1 else stack.enter_context(_progress(len(paths)))
        rows = _counted(predictor.stream(paths), advance)
        first = next(rows)  # before the file is opened: what fails until here leaves an older result as it is
        stream = stack.enter_context(open_out(arguments.out)) if arguments.out else _stdout()
        failed = _write(form, chain([first], rows), stream, predictor.attributes)
    if failed and form != "table":
        console_on(sys.stderr).print(_failed_images(failed, len(paths)))
    if unread:
        sys.stderr.write(_unread_folders(unread) + "\n")
    return FAILED_IN_PART if failed or unread else 0


def _check_not_an_image(out: str | None, paths: Sequence[str]) -> None:
    """Refuse to write the result over an image; also where it has another name, through a link."""
    if out is None or not os.path.isfile(out):
        return
    place = os.stat(out)
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # one that is not there gets a row that says so
            if os.path.samestat(os.stat(path), place):
                raise RecipeError(f"--out {out}: is one of the images to predict; name another file")


def _failed_images(failed: int, images: int) -> str:
    if images == 1:
        return "the image cannot be read; its row says why"
    return f"{failed} of {images} images cannot be read; {'its row says' if failed == 1 else 'their rows say'} why"


def _unread_folders(folders: Sequence[str]) -> str:
    more = f", nor can {len(folders) - 1} more" if len(folders) > 1 else ""
    return f"{folders[0]}: the folder cannot be read{more}; what is in there is not predicted"


def _progress(images: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    from mlcls.reports.progress import (
        progress,
    )  # rich costs a tenth of a second: only where there is a bar to show

    return progress(console_on(sys.stderr), "predicting", images)


def _engine(text: str) -> str:
    if text not in ENGINES:
        raise RecipeError(f"--engine: unknown engine '{text}'; {suggest(text, list(ENGINES))}")
    return text


def _max_pixels(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise RecipeError(f"--max-pixels: expected a whole number of at least 1, got {text}")
    return int(text)


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise RecipeError(f"--threshold: expected a number from 0 to 1, got {text}")
    return value


def _format_of(out: str | None) -> str:
    ending = Path(out).suffix.lower().removeprefix(".") if out else ""
    return ending if ending in FORMATS else "table"


def open_out(path: str) -> IO[str]:
    """A file for results: UTF-8, the line ends as they are written; a byte of a name that is no UTF-8 as `\\udc..`."""
    return Path(path).open("w", encoding="utf-8", errors="backslashreplace", newline="")


def _stdout() -> IO[str]:
    """stdout, in whose encoding no name fails."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout


def _counted(rows: Iterator[Row], advance: Callable[[int], None] | None) -> Iterator[Row]:
    for row in rows:
        yield row
        if advance:
            advance(1)


def _write(form: str, rows: Iterator[Row], stream: IO[str], attributes: Sequence[str]) -> int:
    """Write the rows as they come; returns how many hold an error."""
    return {"table": _write_table, "json": _write_json, "csv": _write_csv}[form](rows, stream, attributes)


def _write_table(rows: Iterator[Row], stream: IO[str], attributes: Sequence[str]) -> int:
    from mlcls.reports.console_predictions import show_prediction, show_prediction_error

    console, failed = console_on(stream), 0
    for row in rows:
        if "error" in row:
            failed += 1
            show_prediction_error(console, row["image"], row["error"])
        else:
            show_prediction(console, row["image"], row["attributes"])
    return failed


def _write_json(rows: Iterator[Row], stream: IO[str], attributes: Sequence[str]) -> int:
    failed, separator = 0, "[\n"
    # outside UTF-8 JSON has escapes of its own; a lone surrogate, a byte of a name, is written as one in any case
    escaped = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
    try:
        for row in rows:
            failed += "error" in row
            stream.write(separator + json.dumps(row, ensure_ascii=escaped, allow_nan=False))
            separator = ",\n"
            stream.flush()  # rows as they come: who reads them need not wait for a buffer to fill
    finally:  # also of what was interrupted the finished rows can be read
        stream.write("[]\n" if separator == "[\n" else "\n]\n")
    return failed


def _write_csv(rows: Iterator[Row], stream: IO[str], attributes: Sequence[str]) -> int:
    writer, failed = csv.writer(stream, lineterminator="\n"), 0
    columns = [column for name in attributes for column in (name, f"{name}_probability")]
    writer.writerow(["image", *columns, "error"])
    for row in rows:
        failed += "error" in row
        cells: list[Any] = [""] * len(columns)
        if "error" not in row:
            cells = [c for a in row["attributes"] for c in (int(a["present"]), repr(a["probability"]))]
        writer.writerow([row["image"], *cells, row.get("error", "")])
        stream.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())

"""Any bytes at all as a label table: a table or a TableError, never another exception.

`python tests/reliability/fuzz_tables.py --minutes 10` fuzzes for so long, by coverage with atheris where that is
installed (`pip install atheris`, on Linux and macOS), else by changing tables at random. It prints what it did, and
keeps what it found. `read_bytes` is one case, for tests too.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

IMAGES = ("a.jpg", "b.jpg", "c.png", "sub/d.jpg", "e e.jpg")
# how a table is read, chosen by the first byte of a case: the file's name, and the flags
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("t.csv", {}),
    ("t.csv", {"max_missing": 1.0}),
    ("t.csv", {"minus_one": "absent", "max_missing": 1.0}),
    ("t.csv", {"tags_column": "tags", "max_missing": 1.0}),
    ("t.csv", {"tags_column": "tags", "tags_separator": " ", "max_missing": 1.0}),
    ("t.csv", {"subset_column": "subset", "group_column": "group", "max_missing": 1.0}),
    ("t.csv", {"image_column": "image", "attributes": ["hat"], "max_missing": 1.0}),
    ("t.csv", {"names": ["hat", "bag"], "max_missing": 1.0}),
    ("t.json", {"max_missing": 1.0}),
    ("t.json", {"attributes": ["hat"]}),
    ("t.parquet", {"max_missing": 1.0}),
    ("split.csv", {}),
)
TEXT, COCO, PARQUET, SPLIT = 0, 8, 10, 11

SEEDS: tuple[tuple[int, bytes], ...] = (
    (0, b"a.jpg 1 0\nb.jpg 0 NA\nc.png -1 1\n"),
    (0, b"image,hat,bag\na.jpg,1,0\nb.jpg,,yes\nsub/d,true,absent\n"),
    (0, b'\xef\xbb\xbf"image";"hat";"a ""b"""\r\n"e e.jpg";"1";"0"\r\na;0;NaN\r\n'),
    (1, b"image\that\tage\na.jpg\t1\t33\nb.jpg\t0\t41\n\n"),
    (1, b"a.jpg|1|0|\nb.jpg|0|?|\n"),
    (2, b"3\nhat bag\na.jpg -1 1\nb.jpg 1 -1\nc.png 1 1\n"),
    (3, b"image,tags\na.jpg,\"['hat', 'bag']\"\nb.jpg,[]\nc.png,NA\n"),
    (4, b"image;tags\na.jpg;hat bag\nb.jpg;\n"),
    (5, b"image,hat,subset,group\na.jpg,1,train,x\nb.jpg,0,val,\na.jpg,0,train,x\n"),
    (6, b"number,image,hat\n1,a.jpg,1\n2,b.jpg,0\n"),
    (7, b"a.jpg 1 0\nb.jpg 0 1\n"),
    (0, b"ImageID,Source,LabelName,Confidence\na,x,hat,1\na,x,bag,0\nb,x,hat,0\nb,y,hat,1\n"),
    (
        COCO,
        b'{"images":[{"id":1,"file_name":"a.jpg"},{"id":"2","file_name":"b.jpg"}],'
        b'"annotations":[{"image_id":1,"category_id":7}],"categories":[{"id":7,"name":"hat"}]}',
    ),
    (SPLIT, b'image,subset\na.jpg,train\nb.jpg,val\n"e e.jpg",Test\n'),
)  # fmt: skip
WORDS = (
    b"1", b"0", b"-1", b"NA", b"nan", b"yes", b"absent", b"?", b"", b" ", b"\t", b",", b";", b"|", b'"', b'""', b"\n",
    b"\r\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc3\xa9", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"a.jpg", b"..",
    b"/",
    b"\\", b"C:", b"image", b"hat", b"tags", b"LabelName", b"Confidence", b"[", b"]", b"'", b"{", b"}", b":", b"1e999",
    b"9" * 5000, b"[" * 3000, b'"' * 999, b"\\ud800", b"null", b"\n" * 200, b"a,1\n" * 90,
)  # fmt: skip


def make_folder(folder: Path) -> Path:
    """A folder with images/ to look names up in, and place for the tables."""
    for name in IMAGES:
        file = folder / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def read_bytes(case: bytes, folder: Path) -> str:
    """Read a case, its first byte the way; returns `table` or `refused`. What else is raised is a finding."""
    from mlcls.errors import MlclsError

    way, content = (case[0] if case else 0) % len(WAYS), case[1:]
    name, flags = WAYS[way]
    path = folder / name
    path.write_bytes(content)
    try:
        if way == SPLIT:
            from mlcls.labels.split import read_split

            read_split(path, IMAGES[:2])
            return "table"
        from mlcls.labels.table import read_table

        check_table(read_table(path, folder / "images", **flags))
    except MlclsError as error:
        str(error).encode()  # can be printed
        return "refused"
    return "table"


def check_table(table: Any) -> None:
    """What holds for every table that was read."""
    import numpy as np

    count, attributes = table.labels.shape
    assert table.labels.dtype == np.float32
    assert count == len(table.images) == len(set(table.images)) > 0
    assert attributes == len(table.attributes) == len(set(table.attributes)) > 0
    assert all(table.attributes), table.attributes
    assert np.all((table.labels == 0) | (table.labels == 1) | np.isnan(table.labels))
    assert all((table.images_dir / image).is_file() for image in table.images)
    assert set(table.images) <= set(IMAGES)
    assert table.report.rows >= count


def parquet_seed() -> bytes | None:
    """A small table in Parquet; None without pyarrow."""
    if importlib.util.find_spec("pyarrow") is None:
        return None
    import io

    import pandas as pd

    buffer = io.BytesIO()
    pd.DataFrame({"image": ["a.jpg", "b.jpg"], "hat": [1, None], "tags": [["a"], ["b", "c"]]}).to_parquet(
        buffer
    )
    return buffer.getvalue()


def seeds() -> list[bytes]:
    """Tables of every kind, as cases."""
    parquet = parquet_seed()
    more = [] if parquet is None else [(PARQUET, parquet)]
    return [bytes([way]) + content for way, content in (*SEEDS, *more)]


def mutate(case: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """The case with a few changes: bytes, words, pieces cut, doubled, moved, or taken from another case."""
    data = bytearray(case)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at, to = sorted(chance.randint(1, max(1, len(data))) for _ in range(2))
        kind = chance.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at:at] = chance.choice(WORDS)
        elif kind == 2:
            del data[at:to]
        elif kind == 3:
            data[at:at] = data[at:to] * chance.choice((1, 2, 50))
        elif kind == 4:
            other = chance.choice(others)
            data[at:to] = other[chance.randint(1, max(1, len(other))) :]
        else:
            data[at:to] = chance.choice(WORDS)
    if chance.random() < 0.1:
        data[0] = chance.randrange(len(WAYS))
    return bytes(data[: 1 << 16])


class Log:
    """What became of the cases; findings are kept, one of each place in the code where something was raised."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.counts, self.findings = folder, Counter[str](), dict[str, str]()
        self.slowest = 0.0
        self.told = self.started = time.monotonic()

    def run(self, case: bytes, work: Path) -> None:
        started = time.monotonic()
        try:
            outcome = read_bytes(case, work)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} in {last.name}, {Path(last.filename).name}"
            if key not in self.findings:
                self.findings[key] = str(error)[:200]
                name = f"finding-{len(self.findings):02d}"
                (self.folder / name).write_bytes(case)
                (self.folder / f"{name}.txt").write_text(traceback.format_exc(), errors="backslashreplace")
            outcome = "finding"
        self.counts[f"{WAYS[(case[0] if case else 0) % len(WAYS)][0]} {outcome}"] += 1
        self.slowest = max(self.slowest, time.monotonic() - started)
        if time.monotonic() - self.told > 2:
            self.tell()

    def tell(self) -> None:
        self.told = time.monotonic()
        facts = {"counts": self.counts, "findings": self.findings, "slowest": self.slowest}
        (self.folder / "log.json").write_text(json.dumps({**facts, "seconds": self.told - self.started}))


def fuzz_at_random(log: Log, work: Path, seconds: float, seed: int) -> None:
    """Change tables at random for so long."""
    chance, pool = random.Random(seed), seeds()
    for case in pool:
        log.run(case, work)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        log.run(mutate(chance.choice(pool), pool, chance), work)
    log.tell()


def fuzz_by_coverage(log: Log, work: Path, seconds: float, seed: int) -> None:
    """libFuzzer, by what of mlcls.labels each case reaches; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["mlcls.labels"]):
        import mlcls.labels.split
        import mlcls.labels.table  # noqa: F401
    corpus = log.folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, case in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(case)
    words = log.folder / "words.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS if 0 < len(word) < 20))
    limits = [f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-max_len=4096", "-timeout=30"]
    more = ["-rss_limit_mb=3000", f"-dict={words}", f"-artifact_prefix={log.folder}/", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, *more, str(corpus)], lambda case: log.run(case, work))
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def table_of(log: dict[str, Any], engine: str) -> str:
    """What was done and found, as a Markdown table."""
    lines = [f"{engine}, {log['seconds'] / 60:.1f} minutes, slowest case {log['slowest']:.2f} s", ""]
    lines += ["| read as | cases | tables | refused | findings |", "|---|--:|--:|--:|--:|"]
    rows = {name: Counter[str]() for name, _ in WAYS}
    for key, count in log["counts"].items():
        name, _, outcome = key.partition(" ")
        rows[name][outcome] += count
    rows["together"] = sum(rows.values(), Counter[str]())
    for name, counts in rows.items():
        cells = [sum(counts.values()), counts["table"], counts["refused"], counts["finding"]]
        lines.append(f"| {name} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    return "\n".join([*lines, "", *(f"FOUND: {place}: {what}" for place, what in log["findings"].items())])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--engine", choices=("auto", "atheris", "random"), default="auto", help="default: atheris, if any"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where findings are kept (default: a new folder for what is temporary)"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # the process that fuzzes
    arguments = parser.parse_args(argv)
    engine = arguments.engine
    if engine == "auto":
        engine = "atheris" if importlib.util.find_spec("atheris") else "random"
    out = Path(arguments.out or tempfile.mkdtemp(prefix="fuzz-tables-"))
    out.mkdir(parents=True, exist_ok=True)
    if arguments.inside:
        fuzz: Callable[..., None] = {"atheris": fuzz_by_coverage, "random": fuzz_at_random}[engine]
        in_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        with tempfile.TemporaryDirectory(dir=in_memory) as work:
            fuzz(Log(out), make_folder(Path(work)), 60 * arguments.minutes, arguments.seed)
        return 0
    # in a process of its own: libFuzzer ends its process, and so would a library that crashes
    flags = ["--inside", "--out", str(out), "--engine", engine, "--seed", str(arguments.seed)]
    command = [sys.executable, __file__, *flags, "--minutes", str(arguments.minutes)]
    with open(out / "output.txt", "w") as output, contextlib.suppress(KeyboardInterrupt):
        code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    log = json.loads((out / "log.json").read_text())
    sys.stdout.write(table_of(log, engine) + f"\nended with {code}; cases and output in {out}\n")
    return int(bool(log["findings"]) or code != 0)


if __name__ == "__main__":
    sys.exit(main())

"""Measures prediction: how long a process takes to start and predict a photo, and how fast many photos stream.

    python benchmarks/predict.py                      # everything: MobileNetV2 at 224 px, 1,000 made-up photos
    python benchmarks/predict.py --only pipeline --backbone resnet18 --out figures.json
    taskset -c 0-3 python benchmarks/predict.py --only pipeline          # on so many cores

Runs take turns and medians are shown. The network is untrained: that costs the same. Photos are JPEGs of 640 x 480,
read once before, so that they lie in the system's memory.

- start: the whole command on one photo, from the shell's call to its end, by each engine; and each command's `--help`.
- pipeline: `Predictor.stream` of the photos, beside decoding alone and computing alone. With C cores: on one thread and
  C - 1, as a program shares them out that decodes in some threads and computes in others; and on C threads each. The
  slower of these no pipeline can reach, since both must be done: the bound is 1 / (1 / decoding + 1 / computing).
- memory: the largest resident memory of the command on folders of tiny images.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from machine import machine_words

ATTRIBUTES = [f"attribute {number}" for number in range(5)]
ENGINES = ("onnx", "openvino", "torch")
COMMANDS = ("train", "predict", "tune-thresholds", "evaluate", "compare", "inspect")
PARTS = ("start", "pipeline", "memory")
Figures = dict[tuple[str, int], list[float]]
"""What is done, and in how many threads -> a figure a round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="a part (default: all)")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=7, help="of each kind, for the start")
    parser.add_argument("--rounds", type=int, default=5, help="of the pipeline")
    parser.add_argument("--tiny", type=int, nargs="+", default=[1000, 20_000], help="sizes of the folders")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    flags = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine_words()}
    print(figures["machine"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = write_bundle(folder / "bundle", flags.backbone, flags.image_size)
        photos = write_photos(folder / "photos", flags.photos)
        for part in flags.only or PARTS:
            if part == "start":
                figures[part] = measure_start(bundle, photos[0], flags.processes)
            elif part == "pipeline":
                figures[part] = measure_pipeline(bundle, photos, flags.rounds)
            else:
                figures[part] = measure_memory(bundle, folder / "tiny", flags.tiny)
            print(f"\n{part}: {flags.backbone} at {flags.image_size} px\n" + table_of(figures[part]))
    if flags.out:
        flags.out.write_text(json.dumps(figures, indent=1, allow_nan=False), encoding="utf-8")


def write_bundle(folder: Path, backbone: str, image_size: int) -> Path:
    """A bundle of an untrained network, as `train` writes one."""
    import safetensors.torch
    import torch

    from mlcls.bundle.files import MODEL, THRESHOLDS, WEIGHTS, write_thresholds
    from mlcls.bundle.onnx import export_onnx
    from mlcls.bundle.staging import staged_bundle
    from mlcls.images.preprocess import Preprocessing
    from mlcls.models.classifier import build_classifier
    from mlcls.scoring.thresholds import TunedThreshold

    torch.manual_seed(0)
    classifier = build_classifier(backbone, "mlp", len(ATTRIBUTES), image_size=image_size)
    preprocessing = Preprocessing(image_size)
    manifest: dict[str, Any] = {
        "backbone": backbone,
        "backbone_args": {},
        "head": "mlp",
        "dropout": None,
        "attributes": ATTRIBUTES,
        "preprocessing": asdict(preprocessing),
    }
    with staged_bundle(folder, manifest) as staging:
        weights = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
        (staging / WEIGHTS).write_bytes(safetensors.torch.save(weights))
        tuned = [TunedThreshold(name, 0.5, "f1", 9, 4, 5, 0.8, None) for name in ATTRIBUTES]
        write_thresholds(staging / THRESHOLDS, tuned)
        found = export_onnx(classifier, preprocessing, staging / MODEL)
        if isinstance(found, str):
            sys.exit(f"no {MODEL}, since {found}")
        manifest["onnx"] = asdict(found)
    return folder


def write_photos(folder: Path, count: int, width: int = 640, height: int = 480) -> list[str]:
    """JPEGs of soft shapes under sensor noise, about 75 kB each; a tenth of them differ, the rest are copies."""
    folder.mkdir(parents=True)
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        paths.append(str(folder / f"{number:05d}.jpg"))
        if number >= 100:
            os.link(paths[number % 100], paths[-1])
            continue
        small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), 3), (width, height), interpolation=cv2.INTER_CUBIC)
        noisy = soft.astype(np.int16) + rng.integers(-12, 13, soft.shape, dtype=np.int16)
        cv2.imwrite(paths[-1], np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


# --- start ---------------------------------------------------------------------------------------------------------


def measure_start(bundle: Path, photo: str, processes: int) -> list[dict[str, Any]]:
    """Median seconds of whole processes, one after the other, the kinds by turns; and times the ONNX engine's."""
    predict = ["predict", "--model", str(bundle), "--image", photo, "--format", "json"]
    kinds = {f"predict --engine {engine}": [*predict, "--engine", engine] for engine in ENGINES}
    kinds["predict, the table"] = [*predict[:-2]]
    kinds |= {f"{command} --help": [command, "--help"] for command in COMMANDS}
    taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for turn in range(processes + 1):
        for kind, words in kinds.items():
            spent = run_process(words)
            if turn:  # the first only brings files into the system's memory
                taken[kind].append((spent["seconds"], spent["cpu"]))
    reference = statistics.median(wall for wall, _ in taken["predict --engine onnx"])
    return [
        {
            "process": kind,
            "seconds": round(statistics.median(wall for wall, _ in times), 3),
            "of the processor": round(statistics.median(cpu for _, cpu in times), 3),
            "least seconds": round(min(wall for wall, _ in times), 3),
            "times onnx": round(statistics.median(wall for wall, _ in times) / reference, 2),
        }
        for kind, times in taken.items()
    ]


def run_process(words: Sequence[str]) -> dict[str, float]:
    """Run `python -m mlcls.COMMAND ...` to its end: its seconds, its processor seconds and its largest memory in MB.

    The memory is what Linux says of the running process, looked at ten times a second; `ru_maxrss` would not do, since
    a process inherits it of the one that started it.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", f"mlcls.{words[0]}", *words[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak, looks_at = 0.0, Path(f"/proc/{process.pid}/status")
    looker = threading.Event()

    def look() -> None:
        nonlocal peak
        while not looker.wait(0.1):
            with contextlib.suppress(OSError):  # it may have ended in between
                lines = looks_at.read_text().splitlines()
                peak = max(
                    [peak, *(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))]
                )

    thread = threading.Thread(target=look)
    thread.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    looker.set()
    thread.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"mlcls {' '.join(words)}: exit code {process.returncode}")
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "megabytes": peak}


# --- pipeline ------------------------------------------------------------------------------------------------------


def measure_pipeline(bundle: Path, photos: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Images a second of the stream, of decoding alone and of computing alone; medians over rounds of all of them."""
    from mlcls.bundle.predictor import Predictor
    from mlcls.images.cores import usable_cores
    from mlcls.images.load import load_image

    predictor = Predictor(bundle, engine="onnx")
    engine = predictor._networks.networks[0].engine
    preprocessing, cores = predictor.bundle.preprocessing, usable_cores()
    batch = engine.batch
    pixels = np.stack([load_image(photo, preprocessing) for photo in photos[:batch]])
    chunks = [photos[start : start + batch] for start in range(0, len(photos), batch)]

    def decode(chunk: Sequence[str]) -> None:
        for photo in chunk:
            load_image(photo, preprocessing)

    def compute(chunk: Sequence[str]) -> None:
        engine.logits(pixels[: len(chunk)], 1)

    def stream() -> None:
        for row in predictor.stream(photos):
            assert "error" not in row

    few = {"decoding": 1, "computing": max(1, cores - 1)}
    tasks: dict[tuple[str, int], Callable[[], None]] = {("stream", cores): stream}
    for threads in {few["decoding"], cores}:
        tasks["decoding", threads] = spread(decode, chunks, threads)
    for threads in {few["computing"], cores}:
        tasks["computing", threads] = spread(compute, chunks, threads)
    rates: Figures = {key: [] for key in tasks}
    costs: Figures = {key: [] for key in tasks}
    for turn in range(rounds + 1):
        for key, task in tasks.items():
            started, spent = time.perf_counter(), time.process_time()
            task()
            if turn:
                rates[key].append(len(photos) / (time.perf_counter() - started))
                costs[key].append(1e3 * (time.process_time() - spent) / len(photos))
    return summary(rates, costs, few, cores)


def spread(
    work: Callable[[Sequence[str]], None], chunks: Sequence[Sequence[str]], threads: int
) -> Callable[[], None]:
    """The work on all chunks in so many threads, OpenCV's own put aside as in the stream."""

    def run() -> None:
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, chunks))
        cv2.setNumThreads(before)

    return run


def summary(rates: Figures, costs: Figures, few: dict[str, int], cores: int) -> list[dict[str, Any]]:
    """Rows of the table: medians, and what the stream is of the slower of the two and of the bound, round by round."""
    rows: list[dict[str, Any]] = [
        {
            "what": f"{what}, {threads} {'thread' if threads == 1 else 'threads'}",
            "images/s": round(statistics.median(found), 1),
            "ms of the processor an image": round(statistics.median(costs[what, threads]), 2),
        }
        for (what, threads), found in rates.items()
    ]
    stream = rates["stream", cores]
    few_rates = [rates[what, threads] for what, threads in few.items()]
    all_rates = [rates["decoding", cores], rates["computing", cores]]
    against = {
        f"stream / slower of decoding on {few['decoding']} and computing on {few['computing']}": few_rates,
        f"stream / slower of decoding on {cores} and computing on {cores}": all_rates,
    }
    for what, pair in against.items():
        ratio = statistics.median(s / min(a, b) for s, a, b in zip(stream, *pair, strict=True))
        rows.append({"what": what, "ratio": round(ratio, 3)})
    bound = statistics.median(s * (1 / a + 1 / b) for s, a, b in zip(stream, *all_rates, strict=True))
    rows.append({"what": f"stream / bound of {cores} threads that do both", "ratio": round(bound, 3)})
    return rows


# --- memory --------------------------------------------------------------------------------------------------------


def measure_memory(bundle: Path, folder: Path, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The command on folders of so many links to one tiny image: its largest resident memory, and its speed."""
    rows = []
    tiny = cv2.imencode(".jpg", np.full((32, 32, 3), 99, np.uint8))[1].tobytes()
    for size in sizes:
        images = folder / f"of {size}"
        images.mkdir(parents=True)
        for number in range(size):
            path = images / f"{number:07d}.jpg"
            if number % 10_000:
                os.link(images / f"{number - number % 10_000:07d}.jpg", path)
            else:  # a file of its own for so many: it may have at most 65,000 names
                path.write_bytes(tiny)
        out = str(folder / "rows.csv")
        spent = run_process(["predict", "--model", str(bundle), "--images", str(images), "--out", out])
        rows.append(
            {
                "images": size,
                "MB": round(spent["megabytes"]),
                "seconds": round(spent["seconds"], 1),
                "images/s": round(size / spent["seconds"], 1),
            }
        )
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a table of Markdown; columns are all their keys."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([str(row.get(c, "")) for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()

"""Every kind of image file, whole and broken, through the commands: its pixels, or its name and its fault."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from reliability.zoo import SUFFIXES, broken, deep, every_kind, gradient, odd_places, shown_by_pillow, turned
from toy_data import TINY
from untrained_bundle import write_bundle

from mlcls import evaluate, inspect, predict, train
from mlcls.bundle.predictor import Predictor
from mlcls.images.preprocess import prepare


def write_files(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Write all whole files; name -> the pixels that a viewer shows."""
    picture = gradient()
    shown = {}
    for number, (name, data) in enumerate({**every_kind(picture), **turned(picture)}.items()):
        # a third bears the ending of another format, a third none that is known
        ending = [SUFFIXES[name.split()[0]], ".jpg", ".JPEG"][number % 3]
        file = folder / f"{name}{ending}"
        file.write_bytes(data)
        shown[file.name] = shown_by_pillow(data).astype(np.uint8)
    for name, data in deep().items():
        (folder / f"{name}.png").write_bytes(data)
        ramp = np.rint(np.linspace(0, 255, picture.shape[1])).astype(np.uint8)
        plain = np.tile(ramp[:, np.newaxis], (picture.shape[0], 1, 3))
        plain[..., 1] = plain[:, ::-1, 1] if "colour" in name else plain[..., 1]
        shown[f"{name}.png"] = plain
    for name in ("Käse 写真 🧀.png", "two\nlines.png", "[bold]red.png", "-n.png"):
        Image.fromarray(picture).save(folder / name)
        shown[name] = picture
    for size in ((1, 30_000), (30_000, 1)):
        name = f"{size[0]} x {size[1]}.png"
        Image.new("RGB", size, (10, 20, 30)).save(folder / name)
        shown[name] = np.full((size[1], size[0], 3), (10, 20, 30), np.uint8)
    return shown


def write_broken(folder: Path) -> dict[str, str]:
    """Write what no one can read; name -> what its message says."""
    reasons = odd_places(folder)
    for name, (data, reason) in broken(gradient()).items():
        (folder / name).write_bytes(data)
        reasons[name] = reason
    return reasons


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("zoo") / "bundle")


def test_predict_shows_the_pixels_or_the_name_and_the_fault(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, reasons = write_files(tmp_path), write_broken(tmp_path)
    names = [*shown, *reasons]
    flags = ["--model", str(bundle), "--format", "json"]
    assert predict.main(["--image", *(str(tmp_path / name) for name in names), *flags]) == 1
    out, err = capsys.readouterr()
    rows = {Path(row["image"]).name: row for row in json.loads(out)}
    assert list(rows) == names
    for name, reason in reasons.items():
        assert re.match(rf"{re.escape(str(tmp_path / name))}: .*{re.escape(reason)}", rows[name]["error"]), (
            name
        )
    predictor = Predictor(bundle)
    pixels = np.stack([prepare(picture, predictor.bundle.preprocessing) for picture in shown.values()])
    expected = predictor.scores(pixels)
    for name, scores in zip(shown, expected, strict=True):
        found = [attribute["probability"] for attribute in rows[name]["attributes"]]
        assert np.abs(found - scores).max() < 0.02, name  # two decoders round a level apart
    assert f"{len(reasons)} of {len(names)} images cannot be read" in err


def test_train_and_evaluate_leave_out_by_name_what_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    shown = [name for name in write_files(images) if "\n" not in name]
    picture = gradient()
    while len(shown) < 110:  # so that the broken ones are less than a tenth
        name = f"plain {len(shown)}.png"
        Image.fromarray(np.roll(picture, len(shown), axis=len(shown) % 3)).save(images / name)
        shown.append(name)
    bad = {name: reason for name, (_, reason) in broken(picture).items() if "half" in name or "huge" in name}
    bad = dict(list(bad.items())[::2]) | {"empty.jpg": "empty", "text.jpg": "not an image"}
    for name in bad:
        (images / name).write_bytes(broken(picture)[name][0])
    rows = [f"{name},{i % 2},{i // 2 % 2}" for i, name in enumerate([*shown, *bad])]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["image,even,half", *rows]) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    flags = ["--epochs", "1", "--unfreeze", "none", "--augment", "none", "--near-duplicates", "ignore"]
    assert train.main(["--labels", str(table), "--out", str(out), *TINY, *flags]) == 0
    record = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert sorted(record["data"]["unreadable"]) == sorted(bad)
    assert record["data"]["images"] == len(shown)
    capsys.readouterr()
    assert evaluate.main(["--model", str(out), "--labels", str(table), "--format", "json"]) == 0
    output = "".join(capsys.readouterr())
    assert all(name in output for name in list(bad)[:3])


def test_too_many_broken_images_are_named_with_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    files = broken(gradient())
    for name, (data, _) in files.items():
        (images / name).write_bytes(data)
    table = tmp_path / "labels.csv"
    table.write_text(
        "image,a\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(files)), encoding="utf-8"
    )
    assert train.main(["--labels", str(table), "--out", str(tmp_path / "out"), *TINY]) == 2
    err = capsys.readouterr().err
    assert f"{len(files)} images cannot be read" in err
    for name, (_, reason) in files.items():
        assert f"{name}: " in err
        assert reason in err
    assert not (tmp_path / "out" / "bundle.json").exists()


def test_the_most_pixels_reach_every_command(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(30):
        side = 40 if number else 50
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    table = tmp_path / "labels.csv"
    table.write_text("image,a\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(30)), encoding="utf-8")
    told = "0.png: its header claims 50 x 50 pixels; at most 2,000 are read (--max-pixels)"
    flags = ["--model", str(bundle), "--format", "json", "--max-pixels", "2000"]
    assert predict.main(["--image", str(images / "0.png"), str(images / "1.png"), *flags]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["error"].endswith(told)
    assert "error" not in rows[1]
    assert predict.main(["--image", "x.png", "--max-pixels", "0"]) == 2
    assert "--max-pixels: expected a whole number of at least 1, got 0" in capsys.readouterr().err
    out = tmp_path / "out"
    data = ["--labels", str(table)]
    more = ["--epochs", "1", "--unfreeze", "none", "--objective", "fixed:0.5", "--max-pixels", "2000"]
    assert train.main([*data, "--out", str(out), *TINY, *more]) == 0
    record = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert record["data"]["unreadable"] == ["0.png"]
    assert record["recipe"]["max_pixels"] == 2000
    for command, others in ((inspect, []), (evaluate, ["--model", str(out)])):
        for limit in ("2500", "2000"):  # the second finds the image in the cache, and refuses it all the same
            capsys.readouterr()
            assert command.main([*data, *others, "--max-pixels", limit]) == 0
            assert ("0.png" in "".join(capsys.readouterr())) == (limit == "2000")

"""The flags of the label table through the command line: what inspect shows and what train trains on."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from toy_data import TINY

from mlcls import inspect, train


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table") / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    return folder


def shown(images: Path, capsys: pytest.CaptureFixture[str], content: str, *flags: str) -> str:
    table = images.parent / "labels.txt"
    table.write_text(content, encoding="utf-8")
    code = inspect.main(["--labels", str(table), *flags])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def counts(out: str, attribute: str) -> list[int]:
    """Present, absent and unknown of an attribute's line."""
    line = next(line for line in out.splitlines() if line.split()[:1] == [attribute])
    return [int(cell) for cell in line.split()[1:4]]


def lines(cells: list[str], header: str = "") -> str:
    rows = [f"{number}.png {cell}" for number, cell in enumerate(cells)]
    return "\n".join([header, *rows] if header else rows) + "\n"


def test_a_table_without_header_gets_names(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = lines(["1 0", "0 NA"] * 6)
    assert counts(shown(images, capsys, content), "Attr2") == [0, 6, 6]
    assert counts(shown(images, capsys, content, "--names", "red,round"), "round") == [0, 6, 6]
    assert counts(shown(images, capsys, content, "--names", "red", "round"), "red") == [6, 6, 0]


def test_columns_are_chosen(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = "red,file,round\n" + "".join(f"1,{number}.png,{number % 2}\n" for number in range(12))
    out = shown(images, capsys, content, "--image-column", "file", "--attributes", "round")
    assert counts(out, "round") == [6, 6, 0]
    assert not any(line.split()[:1] == ["red"] for line in out.splitlines())


def test_tags_become_attributes(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = "image,tags\n" + "".join(
        f"{number}.png,{'cat+dog' if number % 3 else 'dog'}\n" for number in range(12)
    )
    out = shown(images, capsys, content, "--tags-column", "tags", "--tags-separator", "+")
    assert counts(out, "cat") == [8, 4, 0]
    assert counts(out, "dog") == [12, 0, 0]


def test_minus_one_is_asked_about(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = lines(["1", "-1", "-1"] * 4, "image smiling")
    assert counts(shown(images, capsys, content, "--minus-one", "absent"), "smiling") == [4, 8, 0]
    assert counts(shown(images, capsys, content, "--minus-one", "unknown"), "smiling") == [4, 0, 8]
    assert inspect.main(["--labels", str(images.parent / "labels.txt")]) == 2
    assert "--minus-one" in capsys.readouterr().err


def test_metadata_is_named_and_left_alone(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = lines([f"{n % 2} {20 + n}" for n in range(12)], "image red age")
    out = shown(images, capsys, content)
    assert counts(out, "red") == [6, 6, 0]
    assert "age" in out
    assert not any(line.split()[:1] == ["age"] for line in out.splitlines())


def trained(images: Path, out: Path, content: str, *flags: str) -> dict:
    table = images.parent / "labels.txt"
    table.write_text(content, encoding="utf-8")
    epochs = ["--epochs", "1", "--unfreeze", "none"]
    assert train.main(["--labels", str(table), "--out", str(out), *TINY, *epochs, *flags]) == 0
    metrics: dict = json.loads((out / "metrics.json").read_text())
    return metrics


def subsets(out: Path) -> dict[str, str]:
    return dict(line.split(",") for line in (out / "split.csv").read_text().splitlines()[1:])


def test_the_tables_own_split_is_taken(images: Path, tmp_path: Path) -> None:
    parts = ["train"] * 6 + ["valid"] * 4 + ["test"] * 2
    content = lines([f"{n % 2} {part}" for n, part in enumerate(parts)], "image red part")
    data = trained(images, tmp_path / "o", content, "--split", "column:part")["data"]
    assert data["split"] == {"train": 6, "val": 4, "test": 2}
    assert [row["name"] for row in data["attributes"]] == ["red"]
    assert subsets(tmp_path / "o")["11.png"] == "test"


def test_groups_are_never_torn(images: Path, tmp_path: Path) -> None:
    content = lines([f"{n % 2} patient{n // 3}" for n in range(12)], "image red patient")
    trained(images, tmp_path / "o", content, "--group-column", "patient", "--split", "0.5,0.25,0.25")
    found = subsets(tmp_path / "o")
    for group in range(4):
        assert len({found[f"{number}.png"] for number in range(3 * group, 3 * group + 3)}) == 1
    assert len(set(found.values())) == 3


def test_images_are_found_in_the_folder_that_is_named(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "elsewhere.csv"
    table.write_text("image,red\n" + "".join(f"{n},{n % 2}\n" for n in range(12)))  # names without extension
    assert inspect.main(["--labels", str(table), "--images", str(images)]) == 0


def test_one_folder_of_images_serves_all_tables(images: Path, tmp_path: Path) -> None:
    flags = ["--images", str(images), "--out", str(tmp_path / "o"), "--epochs", "1", "--unfreeze", "none"]
    for name, numbers in (("labels", range(6)), ("val-labels", range(6, 9)), ("test-labels", range(9, 12))):
        table = tmp_path / f"{name}.csv"
        table.write_text("image,red\n" + "".join(f"{n}.png,{n % 2}\n" for n in numbers))
        flags += [f"--{name}", str(table)]
    assert train.main([*flags, *TINY]) == 0
    assert list(subsets(tmp_path / "o")) == [f"{n}.png" for n in range(12)]


def test_validation_is_taken_from_the_first_table_where_only_the_test_has_its_own(
    images: Path, tmp_path: Path
) -> None:
    table = tmp_path / "test.csv"
    table.write_text("image,red\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(8, 12)))
    content = lines([str(n % 2) for n in range(8)], "image red")
    flags = ["--images", str(images), "--test-labels", str(table), "--split", "0.6,0.2,0.2"]
    data = trained(images, tmp_path / "o", content, *flags)["data"]
    assert data["split"] == {"train": 6, "val": 2, "test": 4}


def test_a_column_without_validation_has_some_of_train_taken_for_it(images: Path, tmp_path: Path) -> None:
    content = lines([f"{n % 2} {'test' if n > 9 else 'train'}" for n in range(12)], "image red part")
    data = trained(images, tmp_path / "o", content, "--split", "column:part")["data"]
    assert data["split"] == {"train": 8, "val": 2, "test": 2}
    assert any("no rows for validation" in note for note in data["notes"])


def test_the_limit_of_broken_images_counts_images_not_rows(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images.iterdir():
        (folder / path.name).write_bytes(b"broken" if path.stem in ("1", "2") else path.read_bytes())
    rows = [f"{n},human,label{k},{(n + k) % 2}" for n in range(12) for k in range(5)]  # five rows an image
    (tmp_path / "labels.csv").write_text("\n".join(["ImageID,Source,LabelName,Confidence", *rows]) + "\n")
    assert inspect.main(["--labels", str(tmp_path / "labels.csv")]) == 2
    assert "2 images cannot be read" in capsys.readouterr().err


def test_a_split_beside_tables_of_their_own_is_refused_or_told(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, val = tmp_path / "a.csv", tmp_path / "b.csv"
    table.write_text("image,red\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(6)))
    val.write_text("image,red\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(6, 12)))
    flags = ["--labels", str(table), "--val-labels", str(val), "--images", str(images)]
    assert inspect.main([*flags, "--split", "column:subset"]) == 2
    assert "--val-labels" in capsys.readouterr().err
    subsets = "".join(f"{n}.png,{'train' if n % 3 else 'val'}\n" for n in range(12))
    (tmp_path / "split.csv").write_text("image,subset\n" + subsets)
    assert inspect.main([*flags, "--split", f"file:{tmp_path / 'split.csv'}"]) == 0
    assert "50.0%    4/4  2/2" in capsys.readouterr().out
    assert inspect.main([*flags, "--split", "0.1,0.1,0.8"]) == 0
    assert "is not used" in capsys.readouterr().out


def test_inspect_refuses_what_train_refuses(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = images.parent / "labels.txt"
    table.write_text(lines(["NA"] * 12, "image red"))
    assert inspect.main(["--labels", str(table), "--attributes", "red"]) == 2
    assert "error: " in capsys.readouterr().err

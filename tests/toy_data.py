"""A small label table with small real images, for the tests of workflows and commands."""

from pathlib import Path

import cv2
import numpy as np

TINY = ["--backbone", "test_resnet.r160_in1k", "--weights", "none", "--image-size", "32", "--workers", "0"]


def write_toy(folder: Path, images: int = 60, seed: int = 0) -> Path:
    """Images of 40 x 48 px that show a red square, a bright ground, both or neither; a sixth of the labels NA."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    lines = ["image_name red bright square_left"]
    for number in range(images):
        red, bright, left = rng.random(3) < (0.5, 0.5, 0.4)
        picture = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8) + (120 if bright else 0)
        x = 4 if left else 28
        picture[10:26, x : x + 16] = (30, 30, 220) if red else (220, 30, 30)
        cv2.imwrite(str(folder / "images" / f"img_{number:03d}.png"), picture.astype(np.uint8))
        cells = ["NA" if rng.random() < 1 / 6 else str(int(v)) for v in (red, bright, left)]
        lines.append(" ".join([f"img_{number:03d}.png", *cells]))
    table = folder / "labels.txt"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table

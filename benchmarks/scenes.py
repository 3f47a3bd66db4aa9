"""Owns a generated set of photo-like scenes for whole trainings: drawn with NumPy and OpenCV, the same for everybody.

A scene is a random piece of one of scikit-learn's two sample photos (a pavilion and a flower), perhaps with a wall, and
with one to three objects before it; then light, fog, the camera's blur and noise, and JPEG. Nothing is downloaded.

Five attributes of different kinds, each beside things that resemble it:

ball        an object is a shaded ball; the others are plates, boxes and cones
striped     an object has stripes; the others are plain, checked, dotted or grained
brick_wall  the wall is of bricks; the others are of tiles, planks or plaster
foggy       far parts fade into gray; pale and overexposed photos do not count
dark        taken at dusk; the camera's exposure makes up for a part of it

Fog and darkness have no sharp border: near it, who labels decides by chance. As labellers do, 7% of the labels of train
and val are wrong; those of test are what was drawn.
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

ATTRIBUTES = ("ball", "striped", "brick_wall", "foggy", "dark")
SCENES = {"train": 1000, "val": 200, "test": 400}
WRONG = {"train": 0.07, "val": 0.07, "test": 0.0}  # share of the labels that are flipped
SIDE = 160  # of a photo, pixels
DRAWN = 256  # of the picture before it is reduced to SIDE
BORDER = 0.6  # of fog and darkness, which lie between 0 and 1
DOUBT = 0.05  # how wide the border is: the scale of a logistic curve
WALL = 0.75  # share of the scenes that have one, half of these of bricks

Pixels = NDArray[np.float32]  # [height, width, 3], RGB; black is 0 and white is 1
Rng = np.random.Generator


def write_scenes(folder: Path, *, seed: int = 0, scenes: Mapping[str, int] | None = None) -> Path:
    """Write labels.csv (image, the attributes as 0 or 1, subset) and images/*.jpg of 160 x 160 pixels.

    A scene follows from the seed, its subset and its number alone, so fewer scenes are the first of more.

    Args:
        folder: made if need be; files of the same names are replaced.
        seed: of everything drawn.
        scenes: how many of train, val and test; by default SCENES.

    Returns:
        The path of labels.csv.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    photos = [photo.astype(np.float32) / 255 for photo in load_sample_images().images]
    rows = []
    for place, subset in enumerate(SCENES):
        for number in range((scenes or SCENES)[subset]):
            rng = np.random.default_rng([seed, place, number])
            pixels, present = draw_scene(photos, rng)
            wrong = rng.random(len(ATTRIBUTES)) < WRONG[subset]
            name = f"{subset}-{number:04d}.jpg"
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))]
            jpeg = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), quality)[1]
            (folder / "images" / name).write_bytes(jpeg.tobytes())
            cells = [int(present[a] != flipped) for a, flipped in zip(ATTRIBUTES, wrong, strict=True)]
            rows.append([name, *cells, subset])
    with (folder / "labels.csv").open(
        "w", encoding="utf-8", newline=""
    ) as file:  # last: the set is whole then
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", *ATTRIBUTES, "subset"])
        writer.writerows(rows)
    return folder / "labels.csv"


def draw_scene(photos: list[Pixels], rng: Rng) -> tuple[NDArray[np.uint8], dict[str, bool]]:
    """A scene, uint8 RGB [SIDE, SIDE, 3], and whether each attribute is present; `photos` are the backgrounds."""
    scene = draw_background(photos[rng.integers(len(photos))], rng)
    wall = draw_wall(scene, rng) if rng.random() < WALL else ""
    light = rng.uniform(-1, 1)  # from the left or the right
    objects = [draw_object(scene, light, rng) for _ in range(rng.integers(1, 4))]
    fog, darkness = rng.random(2)
    present = {
        "ball": any(shape == "ball" for shape, _ in objects),
        "striped": any(material == "striped" for _, material in objects),
        "brick_wall": wall == "brick",
        "foggy": called(fog, rng),
        "dark": called(darkness, rng),
    }
    scene = through_fog(scene, fog, rng)
    scene = cv2.resize(scene, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return photograph(scene, darkness, rng), present


def called(amount: float, rng: Rng) -> bool:
    """Whether a labeller calls so much fog or darkness by its name."""
    return bool(rng.random() < 1 / (1 + np.exp((BORDER - amount) / DOUBT)))


# ---------------------------------------------------------------- what is in the scene


def draw_background(photo: Pixels, rng: Rng) -> Pixels:
    """A random square of the photo, mirrored or not, its contrast and colours changed."""
    side = int(rng.integers(140, 400))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape[:2])
    piece = photo[top : top + side, left : left + side]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    piece = cv2.resize(np.ascontiguousarray(piece), (DRAWN, DRAWN), interpolation=cv2.INTER_LINEAR)
    middle = piece.mean()
    tint = rng.uniform(0.85, 1.15, 3)
    return np.clip((middle + (piece - middle) * rng.uniform(0.5, 1.1)) * tint, 0, 1).astype(np.float32)


def draw_wall(scene: Pixels, rng: Rng) -> str:
    """Paint a wall seen a little from the side; returns its kind."""
    kind = "brick" if rng.random() < 0.5 else str(rng.choice(["tiles", "planks", "plaster"]))
    width, height = rng.uniform(0.6, 1.0, 2) * DRAWN * [1, 0.8]
    left, bottom = rng.uniform(-0.2, 0.7) * DRAWN, rng.uniform(0.55, 1.1) * DRAWN
    slant = rng.uniform(-0.25, 0.25) * height
    corners = [
        [left, bottom - height],
        [left + width, bottom - height + slant],
        [left + width, bottom],
        [left, bottom],
    ]
    face = wall_face(kind, rng)
    from_corners = np.array([[0, 0], [DRAWN, 0], [DRAWN, DRAWN], [0, DRAWN]], np.float32)
    warp = cv2.getPerspectiveTransform(from_corners, np.array(corners, np.float32))
    size = (DRAWN, DRAWN)
    cover = cv2.warpPerspective(np.ones(size, np.float32), warp, size)[..., None]
    scene[:] = scene * (1 - cover) + cv2.warpPerspective(face, warp, size) * cover
    return kind


def wall_face(kind: str, rng: Rng) -> Pixels:
    """The wall from the front, [DRAWN, DRAWN, 3]; all kinds have the same colours and sizes of parts."""
    rows = int(rng.integers(6, 14))
    columns = 1 if kind == "planks" else int(rng.integers(3, 6))
    y, x = np.mgrid[:DRAWN, :DRAWN].astype(np.float32) / DRAWN
    row = np.floor(y * rows).astype(int)
    along = x * columns + (0.5 * (row % 2) if kind == "brick" else 0)
    part = rng.uniform(-0.08, 0.08, (rows + 1, columns + 2))[row, np.floor(along).astype(int)]
    joint = np.minimum((y * rows) % 1, ((along % 1) * rows / columns if columns > 1 else 1)) < 0.15
    if kind == "plaster":
        part, joint = np.zeros_like(part), np.zeros_like(joint)
    colour = np.array([[0.6, 0.35, 0.28], [0.55, 0.5, 0.45], [0.7, 0.62, 0.5]])[rng.integers(3)]
    colour = colour + rng.normal(0, 0.05, 3)
    darker = rng.choice([-1, 1]) * rng.uniform(0.15, 0.45)  # the joints, or lighter
    tone = 1 + part + joint * darker + 0.06 * noise(DRAWN // 4, y.shape, rng) + 0.06 * noise(6, y.shape, rng)
    return np.clip(colour * tone[..., None], 0, 1).astype(np.float32)


def draw_object(scene: Pixels, light: float, rng: Rng) -> tuple[str, str]:
    """Paint one small object with its shadow; returns its shape and its material."""
    shape = str(rng.choice(list(SHAPES), p=[0.2, 0.25, 0.3, 0.25]))
    material = str(rng.choice(list(MATERIALS), p=[0.2, 0.3, 0.15, 0.15, 0.2]))
    radius, turn = rng.uniform(24, 50), rng.uniform(-0.4, 0.4)
    left, top = rng.uniform(radius, DRAWN - radius, 2)
    first_row, first_column = (int(max(centre - 2 * radius, 0)) for centre in (top, left))
    near = scene[first_row : int(top + 2 * radius), first_column : int(left + 2 * radius)]
    y, x = np.mgrid[: near.shape[0], : near.shape[1]].astype(np.float32)
    y, x = y + np.float32(first_row - top), x + np.float32(first_column - left)
    near *= (
        1 - 0.4 * np.exp(-((x / radius) ** 2) - ((y - radius) / (0.3 * radius)) ** 2)[..., None]
    )  # its shadow
    right = (x * np.cos(turn) + y * np.sin(turn)) / radius
    down = (y * np.cos(turn) - x * np.sin(turn)) / radius
    inside, shade = SHAPES[shape](right, down, light, rng)
    behind = near.mean((0, 1))
    colours = behind + (rng.random((2, 3)) - behind) * rng.uniform(0.5, 1)  # some hardly differ from it
    pattern = MATERIALS[material](right * radius, down * radius, rng)[..., None]
    surface = (colours[0] * pattern + colours[1] * (1 - pattern)) * shade[..., None]
    cover = np.clip(inside * radius + 0.5, 0, 1)[..., None]
    near[:] = np.clip(near * (1 - cover) + surface * cover, 0, 1)
    return shape, material


# `fn(right, down, light, rng)`: coordinates around the centre in radii, where the light comes from (-1 left to 1 right)
# -> how far inside the outline (negative outside), and the brightness of the surface.
def ball(right: NDArray, down: NDArray, light: float, rng: Rng) -> tuple[NDArray, NDArray]:
    from_centre = right**2 + down**2
    towards = np.sqrt(np.clip(1 - from_centre, 0, 1))
    facing = np.clip((light * right - 0.8 * down + towards) / np.sqrt(light**2 + 1.64), 0, 1)
    return 1 - np.sqrt(from_centre), 0.45 + 0.7 * facing


def plate(right: NDArray, down: NDArray, light: float, rng: Rng) -> tuple[NDArray, NDArray]:
    narrow = rng.uniform(0.5, 0.8)
    return (1 - np.hypot(right, down / narrow)) * narrow, 0.9 + 0.15 * light * right


def box(right: NDArray, down: NDArray, light: float, rng: Rng) -> tuple[NDArray, NDArray]:
    wide, high = rng.uniform(0.55, 0.95, 2)
    edge = rng.uniform(-0.5, 0.5) * wide  # between its two faces
    inside = np.minimum(wide - np.abs(right), high - np.abs(down + 0.15 * np.abs(right - edge)))
    return inside, np.where(right > edge, 0.85 + 0.2 * light, 0.85 - 0.2 * light)


def cone(right: NDArray, down: NDArray, light: float, rng: Rng) -> tuple[NDArray, NDArray]:
    half = (down + 1) * rng.uniform(0.35, 0.55)  # the width at this height
    inside = np.minimum(half - np.abs(right), 0.9 - down)
    return inside, 0.8 + 0.3 * light * right / np.maximum(half, 0.1)


SHAPES: dict[str, Callable[..., tuple[NDArray, NDArray]]] = {
    "ball": ball,
    "plate": plate,
    "box": box,
    "cone": cone,
}


# `fn(right, down, rng)`: coordinates in pixels of the drawing -> the first colour's share, 0 to 1.
def striped(right: NDArray, down: NDArray, rng: Rng) -> NDArray:
    angle, period = rng.uniform(0, np.pi), rng.uniform(10, 20)
    return waves(right * np.cos(angle) + down * np.sin(angle), period)


def plain(right: NDArray, down: NDArray, rng: Rng) -> NDArray:
    return 0.5 + 0.1 * noise(6, right.shape, rng)


def checked(right: NDArray, down: NDArray, rng: Rng) -> NDArray:
    period = rng.uniform(10, 18)
    one, other = waves(right, period), waves(down, period)
    return one * other + (1 - one) * (1 - other)


def dotted(right: NDArray, down: NDArray, rng: Rng) -> NDArray:
    period = rng.uniform(9, 15)
    from_dot = np.hypot(*((along + period / 2) % period - period / 2 for along in (right, down)))
    return np.clip(0.3 * period - from_dot + 0.5, 0, 1)


def grained(right: NDArray, down: NDArray, rng: Rng) -> NDArray:
    """Wood: lines too, but faint, bent and uneven."""
    bent = 2 * np.pi * right / rng.uniform(5, 10) + 3 * noise(4, right.shape, rng)
    return 0.5 + 0.3 * np.sin(bent) + 0.1 * noise(20, right.shape, rng)


MATERIALS: dict[str, Callable[..., NDArray]] = {
    "striped": striped,
    "plain": plain,
    "checked": checked,
    "dotted": dotted,
    "grained": grained,
}


def waves(along: NDArray, period: float) -> NDArray:
    """Bands of 1 and 0 with edges about a pixel wide."""
    return np.clip(0.5 + np.sin(2 * np.pi * along / period) * period / np.pi / 2, 0, 1)


def noise(cells: int, shape: tuple[int, ...], rng: Rng) -> NDArray[np.float32]:
    """Smooth noise [height, width] with about `cells` bumps along a side, standard deviation below 1."""
    grid = rng.standard_normal((cells, cells)).astype(np.float32)
    return cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


# ---------------------------------------------------------------- how it is taken


def through_fog(scene: Pixels, fog: float, rng: Rng) -> Pixels:
    """Koschmieder's law: what is far, which is above, fades into gray; a pale photo of no fog fades evenly."""
    far = np.clip(np.linspace(1.3, 0.2, DRAWN)[:, None] + 0.15 * noise(5, (DRAWN, DRAWN), rng), 0, None)
    kept = np.exp(-0.9 * fog**1.5 * far)[..., None]
    air = rng.uniform(0.6, 0.9) + rng.normal(0, 0.02, 3)
    scene = scene * kept + air * (1 - kept)
    pale = rng.uniform(0, 0.2)
    return (scene * (1 - pale) + rng.uniform(0.4, 0.9) * pale).astype(np.float32)


def photograph(scene: Pixels, darkness: float, rng: Rng) -> NDArray[np.uint8]:
    """Light, exposure, the lens's blur and the sensor's noise, which grows as light is lacking."""
    light = 1 - 0.7 * darkness
    blue = np.array([1 - 0.15 * darkness, 1 - 0.05 * darkness, 1])
    exposure = rng.uniform(0.7, 1.3) * light**-0.35
    scene = cv2.GaussianBlur(scene * light * blue, (0, 0), rng.uniform(0.3, 1.1))
    grain = rng.uniform(0.005, 0.02) + 0.01 * darkness
    scene = scene * exposure + rng.normal(0, grain, scene.shape)
    return np.rint(np.clip(scene, 0, 1) * 255).astype(np.uint8)

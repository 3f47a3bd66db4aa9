"""Owns the comparison of two small pictures: is one the other, but for shift, scale, brightness and noise?

The second picture is predicted from the first by least squares: gain, offset, and to first order a shift and a
scale along each axis (Lucas and Kanade, 1981, without iterating). What is left over is compared, window by
window, with the contrast that the window holds: a copy leaves a little of it everywhere, another print on the
same shirt, another text in the same form or a person who has moved leaves most of it somewhere. What is smaller
than about a pixel of the small pictures, a thirtieth of the image's side, is not seen.
"""

import numpy as np
from numpy.typing import NDArray

CONTRAST = 8.0  # gray levels, standard deviation: a picture with less is too flat to be judged
WINDOW = 5  # pixels of the square in which differences are judged
SATURATED = 240  # gray level from which on a brightened copy may have been cut off at white
NOISE = (
    0.08,
    2.0,
    4.0,
)  # gray levels that a window may differ by: share of the picture's contrast, least, most

Floats = NDArray[np.float32]


def contrast(pictures: NDArray[np.uint8]) -> Floats:
    """The standard deviation of each picture [N, S, S] in gray levels: float32 [N]."""
    found = np.zeros(len(pictures), dtype=np.float32)
    for start in range(0, len(pictures), 1 << 14):
        part = slice(start, start + (1 << 14))
        found[part] = pictures[part].reshape(len(pictures[part]), -1).std(axis=1, dtype=np.float32)
    return found


def correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Floats:
    """Pearson's correlation of the pixels of each pair [P, S, S]: float32 [P], NaN where a picture is flat."""
    flat = [part.reshape(len(part), -1).astype(np.float32) for part in (first, second)]
    one, other = (part - part.mean(axis=1, keepdims=True) for part in flat)
    scale = np.sqrt(np.einsum("pn,pn->p", one, one) * np.einsum("pn,pn->p", other, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.einsum("pn,pn->p", one, other) / scale)


def differences(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Floats:
    """How much of some window's contrast is different in the two pictures of each pair.

    Args:
        first, second: uint8 [P, S, S], gray.

    Returns:
        float32 [P]: the largest over windows of the difference's root mean square divided by the window's contrast
        and noise; 0 for equal pictures, about 1 and more where a window shows something else. The less of both
        directions: a brightened copy can be predicted from its original, but not the other way.
    """
    cut_off = [_smooth(np.where(part >= SATURATED, np.float32(1), 0)) > 0 for part in (first, second)]
    one, other = (_smooth(part.astype(np.float32)) for part in (first, second))
    deviation = np.maximum(contrast(first), contrast(second))
    noise = np.clip(NOISE[0] * deviation, *NOISE[1:])[:, None, None]
    # the outermost pixels are left out: a crop shows there what the other has not
    inner = (slice(None), slice(1, -1), slice(1, -1))
    variance = np.maximum(_variance(one[inner]), _variance(other[inner])) + noise**2
    lost = [
        _means(_residual(*pair, cut)[inner] ** 2)
        for pair, cut in (((one, other), cut_off[1]), ((other, one), cut_off[0]))
    ]
    worst = [(part / variance).max(axis=(1, 2)) for part in lost]
    return np.asarray(np.sqrt(np.minimum(*worst)), dtype=np.float32)


def _residual(source: Floats, target: Floats, cut_off: NDArray[np.bool_]) -> Floats:
    """[P, S, S] target minus its prediction from source; where it was cut off at white, 0 if predicted as bright."""
    count, side = len(source), source.shape[1]
    down, right = np.gradient(source, axis=(1, 2))
    place = ((np.arange(side) - (side - 1) / 2) / (side / 2)).astype(np.float32)
    parts = [
        source,
        np.ones_like(source),
        right,
        down,
        right * place[None, None],
        down * place[None, :, None],
    ]
    design = np.stack([part.reshape(count, -1) for part in parts], axis=1)  # [P, 6, S * S]
    weighted = design * ~cut_off.reshape(count, 1, -1)
    normal = (weighted @ design.transpose(0, 2, 1)).astype(np.float64)
    # a trace of ridge: also a picture that is nearly all cut off, or has no gradient one way, has a solution
    ridge = 1e-7 * np.trace(normal, axis1=1, axis2=2) + 1e-3
    normal += ridge[:, None, None] * np.eye(len(parts))
    wanted = (weighted @ target.reshape(count, -1, 1)).astype(np.float64)
    solution = np.linalg.solve(normal, wanted).astype(np.float32)
    predicted = (solution.transpose(0, 2, 1) @ design).reshape(target.shape)
    return np.where(cut_off & (predicted >= target - 2), np.float32(0), target - predicted)


def _smooth(pictures: Floats) -> Floats:
    """Each axis filtered with (1, 2, 1) / 4: copies are sampled at other places, which sharp edges would show."""
    padded = np.pad(pictures, [(0, 0), (1, 1), (1, 1)], mode="edge")
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return np.asarray(across / np.float32(16), dtype=np.float32)


def _variance(pictures: Floats) -> Floats:
    """[P, S - 4, S - 4] of each window."""
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    return np.asarray(np.maximum(_means(centred**2) - _means(centred) ** 2, 0))


def _means(pictures: Floats) -> Floats:
    """[P, S - 4, S - 4] of each window of 5 x 5 pixels."""
    reach = WINDOW - 1
    across = pictures[:, :, :-reach] + pictures[:, :, reach:]
    for start in range(1, reach):
        across += pictures[:, :, start : start - reach]
    both = across[:, :-reach] + across[:, reach:]
    for start in range(1, reach):
        both += across[:, start : start - reach]
    both /= WINDOW**2
    return both

"""Lettering: real glyphs of the font that comes with Pillow, as coverage fields.

In: a seeded generator and sizes in pixels. Out: coverage in [0, 1]. Strips of made-up words are kept, so a
page of print costs only slices of them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dapo.pretraining.fields import Field, Rng

STRIPS = 24  # made-up lines of print kept per size
STRIP_LETTERS = 40  # letters and spaces of such a line, at least
LARGEST_KEPT = 25  # px, the largest print whose lines are kept: about 14 MB of them in all
LEAST_SIZE = 5  # px, the smallest print that keeps its strokes
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
SMALL = "aeionrtslcudpmhgbfywkvxz"


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow, read once a size."""
    return ImageFont.load_default(size=size)


def lettered(text: str, size: float) -> Field:
    """Coverage of one line of text about `size` pixels high, cut close to the glyphs."""
    font = _font(max(LEAST_SIZE, round(size)))
    left, top, right, bottom = (int(v) for v in font.getbbox(text))
    canvas = Image.new("L", (max(2, right - left + 2), max(2, bottom - top + 2)))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), text, fill=255, font=font)
    return np.asarray(canvas, np.float32) / np.float32(255)


def _strip(number: int, size: int) -> Field:
    """Line `number` of made-up words and figures; its seed is fixed: it is a table, not a draw."""
    rng = np.random.default_rng([20_27, number])
    text = ""
    while len(text) < STRIP_LETTERS:
        letters = [SMALL, SMALL, CAPITALS, DIGITS][rng.integers(4)]
        text += "".join(letters[i] for i in rng.integers(len(letters), size=rng.integers(2, 9))) + " "
    line = lettered(text, size)
    line.flags.writeable = False  # it is shared
    return line


_kept_strip = lru_cache(maxsize=STRIPS * (LARGEST_KEPT - LEAST_SIZE + 1))(_strip)


def strip(rng: Rng, size: float) -> Field:
    """One long line of print about `size` pixels high; shared, do not write into it."""
    number, size = int(rng.integers(STRIPS)), max(LEAST_SIZE, round(size))
    return _kept_strip(number, size) if size <= LARGEST_KEPT else _strip(number, size)


def code(rng: Rng) -> str:
    """A short part number or batch mark such as 'K7', '0412' or 'LOT 31B'."""

    def some(letters: str, least: int, most: int) -> str:
        return "".join(letters[i] for i in rng.integers(len(letters), size=rng.integers(least, most)))

    return [
        lambda: some(DIGITS, 1, 5),
        lambda: some(CAPITALS, 1, 3) + some(DIGITS, 1, 4),
        lambda: some(CAPITALS, 2, 6),
        lambda: some(DIGITS, 1, 3) + "-" + some(DIGITS, 1, 4),
        lambda: some("+-OXTLVH47", 1, 3),
    ][rng.integers(5)]()


def put(ink: Field, stamp: Field, y: int, x: int) -> None:
    """Lay `stamp` into `ink` with its top left corner at (y, x), the larger coverage winning; what sticks out
    is cut off.
    """
    h, w = ink.shape
    top, left = max(0, y), max(0, x)
    bottom, right = min(h, y + stamp.shape[0]), min(w, x + stamp.shape[1])
    if top < bottom and left < right:
        into = ink[top:bottom, left:right]
        np.maximum(into, stamp[top - y : bottom - y, left - x : right - x], out=into)


def inscription(rng: Rng, h: int, w: int, text: str, size: float, angle: float | None = None) -> Field:
    """Coverage (h, w) of `text` somewhere in the picture, turned by `angle` degrees (default: a right angle
    or any).
    """
    stamp = lettered(text, size)
    if angle is None:
        angle = float(rng.choice([0.0, 90.0, 180.0, 270.0, rng.uniform(0, 360)]))
    if angle:
        turned = Image.fromarray(stamp).rotate(angle, Image.Resampling.BILINEAR, expand=True)
        stamp = np.asarray(turned, np.float32)
    ink = np.zeros((h, w), np.float32)
    cy, cx = rng.uniform(0.12, 0.88) * h, rng.uniform(0.12, 0.88) * w
    put(ink, stamp, round(cy - stamp.shape[0] / 2), round(cx - stamp.shape[1] / 2))
    return ink

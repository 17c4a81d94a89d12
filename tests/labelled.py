"""A small labelled dataset for tests: plain plates and cups, flaws of one colour a type, exact masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"scratch": (250, 40, 40), "pin_hole": (10, 10, 200), "stain": (250, 250, 20)}
PRODUCTS = {"plate": ("scratch", "pin_hole"), "cup": ("stain",)}


def labelled_tree(root: Path, *, images: int = 3, size: tuple[int, int] = (48, 48), seed: int = 0) -> Path:
    """PRODUCT/test/{good, TYPE} with `images` pictures each, (height, width) pixels, and masks."""
    rng = np.random.default_rng(seed)
    for product, types in PRODUCTS.items():
        for kind in ("good", *types):
            for number in range(images):
                picture = rng.integers(100, 140, (*size, 3)).astype(np.uint8)
                mask = np.zeros(size, np.uint8)
                if kind != "good":
                    y, x = rng.integers(0, np.array(size) - 20)
                    mask[y : y + 20, x : x + 20] = 255
                    picture[mask > 0] = COLOURS[kind]
                    write(root / product / "ground_truth" / kind / f"{number}_mask.png", mask)
                write(root / product / "test" / kind / f"{number}.png", picture)
    return root


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)

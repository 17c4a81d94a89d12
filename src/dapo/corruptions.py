"""Corruptions: what a changed lamp, lens, camera or mounting does to a picture, seeded, in three severities.

In: uint8 RGB (h, w, 3), or a bool mask (h, w). Out: the same, changed; masks follow rotation and scale and
are else left alone. After the common corruptions of ImageNet-C (Hendrycks and Dietterich 2019, arXiv
1903.12261), with the changes of a production line.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dapo.errors import ConfigError

RGB = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

SEVERITIES = (1, 2, 3)
COVERED = 0.25  # share of a smaller pixel from which it is defective


@dataclass(frozen=True)
class Corruption:
    """One kind. amounts: of severity 1, 2, 3, in the unit that `means` names."""

    means: str
    amounts: tuple[float, float, float]
    change: Callable[[RGB, float, np.random.Generator], RGB]
    change_mask: Callable[[Mask, float, np.random.Generator], Mask] | None = None


def levels(values: Floats) -> RGB:
    """Rounded and kept within 0 to 255."""
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def brighten(image: RGB, amount: float, rng: np.random.Generator) -> RGB:
    return levels(image * np.float32(1 + sign(rng) * amount))


def flatten(image: RGB, amount: float, rng: np.random.Generator) -> RGB:
    mean = np.float32(image.mean())
    return levels(mean + (image - mean) * np.float32(amount))


def blur(image: RGB, amount: float, rng: np.random.Generator) -> RGB:
    sigma = amount * min(image.shape[:2])
    return levels(ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="nearest"))


def add_noise(image: RGB, amount: float, rng: np.random.Generator) -> RGB:
    return levels(image + 255 * np.float32(amount) * rng.standard_normal(image.shape, dtype=np.float32))


def compress(image: RGB, amount: float, rng: np.random.Generator) -> RGB:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(amount))
    return np.asarray(Image.open(stream).convert("RGB"))


def tint(image: RGB, amount: float, rng: np.random.Generator) -> RGB:
    gains = 1 + amount * rng.uniform(-1, 1, 3)
    return levels(image * (gains / gains.mean()).astype(np.float32))


def rotate(image: RGB, amount: float, rng: np.random.Generator) -> RGB:
    angle = sign(rng) * amount
    turned = ndimage.rotate(image.astype(np.float32), angle, reshape=False, order=1, mode="mirror")
    return levels(turned)


def rotate_mask(mask: Mask, amount: float, rng: np.random.Generator) -> Mask:
    angle = sign(rng) * amount
    turned = ndimage.rotate(mask.astype(np.uint8), angle, reshape=False, order=0, mode="mirror")
    return np.asarray(turned > 0)


def shrink(image: RGB, amount: float, rng: np.random.Generator) -> RGB:
    width, height = smaller(image.shape[1], amount), smaller(image.shape[0], amount)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def shrink_mask(mask: Mask, amount: float, rng: np.random.Generator) -> Mask:
    """True where a quarter of what the pixel now shows was: a line one pixel wide is not lost."""
    width, height = smaller(mask.shape[1], amount), smaller(mask.shape[0], amount)
    grey = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(np.asarray(grey) >= COVERED)


def smaller(length: int, amount: float) -> int:
    return max(8, round(amount * length))


CORRUPTIONS: dict[str, Corruption] = {
    "brightness": Corruption("relative change of all levels, up or down", (0.15, 0.3, 0.5), brighten),
    "contrast": Corruption("contrast that is left", (0.75, 0.5, 0.3), flatten),
    "blur": Corruption("Gaussian sigma, share of the shorter side", (0.003, 0.006, 0.012), blur),
    "noise": Corruption("Gaussian sigma, share of the full range", (0.03, 0.06, 0.12), add_noise),
    "JPEG": Corruption("quality", (50, 25, 10), compress),
    "rotation": Corruption("degrees, either way", (3, 8, 15), rotate, rotate_mask),
    "scale": Corruption("pixels a side that are left", (0.75, 0.5, 0.33), shrink, shrink_mask),
    "colour cast": Corruption("largest relative gain of a channel", (0.1, 0.2, 0.35), tint),
}


def corrupt(image: RGB, kind: str, severity: int, *, seed: int = 0, name: str = "") -> RGB:
    """The picture, changed. One seed, kind, severity and name always give the same change.

    Raises ConfigError for an unknown kind or severity.
    """
    corruption, amount, rng = chosen(kind, severity, seed, name)
    return corruption.change(image, amount, rng)


def corrupt_mask(mask: Mask, kind: str, severity: int, *, seed: int = 0, name: str = "") -> Mask:
    """The mask of the picture that `corrupt` gives for the same seed and name."""
    corruption, amount, rng = chosen(kind, severity, seed, name)
    return mask if corruption.change_mask is None else corruption.change_mask(mask, amount, rng)


def chosen(kind: str, severity: int, seed: int, name: str) -> tuple[Corruption, float, np.random.Generator]:
    """The corruption, its amount, and its random numbers for this picture."""
    if kind not in CORRUPTIONS:
        raise ConfigError(f"expected a corruption among {', '.join(CORRUPTIONS)}; got {kind!r}")
    if severity not in SEVERITIES:
        raise ConfigError(f"expected a severity of 1, 2 or 3; got {severity!r}")
    corruption = CORRUPTIONS[kind]
    rng = np.random.default_rng([seed, severity, zlib.crc32(kind.encode()), zlib.crc32(name.encode())])
    return corruption, corruption.amounts[severity - 1], rng

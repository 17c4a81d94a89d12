"""Samples for a first look: real photographs, flaws drawn onto some of them, the truth beside the answer.

In: a seed. Out: `Sample`s with uint8 pictures (h, w, 3) and a mask (h, w) for each flaw, and what to make of
an answer to one. The photographs come inside scikit-image; its documentation states CC0 for grass, coffee and
cell, public domain for text and clock, and no known copyright restrictions for coins.

What the embedded model knows of them: the flaws are new, but of the families its training pictures were
drawn with; it has seen nothing of the photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from PIL import Image

from dapo.errors import DependencyError
from dapo.inspection import Inspection
from dapo.pretraining.fields import blur
from dapo.pretraining.flaws import FLAWS, Canvas

__all__ = [
    "DEFECTS",
    "SEED",
    "SHOTS",
    "Judgement",
    "Sample",
    "Shot",
    "Tally",
    "judge",
    "make_sample",
    "make_samples",
]

Rgb = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]
Colour = tuple[int, int, int]

# What the demo asks for: the eight types that are drawn, and two that never are.
DEFECTS = ("scratch", "crack", "hole", "stain", "burn", "rust", "thread", "peeling", "dent", "bubble")

SEED = 5  # of the samples one sees first
EDGE = 0.35  # coverage from which a pixel belongs to the flaw, as in pretraining
TRIES = 40  # drawings of one flaw, until one is plain to see
SOFT = 0.55  # pixels: the photograph's lens, on what is drawn


@dataclass(frozen=True)
class Look:
    """When a drawn flaw is plain to see and not silly."""

    least: float  # of the picture's area
    most: float
    contrast: float = 0.16  # mean change of the strongest channel, of full scale
    span: float = 0.0  # least length of the box around it, of the picture's smaller side
    dark: bool | None = None  # True: darker than what it covers
    warm: bool = False  # brownish: takes most from blue and least from red


LOOKS: dict[str, Look] = {
    "scratch": Look(0.0025, 0.012, 0.25, span=0.4, dark=False),
    "crack": Look(0.003, 0.012, 0.22, span=0.5),
    "hole": Look(0.008, 0.022, 0.25, dark=True),
    "stain": Look(0.025, 0.100, 0.14, dark=True, warm=True),
    "burn": Look(0.025, 0.120, 0.18),
    "rust": Look(0.020, 0.100, 0.16),
    "thread": Look(0.008, 0.030, 0.20, span=0.4),
    "peeling": Look(0.020, 0.080, 0.20, dark=False),
}


@dataclass(frozen=True)
class Shot:
    """One sample: a part of a photograph, and what goes wrong with it.

    `box` is (top, left, height, width) in the photograph, `size` the sample's (h, w). `toned`, for grey
    photographs, gives the colours of black and white. `part` marks pictures of parts on a dark ground.
    """

    name: str
    photograph: str
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    flaws: tuple[str, ...] = ()
    toned: tuple[Colour, Colour] | None = None
    part: bool = False


STONE = ((24, 24, 30), (246, 238, 224))
LAWN = ((10, 22, 6), (214, 236, 150))
SILVER = ((8, 9, 12), (255, 252, 244))

SHOTS = (
    Shot("grass-1", "grass", (60, 40, 320, 420), (320, 420), (), LAWN),
    Shot("grass-2", "grass", (0, 0, 400, 512), (400, 512), ("burn",), LAWN),
    Shot("grass-3", "grass", (200, 150, 240, 340), (360, 510), ("thread",), LAWN),
    Shot("coins-1", "coins", (0, 0, 303, 384), (454, 576), part=True),
    Shot("coins-2", "coins", (80, 180, 144, 192), (432, 576), ("rust",), part=True),
    Shot("coin-1", "coins", (12, 298, 74, 74), (320, 320), (), SILVER, part=True),
    Shot("coin-2", "coins", (146, 306, 78, 78), (320, 320), ("hole",), SILVER, part=True),
    Shot("coin-3", "coins", (228, 134, 76, 76), (320, 320), ("scratch",), SILVER, part=True),
    Shot("coffee", "coffee", (0, 0, 400, 600), (400, 600)),
    Shot("wood-1", "coffee", (0, 440, 110, 160), (330, 480)),
    Shot("wood-2", "coffee", (100, 484, 300, 116), (620, 240), ("burn", "scratch")),
    Shot("wood-3", "coffee", (0, 440, 110, 160), (330, 480), ("crack",)),
    Shot("text", "text", (0, 0, 172, 448), (246, 640), ("stain",)),
    Shot("wall-1", "clock", (0, 290, 300, 110), (510, 190), (), STONE),
    Shot("wall-2", "clock", (0, 0, 300, 140), (514, 240), ("peeling", "scratch"), STONE),
    Shot("cell", "cell", (140, 60, 440, 490), (440, 490), ("thread",)),
)


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture `image` uint8 (h, w, 3) and the `masks` {type: bool (h, w)} of what was drawn on it."""

    name: str
    image: Rgb
    masks: Mapping[str, Mask] = field(default_factory=dict)

    @property
    def types(self) -> tuple[str, ...]:
        """What is wrong with it; empty for an untouched one."""
        return tuple(self.masks)


def make_samples(seed: int = SEED) -> Iterator[Sample]:
    """All samples, made one by one. Raises DependencyError at once where scikit-image is not installed."""
    if find_spec("skimage") is None:
        raise DependencyError.for_extra("demo", "scikit-image")
    return (make_sample(shot, seed) for shot in SHOTS)


def make_sample(shot: Shot, seed: int = SEED) -> Sample:
    """The sample of one shot; the same for the same seed, whichever others are made."""
    h, w = shot.size
    top, left, height, width = shot.box
    crop = Image.fromarray(
        np.ascontiguousarray(_photograph(shot.photograph)[top : top + height, left : left + width])
    )
    clean = np.asarray(_toned(crop.resize((w, h), Image.Resampling.BICUBIC), shot.toned))
    if not shot.flaws:
        return Sample(shot.name, clean)
    rng = np.random.default_rng([seed, *shot.name.encode()])
    start = (clean / np.float32(255)).astype(np.float32)
    support = _support(start) if shot.part else np.ones((h, w), np.float32)
    behind = np.full_like(start, 0.02)  # what shows through a hole
    image, masks = start, dict[str, Mask]()
    for name in shot.flaws:
        taken = blur(_union(masks, (h, w)).astype(np.float32), min(h, w) / 16)
        free: Field = support * (1 - np.clip(4 * taken, 0, 1))
        image, cover = _drawn(name, Canvas(image, support, behind, upright=False), free, rng)
        masks[name] = _outlined(cover > EDGE) & ~_union(masks, (h, w))
    # What was drawn goes through the photograph's lens; the rest stays as it is, pixel for pixel.
    soft = SOFT * max(1.0, h / height)
    drawn = (np.abs(image - start).max(2) > 0.01).astype(np.float32)
    share = np.clip(2 * blur(drawn, soft), 0, 1)[..., None]
    image = start * (1 - share) + blur(image, soft) * share
    return Sample(shot.name, (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), masks)


def _drawn(name: str, canvas: Canvas, free: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """(image, coverage) of the first drawing that is plain to see, else of the plainest."""
    grey = canvas.image.mean(2)
    texture = np.abs(grey - blur(grey, canvas.unit * 4))
    best, best_score = (canvas.image, np.zeros(canvas.size, np.float32)), -1.0
    for _ in range(TRIES):
        image, cover = FLAWS[name](canvas, rng)
        score = _plainness(LOOKS[name], canvas, np.clip(image, 0, 1), cover > EDGE, free, texture)
        if score > best_score:
            best, best_score = (np.clip(image, 0, 1).astype(np.float32), cover), score
        if score >= 1:
            break
    return best


def _plainness(look: Look, canvas: Canvas, image: Field, mask: Mask, free: Field, texture: Field) -> float:
    """1 for a flaw a person sees at a glance, less for one that is too small, too large, faint or cut off."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return 0.0
    h, w = mask.shape
    area = len(rows) / mask.size
    margin = min(rows.mean() / h, 1 - rows.mean() / h, columns.mean() / w, 1 - columns.mean() / w)
    length = float(np.hypot(np.ptp(rows), np.ptp(columns))) / min(h, w)
    change = image[rows, columns] - canvas.image[rows, columns]  # (pixels, 3)
    strength = float(np.abs(change).max(1).mean())
    red, green, blue = (float(value) for value in change.mean(0))
    brown = red >= green - 0.01 and green >= blue and red >= blue + 0.03
    parts = [
        area / look.least,
        look.most / area,
        strength / max(look.contrast, 1.1 * float(texture[rows, columns].mean())),
        float(margin) / 0.2,
        float(free[rows, columns].mean()) / 0.95,
        length / look.span if look.span else 1.0,
        0.3 if look.dark is not None and (red + green + blue < 0) != look.dark else 1.0,
        0.6 if look.warm and not brown else 1.0,
    ]
    return min(1.0, *parts)


@lru_cache(maxsize=8)
def _photograph(name: str) -> Rgb:
    """uint8 (h, w) or (h, w, 3)."""
    from skimage import data

    return np.asarray(getattr(data, name)())


def _toned(picture: Image.Image, tone: tuple[Colour, Colour] | None) -> Image.Image:
    if tone is None:
        return picture.convert("RGB")
    grey = picture.convert("L")
    tables = [[round(a + (b - a) * level / 255) for level in range(256)] for a, b in zip(*tone, strict=True)]
    return Image.merge("RGB", [grey.point(table) for table in tables])


def _support(image: Field) -> Field:
    """Where the parts are, on a dark ground: coverage (h, w)."""
    from scipy import ndimage

    grey = blur(image.mean(2), min(image.shape[:2]) / 200)
    ground = ndimage.minimum_filter(blur(grey, 3), size=min(image.shape[:2]) // 3)
    parts = ndimage.binary_fill_holes(grey > blur(ground, 20) + 0.17)
    parts = ndimage.binary_opening(parts, iterations=4)
    return blur(parts.astype(np.float32), 1.0)


def _outlined(mask: Mask) -> Mask:
    """The mask as a person would outline it: the small gaps of a speckled flaw belong to it."""
    from scipy import ndimage

    reach = max(1, round(min(mask.shape) / 120))
    padded = np.pad(mask, 2 * reach, mode="edge")
    closed = ndimage.binary_closing(padded, iterations=reach)[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    return np.asarray(ndimage.binary_fill_holes(closed | mask))


def _union(masks: Mapping[str, Mask], size: tuple[int, int]) -> Mask:
    return np.logical_or.reduce([np.zeros(size, bool), *masks.values()])


@dataclass(frozen=True)
class Judgement:
    """An answer held against the truth: was the verdict `right`, and what was each flaw called?

    `calls` {type: the type of the region that covers most of the flaw}; None where no region touches it, and
    for every flaw of a sample that passed.
    """

    right: bool
    calls: Mapping[str, str | None]

    @property
    def named(self) -> int:
        """How many flaws were called by their name."""
        return sum(name == call for name, call in self.calls.items())


def judge(sample: Sample, inspection: Inspection) -> Judgement:
    """Hold the answer against the truth. Flaws whose name was not asked for are left out of `calls`."""
    calls: dict[str, str | None] = {}
    for name, mask in sample.masks.items():
        if name not in inspection.types:
            continue
        overlaps = [(int((region.mask & mask).sum()), region.type) for region in inspection.regions]
        most, call = max(overlaps, key=lambda pair: pair[0], default=(0, None))
        calls[name] = call if most and inspection.verdict == "defective" else None
    return Judgement((inspection.verdict == "defective") == bool(sample.masks), calls)


@dataclass
class Tally:
    """Counts over all samples."""

    defective: int = 0
    found: int = 0
    good: int = 0
    passed: int = 0
    flaws: int = 0
    named: int = 0

    def add(self, sample: Sample, judgement: Judgement) -> None:
        if sample.masks:
            self.defective += 1
            self.found += judgement.right
        else:
            self.good += 1
            self.passed += judgement.right
        self.flaws += len(judgement.calls)
        self.named += judgement.named

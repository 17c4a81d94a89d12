"""Heat maps: where the model sees a flaw and how strongly, on one fixed scale.

In: an ``Inspection`` with its anomaly map. Out: the photo in grey with the map laid over it, and the scale
beside it. 0 and 1 have the same colour on every picture, so two parts can be compared and a good part looks
blank.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dapo.errors import InputError
from dapo.inspection import Inspection
from dapo.whole import save_picture
from dapo.writers.lettering import lettering
from dapo.writers.overlay import photo_at
from dapo.writers.picture import PictureWriter

__all__ = ["HeatmapWriter", "draw_heatmap", "heat_colours"]

Pixels = npt.NDArray[np.uint8]

# value -> red, green, blue, opacity: light to dark, so it also reads in grey and to the colour-blind
STOPS = (
    (0.00, (255, 236, 140, 0.00)),
    (0.15, (255, 236, 140, 0.00)),
    (0.35, (253, 200, 80, 0.45)),
    (0.55, (244, 130, 40, 0.70)),
    (0.80, (200, 44, 60, 0.85)),
    (1.00, (92, 8, 84, 0.92)),
)
MIN_SIDE, MAX_SIDE = 512, 1960  # pixels of the photo's long side
FADE = 0.55  # how far the photo's greys move towards white


class HeatmapWriter(PictureWriter):
    """One heat map for each inspection, as JPEG in ``folder``."""

    suffix = ".jpg"

    def save(self, result: Inspection, path: Path) -> None:
        save_picture(draw_heatmap(result), path, "JPEG", quality=92, subsampling=0)


def heat_colours(values: npt.NDArray[np.float32]) -> Pixels:
    """uint8 (h, w, 4) RGBA of ``values`` (h, w) in [0, 1]; values below 0.15 are clear."""
    at = [stop for stop, _ in STOPS]
    table = np.stack(
        [np.interp(np.linspace(0, 1, 256), at, [float(colour[c]) for _, colour in STOPS]) for c in range(4)],
        1,
    )
    table[:, 3] *= 255
    index = (np.clip(np.nan_to_num(values), 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.asarray(table.round().astype(np.uint8)[index])


def draw_heatmap(inspection: Inspection) -> Image.Image:
    """The heat map of one inspection, with its scale on the right."""
    if inspection.anomaly_map is None:
        raise InputError(
            f"the anomaly map of {inspection.image} was not kept with its result", kind="missing"
        )
    long_side = max(inspection.width, inspection.height)
    scale = float(-(-MIN_SIDE // long_side)) if long_side < MIN_SIDE else min(1.0, MAX_SIDE / long_side)
    grey = photo_at(inspection.photo(), scale).convert("L")
    faded = grey.point([round(value + (255 - value) * FADE) for value in range(256)]).convert("RGB")
    values = Image.fromarray(np.ascontiguousarray(inspection.anomaly_map, dtype=np.float32))
    values = values.resize(faded.size, Image.Resampling.BILINEAR)
    heat = Image.fromarray(heat_colours(np.asarray(values)))
    faded.paste(heat, mask=heat.getchannel("A"))
    return _with_scale(faded)


def _with_scale(picture: Image.Image) -> Image.Image:
    unit = min(max(max(picture.size) / 850, 1.0), 2.2)

    def px(value: float) -> int:
        return round(value * unit)

    height = max(picture.height, px(120))
    canvas = Image.new("RGB", (picture.width + px(62), height), (255, 255, 255))
    canvas.paste(picture, (0, 0))
    bar = min(height - px(32), px(320))
    left, top = picture.width + px(12), px(16)
    ramp = Image.fromarray(
        heat_colours(np.linspace(1, 0, bar, dtype=np.float32)[:, None].repeat(px(14), axis=1))
    )
    canvas.paste(ramp, (left, top), ramp.getchannel("A"))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((left, top, left + px(14) - 1, top + bar - 1), outline=(90, 96, 106))
    for value in (0.0, 0.5, 1.0):
        drawn, font = lettering(f"{value:.1f}", px(12))
        pen.text((left + px(20), top + bar * (1 - value)), drawn, fill=(40, 44, 52), font=font, anchor="lm")
    return canvas

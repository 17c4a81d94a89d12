"""The frame of an overlay: a header with the verdict above the photo, a legend below it, both outside the
photo.

In: an ``Inspection`` and a width in pixels. Out: two bands of that width, RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from dapo.inspection import Inspection
from dapo.writers.ink import rounded
from dapo.writers.lettering import fit, lettering, width_of
from dapo.writers.palette import DEFECTIVE, OK, Colour, Palette

__all__ = [
    "GROUND",
    "INK",
    "MIN_WIDTH",
    "TWO_JUDGEMENTS",
    "LegendEntry",
    "draw_header",
    "draw_legend",
    "legend_entries",
    "two_scores",
]

GROUND: Colour = (18, 21, 27)
INK: Colour = (244, 246, 249)
DIM: Colour = (160, 168, 180)
TRACK: Colour = (58, 65, 77)
MIN_WIDTH = 440  # pixels at unit 1 that the header needs
TWO_JUDGEMENTS = "Scores of the whole picture; a region is judged on its own pixels."
MAX_OTHERS = 4  # types without a region that the legend still lists,
MIN_OTHER = 0.05  # if their score is at least this


@dataclass(frozen=True)
class LegendEntry:
    """One type: its colour, image-level score (None: not scored) and number of regions."""

    name: str
    colour: Colour
    score: float | None
    regions: int


def legend_entries(inspection: Inspection, palette: Palette) -> list[LegendEntry]:
    """Types with regions first, by their best region; then the highest-scored others."""
    counts: dict[str, int] = {}
    for region in inspection.regions:  # highest score first
        counts[region.type] = counts.get(region.type, 0) + 1
    others = [n for n, score in inspection.types.items() if n not in counts and score >= MIN_OTHER]
    names = [*counts, *sorted(others, key=lambda n: -inspection.types[n])[:MAX_OTHERS]]
    return [LegendEntry(n, palette[n], inspection.types.get(n), counts.get(n, 0)) for n in names]


def two_scores(score: float, threshold: float) -> tuple[str, str]:
    """Both with two decimals, or as many more as it takes to tell them apart."""
    digits = 2
    while digits < 5 and score != threshold and f"{score:.{digits}f}" == f"{threshold:.{digits}f}":
        digits += 1
    return f"{score:.{digits}f}", f"{threshold:.{digits}f}"


def draw_header(inspection: Inspection, width: int, unit: float) -> Image.Image:
    """Verdict, score, and where the score lies against the threshold."""

    def px(value: float) -> int:
        return round(value * unit)

    band = Image.new("RGB", (width, px(58)), GROUND)
    pen = ImageDraw.Draw(band)
    defective = inspection.verdict == "defective"
    colour = DEFECTIVE if defective else OK
    word = "DEFECTIVE" if defective else "OK"
    left, top, height = px(12), px(12), px(34)
    right = left + px(34) + width_of(word, px(19)) + px(14)
    rounded(band, (left, top, right, top + height), 7 * unit, colour)
    _draw_sign(band, left + px(18), top + height // 2, unit, defective)
    drawn, font = lettering(word, px(19))
    pen.text((left + px(34), top + height / 2), drawn, fill=INK, font=font, anchor="lm")

    score, threshold = two_scores(inspection.score, inspection.threshold)
    x = right + px(16)
    drawn, font = lettering(score, px(26))
    pen.text((x, px(29)), drawn, fill=INK, font=font, anchor="lm")
    x += width_of(score, px(26)) + px(16)
    _draw_gauge(band, (x, min(x + px(210), width - px(16))), inspection, threshold, colour, unit)

    note = _count(len(inspection.regions), "region")
    room = width - px(16) - (x + px(210) + px(24))
    if width_of(note, px(14)) <= room:
        drawn, font = lettering(note, px(14))
        pen.text((width - px(16), px(29)), drawn, fill=DIM, font=font, anchor="rm")
    return band


def draw_legend(
    inspection: Inspection, entries: list[LegendEntry], width: int, unit: float, unlabelled: int = 0
) -> Image.Image:
    """Types with swatch, score and count, then one line that says what was inspected and how.

    With regions there is a line above it on what the scores are: those of regions are others, and names may
    differ too.
    """

    def px(value: float) -> int:
        return round(value * unit)

    letters, small, row, edge = px(15), px(12), px(26), px(14)
    rows: list[list[tuple[LegendEntry, str, str, int]]] = [[]]
    x = edge
    for entry in entries:
        name = fit(entry.name, letters, width - 2 * edge - px(150))
        facts = [] if entry.score is None else [f"{entry.score:.2f}"]
        facts += [_count(entry.regions, "region")] if entry.regions > 1 else []
        note = " · ".join(facts)
        needed = px(22) + width_of(name, letters) + px(7) + width_of(note, small) + px(22)
        if rows[-1] and x + needed > width - edge + px(22):
            rows.append([])
            x = edge
        rows[-1].append((entry, name, note, x))
        x += needed
    rows = [line for line in rows if line]
    told = px(18) if inspection.regions and inspection.types else 0
    band = Image.new("RGB", (width, px(10) + row * len(rows) + told + px(26)), GROUND)
    pen = ImageDraw.Draw(band)
    for number, line in enumerate(rows):
        middle = px(10) + row * number + row // 2
        for entry, name, note, x in line:
            _draw_swatch(band, x, middle, entry, unit)
            drawn, font = lettering(name, letters)
            pen.text((x + px(22), middle), drawn, fill=INK if entry.regions else DIM, font=font, anchor="lm")
            after = x + px(22) + width_of(name, letters) + px(7)
            drawn, font = lettering(note, small)
            pen.text((after, middle + px(1)), drawn, fill=DIM, font=font, anchor="lm")
    if told:
        drawn, font = lettering(fit(TWO_JUDGEMENTS, small, width - 2 * edge), small)
        pen.text((edge, band.height - px(15) - told), drawn, fill=DIM, font=font, anchor="lm")
    drawn, font = lettering(_caption(inspection, unlabelled, small, width - 2 * edge), small)
    pen.text((edge, band.height - px(15)), drawn, fill=DIM, font=font, anchor="lm")
    return band


def _caption(inspection: Inspection, unlabelled: int, size: int, width: int) -> str:
    facts = [
        f"{inspection.width} x {inspection.height} px",
        _count(len(inspection.types), "type") + " asked for",
    ]
    if unlabelled:
        facts.append(f"{_count(unlabelled, 'region')} without room for a label")
    facts.append("calibrated" if inspection.calibrated else "not calibrated on good parts")
    rest = " · ".join(facts)
    name = inspection.image.replace("\\", "/").rsplit("/", 1)[-1]
    room = width - width_of(" · " + rest, size)
    if room < size * 6:
        return fit(rest, size, width)
    return f"{fit(name, size, room)} · {rest}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number or 'no'} {noun}s"


def _draw_gauge(
    band: Image.Image,
    span: tuple[int, int],
    inspection: Inspection,
    threshold: str,
    colour: Colour,
    unit: float,
) -> None:
    """A bar from 0 to 1, filled to the score, with a tick at the threshold and its value below."""
    left, right = span
    if right - left < 40 * unit:
        return
    top, bottom = round(17 * unit), round(25 * unit)
    rounded(band, (left, top, right, bottom), 4 * unit, TRACK)
    filled = left + max(round((right - left) * inspection.score), bottom - top)
    rounded(band, (left, top, filled, bottom), 4 * unit, colour)
    at = left + round((right - left) * inspection.threshold)
    half = max(1, round(unit))
    tick = (at - half, top - round(5 * unit), at + half, bottom + round(5 * unit))
    pen = ImageDraw.Draw(band)
    pen.rectangle((tick[0] - half, tick[1], tick[2] + half - 1, tick[3] - 1), fill=GROUND)
    pen.rectangle((tick[0], tick[1], tick[2] - 1, tick[3] - 1), fill=INK)
    size = round(12 * unit)
    drawn, font = lettering(f"threshold {threshold}", size)
    width = width_of(drawn, size)
    centre = min(max(at, left + width // 2), right - width // 2)
    pen.text((centre, round(40 * unit)), drawn, fill=DIM, font=font, anchor="mm")


def _draw_sign(band: Image.Image, x: int, y: int, unit: float, defective: bool) -> None:
    """A cross or a check mark, so that the verdict does not rest on colour."""
    side = round(16 * unit)
    mask = Image.new("L", (side * 4, side * 4))
    pen = ImageDraw.Draw(mask)
    strokes = (((2, 2), (14, 14)), ((14, 2), (2, 14))) if defective else (((1, 9), (6, 14), (15, 3)),)
    for stroke in strokes:
        points = [(px * side / 4, py * side / 4) for px, py in stroke]
        pen.line(points, fill=255, width=round(2.6 * unit * 4), joint="curve")
        for px, py in (points[0], points[-1]):
            reach = 1.3 * unit * 4
            pen.ellipse((px - reach, py - reach, px + reach, py + reach), fill=255)
    band.paste(INK, (x - side // 2, y - side // 2), mask.reduce(4))


def _draw_swatch(band: Image.Image, x: int, middle: int, entry: LegendEntry, unit: float) -> None:
    """A filled square for a type with regions, a hollow one for a type without."""
    half, edge = round(7 * unit), max(1, round(2 * unit))
    rounded(band, (x, middle - half, x + 2 * half, middle + half), 3 * unit, entry.colour)
    if not entry.regions:
        inner = (x + edge, middle - half + edge, x + 2 * half - edge, middle + half - edge)
        rounded(band, inner, 2 * unit, GROUND)

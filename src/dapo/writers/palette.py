"""Colours: one for each defect type, told apart by colour-blind readers, and those of the verdicts.

A type's colour follows from its place in the vocabulary, so it is the same on every picture of a run. The
first seven are those of Okabe and Ito ("Color Universal Design", 2008, without black), strongest contrast
first; further ones are their tints and shades, and every outline carries its type's name as well.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DEFECTIVE", "OK", "UNKNOWN_COLOUR", "Colour", "Palette", "hex_code", "is_light"]

Colour = tuple[int, int, int]  # sRGB, 0..255

OKABE_ITO: tuple[Colour, ...] = (
    (213, 94, 0),  # vermilion
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (204, 121, 167),  # reddish purple
    (0, 158, 115),  # bluish green
    (230, 159, 0),  # orange
    (0, 114, 178),  # blue
)
UNKNOWN_COLOUR: Colour = (178, 184, 194)  # grey
DEFECTIVE: Colour = (198, 66, 0)  # white letters on it have contrast 5.0
OK: Colour = (0, 122, 94)  # 5.3
TINT, SHADE = 0.5, 0.35  # share of white, of black


class Palette(dict[str, Colour]):
    """Type name -> colour, for the names of a vocabulary in their order; grey for any other name."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__((name, _colour(index)) for index, name in enumerate(dict.fromkeys(names)))

    def __missing__(self, name: str) -> Colour:
        return UNKNOWN_COLOUR


def hex_code(colour: Colour) -> str:
    """``#rrggbb``"""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def is_light(colour: Colour) -> bool:
    """True where black letters read better than white ones (relative luminance of WCAG 2 above 0.18)."""
    channels = [value / 255 for value in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18


def _colour(index: int) -> Colour:
    base = OKABE_ITO[index % len(OKABE_ITO)]
    towards, share = ((0, 0.0), (255, TINT), (0, SHADE))[index // len(OKABE_ITO) % 3]
    red, green, blue = (round(value + (towards - value) * share) for value in base)
    return red, green, blue

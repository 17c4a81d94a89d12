"""Lettering: text a picture can carry, and the font to draw it with.

Pillow brings one font, Aileron, which knows ASCII and little more. Names in other letters are drawn with a
font of the system that has them; where there is none, accents are dropped and what is left over becomes "?".
A text never brings line breaks or control characters into a picture.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

__all__ = ["Font", "fit", "lettering", "width_of"]

Font = ImageFont.FreeTypeFont

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "arial.ttf",
    "Arial Unicode.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "PingFang.ttc",
)
SPELLINGS = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae", "Æ": "Ae", "œ": "oe", "đ": "d"}
    | {"\u0131": "i", "\u00d7": "x", "\u2013": "-", "—": "-", "\u2212": "-", "µ": "u", "≥": ">=", "≤": "<="}
)


@lru_cache(maxsize=1024)
def lettering(text: str, size: int) -> tuple[str, Font]:
    """The text as it can be drawn, and the font for it at ``size`` pixels."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if _covers(None, text):
        return text, _font(None, size)
    for name in SYSTEM_FONTS:
        if _available(name) and _covers(name, text):
            return text, _font(name, size)
    plain = unicodedata.normalize("NFKD", text.translate(SPELLINGS))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return "".join(letter if _covers(None, letter) else "?" for letter in plain), _font(None, size)


def width_of(text: str, size: int) -> int:
    """Pixels that ``text`` takes in a line."""
    drawn, font = lettering(text, size)
    return round(font.getlength(drawn))


def fit(text: str, size: int, width: int) -> str:
    """``text``, its middle replaced by an ellipsis where it is wider than ``width`` pixels."""
    if width_of(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        kept = (low + high + 1) // 2
        if width_of(_shortened(text, kept), size) <= width:
            low = kept
        else:
            high = kept - 1
    return _shortened(text, low)


def _shortened(text: str, kept: int) -> str:
    head = (kept + 1) // 2
    return text[:head] + "…" + text[len(text) - (kept - head) :]


@lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> Font:
    font = ImageFont.load_default(size=size) if name is None else ImageFont.truetype(name, size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError(
            "this Pillow was built without FreeType, so no text can be drawn: reinstall pillow"
        )
    return font


@lru_cache(maxsize=len(SYSTEM_FONTS))
def _available(name: str) -> bool:
    try:
        _font(name, 12)
    except OSError:
        return False
    return True


def _covers(name: str | None, text: str) -> bool:
    return all(letter in " \u00a0" or _has_glyph(name, letter) for letter in text)


@lru_cache(maxsize=4096)
def _has_glyph(name: str | None, letter: str) -> bool:
    """False where the font draws the letter as it draws a letter that does not exist."""
    font = _font(name, 20)
    return bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))

"""Phrases the text tower learns from: general language in combinations, and the trade's words in sentences.

In: words and the lexicon, a seed. Out: texts (and, for the trade's, the types each belongs to). Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dapo.pretraining.lexicon import NORMAL, TEMPLATES, Lexicon, fill

_SENTENCES = (
    "{a} {b}", "{b} {c}", "{a} {b} {c}", "{a} {a} {b}", "{b} and {c}", "{b} of {c}", "the {b} is {a}",
    "a {a} {b}", "a photo of a {a} {b}", "{a} {b} with {c}", "the {b} on the {c}", "{b} without {c}",
    "no {b}", "a {a} {b} and a {c}", "picture of {b}", "there is a {b} in the {c}", "{a} {material}",
    "a {a} {material} {surface}", "{a} {object}", "photo of a {material} {object}",
    "a {a} {material} {object} with {b}", "{material} {surface}", "the {object} is {a}",
)  # fmt: skip
_ENDINGS = (
    "y", "ed", "ous", "al", "ive", "ic", "ful", "less", "able", "ish", "ing", "ant", "ent", "ible", "ary",
)  # fmt: skip
_SIZES = (
    "a", "one", "some", "several", "small", "tiny", "large", "long", "slight", "severe", "visible", "faint",
    "heavy", "minor", "big", "a small", "a large", "a visible", "a slight", "several small", "a clear",
    "an obvious",
)  # fmt: skip
_PLACES = (
    "in the middle", "near the edge", "in the upper left", "in the lower right", "at the corner",
    "on the left side", "on the right side", "at the top", "at the bottom", "in the centre",
    "along the edge", "across the surface",
)  # fmt: skip
_NEGATIONS = ("no", "without", "free of", "not", "without any", "no sign of")


def general_phrases(words: Sequence[str], lexicon: Lexicon, count: int, seed: int) -> list[str]:
    """`count` different phrases of general language: every word alone, then words combined in sentences."""
    rng = np.random.default_rng([seed, 1])
    describing = [word for word in words if word.endswith(_ENDINGS) and len(word) > 4]
    phrases = dict.fromkeys(words[:count])

    def pick(pool: Sequence[str]) -> str:
        return pool[
            int(len(pool) * rng.random() ** 1.5)
        ]  # frequent words, which come first, somewhat oftener

    while len(phrases) < count:
        slots = {"a": pick(describing), "b": pick(words), "c": pick(words)}
        for key, pool in (
            ("material", lexicon.materials),
            ("surface", lexicon.surfaces),
            ("object", lexicon.objects),
        ):
            slots[key] = pool[rng.integers(len(pool))]
        phrases[_SENTENCES[rng.integers(len(_SENTENCES))].format(**slots)] = None
    return list(phrases)


def trade_sentences(
    lexicon: Lexicon, count: int, rng: np.random.Generator, *, held_out: bool = False
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Sentences about flaws and the flawless state, and the one or two types of each: (count, 2) indices.

    Index len(lexicon.types) is the flawless state; a sentence about one type names it twice.
    """
    ids = (*lexicon.ids, NORMAL)
    pools = [lexicon.held_out(i) if held_out else lexicon.train_phrases(i) for i in ids]
    texts, labels = [], np.zeros((count, 2), np.int64)

    def choose(pool: Sequence[str]) -> str:
        return pool[int(rng.integers(len(pool)))]

    for row in range(count):
        kind = len(ids) - 1 if rng.random() < 0.07 else int(rng.integers(len(ids) - 1))
        other, phrase = kind, choose(pools[kind])
        if kind < len(ids) - 1:
            chance = rng.random()
            if chance < 0.05:
                phrase, kind, other = f"{choose(_NEGATIONS)} {phrase}", len(ids) - 1, len(ids) - 1
            elif chance < 0.17:
                other = int(rng.integers(len(ids) - 1))
                phrase = f"{phrase} and {choose(pools[other])}"
            elif chance < 0.45:
                phrase = f"{choose(_SIZES)} {phrase}"
        text = phrase if rng.random() < 0.3 else fill(choose(TEMPLATES), phrase, lexicon, choose)
        texts.append(f"{text} {choose(_PLACES)}" if rng.random() < 0.12 else text)
        labels[row] = kind, other
    return texts, labels


def lexicon_words(lexicon: Lexicon) -> list[str]:
    """Every word of the lexicon, held-out phrases included (a row in the token table teaches nothing)."""
    texts = [phrase for type_id in (*lexicon.ids, NORMAL) for phrase in lexicon.phrases(type_id)]
    texts += [
        *lexicon.materials,
        *lexicon.surfaces,
        *lexicon.objects,
        *_SIZES,
        *_PLACES,
        *_NEGATIONS,
        *TEMPLATES,
    ]
    return sorted({word for text in texts for word in re.findall("[a-z]+", text.lower())})

"""Lint: how one model reads the words of a vocabulary, and what in them will not work.

Goes in: a detector and a `Vocabulary`; comes out: `Finding`s, each with what, why and what to do, and a
vocabulary with the proposals filled in. A warning changes results; a hint does not, or not surely.

What a cosine between two text features means differs from model to model, so the scale is read off the model
itself, with the built-in vocabulary as the ruler: every known type is encoded twice, from every other of its
phrases and from the rest (one meaning, two wordings), and compared with the other known types (other
meanings). ``alike`` is the median of the first: at this cosine two texts are, to this model, two wordings of
one type. ``near`` is half way between the two medians. ``normal`` is half way between what words for a good
part and what phrases of known defects reach towards the normal state.

Measured on the embedded model (``python benchmarks/wording.py``): other 0.13, near 0.55, alike 0.97. On
generated flaws of two looks, the text of the right look wins in 85 % of the cases where the two texts' cosine
is below 0.2, in 80 % from 0.2 to 0.4, and in 67 to 68 % above, where 50 % is chance. There is no sharp step
in it, so the limit is taken from the wordings and not from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dapo.errors import VocabularyError
from dapo.model.detector import Detector
from dapo.vocabulary import Defect, Vocabulary, builtin, plain

__all__ = ["Finding", "Likeness", "Reader", "Scale", "lint", "proposed"]

Level: TypeAlias = Literal["warning", "hint"]
States: TypeAlias = npt.NDArray[np.float32]  # (k, d), unit length

SPELLED = 3  # pieces of a word from which the tokenizer spells it: of the built-in phrases that hold such a
# word 47 % are nearest to their own type (the phrase left out), of those of whole words 61 %
SHOWN = 3  # alternatives
GOOD_WORDS = (
    "flawless", "intact part", "perfect surface", "undamaged", "without any defect", "good part", "as new",
    "clean and even surface", "no defect", "spotless", "normal surface", "in perfect condition",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing about the words. ``kind`` is for machines: alike, close, stray, normal, unreadable, spelled,
    twice, variant, thin, bare, unread.
    """

    kind: str
    level: Level
    defects: tuple[str, ...]
    phrases: tuple[str, ...]
    what: str
    why: str
    do: str
    alternatives: tuple[str, ...] = ()  # known types, or phrases, that are told apart

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


@dataclass(frozen=True)
class Scale:
    """What cosines between texts mean to one model; see the top of the file."""

    other: float
    near: float
    alike: float
    normal: float

    def similarity(self, cosine: float) -> int:
        """0 = as two different known types, 100 = the same."""
        return round(100 * min(1.0, max(0.0, (cosine - self.other) / (1 - self.other))))


@dataclass(frozen=True)
class Likeness:
    """A known type, and how near the model finds it, 0 to 100."""

    defect: Defect
    similarity: int


class Reader:
    """Reads words as one model does.

    The known types, 600 phrases, are encoded once, when they are first needed: 3 s on one core with the
    embedded model.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector.eval()

    def states(self, vocabulary: Vocabulary) -> tuple[States, States]:
        """(normal (d,), types (k, d))."""
        with torch.inference_mode():
            features = self.detector.text_features(vocabulary).float().cpu().numpy()
        return features[0], features[1:]

    def phrases(self, phrases: Sequence[str]) -> States:
        """One state for each phrase."""
        return self.states(_one_each(phrases))[1]

    def refusal(self, phrase: str) -> str | None:
        """Why the text tower cannot take a phrase: too long, or not a word of it known."""
        try:
            with torch.inference_mode():
                self.detector.prompts(self.detector.clip, Vocabulary((Defect("0", (phrase,)),)))
        except VocabularyError as error:
            return str(error)
        return None

    def unknown(self, phrase: str) -> list[str]:
        """Words of a phrase that the tokenizer does not know."""
        tokenizer = self.detector.clip.tokenizer
        return [word for word in phrase.split() if tokenizer.unknown(tokenizer.words(word))]

    def spelled(self, phrase: str) -> list[str]:
        """Words of a phrase that the tokenizer knows in `SPELLED` pieces or more."""
        return [word for word in _words(phrase) if len(self.detector.clip.tokenizer.words(word)) >= SPELLED]

    def understands(self, phrase: str) -> bool:
        """Whether a phrase of a known type is near that type's other phrases."""
        entry = builtin().find(phrase)
        rest = (
            [p for p in entry.phrases if plain(p) != plain(phrase) and not self.refusal(p)] if entry else []
        )
        if not rest:
            return False
        (own,), others = self.phrases([phrase]), self.phrases(rest)
        return bool(_mean(others) @ own >= self.scale.near)

    @property
    def reads_names(self) -> bool:
        """False for a model that tells only defective from good: its types all have one state."""
        return self.detector.settings.prompts.binary_phrase is None

    @cached_property
    def _known(self) -> tuple[tuple[Defect, ...], list[States], States]:
        """Known types of which this model can read something, their phrases' states, and the normal state."""
        readable = [(defect, [p for p in defect.phrases if not self.refusal(p)]) for defect in builtin()]
        readable = [(defect, phrases) for defect, phrases in readable if phrases]
        texts = [phrase for _, phrases in readable for phrase in phrases]
        normal, states = self.states(_one_each(texts))
        ends = np.cumsum([len(phrases) for _, phrases in readable])[:-1]
        return tuple(defect for defect, _ in readable), np.split(states, ends), normal

    @cached_property
    def known(self) -> States:
        """States of the known types, (known, d): the mean of their phrases."""
        return np.stack([_mean(states) for states in self._known[1]])

    @cached_property
    def scale(self) -> Scale:
        """Of this model, which must read names."""
        _, phrases, normal = self._known
        same = [float(_mean(one[::2]) @ _mean(one[1::2])) for one in phrases if len(one) > 1]
        cosines = self.known @ self.known.T
        other = np.median(cosines[np.triu_indices(len(cosines), 1)])
        good = np.median(self.phrases([w for w in GOOD_WORDS if not self.refusal(w)]) @ normal)
        flawed = np.median(np.concatenate(phrases) @ normal)
        return Scale(
            other=float(other),
            near=float(np.median(same) + other) / 2,
            alike=float(np.median(same)),
            normal=float(good + flawed) / 2,
        )

    def nearest(self, state: States, count: int = SHOWN) -> list[Likeness]:
        """The known types whose states are nearest, nearest first."""
        cosines = self.known @ state
        return [
            Likeness(self._known[0][i], self.scale.similarity(float(cosines[i])))
            for i in np.argsort(-cosines, kind="stable")[:count]
        ]

    def alternatives(self, state: States, others: States) -> tuple[str, ...]:
        """Known types near this state and told apart from the other types of the vocabulary."""
        own, worst = self.known @ state, (self.known @ others.T).max(1, initial=-1.0)
        order = [i for i in np.argsort(-own, kind="stable") if own[i] >= self.scale.near > worst[i]]
        return tuple(self._known[0][i].name for i in order[:SHOWN])


def lint(reader: Reader, vocabulary: Vocabulary) -> tuple[Finding, ...]:
    """All findings, warnings first."""
    found = [*_written_twice(vocabulary), *_bare(vocabulary)]
    if not reader.reads_names:
        found.insert(0, _names_not_read(vocabulary))
        return _sorted(found)
    found += _unread(reader, vocabulary)
    readable = _readable(reader, vocabulary)
    if readable is not None:
        normal, states = reader.states(readable)
        found += _confused(reader, readable, states)
        found += _near_normal(reader, readable, normal)
        found += _thin(reader, readable, states)
    return _sorted(found)


def proposed(reader: Reader, vocabulary: Vocabulary) -> Vocabulary:
    """The vocabulary with what lint proposes filled in; what needs a decision stays as it is.

    Phrases that cannot be read or that another type has are dropped, unless nothing would be left; a type
    with one phrase takes the built-in phrases of its name where these are told apart from the other types;
    causes and actions that are not given come from the built-in type of its name or of a phrase.
    """
    taken: set[str] = set()
    defects = []
    for defect in vocabulary:
        kept = [p for p in _distinct(defect.phrases) if plain(p) not in taken and not reader.refusal(p)]
        taken |= set(map(plain, kept))
        known = _namesake(defect) or defect
        facts = {key: getattr(defect, key) or getattr(known, key) for key in ("causes", "actions")}
        defects.append(replace(defect, phrases=tuple(kept) or defect.phrases, **facts))
    draft = Vocabulary(tuple(defects))
    readable = _readable(reader, draft) if reader.reads_names else None
    if readable is None:
        return draft
    fuller = {i.defects[0]: i.alternatives for i in _thin(reader, readable, reader.states(readable)[1])}
    return Vocabulary(tuple(_fuller(defect, fuller.get(defect.name, ())) for defect in draft))


# What is written


def _written_twice(vocabulary: Vocabulary) -> Iterable[Finding]:
    owner: dict[str, tuple[str, str]] = {}
    for defect in vocabulary:
        for phrase in defect.phrases:
            name, first = owner.setdefault(plain(phrase), (defect.name, phrase))
            if name != defect.name:
                yield Finding(
                    "twice", "warning", (name, defect.name), (first, phrase),
                    f"{name!r} and {defect.name!r} share the phrase {phrase!r}",
                    "a picture of it fits both types, so each takes half of the other's finds",
                    f"leave it to one of them, or merge {name!r} and {defect.name!r}",
                )  # fmt: skip
            elif first != phrase:
                yield Finding(
                    "variant", "warning", (name,), (first, phrase),
                    f"{name!r}: {first!r} and {phrase!r} are one phrase but for its ending or capitals",
                    "phrases are averaged, so this one counts twice and the others less",
                    f"keep {first!r} and drop {phrase!r}",
                )  # fmt: skip


def _bare(vocabulary: Vocabulary) -> Iterable[Finding]:
    for defect in vocabulary:
        missing = [key for key in ("causes", "actions") if not getattr(defect, key)]
        if missing:
            known = _namesake(defect)
            yield Finding(
                "bare", "hint", (defect.name,), (),
                f"{defect.name!r} has no {' and no '.join(missing)}; its severity is {defect.severity}",
                "the report then says what was found, but not what to do about it",
                f"take over those of the built-in type {known.name!r}, or write your own"
                if known else "write them in the vocabulary file; major is the severity where none is given",
                (known.name,) if known else (),
            )  # fmt: skip


def _namesake(defect: Defect) -> Defect | None:
    """The known type of this name, else of the first phrase that is known."""
    found = (builtin().find(words) for words in (defect.name, *defect.phrases))
    return next((known for known in found if known is not None), None)


def _distinct(phrases: Iterable[str]) -> list[str]:
    return list({plain(phrase): phrase for phrase in reversed(tuple(phrases))}.values())[::-1]


# What the model can read


def _names_not_read(vocabulary: Vocabulary) -> Finding:
    return Finding(
        "unread", "warning", vocabulary.names, (),
        "this model does not read the names of defects",
        "it was made to tell defective from good only; every type gets the same map",
        "use another model, such as the embedded one, if the type matters",
    )  # fmt: skip


def _unread(reader: Reader, vocabulary: Vocabulary) -> Iterable[Finding]:
    for defect in vocabulary:
        spelled = {phrase: reader.spelled(phrase) for phrase in defect.phrases}
        for phrase in defect.phrases:
            unknown = reader.unknown(phrase)
            if refusal := reader.refusal(phrase):
                yield Finding(
                    "unreadable", "warning", (defect.name,), (phrase,),
                    f"{defect.name!r}: the model cannot take the phrase {phrase!r}",
                    f"{refusal.split(';')[0]}; an inspection with it stops with an error",
                    "write a few plain English words, of how it looks rather than of where it is",
                )  # fmt: skip
            elif unknown:
                yield Finding(
                    "unreadable", "warning", (defect.name,), (phrase,),
                    f"{defect.name!r}: unknown words in {phrase!r}: {', '.join(unknown)}",
                    "the model reads the rest of the phrase and a blank for these",
                    "use plain English words",
                )  # fmt: skip
            elif spelled[phrase] and not reader.understands(phrase):
                yield _spelled(defect, phrase, spelled[phrase], alone=all(spelled.values()))


def _spelled(defect: Defect, phrase: str, words: list[str], *, alone: bool) -> Finding:
    return Finding(
        "spelled", "warning" if alone else "hint", (defect.name,), (phrase,),
        f"{defect.name!r}: the model knows {', '.join(words)} only in {SPELLED} or more pieces",
        "spelled words are understood less often than whole ones"
        + (", and this type has no other phrase" if alone else ""),
        "add a phrase of common words" if alone else "check with dapo defects show what it is taken for",
    )  # fmt: skip


def _readable(reader: Reader, vocabulary: Vocabulary) -> Vocabulary | None:
    """The vocabulary without the phrases that the model refuses; None if nothing is left."""
    kept = [(defect, tuple(p for p in defect.phrases if not reader.refusal(p))) for defect in vocabulary]
    defects = tuple(replace(defect, phrases=phrases) for defect, phrases in kept if phrases)
    return Vocabulary(defects) if defects else None


# What the model tells apart


def _confused(reader: Reader, vocabulary: Vocabulary, states: States) -> Iterable[Finding]:
    """Pairs of types that are alike or close, and single phrases that mean another type."""
    scale, cosines = reader.scale, states @ states.T
    pairs = {(i, j): float(cosines[i, j]) for i, j in combinations(range(len(vocabulary)), 2)}
    for (i, j), cosine in sorted(pairs.items(), key=lambda item: -item[1]):
        if cosine >= scale.near:
            yield _pair(reader, vocabulary, states, (i, j), cosine)
    for i, defect in enumerate(vocabulary):
        if len(defect.phrases) > 1:
            yield from _strays(reader, vocabulary, states, i)


def _pair(
    reader: Reader, vocabulary: Vocabulary, states: States, pair: tuple[int, int], cosine: float
) -> Finding:
    i, j = pair
    one, two = vocabulary[i], vocabulary[j]
    alike = cosine >= reader.scale.alike
    options = reader.alternatives(states[j], np.delete(states, j, 0))
    usual = reader.scale.similarity(reader.scale.alike)
    chance = (
        "which of the two names a find gets then says little" if alike else "names of finds may be swapped"
    )
    return Finding(
        "alike" if alike else "close", "warning" if alike else "hint", (one.name, two.name), (),
        f"{one.name!r} and {two.name!r} {'cannot be told apart' if alike else 'are hard to tell apart'}: "
        f"similarity {reader.scale.similarity(cosine)}",
        f"two wordings of one and the same type are typically {usual} similar to this model; {chance}",
        f"merge them under one name, or put what sets {two.name!r} apart into its phrases"
        + (f"; built-in types near it that are told apart: {', '.join(options)}" if options else ""),
        options,
    )  # fmt: skip


def _strays(reader: Reader, vocabulary: Vocabulary, states: States, i: int) -> Iterable[Finding]:
    """Phrases of type i that are alike another type and nearer to it than to the rest of their own."""
    defect = vocabulary[i]
    phrases = reader.phrases(defect.phrases)
    for p, phrase in enumerate(defect.phrases):
        towards = states @ phrases[p]
        towards[i] = _mean(np.delete(phrases, p, 0)) @ phrases[p]
        j = int(towards.argmax())
        if j != i and towards[j] >= reader.scale.alike and states[i] @ states[j] < reader.scale.alike:
            yield Finding(
                "stray", "warning", (defect.name, vocabulary[j].name), (phrase,),
                f"{phrase!r} of {defect.name!r} means {vocabulary[j].name!r} to this model: similarity "
                f"{reader.scale.similarity(float(towards[j]))}, to its own type "
                f"{reader.scale.similarity(float(towards[i]))}",
                f"it pulls {defect.name!r} towards {vocabulary[j].name!r}",
                f"drop it or move it to {vocabulary[j].name!r}",
            )  # fmt: skip


def _near_normal(reader: Reader, vocabulary: Vocabulary, normal: States) -> Iterable[Finding]:
    for defect in vocabulary:
        cosines = reader.phrases(defect.phrases) @ normal
        near = [p for p, c in zip(defect.phrases, cosines, strict=True) if c >= reader.scale.normal]
        if near:
            yield Finding(
                "normal", "warning", (defect.name,), tuple(near),
                f"{defect.name!r}: to this model {', '.join(map(repr, near))} sounds like a good part",
                "it stands nearer to words for flawless parts than to those for defects, so the type hardly "
                "ever wins; not, no and without are often read over",
                "say what is there to be seen instead of what is not",
            )  # fmt: skip


def _thin(reader: Reader, vocabulary: Vocabulary, states: States) -> Iterable[Finding]:
    """Types of one phrase for which the built-in vocabulary has more; said only where these are apart."""
    for i, defect in enumerate(vocabulary):
        entry = builtin().find(defect.name)
        if entry is None or len(defect.phrases) > 1:
            continue
        more = _fuller(defect, [p for p in entry.phrases if not reader.refusal(p)]).phrases
        _, (state,) = reader.states(Vocabulary((replace(defect, phrases=more),)))
        others = np.delete(states, i, 0) @ state
        if len(more) > 1 and others.max(initial=-1.0) < reader.scale.alike:
            yield Finding(
                "thin", "hint", (defect.name,), defect.phrases,
                f"{defect.name!r} has one phrase; the built-in vocabulary has {len(more)}",
                "several phrases are averaged: the answer depends less on one way to say it",
                f"phrases: [{', '.join(more)}]",
                more,
            )  # fmt: skip


def _fuller(defect: Defect, phrases: Iterable[str]) -> Defect:
    return replace(defect, phrases=tuple(_distinct((*defect.phrases, *phrases))))


def _one_each(phrases: Sequence[str]) -> Vocabulary:
    return Vocabulary(tuple(Defect(f"{i}", (text,)) for i, text in enumerate(phrases)))


def _words(phrase: str) -> list[str]:
    return re.findall(r"[^\W_]+", phrase)


def _mean(states: States) -> States:
    mean = states.mean(0)
    return mean / np.linalg.norm(mean)


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.level == "hint"))

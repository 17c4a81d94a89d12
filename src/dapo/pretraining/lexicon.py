"""The trade's language: defect types, the phrases people use for them, and the words around them.

In: ``lexicon.yaml`` beside this file (or a file of the same form). Out: a frozen `Lexicon`. Some phrases of a
type are held out, so that a model taught on the others can be asked about words it has never been told. No
torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dapo.errors import DataError

__all__ = ["NORMAL", "TEMPLATES", "DefectType", "Lexicon", "fill"]

NORMAL = "normal"  # the id under which the flawless phrases answer
GENERAL = "general"  # the group of the catch-all types (damage, defect)
_BUILTIN = Path(__file__).with_name("lexicon.yaml")

# Sentences a phrase may stand in: {phrase}, {material}, {surface} and {object} are filled in.
TEMPLATES = (
    "{phrase}",
    "{phrase} anomaly object",
    "{phrase} object",
    "{phrase} {object}",
    "photo of a {phrase} {object}",
    "a {material} {surface} with {phrase}",
    "photo of a {object} with {phrase}",
    "a photo of {phrase} on a {material} {surface}",
    "{phrase} on the {object}",
    "{material} {surface}, {phrase}",
    "the {object} shows {phrase}",
    "a {material} {object}: {phrase}",
    "close-up of {phrase}",
)


@dataclass(frozen=True)
class DefectType:
    """One kind of flaw: `group` names types of overlapping looks, `visual` the generator's family or None.

    phrases: those that may be taught, the plainest first.
    """

    id: str
    name: str
    group: str
    visual: str | None
    phrases: tuple[str, ...]
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lexicon:
    """Defect types and the flawless state with their phrases; names of materials, surfaces and objects."""

    types: tuple[DefectType, ...]
    normal: tuple[str, ...]
    materials: tuple[str, ...]
    surfaces: tuple[str, ...]
    objects: tuple[str, ...]
    normal_held_out: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Type ids in file order, without `NORMAL`."""
        return tuple(kind.id for kind in self.types)

    def __getitem__(self, type_id: str) -> DefectType:
        """The type with this id or name; DataError lists the known ids."""
        for kind in self.types:
            if type_id in (kind.id, kind.name):
                return kind
        raise DataError(
            f"the lexicon has no defect type {type_id!r}; use one of its ids: {', '.join(self.ids)}"
        )

    def train_phrases(self, type_id: str) -> tuple[str, ...]:
        """The phrases of a type, or of the flawless state for `NORMAL`, that may be taught."""
        return self.normal if type_id == NORMAL else self[type_id].phrases

    def held_out(self, type_id: str) -> tuple[str, ...]:
        """The phrases that are never taught."""
        return self.normal_held_out if type_id == NORMAL else self[type_id].held_out

    def phrases(self, type_id: str) -> tuple[str, ...]:
        """Every phrase, the taught ones first."""
        return (*self.train_phrases(type_id), *self.held_out(type_id))

    def by_visual(self, visual: str) -> tuple[DefectType, ...]:
        """The types that the image generator draws with this family, in file order."""
        return tuple(kind for kind in self.types if kind.visual == visual)

    @property
    def visuals(self) -> tuple[str, ...]:
        """The generator's families that some type uses, in order of first use."""
        return tuple(dict.fromkeys(kind.visual for kind in self.types if kind.visual is not None))

    def affinity(self, first: str, second: str) -> float:
        """The cosine at which two types should stand in the joint space.

        1 the same; 0.55 drawn alike; 0.35 one group; 0.15 distinct looks: what all flaws share, so that the
        flawless state can stand opposite each of them (-0.35). The catch-all group is nearer to everything.
        """
        if first == second:
            return 1.0
        groups = {self[one].group for one in (first, second) if one != NORMAL}
        if NORMAL in (first, second):
            return -0.55 if GENERAL in groups else -0.35
        if GENERAL in groups:
            return 0.75 if len(groups) == 1 else 0.3
        one, two = self[first], self[second]
        if one.visual is not None and one.visual == two.visual:
            return 0.55
        return 0.35 if one.group == two.group else 0.15

    @classmethod
    def from_yaml(cls, path: str | Path) -> Lexicon:
        """Read a lexicon file; DataError names the type or list that is wrong."""
        path = Path(path)
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise DataError(
                f"cannot read the lexicon {path.name}: {error}; give a readable YAML file"
            ) from error
        if not isinstance(raw, dict) or raw.get("format") != 1:
            raise DataError(f"{path.name}: expected a lexicon of format 1; start the file with 'format: 1'")
        types = tuple(_read_type(entry, path.name) for entry in raw.get("types") or ())
        lists = {key: _read_words(raw.get(key), key, path.name) for key in _LISTS}
        if "normal_held_out" in raw:
            lists["normal_held_out"] = _read_words(raw["normal_held_out"], "normal_held_out", path.name)
        lexicon = cls(types=types, **lists)
        _check_unique((kind.id for kind in types), "type id", path.name)
        _check_unique(
            (phrase for type_id in (*lexicon.ids, NORMAL) for phrase in lexicon.phrases(type_id)),
            "phrase",
            path.name,
        )
        return lexicon

    @classmethod
    def builtin(cls) -> Lexicon:
        """The lexicon that ships with the package."""
        return _builtin()


_LISTS = ("normal", "materials", "surfaces", "objects")


@lru_cache(maxsize=1)
def _builtin() -> Lexicon:
    return Lexicon.from_yaml(_BUILTIN)


def _read_type(entry: Any, file: str) -> DefectType:
    expected = {"id", "name", "group", "visual", "phrases"}
    if not isinstance(entry, dict) or set(entry) - {"held_out"} != expected:
        raise DataError(
            f"{file}: a type needs {sorted(expected)} and may have held_out, got {entry!r:.120}; "
            "correct that entry"
        )
    for key in ("id", "name", "group"):
        if not isinstance(entry[key], str) or not entry[key]:
            raise DataError(
                f"{file}: type {entry['id']!r}: {key} must be text, got {entry[key]!r}; write it in quotes"
            )
    if entry["id"] == NORMAL:
        raise DataError(f"{file}: {NORMAL!r} is reserved for the flawless phrases; choose another type id")
    if not (entry["visual"] is None or isinstance(entry["visual"], str)):
        raise DataError(f"{file}: type {entry['id']!r}: visual must be text or null, got {entry['visual']!r}")
    phrases = _read_words(entry["phrases"], f"phrases of {entry['id']!r}", file)
    held_out: tuple[str, ...] = ()
    if "held_out" in entry:
        held_out = _read_words(entry["held_out"], f"held_out of {entry['id']!r}", file)
    return DefectType(entry["id"], entry["name"], entry["group"], entry["visual"], phrases, held_out)


def _read_words(value: Any, what: str, file: str) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(word, str) and word.strip() for word in value)
    ):
        raise DataError(
            f"{file}: {what} must be a list of non-empty texts, got {value!r:.120}; add or quote them"
        )
    return tuple(value)


def _check_unique(words: Iterable[str], what: str, file: str) -> None:
    seen: set[str] = set()
    for word in words:
        if word.lower() in seen:
            raise DataError(f"{file}: the {what} {word!r} occurs twice; keep it in one place")
        seen.add(word.lower())


def fill(template: str, phrase: str, lexicon: Lexicon, choose: Callable[[Sequence[str]], str]) -> str:
    """A template with its phrase, and with material, surface and object chosen from the lexicon's lists."""
    return template.format(
        phrase=phrase,
        material=choose(lexicon.materials),
        surface=choose(lexicon.surfaces),
        object=choose(lexicon.objects),
    )

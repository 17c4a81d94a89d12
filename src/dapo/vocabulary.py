"""Defect types in the user's words: phrases for the model, severity, causes and actions for the report.

In: names, a comma list, or a YAML file. Out: a frozen ``Vocabulary`` of ``Defect``, checked once when built.
The file has one key, ``defects``: a list of names or of mappings with ``name`` and any of ``phrases``
(default: the name), ``severity``, ``causes``, ``actions``. For a type that the built-in vocabulary knows, by
name or by phrase, severity, causes and actions that are not given come from there. Phrases never do: the text
that the model reads is the text that the user wrote.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import yaml

from dapo.errors import VocabularyError

__all__ = ["Defect", "Severity", "Vocabulary", "builtin", "builtin_groups", "plain"]

Severity: TypeAlias = Literal["minor", "major", "critical"]

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
RESERVED = ("normal", "good", "ok", "unknown")  # states that every result has anyway
_KEYS = ("name", "phrases", "severity", "causes", "actions")
_YAML_SUFFIXES = (".yaml", ".yml")
_BUILTIN = Path(__file__).with_name("vocabulary.yaml")
# Ten times faster, for our own file; in a foreign one deep nesting would crash C instead of raising.
_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Defect:
    """One type of defect. ``phrases`` are encoded and averaged; without any, the name is the phrase.

    Spaces around and double spaces inside a text are removed, nothing else is changed.
    Raises ``VocabularyError`` for an empty or reserved name, a repeated phrase, an unknown severity, or a
    value that is not text.
    """

    name: str
    phrases: tuple[str, ...] = ()
    severity: Severity = "major"
    causes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name = _text(self.name, "name")
        if name.casefold() in RESERVED:
            raise VocabularyError(
                f"name: expected a defect, came {name!r}, a state that needs no entry; list defects only"
            )
        if self.severity not in SEVERITIES:
            came = _kind(self.severity)
            raise VocabularyError(
                f"{name!r}, severity: expected minor, major or critical, came {came}; choose one"
            )
        object.__setattr__(self, "name", name)
        for key in ("phrases", "causes", "actions"):
            object.__setattr__(self, key, _texts(getattr(self, key), f"{name!r}, {key}"))
        object.__setattr__(self, "phrases", self.phrases or (name,))
        if twice := _repeated(self.phrases):
            raise VocabularyError(
                f"{name!r}, phrases: expected different phrases, came {twice!r} twice; remove one"
            )


@dataclass(frozen=True)
class Vocabulary:
    """The defect types of an inspection, in order: at least one, no two of one name, capitals aside."""

    defects: tuple[Defect, ...]

    def __post_init__(self) -> None:
        defects = tuple(self.defects)
        if not defects:
            raise VocabularyError(
                'defects: expected at least one, came none; name some, such as "scratch, dent"'
            )
        for defect in defects:
            if not isinstance(defect, Defect):
                raise VocabularyError(
                    f"defects: expected Defect objects, came {_kind(defect)}; use Vocabulary.of for names"
                )
        if twice := _repeated(defect.name for defect in defects):
            raise VocabularyError(
                f"defects: expected different names, came {twice!r} twice; rename or merge them"
            )
        object.__setattr__(self, "defects", defects)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(defect.name for defect in self.defects)

    def __len__(self) -> int:
        return len(self.defects)

    def __iter__(self) -> Iterator[Defect]:
        return iter(self.defects)

    def __contains__(self, name: object) -> bool:
        return name in self.names or name in self.defects

    def __getitem__(self, key: int | str) -> Defect:
        """By position (``IndexError`` beyond the end) or by name (``VocabularyError`` when there is none)."""
        if isinstance(key, int):
            return self.defects[key]
        if key in self.names:
            return self.defects[self.names.index(key)]
        raise VocabularyError(
            f"expected a defect of this vocabulary, came {key!r}; {_nearest(key, self.names)}"
        )

    def find(self, words: str) -> Defect | None:
        """The type these words mean: by name, then by phrase; capitals, plural, - and _ do not count."""
        wanted = plain(words)
        for defect in self.defects:
            if plain(defect.name) == wanted:
                return defect
        meant = [defect for defect in self.defects if wanted in map(plain, defect.phrases)]
        return meant[0] if len(meant) == 1 else None

    @classmethod
    def of(cls, defects: Vocabulary | Defect | str | os.PathLike[str] | Iterable[str | Defect]) -> Vocabulary:
        """From a vocabulary (itself), names, ``Defect`` objects, "scratch, pin hole", or a YAML file's path.

        A text that ends in .yaml or .yml is a path; in a list every text is a name (so a server passes a
        list). ``Defect`` objects are taken as they are.
        """
        if isinstance(defects, Vocabulary):
            return defects
        if isinstance(defects, Defect):
            return cls((defects,))
        if isinstance(defects, os.PathLike):
            return cls.from_yaml(defects)
        if isinstance(defects, str):
            if defects.strip().lower().endswith(_YAML_SUFFIXES):
                return cls.from_yaml(defects.strip())
            return cls(tuple(_informed({"name": name}) for name in _split(defects)))
        if isinstance(defects, Mapping) or not isinstance(defects, Iterable):
            raise VocabularyError(
                f"defects: expected names, a comma list or a YAML file, came {type(defects).__name__}; "
                'pass a list such as ["scratch", "pin hole"]'
            )
        return cls(tuple(item if isinstance(item, Defect) else _informed({"name": item}) for item in defects))

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Reads a vocabulary file; a ``VocabularyError`` names the file, the entry and the key."""
        where, defects = f"'{path}'", []
        try:
            for number, item in enumerate(_items(Path(path)), start=1):
                where = f"'{path}', entry {number}"
                defects.append(_informed(_entry(item)))
            where = f"'{path}'"
            return cls(tuple(defects))
        except VocabularyError as error:
            raise VocabularyError(f"{where}: {error}") from error

    def to_yaml(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that ``from_yaml`` reads back as the same vocabulary, every key written out."""
        entries = [
            {key: list(value) if isinstance(value := getattr(d, key), tuple) else value for key in _KEYS}
            for d in self.defects
        ]
        text = yaml.safe_dump({"defects": entries}, sort_keys=False, allow_unicode=True, width=100)
        Path(path).write_text(text, encoding="utf-8", newline="\n")


@cache
def builtin() -> Vocabulary:
    """The vocabulary that comes with DAPO: the types of the public datasets and of common trades."""
    return Vocabulary(tuple(defect for defects in builtin_groups().values() for defect in defects))


@cache
def builtin_groups() -> Mapping[str, tuple[Defect, ...]]:
    """The built-in vocabulary by trade or kind; in its file an entry with only ``group`` starts one."""
    groups: dict[str, list[Defect]] = {}
    for item in _items(_BUILTIN, _FastLoader):
        if "group" in item:
            own = groups.setdefault(item["group"], [])
        else:
            own.append(Defect(**_entry(item)))
    return MappingProxyType({title: tuple(defects) for title, defects in groups.items()})


# Files


def _items(path: Path, loader: Any = yaml.SafeLoader) -> list[Any]:
    """What the file lists under ``defects``, not checked yet."""
    try:
        content = _content(loader(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        came = error.strerror or type(error).__name__
        raise VocabularyError(f"expected a vocabulary file, came: {came}; check the path") from error
    except UnicodeDecodeError as error:
        raise VocabularyError("expected UTF-8 text, came another encoding; save the file as UTF-8") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: the 32nd of a month
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "signs or nesting that it does not allow"
        raise VocabularyError(f"expected YAML, came {problem}{where}; correct that place") from error
    if not isinstance(content, dict) or list(content) != ["defects"]:
        came = ", ".join(map(str, content)) if isinstance(content, dict) else _kind(content)
        raise VocabularyError(f'expected the key "defects" and no other, came {came}; write a list under it')
    items = content["defects"]
    if not isinstance(items, list):
        raise VocabularyError(f'expected a list under "defects", came {_kind(items)}; start lines with "- "')
    return items


def _content(loader: Any) -> Any:
    """Plain YAML data. A key given twice is an error, where YAML readers keep the last without a word."""
    try:
        root = loader.get_single_node()
        _refuse_repeated_keys(root)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_repeated_keys(root: yaml.Node | None) -> None:
    waiting, seen = [root], set()  # an alias is the same node again: looked at once
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            if twice := _repeated(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                raise yaml.MarkedYAMLError(problem=f"the key {twice!r} twice", problem_mark=node.start_mark)
            waiting += [value for _, value in node.value]


def _entry(item: object) -> dict[str, Any]:
    """One item of the list as keyword arguments of ``Defect``; their values are checked there."""
    if isinstance(item, str):
        return {"name": item}
    if not isinstance(item, dict):
        raise VocabularyError(f"expected a name or keys with a name, came {_kind(item)}; put names in quotes")
    for key in item:
        if key not in _KEYS:
            raise VocabularyError(f"expected {', '.join(_KEYS)}, came {key!r}; {_nearest(str(key), _KEYS)}")
    if "name" not in item:
        raise VocabularyError(f"expected a name, came {', '.join(item) or 'nothing'}; add one")
    return {key: value for key, value in item.items() if value is not None or key == "name"}


def _informed(entry: Mapping[str, Any]) -> Defect:
    """The entry with what it does not say (never phrases) from the built-in type of that name."""
    known = builtin().find(entry["name"]) if isinstance(entry["name"], str) else None
    facts = {key: getattr(known, key) for key in ("severity", "causes", "actions")} if known else {}
    return Defect(**{**facts, **entry})


# Texts


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise VocabularyError(f"{where}: expected text, came {_kind(value)}; put it in quotes")
    text = " ".join(value.split())
    if not text:
        raise VocabularyError(f"{where}: expected words, came an empty text; write or remove it")
    if not text.isprintable():
        raise VocabularyError(
            f"{where}: expected printable text, came {text!r}; remove the control characters"
        )
    return text


def _texts(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, (list, tuple)):
        raise VocabularyError(f"{where}: expected a list of texts, came {_kind(value)}; write it as a list")
    return tuple(_text(item, where) for item in value)


def _split(names: str) -> list[str]:
    return names.split(",") if names.strip() else []


def _repeated(texts: Iterable[str]) -> str | None:
    """The first text that has come before, apart from capitals."""
    seen: set[str] = set()
    for text in texts:
        if text.casefold() in seen:
            return text
        seen.add(text.casefold())
    return None


def plain(words: str) -> str:
    """Small letters, spaces for - and _, the last word singular: for looking up, never for the model."""
    text = " ".join(words.casefold().replace("-", " ").replace("_", " ").split())
    if text.endswith(("sses", "shes", "ches", "xes")):
        return text[:-2]
    return text[:-1] if text.endswith("s") and not text.endswith(("ss", "us", "is")) else text


def _nearest(word: str, words: Iterable[str]) -> str:
    known = list(words)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"


def _kind(value: object) -> str:
    """A value as an error names it: short ones as they are, containers by their kind."""
    return {dict: "keys", list: "a list", type(None): "nothing"}.get(type(value)) or str(value)[:60]

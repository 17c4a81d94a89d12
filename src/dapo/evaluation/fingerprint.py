"""What tells one dataset from another of the same names: the content of its files, or their time stamps.

In: samples; out: nested plain lists to hash. `content` is the same wherever the files lie; `stamp` opens
nothing and speaks of this machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dapo.data import Sample

TAIL = 65536  # bytes: the end of a PNG holds a checksum of all its pixels; a huge set costs one read a file

OfFile = Callable[[Path], Any]


def content(path: Path) -> list[Any]:
    """[name, size, hash of the last 64 KiB]; [name] of a file that cannot be read."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(0, size - TAIL))
            return [path.name, size, hashlib.sha256(file.read()).hexdigest()[:16]]
    except OSError:
        return [path.name]


def stamp(path: Path) -> list[Any]:
    """[full path, size, time of the last change in ns]; the path alone of a file that is not there."""
    try:
        facts = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), facts.st_size, facts.st_mtime_ns]


def data_facts(samples: Sequence[Sample], of_file: OfFile = content) -> list[Any]:
    """Of each sample its product, split, group, image and masks; null where nobody drew any."""
    return [
        [
            sample.product,
            sample.split,
            sample.group,
            list(sample.types),
            of_file(sample.image),
            described(sample.masks, of_file),
            described(sample.joint, of_file),
        ]
        for sample in samples
    ]


def described(value: Any, of_file: OfFile = content) -> Any:
    """A mask's source as plain values: files by `of_file`, annotations by what they draw."""
    if isinstance(value, Path):
        return of_file(value)
    if isinstance(value, Mapping):
        return {str(name): described(inner, of_file) for name, inner in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [described(inner, of_file) for inner in value]
    if isinstance(value, np.ndarray):
        return [list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]]
    if is_dataclass(value):
        named = ((field.name, getattr(value, field.name)) for field in fields(value))
        own = {  # a source that is text says only where it was drawn
            name: described(inner, of_file)
            for name, inner in named
            if not (name == "source" and isinstance(inner, str))
        }
        return [type(value).__name__, own]
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__


def short_hash(value: Any, letters: int = 16) -> str:
    """The first hexadecimal letters of the SHA-256 of plain values."""
    whole = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()[:letters]

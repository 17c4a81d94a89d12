"""JSON Lines: one record of schema version 1 for each image, written as it comes.

In: inspections and failures. Out: a UTF-8 file, one object a line, flushed line by line, so a run that is cut
off leaves whole lines behind and can go on with ``append=True``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TextIO

from dapo.inspection import Failure, Inspection

__all__ = ["JsonlWriter"]


class JsonlWriter:
    """Records to ``path``, or to a text stream that is already open (standard output)."""

    def __init__(
        self, path: str | Path | TextIO, *, append: bool = False, shape: Literal["polygon", "rle"] = "polygon"
    ) -> None:
        self.target = path
        self.append = append
        self.shape = shape
        self._stream: TextIO | None = None

    def open(self) -> JsonlWriter:
        if isinstance(self.target, (str, Path)):
            path = Path(self.target)
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.append and path.exists():
                _drop_broken_line(path)
            # a file name that is not UTF-8 holds lone surrogates: written as \udcff, which JSON reads back
            self._stream = path.open(
                "a" if self.append else "w", encoding="utf-8", errors="backslashreplace", newline="\n"
            )
        else:
            self._stream = self.target
        return self

    def write(self, result: Inspection | Failure) -> None:
        if self._stream is None:
            self.open()
        assert self._stream is not None
        record = result.to_dict(self.shape) if isinstance(result, Inspection) else result.to_dict()
        # standard output may not be UTF-8, so there everything beyond ASCII is escaped
        ascii_only = self._stream is self.target
        line = json.dumps(record, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"))
        self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not None and self._stream is not self.target:
            self._stream.close()
        self._stream = None

    def __enter__(self) -> JsonlWriter:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()


def _drop_broken_line(path: Path) -> None:
    """Cut what follows the last line break: the start of a record whose writing was interrupted."""
    with path.open("rb+") as stream:
        content_end = stream.seek(0, 2)
        position, tail = content_end, b""
        while position > 0 and b"\n" not in tail:
            step = min(65536, position)
            position -= step
            stream.seek(position)
            tail = stream.read(step) + tail
        stream.truncate(position + tail.rfind(b"\n") + 1)

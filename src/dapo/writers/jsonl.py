"""JSON Lines: one record of schema version 1 for each image, written as it comes.

In: inspections and failures. Out: a UTF-8 file, one object a line, each written at once and whole: a run that
is cut off, even by a full disk, leaves whole lines behind and can go on with ``append=True``. ``read_jsonl``
reads them back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, TextIO

from dapo.inspection import Failure, Inspection, Shape
from dapo.whole import replacing, telling_path

__all__ = ["JsonlWriter", "read_jsonl", "rewrite"]

Place = tuple[Path, int]  # a line: its file and where in it it starts, in bytes


class JsonlWriter:
    """Records to ``path``, or to a text stream that is already open (standard output)."""

    def __init__(self, path: str | Path | TextIO, *, append: bool = False, shape: Shape = "polygon") -> None:
        self.target = path
        self.append = append
        self.shape = shape
        self._file: FileIO | None = None
        self.end = 0  # of the last whole line, in bytes

    def open(self) -> JsonlWriter:
        if isinstance(self.target, (str, Path)):
            path = Path(self.target)
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.append and path.exists():
                _drop_broken_line(path)
            self._file = FileIO(path, "a" if self.append else "w")
            self.end = self._file.seek(0, os.SEEK_END)
        return self

    def write(self, result: Inspection | Failure) -> None:
        record = result.to_dict(self.shape) if isinstance(result, Inspection) else result.to_dict()
        if not isinstance(self.target, (str, Path)):
            # standard output may not be UTF-8, so there everything beyond ASCII is escaped
            self.target.write(_line(record, ascii_only=True))
            self.target.flush()
            return
        if self._file is None:
            self.open()
        # a file name that is not UTF-8 holds lone surrogates: written as \\udcff, which JSON reads back
        self._put(_line(record, ascii_only=False).encode("utf-8", "backslashreplace"))

    def _put(self, line: bytes) -> None:
        """The whole line or, when that fails, none of it."""
        assert self._file is not None
        written = 0
        try:
            with telling_path(str(self.target)):
                while written < len(line):
                    written += self._file.write(line[written:]) or 0
        except BaseException:
            self._file.truncate(self.end)
            raise
        self.end += written

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def __enter__(self) -> JsonlWriter:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(where its line starts in bytes, record) of each whole line; what is no record is skipped."""
    start = 0
    with Path(path).open("rb") as stream:
        for line in stream:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict) and isinstance(record.get("image"), str) and line.endswith(b"\n"):
                yield start, record
            start += len(line)


def rewrite(path: Path, lines: Iterable[Place]) -> None:
    """Replaces ``path`` by these lines of it or of other files, in this order."""
    open_files: dict[Path, Any] = {}
    try:
        with replacing(path) as stream:
            for file, start in lines:
                source = open_files.get(file) or open_files.setdefault(file, file.open("rb"))
                source.seek(start)
                stream.write(source.readline())
            for source in open_files.values():  # Windows replaces no file that is open
                source.close()
    finally:
        for source in open_files.values():
            source.close()


def _line(record: dict[str, Any], *, ascii_only: bool) -> str:
    return json.dumps(record, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":")) + "\n"


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

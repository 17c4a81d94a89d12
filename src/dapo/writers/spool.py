"""Rows that wait on disk until a file can be written whole, so memory does not grow with the run.

In: rows of JSON as images come. Out: the same rows, in order, as often as asked. The file has no name and
vanishes with the process. `Spooled` is what writers share whose files are written when the run ends.
"""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeVar

from dapo.inspection import Failure, Inspection
from dapo.whole import telling_path

__all__ = ["Spool", "Spooled"]

Self = TypeVar("Self", bound="Spooled")


class Spool:
    """Rows on their way to ``target``, which errors name."""

    def __init__(self, target: str | Path) -> None:
        self.target = target
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def add(self, row: Any) -> None:
        with telling_path(self.target):
            self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")

    def __iter__(self) -> Iterator[Any]:
        with telling_path(self.target):
            self._file.seek(0)
            for line in self._file:
                yield json.loads(line)
            self._file.seek(0, 2)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


class Spooled(ABC):
    """A writer of files that are written whole at the end, also of a run that was cut short.

    targets: the files, a spool each. A subclass says what an image adds (`add`) and how the spools become
    files (`finish`); `begin` comes before the first image.
    """

    def __init__(self, *targets: Path) -> None:
        self.targets = targets
        self._spools: tuple[Spool, ...] = ()

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def add(self, result: Inspection | Failure, *spools: Spool) -> None: ...

    @abstractmethod
    def finish(self, *spools: Spool) -> None: ...

    def open(self: Self) -> Self:
        for target in self.targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        self._spools = tuple(Spool(target) for target in self.targets)
        self.begin()
        return self

    def write(self, result: Inspection | Failure) -> None:
        if not self._spools:
            self.open()
        self.add(result, *self._spools)

    def close(self) -> None:
        spools, self._spools = self._spools, ()
        if spools:
            with ExitStack() as stack:
                self.finish(*(stack.enter_context(spool) for spool in spools))

    def __enter__(self: Self) -> Self:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

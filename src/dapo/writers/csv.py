"""CSV for spreadsheets: ``results.csv`` with a row for each image, ``regions.csv`` with one for each region.

In: inspections and failures. Out: two UTF-8 files with a byte order mark, by which Excel knows the encoding,
commas and CRLF (RFC 4180), numbers with a point. A text that a spreadsheet would run as a formula (it starts
with = + - @, tab or carriage return) gets an apostrophe in front. Both files are written at the end, when all
columns are known, and replace older ones whole.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dapo.inspection import Failure, Inspection
from dapo.whole import replacing
from dapo.writers.spool import Spool, Spooled
from dapo.writers.tables import IMAGE_COLUMNS, REGION_COLUMNS, image_row, region_rows

__all__ = ["CsvWriter"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")


class CsvWriter(Spooled):
    """``results.csv`` and ``regions.csv`` in ``folder``; ``severities`` by type name."""

    def __init__(self, folder: str | Path, severities: Mapping[str, str] | None = None) -> None:
        super().__init__(Path(folder) / "results.csv", Path(folder) / "regions.csv")
        self.severities = dict(severities or {})

    def begin(self) -> None:
        self._columns = dict.fromkeys(IMAGE_COLUMNS)

    def add(self, result: Inspection | Failure, *spools: Spool) -> None:
        images, regions = spools
        row = image_row(result)
        self._columns.update(dict.fromkeys(row))
        images.add(row)
        for region in region_rows(result, self.severities):
            regions.add(region)

    def finish(self, *spools: Spool) -> None:
        for spool, columns in zip(spools, (list(self._columns), list(REGION_COLUMNS)), strict=True):
            with replacing(spool.target) as stream:
                write_table(stream, columns, spool)


def write_table(stream: IO[bytes], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Header and rows to a binary stream."""
    stream.write("\ufeff".encode())
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow([harmless(column) for column in columns])
    for row in rows:
        table.writerow([harmless(row.get(column, "")) for column in columns])
        if text.tell() > 1 << 20:
            _drain(text, stream)
    _drain(text, stream)


def harmless(cell: Any) -> Any:
    """The cell, quoted with an apostrophe if a spreadsheet would take it for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _drain(text: io.StringIO, stream: IO[bytes]) -> None:
    # a file name that is not UTF-8 holds lone surrogates
    stream.write(text.getvalue().encode("utf-8", "backslashreplace"))
    text.seek(0)
    text.truncate()

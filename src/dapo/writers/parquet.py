"""Parquet for data frames: the two tables of ``tables`` with their types, read by pandas, DuckDB, Spark.

In: inspections and failures. Out: ``results.parquet`` and ``regions.parquet``, written at the end in groups
of rows, so memory does not grow with the run. Needs pyarrow (``pip install 'dapo[parquet]'``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dapo.errors import DependencyError
from dapo.inspection import Failure, Inspection
from dapo.whole import replacing
from dapo.writers.spool import Spool, Spooled
from dapo.writers.tables import IMAGE_COLUMNS, REGION_COLUMNS, image_row, region_rows

__all__ = ["ParquetWriter"]

GROUP = 4096  # rows held at a time


class ParquetWriter(Spooled):
    """``results.parquet`` and ``regions.parquet`` in ``folder``; ``severities`` by type name."""

    def __init__(self, folder: str | Path, severities: Mapping[str, str] | None = None) -> None:
        _arrow()  # missing: said before any image is inspected
        super().__init__(Path(folder) / "results.parquet", Path(folder) / "regions.parquet")
        self.severities = dict(severities or {})

    def begin(self) -> None:
        self._columns: dict[str, type] = dict(IMAGE_COLUMNS)

    def add(self, result: Inspection | Failure, *spools: Spool) -> None:
        images, regions = spools
        row = _unicode(image_row(result))
        self._columns |= {name: float for name in row if name not in self._columns}
        images.add(row)
        for region in region_rows(result, self.severities):
            regions.add(_unicode(region))

    def finish(self, *spools: Spool) -> None:
        for spool, columns in zip(spools, (self._columns, REGION_COLUMNS), strict=True):
            with replacing(spool.target) as stream:
                write_table(stream, columns, iter(spool))


def write_table(stream: IO[bytes], columns: Mapping[str, type], rows: Iterator[dict[str, Any]]) -> None:
    """Rows to a binary stream, a group at a time; what a row does not have is null."""
    arrow, parquet = _arrow()
    kinds = {str: arrow.string(), float: arrow.float64(), int: arrow.int64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(stream, schema) as table:
        while group := list(islice(rows, GROUP)):
            table.write_table(arrow.Table.from_pylist(group, schema=schema))


def _unicode(row: dict[str, Any]) -> dict[str, Any]:
    """File names that are not UTF-8 hold lone surrogates, which Parquet cannot."""
    return {
        name.encode("utf-8", "backslashreplace").decode(): value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, str)
        else value
        for name, value in row.items()
    }


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError.for_extra("parquet", "pyarrow") from error
    return pyarrow, pyarrow.parquet

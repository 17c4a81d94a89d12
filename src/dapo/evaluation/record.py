"""An evaluation's folder: what people and programs read, and the record that tells it is whole.

evaluation.json   all figures, the protocol, the configuration's hash; written last
report.md         the tables
products.csv, types.csv, images.csv
confusion.png, curves.png   where pictures are asked for
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dapo.errors import ConfigError, DataError
from dapo.evaluation.run import Evaluation
from dapo.evaluation.tables import images_csv, products_csv, types_csv
from dapo.whole import replaced

RECORD = "evaluation.json"
FILES = (RECORD, "report.md", "products.csv", "types.csv", "images.csv", "confusion.png", "curves.png")


def write_evaluation(
    evaluation: Evaluation, folder: Path, *, pictures: bool = False, key: str | None = None
) -> Path:
    """Write the folder's files, each in one step; those of an evaluation before are removed. Returns the
    record's path.

    key: tells what was evaluated, see `read_evaluation`. Raises ConfigError where a file cannot be written,
    or when pictures are asked for and matplotlib is not installed.
    """
    make_folder(folder)
    for name in FILES:  # the record first: until all is there, there is none
        (folder / name).unlink(missing_ok=True)
    write_text(folder / "report.md", evaluation.to_markdown())
    write_text(folder / "products.csv", products_csv(evaluation))
    write_text(folder / "types.csv", types_csv(evaluation))
    if evaluation.images:
        write_text(folder / "images.csv", images_csv(evaluation))
    if pictures:
        from dapo.evaluation.pictures import draw_confusion, draw_curves

        with writing(folder / "confusion.png") as partial:
            draw_confusion(evaluation, partial)
        with writing(folder / "curves.png") as partial:
            draw_curves(evaluation, partial)
    record = evaluation.to_dict() | ({} if key is None else {"key": key})
    write_text(folder / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return folder / RECORD


def read_evaluation(folder: Path, key: str | None = None) -> Evaluation | None:
    """The evaluation of a folder; None when there is none, or one of another key. Raises DataError."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"expected the record of an evaluation in {path}; it cannot be read ({error}). Remove it."
        ) from error
    return Evaluation.from_dict(record) if key is None or record.get("key") == key else None


def make_folder(folder: Path) -> None:
    """The folder, proven to take files. Raises ConfigError when it does not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / ".trial"
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise ConfigError(
            f"expected a folder that can be written in: {folder}; {error.strerror or error}. Choose another "
            "--out, or make room."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write in one step, so that a reader sees the old file or the new one. Raises ConfigError."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what is there in the end takes the place of `path`.

    Raises ConfigError, which names the file, for what the disk refuses; nothing half-written stays.
    """
    try:
        with replaced(path) as partial:
            yield partial
    except OSError as error:
        raise ConfigError(
            f"expected to write {path}; {error.strerror or error}. Make room, or choose another --out; "
            "what is finished is kept."
        ) from error

"""Whole files: written under another name and renamed when they are complete.

In: a path. Out: a name or a stream to write to, or a picture saved there. Whatever goes wrong, an
interruption or a full disk, the path keeps what it held before and no half of the new one stays behind.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from PIL import Image

__all__ = ["replaced", "replacing", "save_picture", "staged", "telling_path"]

PARTIAL = ".part"


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A name beside ``path``; what is there when the block ends without an error takes its place."""
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        if partial.exists():
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes ``path`` when the block ends without an error."""
    with replaced(path) as partial, telling_path(path), partial.open("wb") as stream:
        yield stream


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to be filled and renamed to it, or moved from; gone when the block ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        staging.chmod(0o755)  # mkdtemp makes private folders
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def save_picture(picture: Image.Image, path: str | Path, kind: str, **options: Any) -> None:
    """A picture as a whole file; ``kind`` and ``options`` are Pillow's.

    It is encoded in memory first: Pillow writes past a file's stream and misses that a last block did not
    fit.
    """
    encoded = io.BytesIO()
    picture.save(encoded, kind, **options)
    with replacing(path) as stream:
        stream.write(encoded.getbuffer())


@contextmanager
def telling_path(path: str | Path) -> Iterator[None]:
    """An OSError from inside names ``path``: the system tells a full disk without saying of what file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise

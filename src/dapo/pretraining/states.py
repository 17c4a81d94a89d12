"""Where a stage of pretraining stands: a folder of small files, complete or not there at all.

    OUT/side-stage-00001250/1-of-6.piece ...   what torch stores of the state after 1,250 steps, cut in pieces

A machine that is lent by the minute gives back small files only, and may be taken away at any moment. So no
piece is larger than 15 MiB, a state has a folder of its own until it is complete, and the state before it is
removed after that. The pieces can be copied to another machine, where the run goes on.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dapo.errors import DataError
from dapo.whole import staged, telling_path

PIECE = 15 * 2**20  # bytes


def keep_state(path: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write the state after so many steps as `path`-STEP, a folder, in place of an older one."""
    target = path.with_name(f"{path.name}-{step:08d}")
    stored = io.BytesIO()
    torch.save(dict(state), stored)
    content = stored.getbuffer()
    pieces = [content[i : i + PIECE] for i in range(0, len(content), PIECE)]
    with staged(target) as folder, telling_path(target):
        for number, piece in enumerate(pieces, 1):
            (folder / f"{number}-of-{len(pieces)}.piece").write_bytes(piece)
        if not target.exists():  # else the run was at this step before
            os.replace(folder, target)
    unfinished = path.parent.glob(f".{path.name}-*")  # of a run that was killed
    for older in (*_states(path), *unfinished):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


def kept_state(path: Path) -> dict[str, Any] | None:
    """The newest state kept for `path`, on the CPU, or None.

    Raises DataError if pieces of it are missing or broken.
    """
    states = _states(path)
    if not states:
        return None
    newest = max(states)
    there = {piece.name: piece for piece in newest.glob("*-of-*.piece")}
    count = max((int(name.removesuffix(".piece").split("-of-")[1]) for name in there), default=1)
    wanted = [f"{number}-of-{count}.piece" for number in range(1, count + 1)]
    if missing := [name for name in wanted if name not in there]:
        raise DataError(
            f"{newest} lacks {', '.join(missing)} of {count} pieces; copy the rest of the folder, or remove "
            "it to begin again"
        )
    stored = io.BytesIO(b"".join(there[name].read_bytes() for name in wanted))
    try:
        return dict(torch.load(stored, map_location="cpu", weights_only=True))
    except Exception as error:  # torch tells a cut file by many kinds of errors
        raise DataError(
            f"{newest} is not the state of a stage ({error}); copy it again, or remove it to begin again"
        ) from error


def forget_states(path: Path) -> None:
    """Remove what is kept for `path`."""
    for state in _states(path):
        shutil.rmtree(state)


def _states(path: Path) -> list[Path]:
    """Their folders: of numbers of eight digits, so in the order of their steps when sorted."""
    digits = "[0-9]" * 8
    return [found for found in path.parent.glob(f"{path.name}-{digits}") if found.is_dir()]

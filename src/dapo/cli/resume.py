"""What an earlier run left and this one keeps: ``dapo inspect --resume``.

``results.jsonl`` is what counts: it is written as images are done and holds every region exactly. Beside it,
``run.json`` says what the results follow from (model, threshold, vocabulary ...). A result is kept when all
of that is as it was, its image is asked for again, it is no failure, and the pictures asked for are there.
All other files are written anew from kept and new results together, in the order of the images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dapo.cli.outputs import RESULTS
from dapo.errors import ConfigError, DataError, InputError

if TYPE_CHECKING:
    from dapo.inspection import Inspection

SETTINGS = "run.json"
SHARDS = "shard-*-of-*"


class Earlier:
    """Results of an earlier run, by image; each is read from ``path`` when it is asked for, and once."""

    def __init__(self, path: Path, starts: Mapping[str, int] | None = None) -> None:
        self.path = path
        self._starts = dict(starts or {})
        self._count = len(self._starts)

    def __contains__(self, image: str) -> bool:
        return identity(image) in self._starts

    def __len__(self) -> int:
        return self._count

    def result(self, image: str, *, pixels: bool = False) -> Inspection:
        """The result of one image; ``pixels``: with the photo, if its file still has the size it had."""
        from dapo.inspection import Inspection

        with self.path.open("rb") as stream:
            stream.seek(self._starts.pop(identity(image)))
            result = Inspection.from_dict(json.loads(stream.readline()))
        return with_pixels(result) if pixels else result

    def rest(self) -> Iterator[Inspection]:
        """The results that were not asked for, as after an interruption."""
        for image in list(self._starts):
            yield self.result(image)


def identity(image: str) -> str:
    """The same for every way to write the path of one file."""
    return os.path.normcase(os.path.abspath(image))


def with_pixels(result: Inspection) -> Inspection:
    from dapo.images import load_image

    try:
        rgb = load_image(result.image)
    except InputError:
        return result
    return replace(result, pixels=rgb) if rgb.shape[:2] == (result.height, result.width) else result


def settings_of(inspector: Any, words: Any, **more: Any) -> dict[str, Any]:
    """What results follow from; ``more``: further options that change them, as JSON."""
    vocabulary = [[defect.name, *defect.phrases] for defect in words.defects]
    model = {key: inspector.info.to_dict().get(key) for key in ("name", "version", "sha256")}
    return {"model": model, "threshold": inspector.threshold, "vocabulary": vocabulary, **more}


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes ``run.json`` for a later ``--resume``."""
    from dapo.whole import replacing

    with replacing(folder / SETTINGS) as stream:
        stream.write(json.dumps(settings, indent=1).encode() + b"\n")


def load_earlier(
    out: Path, images: Sequence[str], settings: Mapping[str, Any], pictures: Sequence[Any], *, shards: bool
) -> Earlier:
    """What can be kept, gathered in ``out``/results.jsonl in the order of ``images`` and nothing else.

    ``shards``: results of the shards below ``out`` are taken too, so a run in parts is joined. ConfigError
    when results were made with other settings: they are not thrown away unasked.
    """
    from dapo.writers.jsonl import read_jsonl, rewrite

    wanted = {identity(image) for image in images}
    places: dict[str, tuple[Path, int]] = {}
    for folder in (*(sorted(out.glob(SHARDS)) if shards else ()), out):
        path = folder / RESULTS
        if not path.is_file() or not path.stat().st_size:
            continue
        refuse_changes(path, settings)
        for start, record in read_jsonl(path):
            name = identity(record["image"])
            if name in wanted and holds(record, pictures):
                places[name] = (path, start)
    order = [name for name in map(identity, images) if name in places]
    target = out / RESULTS
    target.parent.mkdir(parents=True, exist_ok=True)
    rewrite(target, (places[name] for name in order))
    starts = [start for start, _ in read_jsonl(target)]
    return Earlier(target, dict(zip(order, starts, strict=True)))


def refuse_changes(path: Path, settings: Mapping[str, Any]) -> None:
    """ConfigError when the results at ``path`` do not follow from ``settings``."""
    before = path.with_name(SETTINGS)
    if changed := changes(before, settings):
        raise ConfigError(
            f"expected {path} to come from the same run; its {' and '.join(changed)} "
            f"differ{'s' if len(changed) == 1 else ''} ({before}). Give what it was made with, "
            "choose another --out, or leave out --resume to begin again."
        )


def changes(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """The settings of ``path`` that differ from ``settings``."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    now = json.loads(json.dumps(settings))
    if not isinstance(before, dict):
        before = {}
    return [name.replace("_", " ") for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def holds(record: Mapping[str, Any], pictures: Sequence[Any]) -> bool:
    """True for a whole result, no failure, whose pictures are there."""
    from dapo.inspection import Inspection, read_record

    if "error" in record:
        return False
    try:
        result = read_record(record)
    except DataError:
        return False
    return isinstance(result, Inspection) and all(writer.has(result) for writer in pictures)


def sort_results(path: Path, images: Sequence[str]) -> None:
    """Puts the lines of results.jsonl in the order of ``images``: kept ones came first."""
    from dapo.writers.jsonl import read_jsonl, rewrite

    place = {identity(image): number for number, image in enumerate(images)}
    lines = [(place.get(identity(record["image"]), -1), start) for start, record in read_jsonl(path)]
    if lines != sorted(lines):
        rewrite(path, ((path, start) for _, start in sorted(lines)))

"""Good parts: what a model says of them becomes a calibration, what they look like becomes its references.

In: an inspector and pictures of good parts. Out: a calibrated inspector, and a folder with `calibration.json`
and `references.safetensors`; see `dapo.calibration` for what is promised, `dapo.model.memory` for what is
kept.

With references every good part is judged against the memory of the others, as a new part would be; the
promise of split conformal prediction then holds nearly, not exactly (leave-one-out, as in the jackknife:
Barber et al., Annals of Statistics 49, 2021, prove twice the rate at worst). Measured: docs/verdicts.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from dapo.calibration import FILE, Calibration, promise_of, with_defects
from dapo.errors import ConfigError, DapoError, InputError
from dapo.inspection import Failure, Inspection
from dapo.inspector import Inspector, words_of
from dapo.model.artifact import REFERENCES
from dapo.model.memory import Memory, remember, save_memory
from dapo.vocabulary import Vocabulary

__all__ = ["FALSE_ALARM", "calibrate", "save"]

FALSE_ALARM = 0.05
REMEMBERED = 60  # good parts that are remembered at most; more only calibrate


def calibrate(
    inspector: Inspector,
    good: Iterable[Any],
    *,
    false_alarm: float = FALSE_ALARM,
    defects: Any = None,
    references: bool = True,
    defective: Iterable[Any] = (),
    out: str | Path | None = None,
    on_image: Callable[[str], None] | None = None,
    on_failure: Callable[[Failure], None] | None = None,
) -> Inspector:
    """An inspector that holds a false-alarm rate, from good parts; the one given is left as it is.

    good: pictures of good parts, as `Inspector.inspect` takes them, about 20 or more. false_alarm: share of
    good parts that may be called defective. defects: the words to look for; the promise is for these.
    references: remember what the good parts look like and compare with it. defective: labelled defective
    parts, to estimate how many escape. out: folder to write to; None = nothing is written. on_image is told
    each picture that is done, on_failure each that could not be read, which is left out (None: it raises).

    Raises ConfigError for a rate that so few parts cannot promise, before anything is written; InputError for
    fewer than five good parts.
    """
    pictures = list(good)
    vocabulary = inspector.vocabulary(defects)
    plain = inspector.changed()
    enough(len(pictures), false_alarm)
    memory = remembered(plain, pictures[:REMEMBERED], on_failure) if references else None
    results = list(judged(plain, pictures, vocabulary, memory, on_image, on_failure))
    found = calibration_of(results, false_alarm, vocabulary, plain)
    if memory is not None:
        kept = {"file": REFERENCES, "images": memory.images, "megabytes": round(memory.megabytes, 1)}
        found = replace(found, references=kept)
    flawed = list(defective)
    if flawed:
        scores = raw_scores(plain.changed(memory=memory), flawed, vocabulary, on_image, on_failure)
        found = replace(found, escapes=with_defects(scores, found.promise().threshold))
    calibrated = plain.changed(calibration=found, memory=memory)
    if out is not None:
        save(calibrated, Path(out))
    return calibrated


def save(inspector: Inspector, folder: Path) -> None:
    """Write the calibration, after the references it speaks of. Raises ConfigError when there is none."""
    if inspector.calibration is None:
        raise ConfigError("this inspector is not calibrated; there is nothing to save. Calibrate it first.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)  # so that old thresholds never stand beside new references
    if isinstance(inspector.memory, Memory):
        save_memory(inspector.memory, folder / REFERENCES, inspector.info.sha256)
    inspector.calibration.save(folder / FILE)


def enough(images: int, false_alarm: float) -> None:
    """Raises ConfigError when that many good parts cannot promise the rate, before they are looked at."""
    if images:
        promise_of([0.0] * images, false_alarm)


def remembered(
    inspector: Inspector, pictures: Sequence[Any], on_failure: Callable[[Failure], None] | None
) -> Memory:
    """The memory of these pictures; tiled pictures are remembered tile by tile."""

    def prepared() -> Iterator[list[torch.Tensor]]:
        for picture in pictures:
            with tolerated(picture, None if on_failure is None else lambda _: None):  # told by `judged`
                yield [torch.from_numpy(view) for view in inspector.views(picture)]

    return remember(inspector.detector, prepared())


def judged(
    inspector: Inspector,
    pictures: Sequence[Any],
    vocabulary: Vocabulary,
    memory: Memory | None,
    on_image: Callable[[str], None] | None,
    on_failure: Callable[[Failure], None] | None,
) -> Iterator[Inspection]:
    """What the model says of each good part, judged without the part itself in the memory."""
    number = 0
    for picture in pictures:
        others = memory
        if memory is not None and number < memory.images:
            others = memory.without(number)
        with tolerated(picture, on_failure):
            yield inspector.changed(memory=others).inspect(picture, vocabulary)
            number += 1
            if on_image is not None:
                on_image(str(picture))


@contextlib.contextmanager
def tolerated(picture: Any, on_failure: Callable[[Failure], None] | None) -> Iterator[None]:
    """A picture that cannot be read is told and left out, or raises where nobody is told."""
    try:
        yield
    except InputError as error:
        if on_failure is None:
            raise
        on_failure(Failure(str(picture), error.kind, str(error)))


def calibration_of(
    results: Sequence[Inspection], false_alarm: float, vocabulary: Vocabulary, inspector: Inspector
) -> Calibration:
    """Of what was said of good parts by an inspector without calibration."""
    roi = None if inspector.roi is None else inspector.roi.text
    return Calibration(
        scores=tuple(sorted(result.raw_score for result in results)),
        peaks=tuple(sorted(peak(result) for result in results)),
        types={name: tuple(sorted(result.types[name] for result in results)) for name in vocabulary.names},
        false_alarm=false_alarm,
        words=words_of(vocabulary),
        model=inspector.info.to_dict(),
        setup={"tile": str(inspector.tiling)} | ({} if roi is None else {"roi": roi}),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def peak(result: Inspection) -> float:
    assert result.anomaly_map is not None
    return float(result.anomaly_map.max())


def raw_scores(
    inspector: Inspector,
    pictures: Sequence[Any],
    vocabulary: Vocabulary,
    on_image: Callable[[str], None] | None,
    on_failure: Callable[[Failure], None] | None,
) -> list[float]:
    """Of these pictures, those that cannot be read left out."""
    scores = []
    for result in inspector.stream(pictures, vocabulary):
        if isinstance(result, Failure):
            if on_failure is None:
                raise DapoError(result.message)
            on_failure(result)
            continue
        scores.append(result.raw_score)
        if on_image is not None:
            on_image(result.image)
    return scores

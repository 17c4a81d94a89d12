"""A data set of generated product lines in the folder layout: to try a command, a pipeline or a method on.

In: how many, which flaws, a seed. Out: ROOT/line-01/{train/good, test/good, test/TYPE, ground_truth/TYPE} and
`synth.json`, which says how it was made. The same arguments give the same pictures on every machine of one
numpy version. The embedded model was trained on scenes of this generator (not on these): its figures here
flatter it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from dapo.errors import DataError
from dapo.pretraining.flaws import BOARD_FLAWS
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.lines import Line
from dapo.pretraining.scenes import Scene, World
from dapo.pretraining.surfaces import Textures
from dapo.whole import staged

FIRST_SEED = 60_000  # of the worlds drawn from here: no other part of the package uses them
ATTEMPTS = 4  # scenes in a row without the flaw before it is said not to occur on a part
PARTS = 100  # parts tried for each line
RECORD = "synth.json"


@dataclass(frozen=True)
class Plan:
    """lines: products. train, good: good parts for each split. flawed: pictures of each type.

    kinds: types of flaws for each line, drawn by chance among those that fit it. types: names to take
    instead, as the lexicon knows them. h, w: pixels.
    """

    lines: int = 3
    train: int = 20
    good: int = 20
    flawed: int = 8
    kinds: int = 5
    types: tuple[str, ...] | None = None
    h: int = 256
    w: int = 256
    seed: int = 0


def synthesise(
    out: str | Path,
    plan: Plan | None = None,
    *,
    textures: Textures | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the data set into `out`, all of it or nothing; returns the number of pictures.

    progress is told (lines done, lines). Raises DataError when `out` holds something already, a type cannot
    be drawn, or no part is found on which all types occur.
    """
    out, plan = Path(out), plan or Plan()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"expected a new or empty folder to write to; {out} holds something. Name another.")
    wanted = families(plan.types)
    world = World(seed=FIRST_SEED + plan.seed, other=True, textures=textures or Textures(None))
    with staged(out) as staging:
        pictures = done = 0
        for number in range(PARTS * plan.lines):
            line = Line(world, number, plan.h, plan.w)
            if (kinds := kinds_of(line, plan, wanted)) is None:
                continue
            pictures += _write_line(staging / f"line-{done + 1:02}", line, plan, kinds)
            done += 1
            if progress:
                progress(done, plan.lines)
            if done == plan.lines:
                break
        else:
            raise DataError(
                f"no part was found on which all of {', '.join(wanted)} occur; ask for fewer types at a time"
            )
        record = {"made by": "dapo data synth", "licence": "Apache-2.0", **asdict(plan)}
        (staging / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        staging.rename(out)
    return pictures


def families(types: Sequence[str] | None, lexicon: Lexicon | None = None) -> dict[str, str]:
    """{type: visual family} of these names, or of every type that is drawn in a look of its own."""
    lexicon = lexicon or Lexicon.builtin()
    if types is None:
        return {lexicon.by_visual(family)[0].name: family for family in lexicon.visuals}
    known = {
        spoken.casefold(): kind.visual
        for kind in reversed(lexicon.types)
        for spoken in (*lexicon.phrases(kind.id), kind.name, kind.id)
        if kind.visual is not None
    }
    found = {}
    for name in types:
        if (family := known.get(name.casefold())) is None:
            drawn = ", ".join(lexicon.by_visual(visual)[0].name for visual in lexicon.visuals)
            raise DataError(f"expected a type of flaw that can be drawn ({drawn}); got {name!r}")
        found[name] = family
    return found


def kinds_of(line: Line, plan: Plan, wanted: dict[str, str]) -> dict[str, str] | None:
    """{type: family} for this line: all that are asked for, or some of those that occur on it; None: no."""
    if not plan.flawed:
        return {}
    if plan.types is not None:
        return wanted if all(_occurs(line, family) for family in wanted.values()) else None
    names = list(wanted)
    order = np.random.default_rng([plan.seed, line.number]).permutation(len(names))
    fitting = (names[i] for i in order if _occurs(line, wanted[names[i]]))
    return {name: wanted[name] for name in islice(fitting, plan.kinds)}


def _occurs(line: Line, family: str) -> bool:
    scene = next(_flawed(line, family), None)
    return scene is not None and (family not in BOARD_FLAWS or scene.surface == "circuit board")


def _write_line(folder: Path, line: Line, plan: Plan, kinds: dict[str, str]) -> int:
    pictures = 0
    for split, number, first in (("train", plan.train, 0), ("test", plan.good, plan.train)):
        for i in range(number):
            _save(line.scene(first + i, good=True).image, folder / split / "good" / f"{i:03}.png")
            pictures += 1
    for name, family in kinds.items():
        for i, scene in enumerate(islice(_flawed(line, family), plan.flawed)):
            _save(scene.image, folder / "test" / name / f"{i:03}.png")
            mask = scene.masks[family].astype(np.uint8) * 255
            _save(mask, folder / "ground_truth" / name / f"{i:03}_mask.png")
            pictures += 1
    return pictures


def _flawed(line: Line, family: str) -> Iterator[Scene]:
    """Pictures with a flaw of this family, without end; none where it does not fit the part."""
    own = replace(line, world=replace(line.world, families=(family,)))
    missed = 0
    for index in count():
        scene = own.scene(index, good=False)
        if family in scene.masks:
            missed = 0
            yield scene
        elif (missed := missed + 1) == ATTEMPTS:
            return


def _save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)

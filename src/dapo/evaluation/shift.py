"""Distribution shift: the same test set under seeded corruptions, as a table of drops.

In: an inspector and samples; out: a `Shift`, the evaluation of the clean images and of each corruption in
each severity. Masks follow the picture where it is rotated or scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dapo.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupt_mask
from dapo.data import Sample
from dapo.data.sample import MaskSource, load_mask
from dapo.errors import InputError
from dapo.evaluation.run import Evaluation, Streams, evaluate, without_nan
from dapo.evaluation.tables import FIGURES, Table, at
from dapo.images import load_image
from dapo.metrics.types import mean_of

COLUMNS = (("image", "auroc"), ("pixel", "auroc"), ("pixel", "aupro"), ("types", "top1"))


@dataclass(frozen=True)
class Shift:
    """clean: without a change. changed: {(kind, severity): evaluation}. note: for the table."""

    clean: Evaluation
    changed: dict[tuple[str, int], Evaluation]
    note: str = ""

    def drops(self) -> dict[str, dict[str, float]]:
        """{"kind severity": {figure: change against clean}}, negative = worse; and the "mean" of all."""
        found = {
            f"{kind} {severity}": {
                FIGURES[path]: at(evaluation.mean, path) - at(self.clean.mean, path) for path in COLUMNS
            }
            for (kind, severity), evaluation in self.changed.items()
        }
        mean = {FIGURES[path]: mean_of(row[FIGURES[path]] for row in found.values()) for path in COLUMNS}
        return found | {"mean": mean}

    def table(self) -> Table:
        """A row for each corruption and severity: the figure, and in brackets its change in points."""
        kept = [path for path in COLUMNS if not np.isnan(at(self.clean.mean, path))]
        rows = [("none", *(f"{at(self.clean.mean, path):.3f}" for path in kept))]
        drops = self.drops()
        for (kind, severity), evaluation in self.changed.items():
            own = drops[f"{kind} {severity}"]
            cells = (f"{at(evaluation.mean, path):.3f} ({100 * own[FIGURES[path]]:+.1f})" for path in kept)
            rows.append((f"{kind} {severity}", *cells))
        rows.append(("mean change", *(f"({100 * drops['mean'][FIGURES[path]]:+.1f})" for path in kept)))
        head = ("corruption", *(FIGURES[path] for path in kept))
        means = "; ".join(
            f"{kind}: {CORRUPTIONS[kind].means} {', '.join(f'{a:g}' for a in CORRUPTIONS[kind].amounts)}"
            for kind in dict.fromkeys(kind for kind, _ in self.changed)
        )
        note = f"Severities 1, 2, 3. {means}. {self.note}".strip()
        return Table("Distribution shift", head, tuple(rows), note)

    def to_dict(self) -> dict[str, Any]:
        """{"clean", "changed": {"kind severity": mean figures}, "drops"}; NaN becomes null."""
        means = {f"{kind} {severity}": found.mean for (kind, severity), found in self.changed.items()}
        plain: dict[str, Any] = without_nan(
            {"clean": self.clean.mean, "changed": means, "drops": self.drops()}
        )
        return plain


def evaluate_shift(
    inspector: Streams,
    samples: Sequence[Sample],
    *,
    kinds: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    clean: Evaluation | None = None,
    through: Callable[[str, Callable[[], Evaluation]], Evaluation] = lambda name, make: make(),
    **options: Any,
) -> Shift:
    """Evaluate the samples clean (unless that was done) and under each corruption.

    through: called with the name of each corruption and what makes its evaluation; it may remember one
    from before. options: as for `evaluate`; corrupted images get intervals only where `draws` asks.
    Raises ConfigError for an unknown kind or severity.
    """
    for kind in kinds:  # before any compute
        for severity in severities:
            corrupt_mask(np.zeros((8, 8), dtype=np.bool_), kind, severity)
    found = evaluate(inspector, samples, seed=seed, **options) if clean is None else clean
    changed: dict[tuple[str, int], Evaluation] = {}
    for kind in kinds:
        for severity in severities:
            world = Corrupted(inspector, kind, severity, seed)
            changed[kind, severity] = through(
                f"{kind} {severity}", partial(world.evaluate, samples, seed=seed, **{"draws": 0, **options})
            )
    return Shift(found, changed)


class Corrupted:
    """An inspector that is shown every picture changed, and the samples whose masks fit."""

    def __init__(self, inspector: Streams, kind: str, severity: int, seed: int) -> None:
        self.inspector, self.kind, self.severity, self.seed = inspector, kind, severity, seed
        self.sizes: dict[Path, tuple[int, int]] = {}  # (height, width) of the pictures before the change
        self.names: dict[Path, str] = {}  # of the pictures, for their random numbers
        self.info = getattr(inspector, "info", None)
        self.told = {"corruption": f"{kind} {severity}"}

    def evaluate(self, samples: Sequence[Sample], **options: Any) -> Evaluation:
        """The samples, changed; options as for `evaluate`."""
        self.names = {sample.image: picture_name(sample) for sample in samples}
        return evaluate(self, [self.sample(sample) for sample in samples], **options)

    def stream(self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8) -> Iterator[Any]:
        """As the inspector's; a picture that cannot be read is left for it to refuse."""
        return self.inspector.stream(map(self.picture, paths), defects, batch_size)

    def picture(self, path: Path) -> Any:
        """The changed picture, which still knows its file's name."""
        try:
            image = load_image(path)
        except InputError:
            return path
        self.sizes[path] = image.shape[:2]
        name = self.names[path]
        changed = Image.fromarray(corrupt(image, self.kind, self.severity, seed=self.seed, name=name))
        changed.filename = str(path)  # type: ignore[attr-defined]  # as of a picture opened from a file
        return changed

    def sample(self, sample: Sample) -> Sample:
        """The sample with masks as its changed picture shows them."""
        if CORRUPTIONS[self.kind].change_mask is None:
            return sample

        def moved(source: Path | MaskSource) -> MaskSource:
            return Moved(self, sample.image, source)

        masks: Mapping[str, MaskSource] | None = None
        if sample.masks is not None:
            masks = {name: moved(source) for name, source in sample.masks.items()}
        return replace(sample, masks=masks, joint=None if sample.joint is None else moved(sample.joint))


@dataclass(frozen=True)
class Moved:
    """A mask that follows its picture."""

    world: Corrupted
    image: Path
    source: Path | MaskSource

    def read(self, height: int, width: int) -> NDArray[np.bool_]:
        mask = load_mask(self.source, *self.world.sizes[self.image])
        world = self.world
        name = world.names[self.image]
        return corrupt_mask(mask, world.kind, world.severity, seed=world.seed, name=name)


def picture_name(sample: Sample) -> str:
    """PRODUCT/TYPE/FILE: 000.png of another product or type is another picture."""
    return f"{sample.product}/{'+'.join(sample.types) or 'good'}/{sample.image.name}"

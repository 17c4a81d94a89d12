"""Evaluation under distribution shift, with inspectors that look at what they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dapo.data import Sample
from dapo.errors import ConfigError, InputError
from dapo.evaluation.shift import evaluate_shift
from dapo.images import load_image
from dapo.inspection import Failure


@dataclass(frozen=True)
class Seen:
    raw_score: float
    anomaly_map: np.ndarray
    types: dict[str, float] = field(default_factory=dict)
    type_maps: dict[str, np.ndarray] = field(default_factory=dict)


class Eye:
    """Calls a pixel the more defective the brighter it is: perfect on clean pictures."""

    def stream(self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8) -> Iterator[Any]:
        for path in paths:
            try:
                image = load_image(path).astype(np.float32).mean(axis=2)
            except InputError as error:
                yield Failure(str(path), error.kind, str(error))
                continue
            bright = np.clip((image - 100) / 150, 0, 1).astype(np.float32)
            yield Seen(float(bright.max()), bright, {"spot": 1.0}, {"spot": bright})


def spots(folder: Path, count: int = 6, size: tuple[int, int] = (72, 96)) -> list[Sample]:
    """Grey pictures; every second one has a bright square far from the border."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        image, mask = np.full((*size, 3), 110, np.uint8), np.zeros(size, np.uint8)
        masks = {}
        if number % 2:
            y, x = rng.integers(20, 34, 2)
            image[y : y + 16, x : x + 16] = 160
            mask[y : y + 16, x : x + 16] = 255
            masks = {"spot": folder / f"{number}_mask.png"}
            Image.fromarray(mask).save(masks["spot"])
        path = folder / f"{number}.png"
        Image.fromarray(image).save(path)
        samples.append(Sample(path, "plate", ("spot",) if masks else (), masks, "test"))
    return samples


def test_masks_follow_so_that_only_the_eye_can_fail(tmp_path: Path) -> None:
    found = evaluate_shift(Eye(), spots(tmp_path), kinds=("rotation", "scale"), draws=0)
    assert found.clean.mean["pixel"]["auroc"] == 1
    assert set(found.changed) == {(kind, n) for kind in ("rotation", "scale") for n in (1, 2, 3)}
    for evaluation in found.changed.values():
        assert evaluation.mean["pixel"]["auroc"] > 0.97
        assert evaluation.mean["image"]["auroc"] == 1


def test_drops_are_differences_to_clean(tmp_path: Path) -> None:
    found = evaluate_shift(Eye(), spots(tmp_path, 8), kinds=("noise", "contrast"), severities=(1, 3), draws=0)
    drops = found.drops()
    assert drops["noise 3"]["pixel AUROC"] == pytest.approx(
        found.changed["noise", 3].mean["pixel"]["auroc"] - found.clean.mean["pixel"]["auroc"]
    )
    assert drops["noise 3"]["pixel AUROC"] < drops["contrast 1"]["pixel AUROC"] <= 0
    rows = [drops[f"{kind} {n}"]["pixel AUROC"] for kind in ("noise", "contrast") for n in (1, 3)]
    assert drops["mean"]["pixel AUROC"] == pytest.approx(np.mean(rows))
    table = found.table()
    assert [row[0] for row in table.rows] == [
        "none", "noise 1", "noise 3", "contrast 1", "contrast 3", "mean change",
    ]  # fmt: skip
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["drops"]["noise 3"]


def test_a_picture_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    samples = spots(tmp_path)
    samples[0].image.write_bytes(b"no picture")
    found = evaluate_shift(Eye(), samples, kinds=("rotation",), severities=(1,), draws=0)
    changed = found.changed["rotation", 1]
    assert [failure.kind for failure in changed.failures] == ["unreadable"]
    assert changed.products["plate"]["counts"]["images"] == len(samples) - 1


def test_pictures_of_one_name_are_changed_apart(tmp_path: Path) -> None:
    """000.png of every product and type would else turn the same way."""
    turned: dict[str, list[int]] = {}

    class Watching(Eye):
        def stream(self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8) -> Iterator[Any]:
            for picture in paths:
                if not isinstance(picture, Path):  # changed
                    turned.setdefault(Path(picture.filename).name, []).append(hash(picture.tobytes()))
                yield from super().stream([picture])

    samples = []
    for product in ("cup", "plate", "nut"):
        (tmp_path / product).mkdir()
        samples += [replace(s, product=product) for s in spots(tmp_path / product, 2)]
    found = evaluate_shift(Watching(), samples, kinds=("noise",), severities=(1,), draws=0)
    assert len(set(turned["0.png"])) == 3
    assert found.changed["noise", 1].protocol["corruption"] == "noise 1"
    hashes = {found.clean.protocol["config_hash"], found.changed["noise", 1].protocol["config_hash"]}
    assert len(hashes) == 2


def test_unknown_kinds_are_refused_before_any_compute(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rain"):
        evaluate_shift(Eye(), [], kinds=("rain",))

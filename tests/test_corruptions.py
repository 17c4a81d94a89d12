"""Corruptions: seeded, graded, and masks that follow the picture."""

from __future__ import annotations

import numpy as np
import pytest

from dapo.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupt_mask
from dapo.errors import ConfigError


def picture(height: int = 60, width: int = 90) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (height // 6, width // 6, 3))
    return np.kron(coarse, np.ones((6, 6, 1))).astype(np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_one_seed_gives_one_change_and_another_name_another(kind: str) -> None:
    image = picture()
    first = corrupt(image, kind, 2, seed=1, name="a")
    assert first.dtype == np.uint8
    assert np.array_equal(first, corrupt(image, kind, 2, seed=1, name="a"))
    assert not np.array_equal(first, image)
    assert np.array_equal(image, picture())  # the picture given is left alone
    if kind in ("brightness", "noise", "rotation", "colour cast"):  # those that draw
        others = [corrupt(image, kind, 2, seed=1, name=str(n)) for n in range(8)]
        assert any(not np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("kind", [kind for kind in CORRUPTIONS if kind not in ("scale", "brightness")])
def test_severity_grows(kind: str) -> None:
    image = picture()
    change = []
    for severity in SEVERITIES:
        found = [corrupt(image, kind, severity, seed=seed) for seed in range(6)]
        change.append(np.mean([np.abs(one.astype(int) - image).mean() for one in found]))
    assert change == sorted(change)
    assert change[0] < change[2]


def test_brightness_goes_both_ways() -> None:
    image = picture()
    means = [corrupt(image, "brightness", 1, seed=seed).mean() / image.mean() for seed in range(12)]
    assert any(mean == pytest.approx(1.15, abs=0.01) for mean in means)
    assert any(mean == pytest.approx(0.85, abs=0.01) for mean in means)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", ["rotation", "scale"])
def test_masks_follow_the_picture(kind: str, severity: int) -> None:
    image = np.full((80, 120, 3), 100, np.uint8)
    mask = np.zeros((80, 120), np.bool_)
    mask[20:40, 70:100] = True
    image[mask] = 240
    changed = corrupt(image, kind, severity, seed=3, name="x")
    moved = corrupt_mask(mask, kind, severity, seed=3, name="x")
    assert moved.shape == changed.shape[:2]
    bright = changed[..., 0] > 140
    assert (moved & bright).sum() / (moved | bright).sum() > 0.9


def test_a_hairline_survives_shrinking() -> None:
    mask = np.zeros((90, 90), np.bool_)
    mask[45] = True
    assert corrupt_mask(mask, "scale", 3).any(axis=0).all()


def test_other_masks_stay() -> None:
    mask = np.eye(30, dtype=np.bool_)
    for kind in set(CORRUPTIONS) - {"rotation", "scale"}:
        assert corrupt_mask(mask, kind, 3) is mask


def test_unknown_kinds_and_severities_are_named() -> None:
    with pytest.raises(ConfigError, match=r"brightness, contrast.*'rain'"):
        corrupt(picture(), "rain", 1)
    with pytest.raises(ConfigError, match="1, 2 or 3; got 4"):
        corrupt(picture(), "blur", 4)

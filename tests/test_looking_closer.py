"""Tiles and regions of interest through the inspector: small flaws in large pictures, nothing outside."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_model_folder

from dapo.errors import ConfigError, InputError
from dapo.inspection import Failure
from dapo.inspector import Inspector
from dapo.roi import Roi


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(100, 100), (37, 400), (300, 90)])
def test_tiles_give_maps_regions_and_scores_of_the_whole_picture(model: Path, size: tuple[int, int]) -> None:
    tiled = Inspector.from_pretrained(model, device="cpu", precision="fp32", tile=32)
    result = tiled.inspect(picture(*size), "scratch, hole")
    assert result.anomaly_map is not None
    assert result.anomaly_map.shape == size
    assert result.type_maps["hole"].shape == size
    assert 0 <= result.score <= 1
    assert set(result.types) == {"scratch", "hole"}
    for region in result.regions:
        assert region.mask.shape == size


def test_one_tile_is_the_picture_looked_at_whole(model: Path) -> None:
    whole = Inspector.from_pretrained(model, device="cpu", precision="fp32").inspect(picture(60, 90), "hole")
    one = Inspector.from_pretrained(model, device="cpu", precision="fp32", tile=90).inspect(
        picture(60, 90), "hole"
    )
    assert one.score == whole.score
    assert np.array_equal(one.anomaly_map, whole.anomaly_map)


def test_streams_mix_tiled_and_whole_pictures_in_order(model: Path) -> None:
    tiled = Inspector.from_pretrained(model, device="cpu", precision="fp32", tile=64)
    pictures = [picture(40, 40), picture(150, 80, 1), picture(50, 60, 2), picture(150, 80, 3)]
    found = list(tiled.stream(pictures, "scratch", batch_size=4))
    for result, image in zip(found, pictures, strict=True):
        alone = tiled.inspect(image, "scratch")
        assert result.anomaly_map.shape == image.shape[:2]  # type: ignore[union-attr]
        np.testing.assert_allclose(result.anomaly_map, alone.anomaly_map, atol=1e-5)  # type: ignore[union-attr]


def test_nothing_outside_the_region_of_interest_counts(model: Path, tmp_path: Path) -> None:
    mask = np.zeros((80, 120), np.uint8)
    mask[20:60, 30:100] = 255
    Image.fromarray(mask).save(tmp_path / "roi.png")
    for roi in (str(tmp_path / "roi.png"), "30,20 100,20 100,60 30,60"):
        for tile in ("off", 32):
            inside = Inspector.from_pretrained(model, device="cpu", precision="fp32", roi=roi, tile=tile)
            first = picture(80, 120)
            other = first.copy()
            other[mask == 0] = 0
            ours, theirs = (inside.inspect(image, "scratch, hole") for image in (first, other))
            assert ours.score == theirs.score
            assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
            assert ours.anomaly_map is not None
            assert (ours.anomaly_map[mask == 0] == 0).all()
            assert ours.anomaly_map[mask > 0].any()
            assert ours.width == 120
            for region in ours.regions:
                assert not region.mask[mask == 0].any()
                x, y, w, h = region.bbox
                assert 30 <= x < x + w <= 100
                assert 20 <= y < y + h <= 60


def test_a_picture_that_the_region_does_not_fit_fails_alone(model: Path) -> None:
    inspector = Inspector.from_pretrained(
        model, device="cpu", roi=Roi.from_polygon([(0, 0), (90, 0), (90, 50)])
    )
    found = list(inspector.stream([picture(60, 100), picture(60, 60), picture(60, 100)], "hole"))
    assert [isinstance(result, Failure) for result in found] == [False, True, False]
    with pytest.raises(InputError, match="roi"):
        inspector.inspect(picture(60, 60))


def test_what_cannot_be_a_tile_or_a_region_is_said(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"tile: expected 'auto', 'off' or"):
        Inspector.from_pretrained(model, device="cpu", tile="small")
    with pytest.raises(ConfigError, match="roi"):
        Inspector.from_pretrained(model, device="cpu", roi="1,2 3,4")


def test_tiles_hold_little_memory(model: Path) -> None:
    tiled = Inspector.from_pretrained(model, device="cpu", precision="fp32", tile=256)
    image = picture(2000, 3000)
    tracemalloc.start()
    result = tiled.inspect(image, [f"type {number}" for number in range(40)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(result.type_maps) == 40
    one_map = 4 * 2000 * 3000
    assert peak < 20 * one_map  # the maps of forty types and one more would be 41


@pytest.mark.slow
def test_a_20_pixel_flaw_in_12_megapixels_is_found_with_tiles_and_missed_without() -> None:
    """The embedded model on a generated sheet: the words find the flaw only where it is looked at closely."""
    rng = np.random.default_rng(4)
    sheet = rng.normal(128, 5, (3000, 4000, 1)).repeat(3, axis=2)
    sheet += 6 * np.sin(np.arange(4000) / 40)[None, :, None]
    v, u = np.mgrid[:3000, :4000]
    spot = (v - 1730) ** 2 + (u - 2810) ** 2 <= 10**2
    flawed = sheet.copy()
    flawed[spot] -= 45
    images = [np.clip(image, 0, 255).astype(np.uint8) for image in (sheet, flawed)]
    words = "hole, dark spot, scratch"
    tiled = Inspector.from_pretrained(device="cpu", calibration=False, tile="auto")
    whole = Inspector.from_pretrained(device="cpu", calibration=False)

    def lead(inspector: Inspector) -> tuple[float, float]:
        """How far the map at the flaw rises above that of the good sheet, and where it peaks."""
        good, bad = (inspector.inspect(image, words).anomaly_map for image in images)
        assert good is not None
        assert bad is not None
        y, x = np.unravel_index(int(bad.argmax()), bad.shape)
        return float(bad[spot].max() - good.max()), float(np.hypot(y - 1730, x - 2810))

    found, near = lead(tiled)
    blind, far = lead(whole)
    assert found > 0.1
    assert near < 20
    assert found > blind
    assert far > 20  # what stands out untiled is not the place
    assert tiled.smallest_defect(3000, 4000) < 20 < whole.smallest_defect(3000, 4000)

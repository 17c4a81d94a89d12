"""Region of interest: masks and polygons in, the pixels that are inspected out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dapo.errors import ConfigError, InputError
from dapo.roi import Roi, apply, bounds, resize_mask


def picture_of(mask: np.ndarray, path: Path, white: int = 255) -> Path:
    Image.fromarray((mask * white).astype(np.uint8)).save(path)
    return path


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2 < 0.1


# Polygons


def test_a_rectangle_in_pixels_is_those_pixels() -> None:
    mask = Roi.from_polygon([(2, 1), (5, 1), (5, 3), (2, 3)]).mask(4, 6)
    wanted = np.zeros((4, 6), dtype=bool)
    wanted[1:3, 2:5] = True
    assert np.array_equal(mask, wanted)
    assert mask.dtype == np.bool_
    assert not mask.flags.writeable


def test_shares_fit_every_size() -> None:
    roi = Roi.from_polygon([(0.25, 0), (1, 0), (1, 0.5), (0.25, 0.5)])
    for height, width in ((8, 8), (100, 40)):
        wanted = np.zeros((height, width), dtype=bool)
        wanted[: height // 2, width // 4 :] = True
        assert np.array_equal(roi.mask(height, width), wanted)


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_whole_picture_is_the_whole_picture(height: int, width: int) -> None:
    assert Roi.parse("0,0 1,0 1,1 0,1").mask(height, width).all()
    if max(height, width) > 1:
        corners = [(0, 0), (width, 0), (width, height), (0, height)]
        assert Roi.from_polygon(corners).mask(height, width).all()


def test_area_of_a_triangle() -> None:
    mask = Roi.from_polygon([(0, 0), (100, 0), (0, 60)]).mask(60, 100)
    assert mask.mean() == pytest.approx(0.5, abs=0.01)
    assert mask[0, 0]
    assert not mask[-1, -1]


def test_a_polygon_that_crosses_itself_is_filled_even_odd() -> None:
    mask = Roi.from_polygon([(0, 0), (20, 20), (20, 0), (0, 20)]).mask(20, 20)
    assert mask[10, 1]
    assert mask[10, 18]
    assert not mask[1, 10]
    assert not mask[18, 10]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "at least 3 points, came 0"),
        ([(0, 0), (5, 5)], "at least 3 points, came 2"),
        ([(0, 0), (5, 5), (9, 9)], "on one line"),
        ([(3, 3), (3, 3), (3, 3)], "on one line"),
        ([(0, 0), (5, -1), (9, 9)], r"\(5, -1\)"),
        ([(0, 0), (5, float("nan")), (9, 9)], "nan"),
        ([(0, 0), (5, 1, 2), (9, 9)], "two numbers"),
        ([(0, 0), (5, "wide"), (9, 9)], "two numbers"),
        ([1, 2, 3], "two numbers"),
    ],
)
def test_what_is_no_polygon_is_refused(points: list[tuple[float, float]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Roi.from_polygon(points)


def test_a_picture_that_does_not_hold_the_polygon_is_refused() -> None:
    roi = Roi.from_polygon([(0, 0), (30, 0), (30, 12)])
    assert roi.mask(12, 30).any()
    for height, width in ((11, 30), (12, 29)):
        with pytest.raises(InputError, match=rf"x = 30, y = 12, came {width} x {height}") as caught:
            roi.mask(height, width)
        assert caught.value.kind == "shape"


# What is typed


@pytest.mark.parametrize(
    "text", ["2,1 5,1 5,3 2,3", " 2,1;5,1; 5,3 ;2,3 ", "2.0,1.0\n5.0,1e0\t5,3 2,3", "2,1;5,1;5,3;2,3;"]
)
def test_points_are_read(text: str) -> None:
    assert Roi.parse(text).points == ((2, 1), (5, 1), (5, 3), (2, 3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "came nothing"),
        ("  ", "came nothing"),
        ("1,2 3,4", "at least 3 points"),
        ("1,2 3 4,5", "came '3'"),
        ("1,2,3 4,5 6,7", "came '1,2,3'"),
        ("1,2 3,e 5,9", "expected a number, came 'e'"),
        ("1, 2 3,4 5,9", "no blank at a comma|expected a number"),
        ("0,0 5,-5 9,9", "inside the picture"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Roi.parse(text)


def test_a_file_name_is_read_as_a_mask(tmp_path: Path) -> None:
    mask = disc(20, 30)
    path = picture_of(mask, tmp_path / "1,5 part.png")
    assert np.array_equal(Roi.parse(str(path)).mask(20, 30), mask)
    with pytest.raises(ConfigError, match=r"cannot be read.*no such file"):
        Roi.parse("nowhere.png")


# Masks


@pytest.mark.parametrize("white", [255, 1, 200])
def test_a_mask_file_is_that_mask(tmp_path: Path, white: int) -> None:
    mask = disc(40, 60)
    found = Roi.from_mask(picture_of(mask, tmp_path / "mask.png", white)).mask(40, 60)
    assert np.array_equal(found, mask)


def test_a_jpeg_mask_is_nearly_that_mask(tmp_path: Path) -> None:
    mask = disc(80, 80)
    path = tmp_path / "mask.jpg"
    Image.fromarray((mask * 255).astype(np.uint8)).save(path, quality=60)
    assert (Roi.from_mask(path).mask(80, 80) != mask).mean() < 0.01


def test_an_array_is_copied() -> None:
    mask = disc(20, 20)
    roi, before = Roi.from_mask(mask), mask.copy()
    mask[:] = True
    assert np.array_equal(roi.mask(20, 20), before)


def test_a_mask_of_another_size_is_resized() -> None:
    quarter = np.zeros((10, 20), dtype=bool)
    quarter[:5, :10] = True
    roi = Roi.from_mask(quarter)
    for height, width in ((1000, 2000), (5, 10), (1000, 2019)):
        mask = roi.mask(height, width)
        assert mask.shape == (height, width)
        assert mask[: height // 2, : width // 2 - 1].all()
        assert mask.mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(("height", "width"), [(1000, 2041), (1021, 2000), (200, 100)])
def test_a_mask_of_another_aspect_is_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=rf"aspect of the array, 20 x 10, came {width} x {height}") as caught:
        Roi.from_mask(np.ones((10, 20), dtype=bool)).mask(height, width)
    assert caught.value.kind == "shape"


def test_a_speck_that_resizing_loses_is_said() -> None:
    speck = np.zeros((100, 100), dtype=bool)
    speck[0, 0] = True
    with pytest.raises(InputError, match="draw a larger region"):
        Roi.from_mask(speck).mask(10, 10)


def test_reducing_takes_the_pixel_in_the_middle() -> None:
    rows = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0], dtype=bool)
    assert resize_mask(rows[:, None] & rows, 3, 3).tolist() == [
        [True, False, True],
        [False, False, False],
        [True, False, True],
    ]


def test_masks_that_mark_nothing_or_are_grey_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all black"):
        Roi.from_mask(np.zeros((9, 9), dtype=bool))
    with pytest.raises(ConfigError, match="all black"):
        Roi.from_mask(picture_of(np.zeros((9, 9)), tmp_path / "black.png"))
    shades = np.tile(np.arange(256, dtype=np.uint8), (20, 1))
    Image.fromarray(shades).save(tmp_path / "shades.png")
    with pytest.raises(ConfigError, match=r"black and white, came 50% of it grey"):
        Roi.from_mask(tmp_path / "shades.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ConfigError, match="cannot be read"):
        Roi.from_mask(tmp_path / "text.png")
    with pytest.raises(ConfigError, match=r"bool array \(h, w\), came uint8"):
        Roi.from_mask(np.ones((9, 9), dtype=np.uint8))  # type: ignore[arg-type]


# On maps


def test_maps_are_zero_outside() -> None:
    maps = np.full((2, 3, 4), 0.5, dtype=np.float32)
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    cut = apply(maps, mask)
    assert cut.dtype == np.float32
    assert np.argwhere(cut).tolist() == [[0, 1, 2], [1, 1, 2]]
    assert np.array_equal(apply(maps[0], mask), cut[0])
    assert (maps == 0.5).all()
    for wrong in (maps[:, :2], maps[None], maps[0, 0]):
        with pytest.raises(ValueError, match="one size"):
            apply(wrong, mask)


def test_bounds_by_hand() -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[2, 3] = mask[4, 7] = True
    assert bounds(mask) == (2, 3, 3, 5)
    with pytest.raises(ValueError, match="empty"):
        bounds(np.zeros((2, 2), dtype=bool))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_enlarging_by_whole_numbers_repeats_pixels(height: int, width: int, factor: int) -> None:
    mask = np.random.default_rng(height * width).random((height, width)) < 0.5
    large = resize_mask(mask, height * factor, width * factor)
    assert np.array_equal(large, np.kron(mask, np.ones((factor, factor), dtype=bool)))
    assert np.array_equal(resize_mask(large, height, width), mask)

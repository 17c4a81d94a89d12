"""Regions: maps with known flaws in, the right places, shapes and names out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import measure

from dapo.inspection import Region
from dapo.masks import decode_rle, encode_rle, ring_area, trace_outlines
from dapo.regions import find_regions

EIGHT = np.ones((3, 3), dtype=bool)
masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def smooth(seed: int, side: int = 96, cell: int = 12) -> np.ndarray:
    """A random map (side, side) in [0, 1] without fine grain, like an enlarged patch map."""
    grid = np.random.default_rng(seed).random((side // cell + 1, side // cell + 1))
    return ndimage.zoom(grid, cell, order=1)[:side, :side].astype(np.float32)


def disc(side: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2


def as_map(mask: np.ndarray, value: float) -> np.ndarray:
    return (mask * value).astype(np.float32)


# masks


@given(masks)
def test_rle_comes_back_as_the_mask(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    assert np.array_equal(decode_rle(rle), mask)
    assert sum(rle["counts"]) == mask.size
    assert all(count > 0 for count in rle["counts"][1:])


@given(masks, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_rle_of_a_crop_is_that_of_the_whole_picture(mask: np.ndarray, x: int, y: int, r: int, b: int) -> None:
    whole = np.pad(mask, ((y, b), (x, r)))
    assert encode_rle(mask, whole.shape, (x, y)) == encode_rle(whole)


def test_rle_runs_down_the_columns_clear_pixels_first() -> None:
    mask = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
    assert encode_rle(mask) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}


def test_rle_that_does_not_fill_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="2 x 3"):
        decode_rle({"size": [2, 3], "counts": [1, 2]})


@given(masks)
@settings(max_examples=300)
def test_outlines_enclose_the_area_of_the_mask(mask: np.ndarray) -> None:
    rings = trace_outlines(mask, holes=True)
    parts = ndimage.label(mask, structure=EIGHT)[1]
    filled = [
        ndimage.binary_fill_holes(ndimage.label(mask, EIGHT)[0] == i).sum() for i in range(1, parts + 1)
    ]
    outer = sorted((ring_area(ring) for ring in rings[:parts]), reverse=True)
    assert len(trace_outlines(mask)) == parts
    for traced, true in zip(outer, sorted(filled, reverse=True), strict=True):
        assert traced == pytest.approx(true, rel=0.02)


@given(masks)
def test_outlines_reach_the_edges_of_their_part(mask: np.ndarray) -> None:
    for index, window in enumerate(ndimage.find_objects(ndimage.label(mask, EIGHT)[0]), start=1):
        part = ndimage.label(mask, EIGHT)[0] == index
        (ring,) = trace_outlines(part)
        rows, columns = window
        assert ring.min(axis=0) == pytest.approx([columns.start, rows.start], abs=0.5)
        assert ring.max(axis=0) == pytest.approx([columns.stop, rows.stop], abs=0.5)


def test_an_outline_drawn_again_is_the_mask() -> None:
    mask = disc(80, 38, 41, 22) & ~disc(80, 38, 41, 9)
    outer, hole = trace_outlines(mask, holes=True)
    rows, columns = np.mgrid[:80, :80] + 0.5
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    inside = measure.points_in_poly(points, outer) & ~measure.points_in_poly(points, hole)
    assert (inside.reshape(80, 80) != mask).mean() < 0.004
    assert len(outer) < 60  # of 176 pixel edges


# regions


def test_a_flaw_is_found_where_it_is() -> None:
    mask = disc(64, 40, 20, 8)
    (region,) = find_regions(as_map(mask, 0.8), {"dent": as_map(mask, 0.6)}, threshold=0.5)
    assert (region.id, region.type, region.area_px) == (1, "dent", int(mask.sum()))
    assert region.score == pytest.approx(0.8)
    assert region.margin == pytest.approx(0.6)
    assert region.bbox == (32, 12, 16, 16)
    assert region.centroid == pytest.approx((40, 20))
    assert np.array_equal(region.mask, mask)


def test_parts_are_those_of_an_independent_labelling() -> None:
    anomaly = smooth(3)
    found = find_regions(anomaly, {}, threshold=0.6)
    expected = measure.regionprops(measure.label(anomaly > 0.6, connectivity=2))
    boxes = {
        (p.bbox[1], p.bbox[0], p.bbox[3] - p.bbox[1], p.bbox[2] - p.bbox[0], int(p.area)) for p in expected
    }
    assert {(*region.bbox, region.area_px) for region in found} == boxes


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    assert len(find_regions(np.eye(6, dtype=np.float32), {}, threshold=0.5)) == 1


def test_hysteresis_grows_strong_parts_and_drops_weak_ones() -> None:
    anomaly = np.zeros((20, 40), dtype=np.float32)
    anomaly[5:15, 2:12] = 0.4
    anomaly[9:11, 6:8] = 0.9
    anomaly[5:15, 22:32] = 0.4
    (region,) = find_regions(anomaly, {}, threshold=0.5, low=0.3)
    assert region.bbox == (2, 5, 10, 10)
    assert find_regions(anomaly, {}, threshold=0.5)[0].area_px == 4
    with pytest.raises(ValueError, match="low must not be above"):
        find_regions(anomaly, {}, threshold=0.5, low=0.6)


def test_specks_are_left_out() -> None:
    anomaly = as_map(disc(40, 10, 10, 5), 0.9)
    anomaly[30, 30] = 1.0
    assert len(find_regions(anomaly, {}, threshold=0.5, min_area_px=1)) == 2
    assert len(find_regions(anomaly, {}, threshold=0.5, min_area_px=2)) == 1


def dotted(gap: int, weak: float, types: tuple[str, ...] = ("scratch",) * 5) -> dict[str, Any]:
    """Maps of a scratch of five dashes, 6 pixels long and `gap` apart; the map is `weak` between them."""
    anomaly = np.zeros((20, 120), np.float32)
    anomaly[10, 5 : 5 + 5 * 6 + 4 * gap] = weak
    maps = {name: np.zeros_like(anomaly) for name in types}
    for number, name in enumerate(types):
        dash = (slice(10, 12), slice(5 + number * (6 + gap), 11 + number * (6 + gap)))
        anomaly[dash] = 0.9
        maps[name][dash] = 0.8
    return {"anomaly_map": anomaly, "type_maps": maps, "threshold": 0.5}


@pytest.mark.parametrize("gap", [1, 2])
def test_fragments_of_one_flaw_are_one_region(gap: int) -> None:
    drawn = dotted(gap, weak=0.3)
    assert len(find_regions(**drawn)) == 5
    (region,) = find_regions(**drawn, bridge=0.2)
    assert (region.type, region.area_px) == ("scratch", 5 * 12)
    assert region.bbox == (5, 10, 5 * 6 + 4 * gap, 2)
    np.testing.assert_array_equal(region.mask, drawn["anomaly_map"] > 0.5)
    assert region.score == pytest.approx(0.9) and region.margin == pytest.approx(0.8)
    assert len(region.polygon) == 5, "the gaps stay gaps"
    again = Region.from_dict(region.to_dict("both"), region.size)
    np.testing.assert_array_equal(again.mask, region.mask)


def test_flaws_apart_stay_apart() -> None:
    assert len(find_regions(**dotted(3, weak=0.3), bridge=0.2)) == 5, "further apart than half their length"
    assert len(find_regions(**dotted(2, weak=0.1), bridge=0.2)) == 5, "nothing between them"
    types = ("scratch", "scratch", "pit", "scratch", "scratch")
    found = find_regions(**dotted(2, weak=0.3, types=types), bridge=0.2)
    assert sorted((one.type, one.area_px) for one in found) == [("pit", 12), ("scratch", 24), ("scratch", 24)]


def test_a_long_scratch_does_not_swallow_a_far_speck() -> None:
    """The smaller of two decides how long a gap may be."""
    anomaly = np.full((20, 90), 0.3, np.float32)
    anomaly[10, 5:65], anomaly[10, 75:78] = 0.9, 0.9
    maps = {"scratch": (anomaly > 0.5).astype(np.float32)}
    assert len(find_regions(anomaly, maps, threshold=0.5, bridge=0.2)) == 2
    anomaly[10, 66:70] = 0.9
    maps = {"scratch": (anomaly > 0.5).astype(np.float32)}
    assert sorted(one.area_px for one in find_regions(anomaly, maps, threshold=0.5, bridge=0.2)) == [3, 64]


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.8), st.floats(0.0, 0.3))
@settings(max_examples=60, deadline=None)
def test_joining_moves_no_pixel_and_changes_no_name(seed: int, threshold: float, drop: float) -> None:
    anomaly = smooth(seed, 64, 8)
    maps = {name: smooth(seed + i + 1, 64, 8) for i, name in enumerate(["dent", "stain"])}
    single = find_regions(anomaly, maps, threshold=threshold)
    joined = find_regions(anomaly, maps, threshold=threshold, bridge=threshold - drop)
    assert len(joined) <= len(single)
    assert sum(one.area_px for one in joined) == sum(one.area_px for one in single)
    for whole in joined:
        inside = [one for one in single if whole.mask[one.mask].any()]
        assert all(one.type == whole.type and whole.mask[one.mask].all() for one in inside)
        assert sum(one.area_px for one in inside) == whole.area_px


def test_a_bridge_is_weaker_than_a_region() -> None:
    with pytest.raises(ValueError, match=r"bridge must not be above low, 0\.5; got 0\.6"):
        find_regions(**dotted(3, 0.3), bridge=0.6)


def test_score_is_the_mean_of_the_top_tenth() -> None:
    anomaly = np.linspace(0.6, 0.99, 100, dtype=np.float32).reshape(10, 10)
    (region,) = find_regions(anomaly, {}, threshold=0.5)
    assert region.score == pytest.approx(float(np.sort(anomaly.ravel())[-10:].mean()))


def test_strong_pixels_decide_the_type() -> None:
    anomaly = np.full((10, 10), 0.5, dtype=np.float32)
    anomaly[:3] = 1.0
    weak = np.where(anomaly > 0.9, 0.0, 0.30).astype(np.float32)
    strong = np.where(anomaly > 0.9, 0.45, 0.0).astype(np.float32)
    assert weak.mean() > strong.mean()
    maps = {"weak": weak, "strong": np.maximum(strong, weak - 0.09)}
    assert find_regions(anomaly, maps, threshold=0.4, min_area_px=80)[0].type == "strong"


def test_a_part_of_two_clear_types_becomes_two_regions() -> None:
    left, right = disc(80, 30, 40, 14), disc(80, 52, 40, 14)
    maps = {"stain": as_map(left, 0.8), "scratch": as_map(right & ~left, 0.7)}
    anomaly = np.maximum(*maps.values())
    regions = find_regions(anomaly, maps, threshold=0.5)
    assert {region.type: region.area_px for region in regions} == {
        "stain": int(left.sum()),
        "scratch": int((right & ~left).sum()),
    }


def test_a_small_or_doubtful_piece_joins_its_neighbour() -> None:
    part, spot = disc(80, 40, 40, 20), disc(80, 40, 40, 4)
    maps = {"stain": as_map(part & ~spot, 0.8), "scratch": as_map(spot, 0.8)}
    (region,) = find_regions(as_map(part, 0.8), maps, threshold=0.5)
    assert (region.type, region.area_px) == ("stain", int(part.sum()))
    half = part & (np.arange(80) < 40)
    doubtful = {"stain": as_map(part, 0.40), "scratch": as_map(half, 0.05) + as_map(part, 0.38)}
    assert len(find_regions(as_map(part, 0.8), doubtful, threshold=0.5)) == 1


def test_what_no_name_fits_is_unknown() -> None:
    mask = disc(40, 20, 20, 8)
    anomaly = as_map(mask, 0.9)
    assert find_regions(anomaly, {}, threshold=0.5)[0].type == "unknown"
    assert find_regions(anomaly, {"dent": anomaly * 0}, threshold=0.5)[0].type == "unknown"
    faint = {"dent": anomaly * 0.2, "stain": anomaly * 0.1}
    assert find_regions(anomaly, faint, threshold=0.5)[0].type == "dent"


def test_a_region_where_other_names_are_ahead_is_unknown() -> None:
    left, right = disc(80, 20, 40, 12), disc(80, 60, 40, 12)
    anomaly = as_map(left | right, 0.9)
    maps = {"dent": as_map(left | right, 0.6), "stain": as_map(left | right, 0.1)}
    ahead = as_map(left, 0.7) + as_map(right, 0.3)
    found = find_regions(anomaly, maps, threshold=0.5, unknown=ahead, unknown_above=0.5)
    assert {(r.type, r.margin > 0, r.centroid[0] < 40) for r in found} == {
        ("unknown", False, True),
        ("dent", True, False),
    }
    for above, types in ((0.8, {"dent"}), (0.2, {"unknown"})):
        found = find_regions(anomaly, maps, threshold=0.5, unknown=ahead, unknown_above=above)
        assert {region.type for region in found} == types


def test_strong_pixels_decide_whether_a_region_is_unknown() -> None:
    anomaly = np.full((10, 10), 0.5, dtype=np.float32)
    anomaly[:5] = 1.0
    ahead = np.where(anomaly > 0.9, 0.2, 0.75).astype(np.float32)  # mean 0.475, weighted 0.383
    (region,) = find_regions(anomaly, {"dent": anomaly}, threshold=0.4, unknown=ahead, unknown_above=0.45)
    assert region.type == "dent"


def test_unknown_changes_types_only() -> None:
    anomaly = smooth(5)
    maps = {name: smooth(seed) for name, seed in (("dent", 6), ("stain", 7))}
    plain = find_regions(anomaly, maps, threshold=0.6, low=0.4)
    ahead = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (96, 1))
    asked = find_regions(anomaly, maps, threshold=0.6, low=0.4, unknown=ahead, unknown_above=0.5)
    assert {r.type for r in asked} > {"unknown"} and {r.type for r in plain} == {"dent", "stain"}
    assert [(r.bbox, r.area_px, r.score) for r in plain] == [(r.bbox, r.area_px, r.score) for r in asked]


# maps smaller than the image


def test_regions_of_small_maps_are_in_pixels_of_the_image() -> None:
    mask = disc(40, 20, 10, 6)
    small = find_regions(as_map(mask, 0.8), {"dent": as_map(mask, 0.6)}, threshold=0.5)[0]
    (large,) = find_regions(
        as_map(mask, 0.8), {"dent": as_map(mask, 0.6)}, threshold=0.5, size=(120, 80), min_area_px=7
    )
    assert np.array_equal(large.mask, np.kron(mask, np.ones((3, 2), bool)))
    assert large.bbox == (28, 12, 24, 36) and large.area_px == 6 * small.area_px
    assert large.centroid == pytest.approx((40, 30))
    assert (large.score, large.margin) == (small.score, small.margin)


def test_specks_are_measured_in_pixels_of_the_image() -> None:
    anomaly = np.zeros((20, 20), dtype=np.float32)
    anomaly[4:6, 4:6] = anomaly[12, 12] = 0.9
    areas = {r.area_px for r in find_regions(anomaly, {}, threshold=0.5, size=(200, 100))}
    assert areas == {4 * 50, 50}
    (region,) = find_regions(anomaly, {}, threshold=0.5, size=(200, 100), min_area_px=51)
    assert region.area_px == 200
    assert find_regions(anomaly, {}, threshold=0.5, size=(200, 100), min_area_px=201) == ()


def test_an_image_smaller_than_its_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least that of the maps, \(20, 20\).*\(19, 20\)"):
        find_regions(np.ones((20, 20), np.float32), {}, threshold=0.5, size=(19, 20))


@given(st.integers(0, 10_000), st.integers(0, 90), st.integers(0, 90), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_regions_of_small_maps_are_those_of_enlarged_maps(
    seed: int, down: int, right: int, least: int
) -> None:
    anomaly, maps = smooth(seed, 48, 6), {"dent": smooth(seed + 1, 48, 6), "stain": smooth(seed + 2, 48, 6)}
    size = (48 + down, 48 + right)
    at = np.ix_(*((np.arange(n) + 0.5) * 48 // n for n in size))
    at = tuple(index.astype(int) for index in at)
    found = find_regions(anomaly, maps, threshold=0.6, low=0.5, min_area_px=least, size=size)
    parts, count = ndimage.label(anomaly[at] > 0.5, EIGHT)
    kept = [parts == i for i in range(1, count + 1) if (anomaly[at][parts == i] > 0.6).any()]
    kept = [part for part in kept if part.sum() >= least]
    union = np.sum([region.mask for region in found], axis=0) if found else np.zeros(size, int)
    assert np.array_equal(union, np.sum(kept, axis=0) if kept else np.zeros(size, int))
    for region in found:
        mask = region.mask
        assert mask.shape == size and mask.sum() == region.area_px >= least
        rows, columns = np.nonzero(mask)
        assert region.centroid == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))
        assert 0 <= region.score <= 1 and 0 <= region.margin <= 1
        assert np.array_equal(decode_rle(region.rle), mask)


@given(st.integers(0, 10_000), st.floats(0.1, 0.8), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_growing_further_never_loses_a_flaw(
    seed: int, threshold: float, one: float, two: float, least: int
) -> None:
    anomaly, maps = smooth(seed, 64, 8), {"dent": smooth(seed + 1, 64, 8), "stain": smooth(seed + 2, 64, 8)}
    near, far = (
        find_regions(anomaly, maps, threshold=threshold, low=threshold - drop, min_area_px=least)
        for drop in sorted((one, two))
    )
    covered = np.zeros(anomaly.shape, dtype=bool)
    for region in far:
        covered |= region.mask
    assert all(covered[region.mask].all() for region in near)


def test_a_blank_map_has_no_regions() -> None:
    blank = np.zeros((9, 13), dtype=np.float32)
    assert find_regions(blank, {"dent": blank}, threshold=0.5) == ()


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'dent'.*\(4, 5\).*\(5, 4\)"):
        find_regions(np.ones((4, 5), np.float32), {"dent": np.ones((5, 4), np.float32)}, threshold=0.5)


@given(st.integers(0, 10_000), st.floats(0.3, 0.9), st.permutations(["dent", "stain", "scratch", "crack"]))
@settings(max_examples=60, deadline=None)
def test_regions_hold_together_and_ignore_the_order_of_types(
    seed: int, threshold: float, order: list[str]
) -> None:
    anomaly = smooth(seed)
    maps = {name: smooth(seed + i + 1) for i, name in enumerate(["dent", "stain", "scratch", "crack"])}
    options = {"threshold": threshold, "low": threshold - 0.1, "min_area_px": 5}
    ahead = {"unknown": smooth(seed + 9), "unknown_above": 0.5}
    regions = find_regions(anomaly, maps, **options, **ahead)
    again = find_regions(anomaly, {name: maps[name] for name in order}, **options, **ahead)
    assert [r.to_dict("rle") for r in regions] == [r.to_dict("rle") for r in again]

    assert [region.id for region in regions] == list(range(1, len(regions) + 1))
    assert [region.score for region in regions] == sorted((r.score for r in regions), reverse=True)
    union = np.zeros(anomaly.shape, dtype=int)
    for region in regions:
        mask = region.mask
        union += mask
        assert mask.sum() == region.area_px >= 5
        assert 0 <= region.score <= 1 and 0 <= region.margin <= 1
        assert region.type in (*maps, "unknown")
        assert ndimage.label(mask, EIGHT)[1] == 1
        x, y, width, height = region.bbox
        assert np.array_equal(np.flatnonzero(mask.any(axis=0))[[0, -1]], [x, x + width - 1])
        assert np.array_equal(np.flatnonzero(mask.any(axis=1))[[0, -1]], [y, y + height - 1])
        assert x <= region.centroid[0] <= x + width and y <= region.centroid[1] <= y + height
        assert np.array_equal(decode_rle(region.rle), mask)
    labels, count = ndimage.label(anomaly > threshold - 0.1, EIGHT)
    kept = [labels == i for i in range(1, count + 1) if (anomaly[labels == i] > threshold).any()]
    expected = sum((part for part in kept if part.sum() >= 5), np.zeros(anomaly.shape, dtype=int))
    assert np.array_equal(union, expected)

"""Tiles: where pictures are cut, maps without seams, scores that do not grow with the number of looks."""

from __future__ import annotations

import math
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo.errors import ConfigError
from dapo.images import prepare, restore_map
from dapo.tiles import (
    CANVAS_VALUES,
    Canvas,
    Tile,
    auto_size,
    combine,
    parse_tiling,
    plan,
    smallest_defect,
    tile_size,
    within,
)

lengths = st.integers(1, 9000)
sides = st.sampled_from([32, 224, 336, 518])


def spans(tiles: tuple[Tile, ...]) -> tuple[list[int], list[int]]:
    return sorted({tile.top for tile in tiles}), sorted({tile.left for tile in tiles})


def blended(height: int, width: int, tiles: tuple[Tile, ...], maps: list[np.ndarray]) -> np.ndarray:
    """float32 (rows, columns) of one map for each tile."""
    canvas = Canvas(height, width, states=1, tile=tiles[0], grid=maps[0].shape)
    for tile, grid in zip(tiles, maps, strict=True):
        canvas.add(tile, grid)
    return canvas.maps()[0]


def ramp(tile: Tile, grid: tuple[int, int], height: int, width: int) -> np.ndarray:
    """What a patch grid sees of a picture that brightens from 0 at one corner to 1 at the other."""
    y = (np.arange(grid[0]) + 0.5) / grid[0] * tile.height + tile.top
    x = (np.arange(grid[1]) + 0.5) / grid[1] * tile.width + tile.left
    return ((y[:, None] / height + x / width) / 2).astype(np.float32)


# plan


@given(lengths, lengths, st.integers(60, 9000), st.floats(0, 0.75))
def test_tiles_are_alike_cover_everything_and_share_enough(
    height: int, width: int, size: int, overlap: float
) -> None:
    tiles = plan(height, width, size=size, overlap=overlap)
    tops, lefts = spans(tiles)
    assert {(tile.height, tile.width) for tile in tiles} == {(min(height, size), min(width, size))}
    assert [(tile.top, tile.left) for tile in tiles] == [(top, left) for top in tops for left in lefts]
    for starts, length in ((tops, height), (lefts, width)):
        extent = min(length, size)
        steps = np.diff(starts)
        assert starts[0] == 0
        assert starts[-1] + extent == length
        if steps.size:
            assert steps.max() - steps.min() <= 1
            assert extent - steps.max() >= overlap * size
            fewer = (length - extent) / (steps.size - 1) if steps.size > 1 else math.inf
            assert fewer > size - math.ceil(overlap * size)  # one tile less would not do


def test_plan_by_hand() -> None:
    assert plan(10, 20, size=10, overlap=0.25) == (
        Tile(0, 0, 10, 10),  # stride at most 7: two steps of 5 over the 10 px left
        Tile(0, 5, 10, 10),
        Tile(0, 10, 10, 10),
    )
    assert plan(9, 30, size=16, overlap=0) == (Tile(0, 0, 9, 16), Tile(0, 14, 9, 16))
    assert plan(5, 7, size=8) == (Tile(0, 0, 5, 7),)
    assert plan(8, 8, size=8) == (Tile(0, 0, 8, 8),)


def test_line_scan_has_one_row_of_tiles() -> None:
    tiles = plan(200, 5000, size=400)
    assert len(tiles) == 17
    assert {(tile.top, tile.height, tile.width) for tile in tiles} == {(0, 200, 400)}


def test_one_pixel_more_than_a_tile_makes_two() -> None:
    assert [tile.left for tile in plan(100, 101, size=100)] == [0, 1]


@pytest.mark.parametrize("size", [7, 0, -1])
def test_tiles_too_small_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"at least 8 pixels, came {size}"):
        plan(100, 100, size=size)


@pytest.mark.parametrize("overlap", [-0.1, 0.8, math.nan])
def test_overlap_out_of_range_is_refused(overlap: float) -> None:
    with pytest.raises(ConfigError, match="overlap"):
        plan(100, 100, size=50, overlap=overlap)


def test_no_picture_no_plan() -> None:
    with pytest.raises(ValueError, match="0 x 5"):
        plan(0, 5, size=8)


def test_a_tile_is_cut_without_copying() -> None:
    picture = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    part = Tile(1, 2, 3, 2).cut(picture)
    assert np.array_equal(part, picture[1:4, 2:4])
    assert np.shares_memory(part, picture)


def test_tiles_outside_the_region_of_interest_need_no_look() -> None:
    tiles = plan(30, 30, size=10, overlap=0)
    mask = np.zeros((30, 30), dtype=bool)
    mask[10, 9] = mask[10, 10] = True
    assert within(tiles, mask) == (Tile(10, 0, 10, 10), Tile(10, 10, 10, 10))
    assert within(tiles, np.zeros((30, 30), dtype=bool)) == ()


# --tile


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (224, 224, None),
        (1024, 1024, None),
        (1024, 1280, None),
        (3000, 4000, 448),
        (8000, 6000, 448),
        (200, 5000, 400),
        (5000, 200, 400),
        (20, 5000, 112),
        (100, 400, None),
        (100, 401, 200),
    ],
)
def test_auto_cuts_what_is_large_or_long(height: int, width: int, size: int | None) -> None:
    assert auto_size(height, width, side=224) == size


def test_auto_counts_by_hand() -> None:
    assert len(plan(3000, 4000, size=448)) == 9 * 12


@given(lengths, lengths, sides)
def test_auto_gains_and_is_bounded(height: int, width: int, side: int) -> None:
    size = tile_size("auto", height, width, side=side)
    whole = smallest_defect(height, width, None, side=side, patch=8, fit="aspect")
    if size is None:
        assert height * width <= (6 * side) ** 2 or max(height, width) <= 2 * side
        return
    tiled = smallest_defect(height, width, size, side=side, patch=8, fit="aspect")
    assert side // 2 <= size <= 2 * side
    assert tiled <= max(1.0, whole)
    assert len(plan(height, width, size=size)) <= 4 * (height / size + 1) * (width / size + 1)


@pytest.mark.parametrize(("value", "wanted"), [("auto", "auto"), (" Off ", "off"), ("448", 448), (448, 448)])
def test_tile_option_is_read(value: int | str, wanted: int | str) -> None:
    assert parse_tiling(value) == wanted


@pytest.mark.parametrize("value", ["", "on", "7", "-8", "4.5", 3, "448px", "²"])
def test_tile_option_of_another_kind_is_refused(value: int | str) -> None:
    with pytest.raises(ConfigError, match="expected 'auto', 'off' or"):
        parse_tiling(value)


def test_no_tiling_where_it_is_off_or_one_tile_holds_the_picture() -> None:
    assert tile_size("off", 8000, 6000, side=224) is None
    assert tile_size("auto", 500, 500, side=224) is None
    assert tile_size(500, 500, 400, side=224) is None
    assert tile_size(499, 500, 400, side=224) == 499


# Blending


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.integers(8, 300),
    st.floats(0, 0.75),
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(0, 1, width=32),
)
def test_a_constant_stays_that_constant(
    height: int, width: int, size: int, overlap: float, gh: int, gw: int, value: float
) -> None:
    tiles = plan(height, width, size=max(size, height // 8, width // 8), overlap=overlap)
    whole = blended(height, width, tiles, [np.full((gh, gw), value, dtype=np.float32)] * len(tiles))
    assert np.array_equal(whole, np.full_like(whole, np.float32(value)))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(50, 200), st.integers(0, 2**32 - 1))
def test_no_value_leaves_the_range_and_order_does_not_matter(
    height: int, width: int, size: int, seed: int
) -> None:
    tiles = plan(height, width, size=size)
    rng = np.random.default_rng(seed)
    maps = [rng.random((5, 6), dtype=np.float32) for _ in tiles]
    whole = blended(height, width, tiles, maps)
    assert min(m.min() for m in maps) <= whole.min()
    assert whole.max() <= max(m.max() for m in maps)
    pairs = list(zip(tiles, maps, strict=True))
    random.Random(seed).shuffle(pairs)
    other = blended(height, width, tuple(t for t, _ in pairs), [m for _, m in pairs])
    np.testing.assert_allclose(other, whole, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "size", "grid"),
    [
        (800, 600, 224, (28, 28)),
        (200, 2000, 400, (20, 40)),
        (997, 1013, 331, (14, 14)),
        (90, 700, 200, (7, 9)),
    ],
)
def test_tiles_of_a_ramp_give_the_ramp(height: int, width: int, size: int, grid: tuple[int, int]) -> None:
    tiles = plan(height, width, size=size)
    whole = blended(height, width, tiles, [ramp(tile, grid, height, width) for tile in tiles])
    wanted = ramp(Tile(0, 0, height, width), whole.shape, height, width)
    # Within half a patch of the picture's border the outer patch goes on, as in restore_map.
    rim = max(tiles[0].height / grid[0] / height, tiles[0].width / grid[1] / width) / 2
    np.testing.assert_allclose(whole, wanted, atol=rim + 1e-6)
    y, x = math.ceil(rim * whole.shape[0]) + 1, math.ceil(rim * whole.shape[1]) + 1
    np.testing.assert_allclose(whole[y:-y, x:-x], wanted[y:-y, x:-x], atol=1e-3)


def test_a_single_tile_is_resized_as_any_map_is() -> None:
    rng = np.random.default_rng(3)
    tile, grid = Tile(0, 0, 120, 90), rng.random((2, 10, 6), dtype=np.float32)
    canvas = Canvas(120, 90, states=2, tile=tile, grid=(10, 6))
    canvas.add(tile, grid)
    whole = canvas.maps()
    assert whole.shape == (2, 30, 18)  # three cells along a patch
    np.testing.assert_allclose(whole, restore_map(grid, 30, 18), atol=1e-6)


def test_a_canvas_coarser_than_patches_averages_them() -> None:
    grid = np.random.default_rng(3).random((12, 24), dtype=np.float32)
    tile = Tile(0, 0, 4, 6)
    np.testing.assert_allclose(blended(4, 6, (tile,), [grid]), restore_map(grid, 4, 6), atol=1e-6)


def test_seams_are_gradual_and_each_tile_rules_its_middle() -> None:
    tiles = plan(100, 175, size=100, overlap=0.25)
    dark, light = np.zeros((10, 10), dtype=np.float32), np.ones((10, 10), dtype=np.float32)
    row = blended(100, 175, tiles, [dark, light])[15]
    x = (np.arange(row.size) + 0.5) * 175 / row.size
    assert np.array_equal(row[x < 75], np.zeros((x < 75).sum()))
    assert np.array_equal(row[x > 100], np.ones((x > 100).sum()))
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 0.25  # the overlap is 7 cells wide
    np.testing.assert_allclose(row + row[::-1], 1, atol=1e-6)


def test_a_lone_patch_keeps_most_of_its_height_where_it_lies() -> None:
    height, width, tiles = 600, 600, plan(600, 600, size=224)
    for y, x in ((300, 300), (3, 411), (171, 598)):
        maps = []
        for tile in tiles:
            grid = np.zeros((28, 28), dtype=np.float32)
            if tile.top <= y < tile.top + tile.height and tile.left <= x < tile.left + tile.width:
                grid[(y - tile.top) // 8, (x - tile.left) // 8] = 1
            maps.append(grid)
        full = restore_map(blended(height, width, tiles, maps), height, width)
        peak = np.unravel_index(full.argmax(), full.shape)
        assert math.dist(peak, (y, x)) <= 8
        assert full.max() > 0.4


def test_tiles_left_out_leave_zeros_and_change_nothing_else() -> None:
    tiles = plan(100, 400, size=100, overlap=0.25)
    grid = np.full((10, 10), 0.5, dtype=np.float32)
    whole = blended(100, 400, tiles[:1], [grid])
    x = (np.arange(whole.shape[1]) + 0.5) * 400 / whole.shape[1]
    assert np.array_equal(whole, np.broadcast_to(np.where(x < 100, 0.5, 0), whole.shape))


def test_a_cell_in_the_very_edge_of_its_only_tile_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapo.tiles.CANVAS_VALUES", 9)
    tiles = plan(16, 16, size=8, overlap=0)
    grid = np.full((1, 1), 0.5, dtype=np.float32)
    whole = blended(16, 16, tiles, [grid] * 4)  # the middle one of three cells begins where tiles meet
    assert np.array_equal(whole, np.full((3, 3), 0.5))


def test_states_do_not_mix() -> None:
    tiles = plan(60, 150, size=60)
    canvas = Canvas(60, 150, states=3, tile=tiles[0], grid=(6, 6))
    for tile in tiles:
        canvas.add(tile, np.stack([np.full((6, 6), value, dtype=np.float32) for value in (0.1, 0.7, 0.2)]))
    whole = canvas.maps()
    assert [np.unique(state).tolist() for state in whole] == [[np.float32(v)] for v in (0.1, 0.7, 0.2)]


def test_canvas_is_never_finer_than_the_picture() -> None:
    tile = Tile(0, 0, 10, 8)
    assert Canvas(10, 16, states=1, tile=tile, grid=(28, 2)).shape == (1, 10, 12)


@pytest.mark.parametrize("states", [11, 200])
def test_memory_is_bounded_for_48_megapixels(states: int) -> None:
    tiles = plan(8000, 6000, size=448)
    tracemalloc.start()
    canvas = Canvas(8000, 6000, states=states, tile=tiles[0], grid=(28, 28))
    grid = np.full((states, 28, 28), 0.25, dtype=np.float32)
    for tile in tiles[::20]:
        canvas.add(tile, grid)
    whole = canvas.maps()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    _, rows, columns = canvas.shape
    assert whole.size <= CANVAS_VALUES
    assert whole.max() == 0.25
    assert peak < 4 * (states + 1) * rows * columns + 16_000_000  # the stated bound, and one tile's cells
    if states == 11:
        assert (rows, columns) == (1500, 1125)  # patches of 16 px, three cells each


def test_wrong_maps_and_places_are_refused() -> None:
    tile = Tile(0, 0, 10, 10)
    canvas = Canvas(10, 20, states=2, tile=tile, grid=(2, 2))
    for maps in (np.zeros((2, 2)), np.zeros((3, 2, 2)), np.zeros((2, 0, 2))):
        with pytest.raises(ValueError, match="expected 2 maps"):
            canvas.add(tile, maps)
    for outside in (Tile(0, 11, 10, 10), Tile(1, 0, 10, 10), Tile(-1, 0, 10, 10)):
        with pytest.raises(ValueError, match="not inside"):
            canvas.add(outside, np.zeros((2, 2, 2)))
    canvas.maps()
    with pytest.raises(ValueError, match="make a new one"):
        canvas.add(tile, np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="nothing to draw on"):
        Canvas(10, 20, states=0, tile=tile, grid=(2, 2))


# The smallest flaw


@pytest.mark.parametrize(
    ("height", "width", "size", "fit", "wanted"),
    [
        (1024, 1024, None, "aspect", 36.6),  # 1/28 of the side
        (3000, 4000, None, "squash", 142.9),
        (3000, 4000, None, "aspect", 123.7),
        (3000, 4000, 448, "aspect", 16.0),
        (200, 5000, 400, "aspect", 10.1),
        (200, 5000, None, "aspect", 89.3),  # squashed to 4:1
        (8, 8, None, "squash", 1.0),
    ],
)
def test_the_smallest_flaw_is_one_patch(
    height: int, width: int, size: int | None, fit: str, wanted: float
) -> None:
    found = smallest_defect(height, width, size, side=224, patch=8, fit=fit)  # type: ignore[arg-type]
    assert found == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("fit", ["squash", "aspect"])
def test_the_smallest_flaw_is_what_a_patch_covers_after_preparing(fit: str) -> None:
    picture = np.zeros((300, 700, 3), dtype=np.uint8)
    _, rows, columns = prepare(picture, 224, 8, fit).shape  # type: ignore[arg-type]
    covered = max(300 * 8 / rows, 700 * 8 / columns)
    stated = smallest_defect(300, 700, None, side=224, patch=8, fit=fit)  # type: ignore[arg-type]
    assert stated == pytest.approx(covered, rel=0.05)  # grids are whole numbers of patches


# One score of many


def test_combining_by_hand() -> None:
    assert combine([0.5, 0.8, 0.2], power=1) == pytest.approx((1 + 4 + 0.25) / 3 / ((1 + 4 + 0.25) / 3 + 1))
    assert combine([0.5, 0.8, 0.2], power=math.inf) == 0.8
    assert combine([0.5, 0.8], power=2) == pytest.approx(1 - 1 / (1 + math.sqrt(17 / 2)))
    assert combine([0.37], power=2) == 0.37
    np.testing.assert_allclose(combine([[0.5, 0.9], [0.8, 0.9]], power=1), [2.5 / 3.5, 0.9])
    assert combine([0.0, 0.0], power=1) == 0
    assert combine([1.0, 1.0, 1.0], power=1) == 1


scores = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(scores, st.floats(1, 50), st.randoms())
def test_combined_lies_between_and_grows_with_every_score(
    given_scores: list[float], power: float, rng: random.Random
) -> None:
    one = float(combine(given_scores, power=power))
    assert min(given_scores) <= one <= max(given_scores)
    assert one <= float(combine(given_scores, power=power + 1)) + 1e-9
    shuffled = given_scores.copy()
    rng.shuffle(shuffled)
    assert float(combine(shuffled, power=power)) == pytest.approx(one, abs=1e-9)
    shuffled[0] = (1 + shuffled[0]) / 2
    assert float(combine(shuffled, power=power)) >= one - 1e-9


def test_more_tiles_of_good_parts_do_not_raise_more_alarms() -> None:
    """Scores that are probabilities: logits of good and flawed looks are normal, 2 apart (ratio exp(l))."""
    rng = np.random.default_rng(5)
    level, alarms, highest = 0.95, {}, {}
    for n in (1, 10, 100):
        good = 1 / (1 + np.exp(-rng.normal(-2, 2, (n, 20_000))))
        alarms[n] = float((combine(good, power=1) > level).mean())
        highest[n] = float((combine(good, power=math.inf) > level).mean())
    assert all(rate <= (1 - level) / level for rate in alarms.values())  # Markov's bound
    assert highest[100] > 10 * highest[1]
    assert alarms[100] <= alarms[1] * 1.5


def test_a_power_that_fits_the_tail_keeps_the_rate() -> None:
    """Logits of good tiles with an exponential tail of scale 1/3."""
    rng = np.random.default_rng(6)
    rates = {}
    for n in (1, 10, 100):
        good = 1 / (1 + np.exp(-rng.exponential(1 / 3, (n, 20_000))))
        rates[n] = float((combine(good, power=3) > 0.8).mean())
    assert rates[1] == pytest.approx(4**-3, rel=0.25)
    assert max(rates.values()) < 8 * rates[1]
    assert rates[100] < 100 * rates[1] / 4


@pytest.mark.parametrize("wrong", [[], [1.1], [math.nan], 0.5, np.zeros((2, 0)), np.zeros((2, 2, 2))])
def test_what_is_no_list_of_scores_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected scores"):
        combine(wrong, power=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0.5, -1, math.nan])
def test_powers_below_one_are_refused(power: float) -> None:
    with pytest.raises(ValueError, match="power"):
        combine([0.5], power=power)

"""Metrics against outside references: scikit-learn for rankings, every threshold and region for AUPRO."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import label as label_regions
from skimage.measure import regionprops
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

import dapo.metrics
from dapo.errors import DataError
from dapo.metrics import StreamingPixelMetrics, image_metrics, pixel_metrics, type_metrics
from dapo.metrics.intervals import GroupHistogram, auroc_draws, percentile_interval, recall_draws
from dapo.metrics.streaming import codes

RELAXED = settings(deadline=None)  # a shared machine pauses now and then
PIXEL = ("auroc", "ap", "f1_max", "aupro")
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]


def blobs(seed: int, images: int = 4, side: int = 24, levels: int | None = None) -> tuple[Maps, Masks]:
    """Maps and masks with several regions an image, the last image good; `levels` makes scores tie."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), dtype=np.bool_)
    for mask in masks[:-1]:
        for _ in range(3):
            row, column = generator.integers(0, side - 6, 2)
            height, width = generator.integers(1, 6, 2)
            mask[row : row + height, column : column + width] = True
    maps = generator.random(masks.shape).astype(np.float32) + 0.4 * masks * generator.random(
        masks.shape
    ).astype(np.float32)
    return (maps if levels is None else np.round(maps * levels) / levels).astype(np.float32), masks


def brute_force_aupro(maps: Maps, masks: Masks, max_fpr: float) -> float:
    """Every distinct score as a threshold, every region looked at; trapezoids up to max_fpr, the last one
    cut.
    """
    points = [(0.0, 0.0)]
    regions = [
        (image, tuple(region.coords.T))
        for image, mask in enumerate(masks)
        for region in regionprops(label_regions(mask, connectivity=2))
    ]
    for threshold in np.unique(maps)[::-1]:
        called = maps >= threshold
        rate = (called & ~masks).sum() / (~masks).sum()
        points.append(
            (float(rate), float(np.mean([called[image][coords].mean() for image, coords in regions])))
        )
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            x1, y1 = max_fpr, y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


def outside_f1_max(truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    precision, recall, _ = precision_recall_curve(truth, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


@pytest.mark.parametrize("levels", [None, 1000, 7, 1])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_metrics_equal_the_references(seed: int, levels: int | None) -> None:
    maps, masks = blobs(seed, levels=levels)
    found = pixel_metrics(maps, masks)
    truth, scores = masks.ravel(), maps.ravel()
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found["ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert found["f1_max"] == pytest.approx(outside_f1_max(truth, scores), abs=1e-12)
    assert found["aupro"] == pytest.approx(brute_force_aupro(maps, masks, 0.3), abs=1e-12)


@pytest.mark.parametrize("max_fpr", [0.01, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("levels", [None, 5])
def test_aupro_at_other_limits(max_fpr: float, levels: int | None) -> None:
    maps, masks = blobs(11, levels=levels)
    expected = brute_force_aupro(maps, masks, max_fpr)
    assert pixel_metrics(maps, masks, max_fpr)["aupro"] == pytest.approx(expected, abs=1e-12)


def test_regions_touching_at_a_corner_are_one() -> None:
    mask = np.zeros((1, 4, 4), dtype=np.bool_)
    mask[0, 0, 0] = mask[0, 1, 1] = True  # one region of two pixels under 8-connectivity
    mask[0, 3, 3] = True  # a region of its own
    maps = np.zeros((1, 4, 4), dtype=np.float32)
    maps[0, 3, 3] = 2
    maps[0, 0, 0] = 1
    # overlap 1/2 with the lone pixel, 3/4 with half of the pair, no false positive yet; the rest ties at 0:
    # a straight line from (0, 3/4) to (1, 1), so 3/4 + 0.3 / 4 / 2 on average up to 0.3
    assert pixel_metrics(maps, mask)["aupro"] == pytest.approx(0.75 + 0.0375)


def test_images_of_different_sizes() -> None:
    maps, masks = blobs(2)
    cut = [(slice(0, 24 - index), slice(0, 20 + index)) for index in range(4)]
    ragged = [map_[part] for map_, part in zip(maps, cut, strict=True)]
    ragged_masks = [mask[part] for mask, part in zip(masks, cut, strict=True)]
    found = pixel_metrics(ragged, ragged_masks)
    scores = np.concatenate([part.ravel() for part in ragged])
    truth = np.concatenate([part.ravel() for part in ragged_masks])
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores))
    streaming = StreamingPixelMetrics()
    streaming.update(ragged, ragged_masks)
    low, high = streaming.bounds()["aupro"]
    assert low - 1e-9 <= found["aupro"] <= high + 1e-9


def test_doubles_are_ranked_as_doubles() -> None:
    maps = np.array([[[1.0, 1.0 + 1e-12, 0.5, 0.25]]])  # the first two are one number in float32
    masks = np.array([[[False, True, False, False]]])
    assert pixel_metrics(maps, masks)["auroc"] == 1.0
    assert image_metrics(maps[0, 0], masks[0, 0])["auroc"] == 1.0


def test_whole_numbers_and_zero_one_masks_pass() -> None:
    maps, masks = blobs(3, levels=9)
    whole = np.round(maps * 9).astype(np.int16)
    assert pixel_metrics(whole, masks.astype(np.uint8)) == pytest.approx(pixel_metrics(maps, masks))


@pytest.mark.parametrize("seed", range(5))
def test_image_metrics_equal_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.random(60) < 0.4
    scores = np.round(generator.random(60) + 0.3 * labels, 1)
    found = image_metrics(scores, labels)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert found["ap"] == pytest.approx(average_precision_score(labels, scores))
    assert found["f1_max"] == pytest.approx(
        max(f1_score(labels, scores >= limit) for limit in np.unique(scores))
    )


# properties


def cases(minimum: int = 1) -> st.SearchStrategy[tuple[list[int], list[bool]]]:
    """(whole scores that often tie, labels) of 1 to 40 images."""
    return st.integers(minimum, 40).flatmap(
        lambda size: st.tuples(
            st.lists(st.integers(-6, 6), min_size=size, max_size=size),
            st.lists(st.booleans(), min_size=size, max_size=size),
        )
    )


@RELAXED
@given(cases())
def test_figures_stay_between_nothing_and_one(case: tuple[list[int], list[bool]]) -> None:
    scores, labels = case
    maps, masks = np.array([[scores]], dtype=np.float32), np.array([[labels]])
    for figures in (image_metrics(scores, labels), pixel_metrics(maps, masks)):
        for name, value in figures.items():
            needs_good = name in ("auroc", "aupro")
            exists = any(labels) and not (needs_good and all(labels))
            assert math.isnan(value) != exists, name
            assert not exists or 0 <= value <= 1


@RELAXED
@given(cases())
def test_only_the_order_counts(case: tuple[list[int], list[bool]]) -> None:
    scores, labels = case
    maps, masks = np.array([[scores]], dtype=np.float64), np.array([[labels]])
    moved = np.arctan(maps * 0.3) - 5
    assert pixel_metrics(moved, masks) == pytest.approx(pixel_metrics(maps, masks), nan_ok=True)
    assert image_metrics(moved[0, 0], labels) == pytest.approx(image_metrics(scores, labels), nan_ok=True)


@RELAXED
@given(cases(), st.randoms(use_true_random=False))
def test_the_sequence_of_images_does_not_count(case: tuple[list[int], list[bool]], random: object) -> None:
    scores, labels = case
    order = list(range(len(scores)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = image_metrics([scores[i] for i in order], [labels[i] for i in order])
    assert shuffled == pytest.approx(image_metrics(scores, labels), nan_ok=True)
    maps, masks = np.array(scores, dtype=np.float32)[:, None, None], np.array(labels)[:, None, None]
    assert pixel_metrics(maps[order], masks[order]) == pytest.approx(pixel_metrics(maps, masks), nan_ok=True)


@RELAXED
@given(cases(minimum=2))
def test_a_perfect_ranking_is_one(case: tuple[list[int], list[bool]]) -> None:
    scores, labels = case
    labels[0], labels[1] = True, False
    raised = np.array(scores) + 100 * np.array(labels)
    assert set(image_metrics(raised, labels).values()) == {1.0}
    assert set(pixel_metrics(raised[None, None], np.array(labels)[None, None]).values()) == {1.0}
    turned = image_metrics(-raised, labels)
    assert turned["auroc"] == 0


# degenerate input


def test_without_a_defect_nothing_exists() -> None:
    maps, masks = blobs(0)
    assert all(math.isnan(value) for value in pixel_metrics(maps, np.zeros_like(masks)).values())
    assert all(math.isnan(value) for value in image_metrics([0.1, 0.2], [False, False]).values())
    assert all(math.isnan(value) for value in image_metrics([], []).values())
    assert all(math.isnan(value) for value in pixel_metrics([], []).values())


def test_with_defects_only_rates_do_not_exist() -> None:
    maps, masks = blobs(0)
    found = pixel_metrics(maps, np.ones_like(masks))
    assert math.isnan(found["auroc"])
    assert math.isnan(found["aupro"])
    assert found["ap"] == found["f1_max"] == 1
    streaming = StreamingPixelMetrics()
    streaming.update(maps, np.ones_like(masks))
    assert streaming.compute() == pytest.approx(found, nan_ok=True)
    assert streaming.bounds()["ap"] == (1, 1)
    assert math.isnan(streaming.bounds()["auroc"][0])


def test_all_equal_is_the_diagonal() -> None:
    _, masks = blobs(0)
    found = pixel_metrics(np.full(masks.shape, 0.7, dtype=np.float32), masks)
    share = masks.mean()
    assert found == pytest.approx(
        {"auroc": 0.5, "ap": share, "f1_max": 2 * share / (1 + share), "aupro": 0.15}
    )


def test_a_nan_score_makes_no_number_up() -> None:
    maps, masks = blobs(0)
    maps[1, 2, 3] = np.nan
    assert all(math.isnan(value) for value in pixel_metrics(maps, masks).values())
    assert all(math.isnan(value) for value in image_metrics([0.1, math.nan], [True, False]).values())
    streaming = StreamingPixelMetrics()
    streaming.update(maps, masks)
    assert all(math.isnan(value) for value in streaming.compute().values())
    assert all(math.isnan(low) for low, _ in streaming.bounds().values())


def test_infinite_scores_have_a_place_in_the_order() -> None:
    assert image_metrics([math.inf, 0.0, -math.inf], [True, False, False])["auroc"] == 1


def test_one_image_is_enough() -> None:
    maps, masks = blobs(5)
    expected = brute_force_aupro(maps[:1], masks[:1], 0.3)
    assert pixel_metrics(maps[:1], masks[:1])["aupro"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("maps", "masks", "words"),
    [
        (np.zeros((2, 3, 3)), np.zeros((1, 3, 3), dtype=bool), "2 maps and 1 masks"),
        (np.zeros((1, 3, 3)), np.zeros((1, 3, 4), dtype=bool), r"\(3, 3\) and \(3, 4\)"),
        (np.zeros((1, 3, 3)), np.full((1, 3, 3), 255), "Binarise"),
        (np.zeros((1, 3, 3), dtype=complex), np.zeros((1, 3, 3), dtype=bool), "complex128"),
        (np.zeros((1, 3)), np.zeros((1, 3), dtype=bool), r"shape \(h, w\)"),
    ],
)
def test_what_does_not_fit_is_named(maps: Maps, masks: Masks, words: str) -> None:
    with pytest.raises(DataError, match=words):
        pixel_metrics(maps, masks)
    with pytest.raises(DataError, match=words):
        StreamingPixelMetrics().update(maps, masks)


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.1, math.nan])
def test_a_rate_outside_its_range_is_refused(max_fpr: float) -> None:
    maps, masks = blobs(0)
    with pytest.raises(DataError, match="max_fpr"):
        pixel_metrics(maps, masks, max_fpr)
    with pytest.raises(DataError, match="max_fpr"):
        StreamingPixelMetrics(max_fpr)


def test_image_scores_and_labels_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="one score and one label"):
        image_metrics([0.1, 0.2, 0.3], [True, False])


# streaming


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([10, 12, 16, 20]),
    st.sampled_from([None, 50, 3]),
    st.sampled_from([1.0, 1e-6, -1.0, 1e4]),
)
def test_streaming_bounds_hold_the_exact_figures(
    seed: int, bits: int, levels: int | None, scale: float
) -> None:
    maps, masks = blobs(seed, levels=levels)
    maps = (maps * np.float32(scale)).astype(np.float32)
    exact = pixel_metrics(maps, masks)
    streaming = StreamingPixelMetrics(bits=bits)
    for map_, mask in zip(maps, masks, strict=True):
        streaming.update([map_], [mask])
    found, bounds = streaming.compute(), streaming.bounds()
    for name in PIXEL:
        low, high = bounds[name]
        assert low - 1e-9 <= exact[name] <= high + 1e-9, name
        assert low - 1e-9 <= found[name] <= high + 1e-9, name


def test_streaming_bounds_are_narrow_at_the_default_resolution() -> None:
    maps, masks = blobs(1, images=20, side=64)
    streaming = StreamingPixelMetrics()
    streaming.update(maps, masks)
    exact, found = pixel_metrics(maps, masks), streaming.compute()
    for name, (low, high) in streaming.bounds().items():
        assert high - low < 2e-3, name
        assert found[name] == pytest.approx(exact[name], abs=5e-4)


def test_streaming_says_when_a_map_is_saturated() -> None:
    maps, masks = blobs(1)
    crowded = 1 - (1 - maps / maps.max()) * np.float32(1e-4)  # everything within the last bin below 1
    streaming = StreamingPixelMetrics()
    streaming.update(crowded, masks)
    low, high = streaming.bounds()["auroc"]
    assert high - low > 0.5
    assert low - 1e-9 <= pixel_metrics(crowded, masks)["auroc"] <= high + 1e-9


def test_streaming_is_exact_for_scores_it_can_hold() -> None:
    maps, masks = blobs(4, levels=16)  # sixteenths need 4 bits of mantissa
    streaming = StreamingPixelMetrics()
    streaming.update(maps, masks)
    assert streaming.compute() == pytest.approx(pixel_metrics(maps, masks), abs=1e-12)


def test_shards_merge_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = blobs(6, images=6)
    whole, first, second = (StreamingPixelMetrics() for _ in range(3))
    whole.update(maps, masks)
    monkeypatch.setattr("dapo.metrics.streaming.PENDING", 500)  # count after every image here
    first.update(maps[:2], masks[:2])
    second.update(maps[2:], masks[2:])
    first.merge(second)
    assert first.images == 6
    assert first.compute() == pytest.approx(whole.compute(), abs=1e-12)
    with pytest.raises(DataError, match="same settings"):
        first.merge(StreamingPixelMetrics(bits=16))


def test_streaming_memory_does_not_grow() -> None:
    maps, masks = blobs(7, images=8, side=256)
    streaming = StreamingPixelMetrics(bits=16)
    for _ in range(6):  # past the first count of what is pending
        streaming.update(maps, masks)
    tracemalloc.start()
    for _ in range(24):
        streaming.update(maps, masks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20  # 100 million bytes of maps went through


@RELAXED
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=50), st.integers(10, 26))
def test_codes_keep_the_order(values: list[float], bits: int) -> None:
    scores = np.sort(np.array(values, dtype=np.float32))
    code = codes(scores, bits)
    assert (np.diff(code.astype(np.int64)) >= 0).all()
    assert code.max() < 2**bits
    assert codes(np.array([0.0]), bits) == codes(np.array([-0.0]), bits)


def test_bits_outside_their_range_are_refused() -> None:
    with pytest.raises(DataError, match="bits"):
        StreamingPixelMetrics(bits=32)


# types


def type_case(seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(n=3, t=4, h, w) maps and labels; state 3 is absent from the truth; some pixels ignored."""
    generator = np.random.default_rng(seed)
    labels = generator.choice([0, 0, 0, 1, 2, 255], size=(3, 12, 10)).astype(np.uint8)
    maps = generator.random((3, 4, 12, 10)).astype(np.float32)
    for state in range(3):
        maps[:, state] += 0.5 * (labels == state)
    return maps, labels


def test_type_metrics_equal_scikit_learn() -> None:
    maps, labels = type_case(0)
    found = type_metrics(maps, labels, ["scratch", "dent", "hole"])
    known = labels != 255
    calls, truth = maps.argmax(axis=1)[known], labels[known]
    for state, name in enumerate(["normal", "scratch", "dent"]):
        row = found["classes"][name]
        assert row["auroc"] == pytest.approx(roc_auc_score(truth == state, maps[:, state][known]))
        assert row["ap"] == pytest.approx(average_precision_score(truth == state, maps[:, state][known]))
        assert row["f1"] == pytest.approx(f1_score(truth == state, calls == state))
        assert row["pixels"] == (truth == state).sum()
    assert found["absent"] == ["hole"]
    assert all(math.isnan(found["classes"]["hole"][name]) for name in ("auroc", "ap", "f1"))
    present = [found["classes"][name] for name in ("normal", "scratch", "dent")]
    for name in ("auroc", "ap", "f1"):
        assert found[name] == pytest.approx(np.mean([row[name] for row in present]))


def test_ignored_pixels_change_nothing() -> None:
    maps, labels = type_case(1)
    before = type_metrics(maps, labels, ["scratch", "dent", "hole"])
    maps[np.broadcast_to((labels == 255)[:, None], maps.shape)] = np.nan
    after = type_metrics(maps, labels, ["normal", "scratch", "dent", "hole"])  # all states named: the same
    assert after["classes"]["scratch"] == before["classes"]["scratch"]


def test_type_metrics_degenerate() -> None:
    maps, labels = type_case(2)
    good = type_metrics(maps, np.zeros_like(labels), ["scratch", "dent", "hole"])
    assert math.isnan(good["auroc"])
    assert good["ap"] == 1
    assert good["absent"] == ["scratch", "dent", "hole"]
    nothing = type_metrics(maps, np.full_like(labels, 255), ["scratch", "dent", "hole"])
    assert all(math.isnan(nothing[name]) for name in ("auroc", "ap", "f1"))
    assert len(nothing["absent"]) == 4
    maps[0, 1, 0, 0], labels[0, 0, 0] = np.nan, 0
    lost = type_metrics(maps, labels, ["scratch", "dent", "hole"])
    assert math.isnan(lost["f1"])
    assert math.isnan(lost["classes"]["scratch"]["auroc"])
    assert not math.isnan(lost["classes"]["dent"]["auroc"])


def test_type_metrics_names_what_does_not_fit() -> None:
    maps, labels = type_case(3)
    with pytest.raises(DataError, match="names expected the 3 defect types"):
        type_metrics(maps, labels, ["scratch"])
    with pytest.raises(DataError, match="no two alike"):
        type_metrics(maps, labels, ["scratch", "dent", "dent"])
    with pytest.raises(DataError, match="label_maps expected 0"):
        type_metrics(maps, np.full_like(labels, 4), ["scratch", "dent", "hole"])
    with pytest.raises(DataError, match="Bring both to one size"):
        type_metrics(maps, labels[:, :5], ["scratch", "dent", "hole"])
    with pytest.raises(DataError, match="one label map for each image"):
        type_metrics(maps, labels[:2], ["scratch", "dent", "hole"])
    with pytest.raises(DataError, match="same states"):
        type_metrics([maps[0], maps[1, :3]], list(labels[:2]), ["scratch", "dent", "hole"])


# intervals


def test_draws_without_change_give_the_figure_itself() -> None:
    """Every group holds the same counts, so any resample has the AUROC of the whole."""
    maps, masks = blobs(8)
    histogram = GroupHistogram(5, 1 << 18)
    for group in range(5):
        for map_, mask in zip(maps, masks, strict=True):
            histogram.add(group, codes(map_, 18), mask)
    draws = auroc_draws(*histogram.counts(), draws=100, seed=0)
    assert draws.shape == (100,)
    assert draws == pytest.approx(pixel_metrics(maps, masks)["auroc"], abs=1e-3)


def test_histogram_folds_to_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = blobs(9, images=6)
    whole, folded = GroupHistogram(3, 1 << 12), GroupHistogram(3, 1 << 12)
    for image, (map_, mask) in enumerate(zip(maps, masks, strict=True)):
        whole.add(image % 3, codes(map_, 12), mask)
    monkeypatch.setattr("dapo.metrics.intervals.FOLD", 2)
    for image, (map_, mask) in enumerate(zip(maps, masks, strict=True)):
        folded.add(image % 3, codes(map_, 12), mask)
    for one, other in zip(whole.counts(), folded.counts(), strict=True):
        assert (one.toarray() == other.toarray()).all()
        assert one.shape[0] == 3
    assert whole.counts()[0].sum() == masks.sum()


def test_draws_equal_resampling_by_hand() -> None:
    """The weighted counts of one draw give what scikit-learn gives for the repeated images."""
    from dapo.metrics.intervals import group_weights

    generator = np.random.default_rng(0)
    groups, truth = generator.integers(0, 6, 40), generator.random(40) < 0.5
    scores = generator.integers(0, 9, 40)
    positive, negative = np.zeros((6, 9)), np.zeros((6, 9))
    np.add.at(positive, (groups[truth], scores[truth]), 1)
    np.add.at(negative, (groups[~truth], scores[~truth]), 1)
    draws = auroc_draws(positive, negative, draws=20, seed=3)
    weights = next(group_weights(6, 20, seed=3)).astype(int)
    for draw, weight in zip(draws, weights, strict=True):
        times = weight[groups]
        expected = roc_auc_score(np.repeat(truth, times), np.repeat(scores, times))
        assert draw == pytest.approx(expected)


def test_intervals_narrow_with_more_groups() -> None:
    def width(groups: int) -> float:
        hits = (np.arange(groups) % 4 > 0).astype(float)[:, None]
        low, high = percentile_interval(recall_draws(hits, np.ones((groups, 1)), 1000, seed=1))
        assert low < 0.75 < high
        return high - low

    # a share of 0.75 over n groups has 95 % within 1.96 * sqrt(0.75 * 0.25 / n)
    assert width(100) == pytest.approx(2 * 1.96 * math.sqrt(0.1875 / 100), rel=0.15)
    assert width(1600) == pytest.approx(width(100) / 4, rel=0.2)


def test_an_absent_class_gives_no_interval() -> None:
    empty = np.zeros((4, 2))
    assert np.isnan(recall_draws(empty, empty, 70, seed=0)).all()
    assert np.isnan(auroc_draws(empty, np.ones((4, 2)), 70, seed=0)).all()
    assert all(math.isnan(end) for end in percentile_interval(np.full(3, math.nan)))


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_exact_memory_is_at_most_six_times_the_input(share: float) -> None:
    generator = np.random.default_rng(0)
    maps = generator.random((10, 256, 256), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=np.bool_)
    masks[:, : int(256 * share)] = True
    tracemalloc.start()
    pixel_metrics(maps, masks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 6 * (maps.nbytes + masks.nbytes)


def test_the_public_names_are_the_promised_ones() -> None:
    assert set(dapo.metrics.__all__) == {
        "StreamingPixelMetrics",
        "image_metrics",
        "pixel_metrics",
        "type_metrics",
    }


def test_nothing_warns() -> None:
    maps, masks = blobs(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixel_metrics(maps.astype(np.float64) * 1e300, masks)
        StreamingPixelMetrics().update(maps.astype(np.float64) * 1e300, masks)
        pixel_metrics(maps, np.zeros_like(masks))

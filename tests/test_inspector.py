"""The public face: any image in, a whole result out; streams keep order and survive bad files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_clip_folder, tiny_model_folder

from dapo import answering
from dapo import inspector as module
from dapo.errors import ConfigError, InputError, ModelError, VocabularyError
from dapo.inspection import Failure, Inspection
from dapo.inspector import Inspector
from dapo.vocabulary import builtin


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def inspector(folder: Path) -> Inspector:
    return Inspector.from_pretrained(folder, device="cpu", precision="fp32")


def picture(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Seven pictures of three sizes, and between them a text, an empty file and a name without a file."""
    paths = []
    for i, size in enumerate([(60, 90), (40, 40), (60, 90), (40, 40), (33, 70), (60, 90), (40, 40)]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(picture(*size, seed=i)).save(paths[-1])
    (tmp_path / "text.png").write_text("not a picture, though it says so")
    (tmp_path / "empty.png").touch()
    paths[2:2] = [tmp_path / "text.png", tmp_path / "nowhere.png"]
    paths.append(tmp_path / "empty.png")
    return paths


def test_a_result_is_whole(inspector: Inspector) -> None:
    result = inspector.inspect(picture(), defects=["scratch", "pin hole"])
    assert isinstance(result, Inspection)
    assert (result.height, result.width) == (60, 90)
    assert 0 <= result.score <= 1
    assert result.raw_score == result.score
    assert result.threshold == 0.5
    assert result.verdict == ("defective" if result.score >= 0.5 else "ok")
    assert list(result.types) == list(result.type_maps) == ["scratch", "pin hole"]
    for values in (result.anomaly_map, *result.type_maps.values()):
        assert values.shape == (60, 90)
        assert values.dtype == np.float32
        assert 0 <= values.min() < values.max() <= 1
    assert result.model["name"] == "tiny"
    assert len(result.model["sha256"]) == 64
    assert result.timing_ms > 0
    assert not result.calibrated
    record = result.to_dict()
    assert record["schema"] == 1
    assert record["image"] == "ndarray"


def test_every_kind_of_image_gives_the_same(inspector: Inspector, tmp_path: Path) -> None:
    array = picture()
    Image.fromarray(array).save(tmp_path / "a.png")
    same = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.open(tmp_path / "a.png"),
        torch.from_numpy(array).permute(2, 0, 1),
    ]
    expected = inspector.inspect(array)
    for source in same:
        found = inspector.inspect(source)
        np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map)
    assert inspector.inspect(tmp_path / "a.png").image == str(tmp_path / "a.png")


def test_a_list_gives_a_list(inspector: Inspector) -> None:
    pictures = [picture(40 + i, 50, seed=i) for i in range(10)]
    found = inspector.inspect(pictures)
    assert [one.height for one in found] == list(range(40, 50))
    np.testing.assert_allclose(found[9].score, inspector.inspect(pictures[9]).score, rtol=1e-4)
    assert inspector.inspect([]) == []


def test_defects_by_default(inspector: Inspector, tmp_path: Path) -> None:
    assert list(inspector.inspect(picture()).types) == ["scratch", "hole", "stain"]  # the model's own list
    plain = Inspector.from_pretrained(tiny_clip_folder(tmp_path / "clip"), device="cpu")
    result = plain.inspect(picture())
    assert list(result.types) == list(builtin().names)
    assert result.model["name"] == "clip (handwritten prompts)"


def test_a_threshold_decides(folder: Path) -> None:
    for threshold, verdict in ((0.0, "defective"), (1.0, "ok")):
        strict = Inspector.from_pretrained(folder, device="cpu", threshold=threshold)
        result = strict.inspect(picture())
        assert (result.threshold, result.verdict) == (threshold, verdict)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            Inspector.from_pretrained(folder, threshold=wrong)


def test_regions_follow_the_models_settings(folder: Path) -> None:
    loose = loose_inspector(folder, 0.9)
    result = loose.inspect(picture(240, 320))
    level = loose.info.config.map_threshold
    assert 0 < sum(region.area_px for region in result.regions) <= int((result.anomaly_map > level).sum())
    picky = loose.info.config.model_copy(update={"min_area": 0.5})
    assert (
        Inspector(loose.detector, replace(loose.info, config=picky)).inspect(picture(240, 320)).regions == ()
    )


def loose_inspector(folder: Path, quantile: float) -> Inspector:
    """One that finds regions on noise: its map threshold is that quantile of what it sees there."""
    loose = Inspector.from_pretrained(folder, device="cpu", precision="fp32")
    level = float(np.quantile(loose.inspect(picture(240, 320)).anomaly_map, quantile))
    config = loose.info.config.model_copy(update={"map_threshold": level, "map_low": None, "min_area": 0.001})
    return Inspector(loose.detector, replace(loose.info, config=config))


def test_regions_of_large_images_are_found_smaller_and_enlarged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = loose_inspector(folder, 0.8)
    exact = loose.inspect(picture(240, 320))
    monkeypatch.setattr(answering, "CANVAS_VALUES", 5 * 80 * 107)
    rough = loose.inspect(picture(240, 320))
    assert len(exact.regions) > 1
    assert [region.type for region in rough.regions] == [region.type for region in exact.regions]
    for ours, theirs in zip(rough.regions, exact.regions, strict=True):
        both, either = (ours.mask & theirs.mask).sum(), (ours.mask | theirs.mask).sum()
        assert both / either > 0.9
        assert ours.area_px == ours.mask.sum()
        rows, columns = np.nonzero(ours.mask)
        assert ours.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert np.allclose(ours.centroid, (columns.mean() + 0.5, rows.mean() + 0.5), atol=3)


def test_type_maps_are_restored_one_at_a_time(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "find_regions", lambda *_, **__: ())
    restored: list[tuple[int, ...]] = []
    restore = answering.restore_map
    monkeypatch.setattr(
        answering, "restore_map", lambda m, *size: (restored.append(m.shape), restore(m, *size))[1]
    )
    monkeypatch.setattr(answering, "CANVAS_VALUES", 1)
    result = inspector.inspect(picture(), defects="scratch, hole, stain")
    assert (4, 4) in restored
    restored.clear()
    assert result.type_maps["hole"].shape == (60, 90)
    assert restored == [(4, 4)]
    assert len(result.type_maps) == 3
    assert "dent" not in result.type_maps


def test_streams_keep_order_and_survive_bad_files(inspector: Inspector, files: list[Path]) -> None:
    results = list(inspector.stream(files, defects="scratch, hole", batch_size=3))
    assert [result.image for result in results] == [str(path) for path in files]
    kinds = [result.kind if isinstance(result, Failure) else "" for result in results]
    assert kinds == ["", "", "unreadable", "missing", "", "", "", "", "", "empty"]
    for result in results:
        if isinstance(result, Inspection):
            alone = inspector.inspect(result.image, defects="scratch, hole")
            np.testing.assert_allclose(result.anomaly_map, alone.anomaly_map, atol=1e-5)
            assert result.score == pytest.approx(alone.score, abs=1e-5)


def test_one_bad_image_alone_is_an_error(inspector: Inspector, files: list[Path]) -> None:
    with pytest.raises(InputError):
        inspector.inspect(files[2])


def test_a_decoder_that_breaks_is_one_failure(
    inspector: Inspector, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: Path) -> np.ndarray:
        if source.name == "1.png":
            raise ZeroDivisionError("inside the decoder")
        return picture()

    monkeypatch.setattr(module, "load_image", broken)
    results = list(inspector.stream(files[:2]))
    assert isinstance(results[0], Inspection)
    assert results[1] == Failure(str(files[1]), "unreadable", "ZeroDivisionError: inside the decoder")


def test_streams_read_only_a_little_ahead(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal asked
        while True:
            asked += 1
            yield picture(seed=asked)

    before = set(threading.enumerate())
    results = inspector.stream(endless(), batch_size=4)
    assert asked == 0
    for _ in range(5):
        next(results)
    assert asked <= 4 + 4 + module.AHEAD
    results.close()
    assert not {thread.name for thread in set(threading.enumerate()) - before}
    # Large photographs make smaller batches: here each fills one.
    monkeypatch.setattr(module, "BATCH_PIXELS", 60 * 90)
    sizes: list[int] = []
    forward = inspector.detector.forward
    monkeypatch.setattr(
        inspector.detector, "forward", lambda x, *t: (sizes.append(len(x)), forward(x, *t))[1]
    )
    assert len(list(inspector.stream([picture(seed=i) for i in range(5)], batch_size=4))) == 5
    assert sizes == [1] * 5


def test_equal_shapes_share_a_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Inspector.from_pretrained(folder, device="cpu")
    wide.detector.settings = wide.detector.settings.model_copy(update={"fit": "aspect"})
    shapes: list[tuple[int, ...]] = []
    forward = wide.detector.forward
    monkeypatch.setattr(
        wide.detector, "forward", lambda x, *t: (shapes.append(tuple(x.shape)), forward(x, *t))[1]
    )
    pictures = [picture(40, 40), picture(40, 160), picture(40, 40), picture(40, 160)]
    results = list(wide.stream(pictures, batch_size=4))
    assert [result.width for result in results] == [40, 160, 40, 160]
    assert shapes == [(2, 3, 32, 32), (2, 3, 16, 64)]


def test_bad_words_fail_before_any_image_is_read(inspector: Inspector) -> None:
    with pytest.raises(VocabularyError):
        inspector.stream(["nowhere.png"], defects=[])
    with pytest.raises(ConfigError, match="batch_size is at least 1, got 0"):
        inspector.stream(["nowhere.png"], batch_size=0)


def test_what_does_not_exist_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match="the device 'warp' is not usable here"):
        Inspector.from_pretrained(folder, device="warp")
    with pytest.raises(ConfigError, match="precision is one of auto, fp32, bf16; got 'int3'"):
        Inspector.from_pretrained(folder, precision="int3")
    with pytest.raises(ModelError, match="there is no model folder"):
        Inspector.from_pretrained("./nowhere")

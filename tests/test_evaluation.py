"""Evaluation with inspectors that know the truth, guess, or fail: every figure by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from dapo.data import Sample
from dapo.data.annotated import Outlines
from dapo.data.sample import JoinedMask
from dapo.errors import ConfigError, DataError
from dapo.evaluation import Evaluation, best_of, evaluate, local_contrast_baseline
from dapo.evaluation.contrast import FILTERS, LocalContrast, best_filter
from dapo.evaluation.fingerprint import described
from dapo.evaluation.pictures import draw_curves
from dapo.evaluation.tables import Table, images_csv, products_csv, tables_of, types_csv
from dapo.inspection import Failure
from dapo.metrics import pixel_metrics, type_metrics

SIDE = 24
Maps = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Answer:
    raw_score: float
    anomaly_map: NDArray[np.float32] | None
    types: dict[str, float] = field(default_factory=dict)
    type_maps: Maps = field(default_factory=dict)


class Scripted:
    """Gives the answer written for each path; keeps what it was asked."""

    def __init__(self, answers: dict[Path, Answer | Failure]) -> None:
        self.answers = answers
        self.asked: list[Any] = []

    def stream(
        self, paths: Iterable[str | Path], defects: Any = None, batch_size: int = 8
    ) -> Iterator[Answer | Failure]:
        self.asked.append(defects)
        for path in paths:
            yield self.answers[Path(path)]


def dataset(folder: Path, per_type: int = 4, product: str = "nut", masks: bool = True) -> list[Sample]:
    """`per_type` images of each of good, bent and cut, every two of one physical part; a square of defect in
    each.
    """
    samples = []
    for kind in ("good", "bent", "cut"):
        for number in range(per_type):
            image = folder / product / kind / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((SIDE, SIDE), 90, dtype=np.uint8)).save(image)
            mask = folder / product / f"{kind}_{number}_mask.png"
            square = np.zeros((SIDE, SIDE), dtype=np.uint8)
            square[4:10, 4 + number : 12 + number] = 255
            Image.fromarray(square).save(mask)
            own = {} if kind == "good" else {kind: mask} if masks else None
            types = () if kind == "good" else (kind,)
            samples.append(Sample(image, product, types, own, "test", f"{product}/{kind}{number // 2}"))
    return samples


def guesses(samples: list[Sample], seed: int = 0, strength: float = 0.3) -> dict[Path, Answer | Failure]:
    """Noisy answers that lean towards the truth."""
    generator = np.random.default_rng(seed)
    answers: dict[Path, Answer | Failure] = {}
    for sample in samples:
        mask = sample.load_mask(SIDE, SIDE)
        lean = np.zeros((SIDE, SIDE)) if mask is None else strength * mask
        maps = {
            name: (generator.random((SIDE, SIDE)) / 2 + lean * (name in sample.types))
            for name in ("bent", "cut")
        }
        types = {name: float(generator.random() + strength * (name in sample.types)) for name in maps}
        maps32 = {name: value.astype(np.float32) for name, value in maps.items()}
        anomaly = (generator.random((SIDE, SIDE)) / 2 + lean).astype(np.float32)
        score = float(generator.random() + strength * sample.defective)
        answers[sample.image] = Answer(score, anomaly, types, maps32)
    return answers


def test_every_figure_by_hand(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    answers = guesses(samples)
    found = evaluate(Scripted(answers), samples, draws=0).products["nut"]
    given = [answers[sample.image] for sample in samples]
    assert all(isinstance(answer, Answer) for answer in given)
    scores = [answer.raw_score for answer in given]  # type: ignore[union-attr]
    assert found["image"]["auroc"] == pytest.approx(roc_auc_score([s.defective for s in samples], scores))
    maps = np.stack([answer.anomaly_map for answer in given])  # type: ignore[union-attr, misc]
    masks = np.stack([sample.load_mask(SIDE, SIDE) for sample in samples])  # type: ignore[misc]
    exact = pixel_metrics(maps, masks)
    for name, (low, high) in found["pixel_bounds"].items():
        assert low - 1e-9 <= exact[name] <= high + 1e-9
        assert found["pixel"][name] == pytest.approx(exact[name], abs=2e-3)
    truth = [sample.types[0] for sample in samples if sample.defective]
    calls = [
        max(a.types, key=a.types.__getitem__) for a, s in zip(given, samples, strict=True) if s.defective
    ]  # type: ignore[union-attr]
    assert found["types"]["top1"] == pytest.approx(
        np.mean([t == c for t, c in zip(truth, calls, strict=True)])
    )
    assert found["types"]["f1_macro"] == pytest.approx(f1_score(truth, calls, average="macro"))
    assert found["confusion"]["bent"]["cut"] == sum(
        t == "bent" and c == "cut" for t, c in zip(truth, calls, strict=True)
    )
    own = np.stack([answer.type_maps["bent"] for answer in given])  # type: ignore[union-attr]
    bent = masks & np.array([sample.types == ("bent",) for sample in samples])[:, None, None]
    row = found["per_type"]["bent"]
    assert row["pixel"]["auroc"] == pytest.approx(pixel_metrics(own, bent)["auroc"], abs=5e-3)
    chosen = [index for index, sample in enumerate(samples) if sample.types == ("bent",)]
    assert row["localisation_auroc"] == pytest.approx(
        pixel_metrics(maps[chosen], masks[chosen])["auroc"], abs=5e-3
    )
    against = [index for index, sample in enumerate(samples) if sample.types != ("cut",)]
    expected = roc_auc_score(
        [samples[index].defective for index in against], [scores[index] for index in against]
    )
    assert row["image_auroc"] == pytest.approx(expected)
    states = [np.stack([answer.type_maps[name] for answer in given]) for name in ("bent", "cut")]  # type: ignore[union-attr]
    labels = (
        masks
        * np.array([("bent", "cut").index(s.types[0]) + 1 if s.types else 0 for s in samples])[:, None, None]
    )
    exact_types = type_metrics(
        np.stack([1 - states[0] - states[1], *states], axis=1), labels, ["bent", "cut"]
    )
    for name in ("auroc", "ap", "f1"):
        assert found["types"][f"pixel_{name}"] == pytest.approx(exact_types[name], abs=5e-3)
        assert row["pixel"][name] == pytest.approx(exact_types["classes"]["bent"][name], abs=5e-3)
    assert found["normal"]["f1"] == pytest.approx(exact_types["classes"]["normal"]["f1"])
    assert found["counts"] == {
        "images": 12, "good": 4, "defective": 8, "with_masks": 12, "types_apart": 12, "groups": 6,
        "failed": 0, "empty_masks": 0,
    }  # fmt: skip


def test_a_perfect_inspector_is_perfect(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    answers: dict[Path, Answer | Failure] = {}
    for sample in samples:
        mask = sample.load_mask(SIDE, SIDE)
        assert mask is not None
        maps = {name: mask.astype(np.float32) * (name in sample.types) for name in ("bent", "cut")}
        types = {name: float(name in sample.types) for name in maps}
        answers[sample.image] = Answer(float(sample.defective), mask.astype(np.float32), types, maps)
    found = evaluate(Scripted(answers), samples, draws=50)
    for part in ("image", "pixel", "types"):
        assert set(found.mean[part].values()) == {1.0}
    assert all(pair == pytest.approx([1.0, 1.0]) for pair in found.mean["intervals"].values())


def test_balanced_accuracy_counts_types_alike(tmp_path: Path) -> None:
    samples = [s for s in dataset(tmp_path, per_type=6) if s.types != ("cut",) or s.image.stem in "01"]
    blank = np.zeros((SIDE, SIDE), dtype=np.float32)
    answers = {sample.image: Answer(0.5, blank, {"bent": 0.9, "cut": 0.1}) for sample in samples}
    found = evaluate(Scripted(dict(answers)), samples, draws=0).mean["types"]
    assert found["top1"] == pytest.approx(6 / 8)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
    assert found["f1_macro"] == pytest.approx((12 / 14 + 0) / 2)
    assert math.isnan(found["pixel_auroc"])  # no type maps given


def test_an_image_of_two_types_is_right_with_either(tmp_path: Path) -> None:
    first, *_ = (sample for sample in dataset(tmp_path, per_type=1) if sample.defective)
    both = Sample(first.image, "nut", ("bent", "cut"), None, "test")
    blank = np.zeros((SIDE, SIDE), dtype=np.float32)
    for call in ("bent", "cut"):
        answer = Answer(0.5, blank, {"bent": float(call == "bent"), "cut": float(call == "cut")})
        assert evaluate(Scripted({both.image: answer}), [both], draws=0).mean["types"]["top1"] == 1


def test_types_that_nobody_drew_apart_count_for_the_pixels_only(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    answers = guesses(samples)
    bent = next(sample for sample in samples if sample.types == ("bent",))
    assert bent.masks is not None
    both = replace(bent, types=("bent", "cut"), masks=None, joint=bent.masks["bent"])
    changed = [both if sample is bent else sample for sample in samples]
    before = evaluate(Scripted(answers), samples, draws=0).products["nut"]
    after = evaluate(Scripted(answers), changed, draws=0).products["nut"]
    assert after["pixel"] == before["pixel"]
    assert (after["counts"]["with_masks"], after["counts"]["types_apart"]) == (12, 11)
    without = evaluate(Scripted(answers), [s for s in samples if s is not bent], draws=0).products["nut"]
    assert after["types"]["pixel_f1"] == without["types"]["pixel_f1"]


def test_overlapping_types_are_right_with_either(tmp_path: Path) -> None:
    first = next(sample for sample in dataset(tmp_path, per_type=1) if sample.defective)
    assert first.masks is not None
    mask = first.masks["bent"]
    both = replace(first, types=("bent", "cut"), masks={"bent": mask, "cut": mask})
    inside = first.load_mask(SIDE, SIDE)
    assert inside is not None
    for call in ("bent", "cut"):
        maps = {name: inside.astype(np.float32) * (name == call) for name in ("bent", "cut")}
        answer = Answer(0.5, inside.astype(np.float32), {}, maps)
        found = evaluate(Scripted({both.image: answer}), [both], draws=0).products["nut"]
        assert found["per_type"][call]["pixel"]["f1"] == 1
        assert found["normal"]["f1"] == 1


def test_novel_types_are_reported_apart(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    found = evaluate(Scripted(guesses(samples)), samples, known=["bent", "rust"], draws=0)
    assert found.novel is not None
    assert found.novel["known"]["types"] == ["bent"]
    assert found.novel["novel"]["types"] == ["cut"]
    assert found.novel["novel"]["pixel"] == found.types["cut"]["pixel"]
    everything = evaluate(Scripted(guesses(samples)), samples, known=["bent", "cut"], draws=0)
    assert everything.novel is not None
    assert everything.novel["novel"] == {"types": []}
    assert "absent from training: cut" in found.to_markdown()


def test_figures_of_a_type_are_the_mean_over_its_products(tmp_path: Path) -> None:
    samples = [*dataset(tmp_path, product="nut"), *dataset(tmp_path, product="bolt")]
    found = evaluate(Scripted(guesses(samples)), samples, draws=0)
    rows = [product["per_type"]["cut"] for product in found.products.values()]
    assert found.types["cut"]["products"] == 2
    assert found.types["cut"]["images"] == 8
    assert found.types["cut"]["recall"] == pytest.approx(np.mean([row["recall"] for row in rows]))
    assert found.types["cut"]["pixel"]["aupro"] == pytest.approx(np.mean([r["pixel"]["aupro"] for r in rows]))


def test_a_product_may_be_asked_for_the_types_of_the_whole_dataset(tmp_path: Path) -> None:
    samples = [*dataset(tmp_path, product="nut"), *dataset(tmp_path, product="bolt")]
    samples = [sample for sample in samples if sample.product == "nut" or sample.types != ("cut",)]
    inspector = Scripted(guesses(samples))
    own = evaluate(inspector, samples, draws=0)
    assert [[d.name for d in words.defects] for words in inspector.asked] == [["bent", "cut"], ["bent"]]
    inspector.asked.clear()
    whole = evaluate(inspector, samples, names="dataset", draws=0)
    assert [[d.name for d in words.defects] for words in inspector.asked] == [["bent", "cut"]] * 2
    assert own.protocol["config_hash"] != whole.protocol["config_hash"]


def test_a_record_can_be_read_again(tmp_path: Path) -> None:
    samples = dataset(tmp_path, masks=False)
    found = evaluate(Scripted(guesses(samples)), samples, known=["bent"], draws=20)
    again = Evaluation.from_dict(json.loads(found.to_json()))
    assert again.to_json() == found.to_json()
    assert again.to_markdown() == found.to_markdown()
    with pytest.raises(DataError, match="record of an evaluation"):
        Evaluation.from_dict({"mean": {}})


def test_tables_hold_every_row_and_no_made_up_figure(tmp_path: Path) -> None:
    samples = [*dataset(tmp_path, product="nut"), *dataset(tmp_path, product="bolt", masks=False)]
    found = evaluate(
        Scripted(guesses(samples)), samples, draws=20, facts={"dataset": "nuts", "licence": "CC0"}
    )
    products, types = tables_of(found)
    assert [row[0] for row in products.rows] == ["nut", "bolt", "mean", "95 % interval"]
    assert all(len(row) == len(table.head) for table in (products, types) for row in table.rows)
    rows = list(csv.DictReader(io.StringIO(products_csv(found))))
    assert [row["product"] for row in rows] == ["nut", "bolt", "mean"]
    assert float(rows[0]["pixel_aupro"]) == pytest.approx(found.products["nut"]["pixel"]["aupro"], abs=1e-8)
    assert rows[1]["pixel_aupro"] == ""
    assert len(list(csv.DictReader(io.StringIO(types_csv(found))))) == 4
    images = list(csv.DictReader(io.StringIO(images_csv(found))))
    assert len(images) == len(samples)
    assert images[0]["truth"] == "good"
    assert "nuts" in found.to_markdown()
    assert "data licence: CC0" in found.to_markdown()


def test_curves_agree_with_the_figures(tmp_path: Path) -> None:
    samples = dataset(tmp_path, per_type=20)
    found = evaluate(Scripted(guesses(samples)), samples, draws=0)
    for part in ("image", "pixel"):
        curve = found.curves["nut"][part]
        area = np.sum(np.diff(curve["fpr"]) * (curve["recall"][1:] + curve["recall"][:-1]) / 2)
        assert area == pytest.approx(found.mean[part]["auroc"], abs=0.02)
        assert (np.diff(curve["recall"]) >= 0).all()
        best = 2 * curve["precision"] * curve["recall"] / (curve["precision"] + curve["recall"])
        assert best.max() == pytest.approx(found.mean[part]["f1_max"], abs=0.02)


def test_what_does_not_exist_is_null_and_a_dash(tmp_path: Path) -> None:
    samples = [sample for sample in dataset(tmp_path, masks=False) if sample.defective]
    found = evaluate(Scripted(guesses(samples)), samples, draws=20)
    assert math.isnan(found.mean["image"]["auroc"])
    assert math.isnan(found.mean["pixel"]["aupro"])
    assert 0 <= found.mean["types"]["top1"] <= 1
    assert found.products["nut"]["counts"]["with_masks"] == 0
    plain = json.loads(found.to_json())
    assert plain["mean"]["image"]["auroc"] is None
    assert plain["mean"]["pixel"] == {"auroc": None, "ap": None, "f1_max": None, "aupro": None}
    assert plain["mean"]["intervals"]["pixel_auroc"] == [None, None]
    assert "NaN" not in found.to_json()
    assert " - |" in found.to_markdown()


def test_a_good_product_has_no_type_figures(tmp_path: Path) -> None:
    samples = [sample for sample in dataset(tmp_path) if not sample.defective]
    found = evaluate(Scripted(guesses(samples)), samples, draws=20)
    assert found.products["nut"]["per_type"] == {}
    assert all(
        math.isnan(value) for part in ("image", "pixel", "types") for value in found.mean[part].values()
    )


def test_the_mean_is_over_the_products_that_have_the_figure(tmp_path: Path) -> None:
    with_masks, without = dataset(tmp_path, product="nut"), dataset(tmp_path, product="bolt", masks=False)
    samples = [*with_masks, *without]
    inspector = Scripted(guesses(samples))
    found = evaluate(inspector, samples, draws=40)
    rows = found.products
    assert list(rows) == ["nut", "bolt"]
    assert found.mean["image"]["auroc"] == pytest.approx(
        (rows["nut"]["image"]["auroc"] + rows["bolt"]["image"]["auroc"]) / 2
    )
    assert found.mean["pixel"]["auroc"] == rows["nut"]["pixel"]["auroc"]
    assert rows["bolt"]["counts"]["with_masks"] == 4  # its good images
    low, high = found.mean["intervals"]["image_auroc"]
    assert low < found.mean["image"]["auroc"] < high


def test_words_reach_the_inspector(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    inspector = Scripted(guesses(samples))
    found = evaluate(inspector, samples, phrases={"cut": ["cut", "deep notch"]}, draws=0)
    (vocabulary,) = inspector.asked
    assert {defect.name: defect.phrases for defect in vocabulary.defects} == {
        "bent": ("bent",),
        "cut": ("cut", "deep notch"),
    }
    assert found.protocol["phrases"] == {"bent": ["bent"], "cut": ["cut", "deep notch"]}
    with pytest.raises(DataError, match="got dent"):
        evaluate(inspector, samples, phrases={"dent": ["dent"]})


def test_a_failed_image_is_listed_not_measured(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    answers = guesses(samples)
    answers[samples[-1].image] = Failure(image=str(samples[-1].image), kind="truncated", message="ends early")
    seen: list[Sample] = []
    found = evaluate(Scripted(answers), samples, draws=0, on_image=seen.append)
    rest = evaluate(Scripted(answers), samples[:-1], draws=0)
    assert json.loads(found.to_json())["mean"] == json.loads(rest.to_json())["mean"]
    assert found.products["nut"]["counts"]["failed"] == 1
    assert json.loads(found.to_json())["failures"][0]["error"]["kind"] == "truncated"
    assert seen == samples


def test_nothing_but_failures_makes_no_number_up(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    answers: dict[Path, Answer | Failure] = {
        s.image: Failure(str(s.image), "truncated", "ends early") for s in samples
    }
    found = evaluate(Scripted(answers), samples, draws=20)
    assert all(
        math.isnan(value) for part in ("image", "pixel", "types") for value in found.mean[part].values()
    )
    assert len(found.failures) == len(samples)


def test_intervals_follow_the_physical_parts(tmp_path: Path) -> None:
    """Twins of one part carry no new evidence: twice the pictures of the same parts, the same interval."""
    samples = dataset(tmp_path, per_type=8)
    answers = guesses(samples, strength=0.3)
    alone = [Sample(s.image, s.product, s.types, None, "test", str(s.image)) for s in samples]
    twins = [*alone, *alone]
    apart = [Sample(s.image, s.product, s.types, None, "test", f"{n}") for n, s in enumerate(twins)]

    def width(case: list[Sample]) -> float:
        low, high = evaluate(Scripted(answers), case, draws=800).mean["intervals"]["image_auroc"]
        return float(high - low)

    assert width(twins) == pytest.approx(width(alone), rel=0.1)
    assert width(apart) < 0.85 * width(alone)  # pretending independence narrows it by sqrt(2)


def test_the_same_seed_gives_the_same_record(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    first, second, other = (
        evaluate(Scripted(guesses(samples)), samples, draws=50, seed=s).to_json() for s in (0, 0, 1)
    )
    assert first == second != other


def test_a_map_of_another_size_is_named(tmp_path: Path) -> None:
    samples = dataset(tmp_path)[-1:]
    answer = Answer(0.5, np.zeros((SIDE, SIDE + 1), dtype=np.float32))
    (failure,) = evaluate(Scripted({samples[0].image: answer}), samples, draws=0).failures
    assert f"{SIDE + 1} x {SIDE} px" in failure.message


@pytest.mark.parametrize("fault", ["size", "values", "missing", "unreadable"])
def test_a_bad_mask_costs_its_image_and_no_other(tmp_path: Path, fault: str) -> None:
    samples = dataset(tmp_path)
    bad = samples[-1]
    path = mask_of(bad)
    if fault == "missing":
        path.unlink()
    elif fault == "unreadable":
        path.write_bytes(b"no picture")
    else:
        size = (SIDE, SIDE) if fault == "values" else (SIDE, SIDE + 2)
        Image.fromarray(np.eye(*size, dtype=np.uint8)).save(path)
    grey = np.full((SIDE, SIDE), 0.5, dtype=np.float32)
    answers = guesses(samples[:-1])
    answers[bad.image] = Answer(0.5, grey, {"bent": 0.5, "cut": 0.4}, {"bent": grey / 2, "cut": grey / 2})
    found = evaluate(Scripted(answers), samples, draws=0)
    rest = evaluate(Scripted(answers), samples[:-1], draws=0)
    assert json.loads(found.to_json())["mean"] == json.loads(rest.to_json())["mean"]
    (failure,) = found.failures
    assert failure.image == str(bad.image)
    assert path.name in failure.message
    assert "dapo data check" in failure.message
    assert (found.protocol["images"], found.protocol["failed"]) == (11, 1)


def mask_of(sample: Sample) -> Path:
    """The mask file of a sample of one type."""
    assert sample.masks is not None
    (path,) = sample.masks.values()
    assert isinstance(path, Path)
    return path


def test_empty_masks_of_defective_images_are_said(tmp_path: Path) -> None:
    samples = dataset(tmp_path)
    Image.new("L", (SIDE, SIDE)).save(mask_of(samples[-1]))
    found = evaluate(Scripted(guesses(samples)), samples, draws=0)
    assert found.products["nut"]["counts"]["empty_masks"] == 1
    assert "masks of 1 defective images mark nothing; dapo data check" in found.to_markdown()


def test_types_without_masks_have_no_pixel_figures_from_good_images(tmp_path: Path) -> None:
    """Good images alone would make normal, and so the mean, perfect."""
    samples = dataset(tmp_path, masks=False)
    found = evaluate(Scripted(guesses(samples)), samples, draws=0)
    assert found.products["nut"]["counts"]["with_masks"] == 4
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1"):
        assert math.isnan(found.mean["types"][name]), name
    assert math.isnan(found.products["nut"]["normal"]["ap"])
    assert 0 <= found.mean["types"]["top1"] <= 1
    assert not any("multi-type" in name for name in tables_of(found)[0].head)


def test_spoken_names_and_capitals_are_the_same_type(tmp_path: Path) -> None:
    owners = {"bent": "pin_hole", "cut": "Missing"}
    samples = [
        replace(sample, types=tuple(owners[name] for name in sample.types), masks=None)
        for sample in dataset(tmp_path)
    ]
    found = evaluate(Scripted(guesses(samples)), samples, known=["Pin hole", "missing"], draws=0)
    assert found.novel is not None
    assert found.novel["known"]["types"] == ["Missing", "pin_hole"]
    assert found.novel["novel"]["types"] == []


def test_the_hash_follows_the_content_wherever_it_lies(tmp_path: Path) -> None:
    first, copy = dataset(tmp_path / "here"), dataset(tmp_path / "there")
    answers = guesses(first) | guesses(copy)

    def hashed(samples: list[Sample]) -> str:
        return str(evaluate(Scripted(answers), samples, draws=0).protocol["config_hash"])

    assert hashed(first) == hashed(copy)
    assert hashed(first) != hashed([replace(s, masks=None if s.defective else {}) for s in first])
    assert hashed(first) != hashed([replace(s, group=None) for s in first])
    Image.fromarray(np.eye(SIDE, dtype=np.uint8) * 255).save(mask_of(first[-1]))
    corrected = hashed(first)
    assert corrected != hashed(copy)
    Image.fromarray(np.full((SIDE, SIDE), 91, dtype=np.uint8)).save(first[0].image)
    assert hashed(first) != corrected


def test_drawn_masks_are_told_apart_by_what_they_draw() -> None:
    ring = np.array([[0, 0], [5, 0], [5, 5]])
    moved = Outlines("here.json", (ring + 1,))
    assert described(Outlines("here.json", (ring,))) == described(Outlines("there.json", (ring.copy(),)))
    assert described(Outlines("here.json", (ring,))) != described(moved)
    assert described(JoinedMask((moved,))) != described(moved)


def test_a_bar_in_a_name_does_not_end_the_cell() -> None:
    table = Table("x", ("type", "n"), (("a|b", "1"),))
    assert "| a\\|b | 1 |" in table.to_markdown()


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        evaluate(Scripted({}), [])


# the baseline


def dark_spots(folder: Path) -> list[Sample]:
    """Grey noise, with a dark square in every second image."""
    generator = np.random.default_rng(0)
    samples = []
    for number in range(8):
        grey = generator.normal(128, 6, (64, 80))
        mask = np.zeros((64, 80), dtype=np.uint8)
        if number % 2:
            grey[20:32, 30 + number : 42 + number] -= 70
            mask[20:32, 30 + number : 42 + number] = 255
        image, truth = folder / f"{number}.png", folder / f"{number}_mask.png"
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(image)
        Image.fromarray(mask).save(truth)
        types, masks = (("spot",), {"spot": truth}) if number % 2 else ((), {})
        samples.append(Sample(image, "plate", types, masks, "test"))
    return samples


def test_local_contrast_finds_what_stands_out(tmp_path: Path) -> None:
    found = local_contrast_baseline(dark_spots(tmp_path), draws=0)
    assert set(found) == set(FILTERS)
    for name, evaluation in found.items():
        assert evaluation.mean["image"]["auroc"] == 1, name
        assert evaluation.mean["pixel"]["auroc"] > 0.8, name
        assert math.isnan(evaluation.mean["types"]["top1"])
    best = best_of(found)
    assert best["pixel"]["aupro"] == max(evaluation.mean["pixel"]["aupro"] for evaluation in found.values())


def test_the_best_filter_keeps_products_and_failures(tmp_path: Path) -> None:
    samples = dark_spots(tmp_path)
    samples[0].image.write_bytes(b"no picture")
    seen: list[Sample] = []
    found = best_filter(samples, {"dataset": "spots"}, on_image=seen.append)
    assert len(seen) == len(FILTERS) * len(samples)
    each = local_contrast_baseline(samples, draws=0)
    assert found.products["plate"]["pixel"]["ap"] == max(
        evaluation.products["plate"]["pixel"]["ap"] for evaluation in each.values()
    )
    assert [failure.image for failure in found.failures] == [str(samples[0].image)]
    assert found.protocol["images"] == len(samples) - 1
    assert "best of three filters" in found.protocol["note"]
    assert "| plate |" in found.to_markdown()
    assert "best of three filters" in found.to_markdown()
    assert Evaluation.from_dict(json.loads(found.to_json())).to_json() == found.to_json()


def test_curves_without_masks_have_no_row_of_pixels(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    heights = []
    for masks in (True, False):
        samples = dataset(tmp_path / str(masks), masks=masks)
        samples = samples if masks else [replace(sample, masks=None) for sample in samples]
        path = draw_curves(evaluate(Scripted(guesses(samples)), samples, draws=0), tmp_path / f"{masks}.png")
        assert path is not None
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights[0] == 2 * heights[1]


def test_light_does_not_change_local_contrast(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    grey = generator.integers(0, 100, (40, 40))
    for name, pixels in (("dark", grey), ("bright", 2 * grey + 30)):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{name}.png")
    for name in FILTERS:
        dark, bright = (
            LocalContrast(name).inspect(tmp_path / f"{light}.png") for light in ("dark", "bright")
        )
        assert dark.anomaly_map.shape == (40, 40)
        assert dark.anomaly_map == pytest.approx(bright.anomaly_map, abs=1e-3)


def test_local_contrast_of_nothing_and_of_no_image(tmp_path: Path) -> None:
    Image.new("L", (20, 20), 77).save(tmp_path / "flat.png")
    (tmp_path / "broken.png").write_bytes(b"")
    flat, broken = LocalContrast("gradient magnitude").stream(
        [tmp_path / "flat.png", tmp_path / "broken.png"]
    )
    assert not isinstance(flat, Failure)
    assert not flat.anomaly_map.any()
    assert flat.raw_score == 0
    assert isinstance(broken, Failure)
    assert broken.kind == "empty"


def test_an_unknown_filter_is_refused() -> None:
    with pytest.raises(ConfigError, match="gradient magnitude"):
        LocalContrast("sobel")

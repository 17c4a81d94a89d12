"""Few-shot evaluation: which good parts become references, what they change, and its tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import PRODUCTS, labelled_tree, write
from tiny import tiny_model_folder

from dapo.config import parse
from dapo.data import Sample, read_folder
from dapo.errors import ConfigError, DataError
from dapo.evaluation.campaign import Campaign
from dapo.evaluation.experiment import Experiment
from dapo.evaluation.results import Results
from dapo.evaluation.run import evaluate
from dapo.evaluation.shots import Referred, drawn, evaluate_shots, parts_of
from dapo.inspector import Inspector


def good_parts(root: Path, count: int, seed: int = 5) -> Path:
    """PRODUCT/train/good of the labelled tree: parts like its good ones."""
    rng = np.random.default_rng(seed)
    for product in PRODUCTS:
        for number in range(count):
            picture = rng.integers(100, 140, (48, 48, 3)).astype(np.uint8)
            write(root / product / "train/good" / f"{number}.png", picture)
    return root


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT/b, labelled, with five good parts a product to learn from; ROOT/model."""
    root = tmp_path_factory.mktemp("places")
    good_parts(labelled_tree(root / "b", images=2), 5)
    labelled_tree(root / "bare", images=2)
    tiny_model_folder(root / "model")
    return root


@pytest.fixture(scope="module")
def inspector(places: Path) -> Inspector:
    return Inspector.from_pretrained(places / "model", device="cpu", precision="fp32")


def split(places: Path, name: str) -> list[Sample]:
    return [sample for sample in read_folder(places / "b") if sample.split == name]


def sample(number: int, product: str = "plate", group: str | None = None, **changes: Any) -> Sample:
    whole = {"types": (), "masks": {}, "split": "train"} | changes
    return Sample(Path(f"{product}/{number}.png"), product, group=group, **whole)


def test_references_are_good_parts_one_picture_each_and_none_of_them_tested() -> None:
    tested = [sample(0, group="a", split="test"), sample(0, "cup", split="test")]
    good = [
        *(sample(1, group="a"), sample(2, group="b"), sample(3, group="b"), sample(4, group="c")),
        *(sample(5, group="d", types=("scratch",)), sample(6, "nut"), sample(7, "cup")),
    ]
    found = parts_of(good, tested)
    assert {name: [one.image.stem for one in own] for name, own in found.items()} == {
        "plate": ["2", "4"],
        "cup": ["7"],
    }


def test_a_draw_is_the_same_again_and_another_draw_another() -> None:
    parts = [sample(number) for number in range(20)]
    assert drawn(parts, 4, 0) == drawn(parts, 4, 0)
    orders = {tuple(one.image for one in drawn(parts, 4, seed)[:4]) for seed in range(5)}
    assert len(orders) == 5
    assert {one.image for one in drawn(parts, 4, 0)} == {one.image for one in parts}


def test_the_memory_holds_k_parts_of_the_product(places: Path, inspector: Inspector) -> None:
    samples = split(places, "test")
    shown = Referred(inspector, samples, parts_of(split(places, "train"), samples), 3, seed=0)
    assert shown.memory("plate").images == shown.memory("cup").images == 3
    other = Referred(inspector, samples, parts_of(split(places, "train"), samples), 3, seed=1)
    assert shown.told["references"] != other.told["references"]
    assert shown.failures == []


def test_the_figures_are_of_the_draws(places: Path, inspector: Inspector) -> None:
    samples, good = split(places, "test"), split(places, "train")
    asked: list[str] = []
    kept = []

    def through(name: str, make: Callable[[], Any]) -> Any:
        asked.append(name)
        kept.append(make())
        return kept[-1]

    found = evaluate_shots(inspector, samples, good, shots=(0, 2), shot_draws=3, draws=0, through=through)
    assert asked == ["2-shot draw 1", "2-shot draw 2", "2-shot draw 3"]
    plain = evaluate(inspector, samples, draws=0)
    assert found.evaluations[0].mean == plain.mean
    values = [evaluation.mean["pixel"]["auroc"] for evaluation in kept]
    assert len(set(values)) == 3
    two = found.evaluations[2]
    assert two.mean["pixel"]["auroc"] == pytest.approx(statistics.mean(values))
    assert two.spread is not None
    assert two.spread["pixel"]["auroc"] == pytest.approx(statistics.stdev(values))
    # the flaws of this set are like nothing on its good parts, so that even an untrained tower finds them
    assert two.mean["pixel"]["auroc"] > 0.9 > plain.mean["pixel"]["auroc"]
    assert two.protocol["shots"] == 2
    assert two.protocol["seeds"] == [0, 1, 2]
    assert two.protocol["model"] == two.protocol["models"][0]
    assert "references" not in two.protocol  # each draw's own
    assert len(set(two.protocol["config_hash"].split("+"))) == 3
    assert "± over 3 draws of the good parts" in two.to_markdown()
    assert "references: 2 good parts a product" in two.to_markdown()
    assert "references" not in found.evaluations[0].to_markdown()
    again = evaluate_shots(inspector, samples, good, shots=(2,), shot_draws=3)
    assert again.evaluations[2].mean == two.mean


def test_a_good_part_that_cannot_be_read_is_named_and_another_drawn(
    places: Path, inspector: Inspector, tmp_path: Path
) -> None:
    tree = good_parts(labelled_tree(tmp_path / "b", images=2), 3)
    (tree / "cup/train/good/1.png").write_bytes(b"no picture")
    whole = read_folder(tree)
    samples, good = ([s for s in whole if s.split == name] for name in ("test", "train"))
    found = evaluate_shots(inspector, samples, good, shots=(2,), shot_draws=4, draws=0).evaluations[2]
    (failure,) = found.failures
    assert failure.image.endswith("1.png")
    assert "left out of the good parts" in failure.message
    assert found.protocol["failed"] == 0  # all of the tested ones were
    with pytest.raises(
        DataError, match=r"3 good parts of cup that can be read; there are 2.*dapo data check"
    ):
        evaluate_shots(inspector, samples, good, shots=(3,))


def experiment(**changes: Any) -> Experiment:
    raw = {"title": "tiny", "test": [{"name": "b", "root": "b"}], "draws": 0, "shots": [0, 1, 4]}
    return parse(Experiment, raw | changes, "test")


class Stages:
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, total: int | None) -> None:
        self.stages.append(name)

    def advance(self, facts: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        pass


def run(places: Path, out: Path, wanted: Experiment, **options: Any) -> Results:
    return Campaign(wanted, out, data=places, model=places / "model", **options).run()


def test_a_campaign_writes_a_table_and_keeps_each_draw(tmp_path: Path, places: Path) -> None:
    tree = good_parts(labelled_tree(tmp_path / "data/b", images=2), 5).parent
    (tree / "model").symlink_to(places / "model")
    wanted = experiment(methods=["model", "clip", "local contrast"], shots=[0, 3], shot_draws=2)
    first, again, last = Stages(), Stages(), Stages()
    found = run(tree, tmp_path / "out", wanted, listener=first)
    own = [stage for stage in first.stages if stage.startswith("model")]
    draws = ["model on b, 3-shot draw 1", "model on b, 3-shot draw 2"]
    assert own == ["model on b", *draws]
    assert list(found.shots) == [("b", "model"), ("b", "clip")]
    table = found.tables()["b by shots"]
    assert "b by shots" in wanted.table_names()
    assert table.head[:4] == ("method", "k", "draws", "image AUROC")
    assert [row[:3] for row in table.rows] == [
        (method, k, draws) for method in ("model", "clip") for k, draws in (("0", "-"), ("3", "2"))
    ]
    assert "±" not in table.rows[0][3]
    assert "±" in table.rows[1][3]
    assert "± = standard deviation over draws of the good parts" in table.note
    assert (tmp_path / "out/tables/b-by-shots.md").read_text(encoding="utf-8") == table.to_markdown()
    assert (tmp_path / "out/tables/b-by-shots.csv").read_text(encoding="utf-8") == table.to_csv()
    record = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    row = record["shots"][0]
    assert (row["test"], row["method"], list(row["k"])) == ("b", "model", ["0", "3"])
    assert row["k"]["3"]["spread"]["image"]["auroc"] is not None
    assert row["k"]["0"]["mean"] == record["results"][0]["mean"]
    assert run(tree, tmp_path / "out", wanted, listener=again).to_dict() == found.to_dict()
    assert again.stages == []
    good_parts(tree / "b", 5, seed=6)  # other references, the same test
    run(tree, tmp_path / "out", wanted, listener=last)
    assert [stage for stage in last.stages if stage.startswith("model")] == draws


def test_shots_say_of_which_training(places: Path, tmp_path: Path) -> None:
    small = {"detector": {"side": 32, "prompts": {"groups": 2, "context": 3}}, "epochs": 1, "workers": 0}
    wanted = experiment(
        methods=["coop"], train={"root": "bare"}, seeds=[4, 5], settings=small, shots=[1], shot_draws=1
    )
    found = run(places, tmp_path, wanted)
    table = found.tables()["b by shots"]
    assert [row[:3] for row in table.rows] == [("coop", "1", "1")]
    assert "seed 4 alone" in table.note
    assert found.shots["b", "coop"].evaluations[1].protocol["training_seed"] == 4


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"shots": [0, 6]}, DataError, r"b: expected 6 good parts of .* there are 5\. Ask for fewer"),
        ({"test": [{"root": "bare"}]}, DataError, "bare: expected good parts of .* found none"),
        ({"test": [{"root": "b", "splits": ["train", "test"]}]}, DataError, "none that is not tested"),
        ({"shots": [-1]}, ConfigError, "shots"),
        ({"shots": ["four"]}, ConfigError, "shots.*got 'four'"),
        ({"shots": [1, 1]}, ConfigError, "shots: 1 stands there more than once"),
        ({"shot_draws": 0}, ConfigError, "shot_draws"),
        ({"shots": [0], "shot_draws": 3}, ConfigError, "shot_draws .*would do nothing"),
        ({"methods": ["local contrast"]}, ConfigError, "without --shift, --shots and --plots"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_any_compute(
    places: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    count = Stages()
    with pytest.raises(error, match=f"(?s){words}"):
        run(places, tmp_path / "out", experiment(**changes), listener=count)
    assert count.stages == []
    assert not (tmp_path / "out").exists()


def test_zero_shots_need_no_good_parts(places: Path, tmp_path: Path) -> None:
    found = run(places, tmp_path, experiment(test=[{"name": "b", "root": "bare"}], shots=[0]))
    assert [row[1] for row in found.tables()["b by shots"].rows] == ["0"]

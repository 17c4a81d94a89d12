"""Experiments and campaigns: trained, evaluated and written once, over seeds, from files of settings."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import labelled_tree
from PIL import Image
from tiny import tiny_clip, tiny_model_folder

from dapo.config import parse
from dapo.errors import ConfigError, DataError
from dapo.evaluation import campaign as campaigns
from dapo.evaluation.campaign import Campaign
from dapo.evaluation.experiment import EXPERIMENTS, Experiment, experiment_names, load_experiment, slug
from dapo.evaluation.results import Results
from dapo.evaluation.run import Evaluation
from dapo.evaluation.seeds import over_seeds
from dapo.evaluation.trained import adapted
from dapo.inspection import Failure
from dapo.learning import train
from dapo.learning.methods import load_method

SMALL = {
    "detector": {"side": 32, "prompts": {"groups": 2, "context": 3}},
    "epochs": 1,
    "workers": 0,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT/a and ROOT/b, two labelled datasets, and ROOT/model."""
    root = tmp_path_factory.mktemp("places")
    labelled_tree(root / "a", images=2)
    labelled_tree(root / "b", images=2, seed=1)
    tiny_model_folder(root / "model")
    return root


def experiment(**changes: Any) -> Experiment:
    raw = {
        "title": "tiny",
        "methods": ["model"],
        "test": [{"name": "b", "root": "b"}],
        "draws": 20,
        **({"settings": SMALL, "seeds": [0]} if "train" in changes else {}),
        **changes,
    }
    return parse(Experiment, raw, "test")


def run(places: Path, out: Path, wanted: Experiment, **options: Any) -> Results:
    return Campaign(wanted, out, data=places, model=places / "model", **options).run()


class Count:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.steps = 0

    def stage(self, name: str, total: int | None) -> None:
        self.stages.append(name)

    def advance(self, facts: str = "") -> None:
        self.steps += 1

    def note(self, text: str) -> None:
        self.notes.append(text)


def model_of(out: Path, method: str, seed: int) -> dict[str, Any]:
    """config.json of the one training of this method and seed."""
    (path,) = (out / "models" / method).glob(f"seed-{seed}-*/model/config.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_train_on_a_test_on_b_over_seeds(places: Path, tmp_path: Path) -> None:
    wanted = experiment(
        methods=["clip", "dapo", "coop"], seeds=[0, 1], train={"dataset": "folder", "root": "a"}
    )
    count = Count()
    found = run(places, tmp_path, wanted, listener=count)
    assert list(found.evaluations) == [("b", "clip"), ("b", "dapo"), ("b", "coop")]
    singles = [
        json.loads((tmp_path / f"evaluations/b/dapo/seed-{seed}/evaluation.json").read_text(encoding="utf-8"))
        for seed in (0, 1)
    ]
    dapo = found.evaluations["b", "dapo"]
    values = [single["mean"]["pixel"]["auroc"] for single in singles]
    assert values[0] != values[1]
    assert dapo.mean["pixel"]["auroc"] == pytest.approx(statistics.mean(values))
    assert dapo.spread is not None
    assert dapo.spread["pixel"]["auroc"] == pytest.approx(statistics.stdev(values))
    assert dapo.protocol["seeds"] == [0, 1]
    counts = [single["products"]["plate"]["confusion"] for single in singles]
    total = sum(sum(row.values()) for confusion in counts for row in confusion.values())
    assert total == sum(sum(r.values()) for r in dapo.products["plate"]["confusion"].values())
    assert found.evaluations["b", "clip"].spread is None
    assert found.evaluations["b", "clip"].mean["intervals"]
    table = found.tables()["b"]
    assert [row[:2] for row in table.rows] == [("clip", "-"), ("dapo", "2"), ("coop", "2")]
    assert "±" in table.rows[1][2]
    assert (tmp_path / "tables/b.md").read_text(encoding="utf-8") == table.to_markdown()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in results["results"]] == ["clip", "dapo", "coop"]
    assert results["results"][0]["protocol"]["licence"]
    assert [model["name"] for model in dapo.protocol["models"]] == ["dapo, seed 0", "dapo, seed 1"]
    assert len({model["sha256"] for model in dapo.protocol["models"]}) == 2
    assert not {"model", "training_seed"} & set(dapo.protocol)
    assert "model dapo, seed 1, version 1 (" in dapo.to_markdown()
    card = model_of(tmp_path, "dapo", 1)
    assert card["seed"] == 1
    assert card["recipe"]["method"] == "dapo"
    assert card["training_data"][-1]["name"] == "a"
    # and again: nothing is made twice
    again = Count()
    assert run(places, tmp_path, wanted, listener=again).to_dict() == found.to_dict()
    assert again.stages == []
    assert any(note.startswith("dapo on b, seed 1: taken from") for note in again.notes)
    assert any(note.startswith("dapo, seed 1: taken from") for note in again.notes)
    own = [stage for stage in count.stages if "dapo" in stage]  # one detector at a time
    assert own == ["training dapo, seed 0", "dapo on b, seed 0", "training dapo, seed 1", "dapo on b, seed 1"]


def test_other_words_are_another_evaluation(places: Path, tmp_path: Path) -> None:
    first, second = Count(), Count()
    run(places, tmp_path, experiment(), listener=first)
    words = {"stain": ["oily blot"], "scratch": ["long line"]}
    found = run(
        places, tmp_path, experiment(test=[{"name": "b", "root": "b", "phrases": words}]), listener=second
    )
    assert first.stages == second.stages == ["model on b"]
    phrases = found.evaluations["b", "model"].protocol["phrases"]
    assert phrases == {"pin_hole": ["pin hole"], "scratch": ["long line"], "stain": ["oily blot"]}


def test_held_out_types_are_novel(places: Path, tmp_path: Path) -> None:
    wanted = experiment(
        methods=["coop"], seeds=[0], train={"dataset": "folder", "root": "a"}, held_out=["pin_hole"]
    )
    found = run(places, tmp_path, wanted)
    novel = found.evaluations["b", "coop"].novel
    assert novel is not None
    assert novel["novel"]["types"] == ["pin_hole"]
    assert novel["known"]["types"] == ["scratch", "stain"]
    assert "pin_hole" in found.tables()["b novel types"].note


def test_shift_is_remembered(places: Path, tmp_path: Path) -> None:
    wanted = experiment(shift=["blur", "rotation"])
    count, again = Count(), Count()
    found = run(places, tmp_path, wanted, listener=count)
    assert len(count.stages) == 1 + 2 * 3
    assert set(found.shifts["b", "model"].changed) == {
        (k, s) for k in ("blur", "rotation") for s in (1, 2, 3)
    }
    assert "b under shift" in found.tables()
    repeated = run(places, tmp_path, wanted, listener=again)
    assert again.stages == []
    assert repeated.to_dict() == found.to_dict()


def test_local_contrast_is_a_row_without_types(places: Path, tmp_path: Path) -> None:
    found = run(places, tmp_path, experiment(methods=["model", "local contrast"]))
    floor = found.evaluations["b", "local contrast"]
    assert 0 <= floor.mean["image"]["auroc"] <= 1
    table = found.tables()["b"]
    assert table.rows[1][0] == "local contrast"
    assert table.rows[1][table.head.index("type top-1")] == "-"


def test_generated_scenes_are_a_train_set(places: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "generated": {"samples": 16}}
    wanted = experiment(methods=["coop"], seeds=[3], train={"dataset": "generated"}, settings=settings)
    found = run(places, tmp_path, wanted)
    assert found.evaluations["b", "coop"].novel is None
    card = model_of(tmp_path, "coop", 3)
    assert card["training_data"][-1]["name"] == "generated scenes of DAPO"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"methods": ["dapo"]}, ConfigError, "dapo must be trained.*train set"),
        ({"methods": ["dopa"]}, ConfigError, "did you mean dapo"),
        ({"test": [{"root": "nowhere"}]}, DataError, "nowhere"),
        ({"test": [{"root": "b", "phrases": {"rust": ["rust"]}}]}, DataError, "scratch.*got rust"),
        ({"shift": ["rain"]}, ConfigError, "rain is not among brightness"),
        ({"methods": ["clip"], "seeds": [0, 1]}, ConfigError, "seeds .*would do nothing"),
        ({"methods": ["clip"], "held_out": ["stain"]}, ConfigError, "held_out .*would do nothing"),
        ({"methods": ["clip"], "settings": SMALL}, ConfigError, "settings .*would do nothing"),
        ({"train": {"dataset": "folder", "root": "a"}}, ConfigError, "the train set .*would do nothing"),
        (
            {"methods": ["local contrast"], "shift": "all"},
            ConfigError,
            "without --shift, --shots and --plots",
        ),
        ({"test": [{"root": "b", "known": ["stain", "rust"]}]}, ConfigError, r"known: .*stain\); got rust"),
        ({"test": [{"root": "a"}, {"root": "b", "name": "A"}]}, ConfigError, "test: a stands .* own name"),
        ({"test": [{"root": "b", "name": "b 1"}, {"root": "b", "name": "b/1"}]}, ConfigError, "test: b-1"),
        ({"methods": ["own/dapo.yaml", "dapo"]}, ConfigError, "methods: dapo stands there more than once"),
        ({"seeds": [0, 1, 0]}, ConfigError, "seeds: 0 stands"),
        ({"seeds": [-1]}, ConfigError, "seeds"),
        (
            {"methods": ["coop"], "train": {"dataset": "folder", "root": "a"}, "held_out": ["rust"]},
            DataError,
            "rust",
        ),
    ],
)
def test_what_cannot_be_run_is_said(
    places: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"(?s){words}"):
        run(places, tmp_path, experiment(**changes))


def test_no_data_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data ROOT"):
        Campaign(experiment(), tmp_path).run()


def test_a_broken_record_is_named(places: Path, tmp_path: Path) -> None:
    run(places, tmp_path, experiment())
    record = tmp_path / "evaluations/b/model/one/evaluation.json"
    record.write_text(record.read_text(encoding="utf-8")[:100], encoding="utf-8")
    with pytest.raises(DataError, match=r"evaluation\.json.*Remove it"):
        run(places, tmp_path, experiment())


@pytest.fixture
def tree(places: Path, tmp_path: Path) -> Path:
    """ROOT/b to change, ROOT/model beside it, and tmp_path/out for the results."""
    root = tmp_path / "data"
    shutil.copytree(places / "b", root / "b")
    shutil.copytree(places / "model", root / "model")
    return root


def repaired(root: Path) -> None:
    labelled_tree(root / "b", images=2, seed=7)


def masked(root: Path) -> None:
    shutil.copytree(root / "hidden", root / "b/cup/ground_truth")


def corrected(root: Path) -> None:
    mask = root / "b/plate/ground_truth/scratch/0_mask.png"
    Image.fromarray(np.eye(48, dtype=np.uint8) * 255).save(mask)


def grouped(root: Path, part: str = "one") -> None:
    for product in (root / "b").iterdir():
        images = sorted((product / "test").rglob("*.png"))
        names = (path.relative_to(product).as_posix() for path in images)
        lines = (json.dumps({"image": name, "part": f"{part} {name}"}) for name in names)
        (product / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("change", [repaired, masked, corrected, grouped])
def test_changed_data_are_measured_again(tree: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Names stay the same; what the files hold does not."""
    test = {"name": "b", "root": "b"}
    if change is masked:
        (tree / "b/cup/ground_truth").rename(tree / "hidden")
    if change is grouped:
        grouped(tree, "another")
        test["group_key"] = "part"
    count = Count()
    first = run(tree, tmp_path / "out", experiment(test=[test]))
    change(tree)
    second = run(tree, tmp_path / "out", experiment(test=[test]), listener=count)
    assert count.stages == ["model on b"]
    hashes = [found.evaluations["b", "model"].protocol["config_hash"] for found in (first, second)]
    assert hashes[0] != hashes[1]


def test_an_evaluation_with_failures_is_made_again(tree: Path, tmp_path: Path) -> None:
    broken = tree / "b/plate/test/good/0.png"
    broken.write_bytes(b"no picture")
    first = run(tree, tmp_path / "out", experiment())
    assert len(first.complaints) == 1
    assert "0.png" in first.complaints[0]
    assert "9 images measured; 1 failed" in first.tables()["b"].note
    count = Count()
    run(tree, tmp_path / "out", experiment(), listener=count)
    assert count.stages == ["model on b"]


@pytest.mark.parametrize("held_out", [["pin hole"], ["Pin_Hole"]])
def test_held_out_types_in_any_spelling_are_novel(places: Path, tmp_path: Path, held_out: list[str]) -> None:
    train = {"dataset": "folder", "root": "a"}
    found = run(places, tmp_path, experiment(methods=["coop"], train=train, held_out=held_out))
    novel = found.evaluations["b", "coop"].novel
    assert novel is not None
    assert novel["novel"]["types"] == ["pin_hole"]


def test_types_of_another_spelling_in_training_are_known(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "b", tree / "a")
    for kind in ("test", "ground_truth"):
        (tree / "a/plate" / kind / "pin_hole").rename(tree / "a/plate" / kind / "Pin Hole")
    found = run(
        tree, tmp_path / "out", experiment(methods=["coop"], train={"dataset": "folder", "root": "a"})
    )
    novel = found.evaluations["b", "coop"].novel
    assert novel is not None
    assert novel["novel"]["types"] == []


def test_words_in_any_spelling_reach_their_type(places: Path, tmp_path: Path) -> None:
    test = {"name": "b", "root": "b", "phrases": {"Pin hole": ["tiny pit"]}}
    found = run(places, tmp_path, experiment(test=[test]))
    assert found.evaluations["b", "model"].protocol["phrases"]["pin_hole"] == ["tiny pit"]


def test_testing_on_the_train_set_is_said(places: Path, tmp_path: Path) -> None:
    train = {"dataset": "folder", "root": "b"}
    count = Count()
    found = run(places, tmp_path, experiment(methods=["coop", "clip"], train=train), listener=count)
    said = "10 of the test images were trained on"
    assert any(said in note and note.startswith("warning") for note in count.notes)
    evaluation = found.evaluations["b", "coop"]
    assert evaluation.protocol["trained_on_test_images"] == 10
    assert said in evaluation.to_markdown()
    assert said in found.tables()["b"].note
    assert "trained_on_test_images" not in found.evaluations["b", "clip"].protocol
    some = experiment(methods=["coop"], train=train, held_out=["stain"])
    held = run(places, tmp_path / "held", some).evaluations["b", "coop"]
    assert held.protocol["trained_on_test_images"] == 8


def test_the_protocol_states_what_the_model_was_trained_on(places: Path, tmp_path: Path) -> None:
    run(places, tmp_path / "first", experiment(methods=["coop"], train={"dataset": "folder", "root": "a"}))
    (model,) = (tmp_path / "first/models/coop").glob("*/model")
    found = Campaign(experiment(model=str(model)), tmp_path / "second", data=places).run()
    evaluation = found.evaluations["b", "model"]
    assert evaluation.protocol["model"]["training_data"][-1] == "a"
    assert "trained on " in evaluation.to_markdown()


def test_files_of_another_run_do_not_stay(places: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evaluations/b/model/one"
    run(places, tmp_path, experiment(methods=["model", "clip"]))
    (folder / "curves.png").write_bytes(b"of a run before")
    (tmp_path / "tables/mine.csv").write_text("a user's own", encoding="utf-8")
    assert (tmp_path / "tables/b-by-type.md").is_file()
    other = [{"name": "b", "root": "b", "phrases": {"stain": ["spot"]}}]
    run(places, tmp_path, experiment(test=other))
    assert not (folder / "curves.png").exists()
    run(places, tmp_path, experiment(test=[{"name": "c", "root": "b"}]))
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert {"mine.csv", "c.md", "c-by-type.md"} <= names
    assert not any(name.startswith("b") for name in names)


def test_training_images_that_cannot_be_read_are_told_every_time(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "b", tree / "a")
    (tree / "a/plate/test/good/1.png").write_bytes(b"no picture")
    wanted = experiment(methods=["coop"], train={"dataset": "folder", "root": "a"})
    for _ in range(2):  # the second takes the training as it is
        found = run(tree, tmp_path / "out", wanted)
        (complaint,) = found.complaints
        assert complaint.startswith("not trained on")
        assert "1.png" in complaint
        assert list(found.to_dict()["skipped"]) == [str(tree / "a/plate/test/good/1.png")]


def test_local_contrast_names_its_failures_and_counts_its_steps(tree: Path, tmp_path: Path) -> None:
    (tree / "b/plate/test/good/1.png").write_bytes(b"no picture")
    count = Count()
    found = run(tree, tmp_path / "out", experiment(methods=["local contrast"]), listener=count)
    assert len(found.complaints) == 1
    assert count.steps == 3 * 10
    assert set(found.evaluations["b", "local contrast"].products) == {"plate", "cup"}


def test_failures_of_every_seed_are_kept() -> None:
    first, second = (
        Evaluation(
            {"images": 1, "failed": 1}, {part: {} for part in ("image", "pixel", "types")}, {"p": {}},
            failures=(Failure(name, "unreadable", name),),
        )
        for name in ("a.png", "b.png")
    )  # fmt: skip
    assert [failure.image for failure in over_seeds([first, second]).failures] == ["a.png", "b.png"]


def test_the_training_takes_the_device_of_the_inspector(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def chosen(device: Any) -> str:
        asked.append(device)
        return "cpu"

    def watched(*args: Any, **options: Any) -> Path:
        asked.append(options["device"])
        return train(*args, **options)

    monkeypatch.setattr(campaigns, "device_of", chosen)
    monkeypatch.setattr(campaigns, "train", watched)
    run(places, tmp_path, experiment(methods=["coop"], train={"dataset": "folder", "root": "a"}))
    assert asked == [None, "cpu"]


def test_another_setting_is_another_training(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "b", tree / "a")
    train = {"dataset": "folder", "root": "a"}
    for change in ({}, {"lr": 0.01}, {"workers": 0, "save_every": 7}):
        run(tree, tmp_path / "out", experiment(methods=["coop"], train=train, settings={**SMALL, **change}))
    assert len(list((tmp_path / "out/models/coop").glob("seed-0-*"))) == 2  # how it is saved is no matter
    Image.new("RGB", (48, 48)).save(tree / "a/plate/test/scratch/0.png")
    run(tree, tmp_path / "out", experiment(methods=["coop"], train=train))
    assert len(list((tmp_path / "out/models/coop").glob("seed-0-*"))) == 3


def test_a_shift_says_of_which_seed(places: Path, tmp_path: Path) -> None:
    train = {"dataset": "folder", "root": "a"}
    found = run(places, tmp_path, experiment(methods=["coop"], train=train, seeds=[4, 5], shift=["contrast"]))
    for name in ("b under shift", "b under shift, coop"):
        assert "seed 4 alone" in found.tables()[name].note
    assert found.evaluations["b", "coop"].protocol["seeds"] == [4, 5]


def test_adapted_is_silent_of_what_the_user_set() -> None:
    method, clip = load_method("anomalyclip"), tiny_clip()
    plain = adapted(method, clip, {})
    assert any("text layers" in said for said in plain)
    own = adapted(method, clip, {"detector": {"text_deep": {"depth": 2}, "side": 32}})
    assert set(own) == {said for said in plain if "text layers" not in said and "native" not in said}
    assert adapted(method, clip, {"detector": {"text_deep": {"tokens": 2}}}) == plain


def test_a_folder_that_cannot_be_written_is_found_before_any_compute(places: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    count = Count()
    with pytest.raises(ConfigError, match=r"written in: .*file.*Choose another --out"):
        run(places, tmp_path / "file" / "out", experiment(), listener=count)
    assert count.stages == []


def test_a_run_cut_off_while_writing_is_done_again(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        if "types" in path.name:
            write(path, text[:5], **options)
            raise OSError(28, "No space left on device")
        return write(path, text, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(ConfigError, match=r"types\.csv; No space left.*Make room"):
            run(places, tmp_path, experiment())
    left = {path.name for path in (tmp_path / "evaluations/b/model/one").iterdir()}
    assert left == {"report.md", "products.csv"}
    count = Count()
    run(places, tmp_path, experiment(), listener=count)
    assert count.stages == ["model on b"]


def test_pictures_are_drawn(places: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run(places, tmp_path, experiment(), pictures=True)
    for name in ("confusion", "curves"):
        with Image.open(tmp_path / f"evaluations/b/model/one/{name}.png") as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.parametrize("name", experiment_names())
def test_experiments_of_the_package_are_whole(name: str) -> None:
    found = load_experiment(name)
    for method in found.methods:
        if method not in (campaigns.MODEL, campaigns.CONTRAST):
            load_method(method)
    Campaign(found, Path("unused")).methods()
    assert len({test.title for test in found.test}) == len(found.test)


def test_experiment_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"baselines.*got 'tabel'"):
        load_experiment("tabel")
    path = tmp_path / "own.yaml"
    path.write_text("title: x\ntests: []\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own\.yaml.*test"):
        load_experiment(path)
    path.write_text("- 1", encoding="utf-8")
    with pytest.raises(ConfigError, match="list"):
        load_experiment(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_experiment(tmp_path / "none.yaml")


def borrowing(folder: Path, *tests: Any) -> Experiment:
    path = folder / "own.yaml"
    path.write_text(json.dumps({"title": "own", "test": tests}), encoding="utf-8")
    return load_experiment(path)


def test_a_test_set_can_be_that_of_an_experiment_of_the_package(tmp_path: Path) -> None:
    own, steel = borrowing(tmp_path, {"root": "b"}, "embedded/steel strip").test
    assert own.title == "b"
    assert steel == load_experiment("embedded").test[1]
    assert steel.phrases["scratch"] == ("scratch", "long straight scratch")
    written = [
        name for name in experiment_names() if "phrases:" in (EXPERIMENTS / f"{name}.yaml").read_text()
    ]
    assert written == ["embedded"]  # the words of our test sets stand in one place


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            "embeded/magnetic tile",
            r"own\.yaml: test: .*one of ablations, baselines.*got 'embeded/magnetic tile'",
        ),
        ("magnetic tile", r"expected EXPERIMENT/TEST SET .*got 'magnetic tile'\. Correct"),
        ("embedded/tile", r"\(magnetic tile, steel strip\); got 'embedded/tile'\. Correct"),
        ("embedded", r"\(magnetic tile, steel strip\); got 'embedded'"),
        ("shift/magnetic tile", r"one that shift writes out \(none\)"),
        ("../experiments/embedded/magnetic tile", "expected EXPERIMENT/TEST SET"),
    ],
)
def test_a_test_set_that_is_not_there_cannot_be_borrowed(tmp_path: Path, wanted: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        borrowing(tmp_path, wanted)


def test_names_of_folders() -> None:
    assert slug("Real-IAD single view") == "Real-IAD-single-view"
    assert slug("../..") == "unnamed"
    assert math.isfinite(len(slug("a/b\\c")))
    assert "/" not in slug("a/b") and "\\" not in slug("a\\b")

"""``dapo evaluate`` and ``dapo reproduce``: labelled data in, tables of figures out."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import layouts
import pytest
import yaml
from click.testing import CliRunner, Result
from labelled import labelled_tree
from rich.console import Console
from rich.progress import Progress
from tiny import tiny_model_folder

from dapo.cli.evaluate import command, experiment_of
from dapo.cli.main import main
from dapo.cli.stages import Bars

Run = Callable[..., Result]
SMALL = ["detector.side=32", "detector.prompts.groups=2", "epochs=1", "workers=0"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("places")
    labelled_tree(root / "parts", images=2)
    labelled_tree(root / "others", images=2, seed=1)
    tiny_model_folder(root / "model")
    labelled_tree(root / "lines", images=2)
    for product in ("plate", "cup"):  # good parts to draw references from
        shutil.copytree(root / "others" / product / "test/good", root / "lines" / product / "train/good")
    return root


@pytest.fixture
def dapo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(verb: str, *arguments: object) -> Result:
        line = [verb, "--model", places / "model", *arguments]
        return CliRunner().invoke(main, [str(argument) for argument in line])

    return run


def test_a_table_and_files(dapo: Run, places: Path) -> None:
    result = dapo("evaluate", "--data", places / "parts", "--out", "ev", "--draws", 20)
    assert result.exit_code == 0, result.output
    for words in ("plate", "cup", "mean", "image AUROC", "pin_hole", "data licence", "Written to ev"):
        assert words in result.stdout
    assert "model on parts: 10 steps" in result.stderr
    folder = Path("ev/evaluations/parts/model/one")
    assert sorted(path.name for path in folder.iterdir()) == [
        "evaluation.json", "images.csv", "products.csv", "report.md", "types.csv",
    ]  # fmt: skip
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert {row["truth"] for row in rows} == {"good", "scratch", "pin_hole", "stain"}


def test_json_is_what_programs_were_promised(dapo: Run, places: Path) -> None:
    result = dapo("evaluate", "--data", places / "parts", "--json", "--draws", 0)
    found = json.loads(result.stdout)
    assert {"protocol", "mean", "products"} <= set(found)
    assert set(found["mean"]["image"]) == {"auroc", "ap", "f1_max"}
    assert set(found["mean"]["pixel"]) == {"auroc", "ap", "f1_max", "aupro"}
    assert {"top1", "pixel_auroc", "pixel_ap", "pixel_f1"} <= set(found["mean"]["types"])
    assert set(found["products"]) == {"plate", "cup"}
    assert {"config_hash", "licence", "model", "seed", "dataset"} <= set(found["protocol"])
    assert found["skipped"] == {}
    assert len(found["protocol"]["model"]["sha256"]) == 64


def test_train_on_one_test_on_another(dapo: Run, places: Path) -> None:
    options = [part for setting in SMALL for part in ("--set", setting)]
    line = ["--data", places / "others", "--method", "coop", "--train-dataset", "folder"]
    line += ["--train-data", places / "parts", "--seeds", "0,1", "--held-out", "stain", *options]
    result = dapo("evaluate", *line, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["protocol"]["seeds"] == [0, 1]
    assert found["protocol"]["method"] == "coop"
    assert found["novel"]["novel"]["types"] == ["stain"]
    assert set(found["spread"]) == {"image", "pixel", "types"}
    text = dapo("evaluate", *line).stdout
    assert "± over 2 seeds" in text
    assert "Novel types, absent from training: stain" in text


def test_words_of_the_user_and_products(dapo: Run, places: Path) -> None:
    Path("words.yaml").write_text("scratch: long line\npin_hole: [tiny hole, pit]\n", encoding="utf-8")
    line = ["--data", places / "parts", "--products", "plate", "--words", "words.yaml", "--draws", 0]
    found = json.loads(dapo("evaluate", *line, "--json").stdout)
    assert list(found["products"]) == ["plate"]
    assert found["protocol"]["phrases"] == {"scratch": ["long line"], "pin_hole": ["tiny hole", "pit"]}


def test_few_shot_figures_stand_beside_zero_shot(dapo: Run, places: Path) -> None:
    line = ["--data", places / "lines", "--shots", "0,1,2", "--shot-draws", 2, "--draws", 20, "--out", "ev"]
    text = dapo("evaluate", *line).stdout
    assert "lines, beside k good parts of the train split" in text
    assert "± = standard deviation over draws of the good parts" in text
    table = Path("ev/tables/lines-by-shots.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["k"], row["draws"]) for row in rows] == [("0", "-"), ("1", "2"), ("2", "2")]
    assert "(" in rows[0]["image AUROC"]  # the interval of the one zero-shot run
    assert "±" in rows[1]["image AUROC"]
    found = json.loads(dapo("evaluate", *line, "--json").stdout)
    assert list(found["shots"]["k"]) == ["0", "1", "2"]
    assert found["shots"]["k"]["0"]["mean"] == found["mean"]
    assert found["shots"]["k"]["2"]["spread"]["pixel"]["auroc"] is not None
    assert set(found["shots"]["k"]["2"]["products"]) == {"plate", "cup"}


@pytest.mark.parametrize("name", ["mvtec", "visa", "coco", "yolo"])
def test_other_layouts(dapo: Run, tmp_path: Path, name: str) -> None:
    layouts.write(name, tmp_path / "set", train=1)
    line = ["--data", tmp_path / "set", "--dataset", name, "--shots", 1, "--shot-draws", 1, "--draws", 0]
    result = dapo("evaluate", *line, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["mean"]["pixel"]["auroc"] is not None
    assert found["shots"]["k"]["1"]["mean"]["pixel"]["auroc"] is not None


def test_an_image_that_cannot_be_read_is_named_and_the_rest_done(dapo: Run, tmp_path: Path) -> None:
    tree = labelled_tree(tmp_path / "parts", images=2)
    (tree / "plate/test/good/0.png").write_bytes(b"no picture")
    result = dapo("evaluate", "--data", tree, "--draws", 0)
    assert result.exit_code == 1
    assert "0.png" in result.stderr
    assert "1 failed" in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "{parts}", "--method", "dapo"], "--train-dataset"),
        (["--data", "{parts}", "--method", "dpao"], "did you mean dapo"),
        (["--data", "{parts}", "--method", "coop", "--train-dataset", "mvtec"], "--train-data ROOT"),
        (["--data", "{parts}", "--seeds", "a"], "numbers such as 0,1,2"),
        (["--data", "{parts}", "--products", "spoon"], "spoon"),
        (["--data", "{parts}", "--dataset", "visa"], "pass --dataset folder"),
        (["--data", "{parts}", "--words", "words.yaml"], "rust"),
        (["--data", "{parts}", "--group", "part"], "manifest"),
        ([], "--data"),
        (["--data", "{parts}", "--products", ""], "--products is empty"),
        (["--data", "{parts}", "--seeds", "-1"], "--seeds expects numbers such as 0,1,2"),
        (["--data", "{parts}", "--seeds", ""], "--seeds expects numbers such as 0,1,2"),
        (["--data", "{parts}", "--seeds", "0,0"], "each once; got '0,0'"),
        (["--data", "{parts}", "--words", "words.yaml"], "words.yaml: expected types of parts"),
        (["--data", "{parts}", "--words", "empty.yaml"], "empty.yaml: expected one phrase or a list"),
        (["--data", "{parts}", "--method", "clip", "--held-out", "stain"], "--held-out"),
        (["--data", "{parts}", "--method", "clip", "--seeds", "1"], "--seeds"),
        (["--data", "{parts}", "--method", "clip", "--set", "lr=1"], "--set"),
        (["--data", "{parts}", "--held-out", "stain"], "would do nothing"),
        (
            ["--data", "{parts}", "--method", "local contrast", "--plots"],
            "without --shift, --shots and --plots",
        ),
        (["--data", "{parts}", "--shots", "a"], "--shots expects numbers such as 0,1,4"),
        (["--data", "{parts}", "--shots", "-1"], "--shots expects numbers such as 0,1,4"),
        (["--data", "{parts}", "--shots", "1,1"], "each once; got '1,1'"),
        (["--data", "{parts}", "--shots", "1.5"], "got '1.5'"),
        (["--data", "{parts}", "--shots", ""], "got ''"),
        (["--data", "{parts}", "--shots", "1"], "parts: expected good parts of cup in the train split"),
        (["--data", "{lines}", "--shots", "0,4"], "expected 4 good parts of cup in the train split, for 4"),
        (["--data", "{parts}", "--shot-draws", "2"], "would do nothing without shots"),
        (["--data", "{lines}", "--shots", "1", "--method", "local contrast"], "without --shift, --shots"),
        (["--data", "{parts}", "--known", "rust"], "got rust"),
        (["--data", "{parts}", "--out", "words.yaml/out"], "Choose another --out"),
    ],
)
def test_mistakes_are_sentences(dapo: Run, places: Path, options: list[str], words: str) -> None:
    Path("words.yaml").write_text("rust: [rust]\n", encoding="utf-8")
    Path("empty.yaml").write_text("stain: []\n", encoding="utf-8")
    result = dapo(
        "evaluate", *(option.format(parts=places / "parts", lines=places / "lines") for option in options)
    )
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_the_root_of_a_disk_has_a_title() -> None:
    context = command.make_context("evaluate", ["--data", "/"])
    assert experiment_of(context.params)["test"][0]["name"] == "data"


def test_notes_do_not_disturb_the_bar() -> None:
    console = Console(file=io.StringIO(), width=20)
    with Progress(console=console) as bar:
        shown = Bars(bar)
        shown.stage("x", 2)
        shown.note("model on [b]: taken from a folder with a long name")
    assert "dapo: model on [b]: taken from a folder with a long name\n" in console.file.getvalue()


def test_what_is_taken_from_before_is_said(dapo: Run, places: Path) -> None:
    line = ["--data", places / "parts", "--out", "ev", "--draws", 0]
    assert "taken from" not in dapo("evaluate", *line).stderr
    again = dapo("evaluate", *line)
    assert f"dapo: model on parts: taken from {Path('ev/evaluations/parts/model/one')}" in again.stderr


def test_another_folder_of_the_same_name_is_another_set(dapo: Run, places: Path, tmp_path: Path) -> None:
    found = []
    for seed in (3, 4):
        tree = labelled_tree(tmp_path / str(seed) / "parts", images=2, seed=seed)
        result = dapo("evaluate", "--data", tree, "--out", "ev", "--draws", 0, "--json")
        found.append(json.loads(result.stdout))
    assert found[0]["protocol"]["config_hash"] != found[1]["protocol"]["config_hash"]
    assert found[0]["mean"] != found[1]["mean"]


def test_a_training_image_that_cannot_be_read_is_an_exit_code(
    dapo: Run, places: Path, tmp_path: Path
) -> None:
    tree = labelled_tree(tmp_path / "train", images=2)
    (tree / "cup/test/good/1.png").write_bytes(b"no picture")
    options = [part for setting in SMALL for part in ("--set", setting)]
    line = ["--data", places / "parts", "--method", "coop", "--train-dataset", "folder", "--draws", 0]
    result = dapo("evaluate", *line, "--train-data", tree, *options)
    assert result.exit_code == 1
    assert "dapo: not trained on: " in result.stderr


def test_adapted_says_nothing_of_a_side_that_was_asked_for(dapo: Run, places: Path) -> None:
    line = ["--data", places / "parts", "--method", "coop", "--train-dataset", "folder", "--draws", 0]
    options = [part for setting in SMALL for part in ("--set", setting)]
    result = dapo("evaluate", *line, "--train-data", places / "others", *options)
    assert result.exit_code == 0, result.output
    assert "Adapted" not in result.stdout


EXPERIMENT = {
    "title": "tiny",
    "methods": ["model", "clip"],
    "test": [{"name": "parts", "root": "parts"}],
    "draws": 0,
}


def write_experiment(name: str, places: Path, **changes: object) -> None:
    whole = EXPERIMENT | {"model": str(places / "model")} | changes
    Path(name).write_text(yaml.safe_dump(whole), encoding="utf-8")


def reproduce(*arguments: object) -> Result:
    """Without --model: the experiment names it."""
    return CliRunner().invoke(main, ["reproduce", *map(str, arguments)])


@pytest.mark.parametrize("mark", ["tiny.yaml", "tiny"])
def test_reproduce_fills_the_pages_of_the_documentation(
    dapo: Run, places: Path, tmp_path: Path, mark: str
) -> None:
    write_experiment("tiny.yaml", places)
    docs = tmp_path / "docs"
    docs.mkdir()
    page = docs / "results.md"
    page.write_text(
        f"# Results\n\nBefore.\n\n<!-- table: {mark}/parts -->\nold\n<!-- end of table -->\n\nAfter.\n",
        encoding="utf-8",
    )
    line = ["tiny.yaml", "--data", places, "--out", "rep", "--docs", docs]
    result = reproduce(*line)
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert "| clip |" in text
    assert text.startswith("# Results\n\nBefore.\n")
    assert text.endswith("<!-- end of table -->\n\nAfter.\n")
    assert Path("rep/tiny/results.json").is_file()
    assert reproduce(*line).exit_code == 0
    assert page.read_text(encoding="utf-8") == text  # again: the same
    refused = dapo("reproduce", *line)
    assert refused.exit_code == 2
    assert "leave --model out" in refused.stderr


@pytest.mark.parametrize(
    "page",
    ["<!-- table: tiny/cups -->\n<!-- end of table -->\n", "<!-- table: tiny/parts -->\nno end\n"],
)
def test_marks_are_checked_before_any_compute(dapo: Run, places: Path, tmp_path: Path, page: str) -> None:
    write_experiment("tiny.yaml", places)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "results.md").write_text(page, encoding="utf-8")
    wrong = reproduce("tiny.yaml", "--data", places, "--out", "rep", "--docs", docs)
    assert wrong.exit_code == 2
    assert "parts by type" in wrong.stderr
    assert not Path("rep").exists()


def test_reproduce_goes_on_behind_what_cannot_be_run(dapo: Run, places: Path) -> None:
    write_experiment("tiny.yaml", places)
    write_experiment("far.yaml", places, test=[{"root": "far"}])
    write_experiment("lost.yaml", places, model=str(places / "no model"))
    write_experiment("idle.yaml", places, seeds=[1])
    names = ["far.yaml", "lost.yaml", "idle.yaml", "tiny.yaml"]
    result = reproduce(*names, "--data", places, "--json")
    assert result.exit_code == 1
    for name in names[:-1]:
        assert f"{name} left out" in result.stderr
    assert list(json.loads(result.stdout)) == ["tiny.yaml"]
    alone = reproduce("far.yaml", "--data", places)
    assert alone.exit_code == 2


def test_reproduce_names_images_that_cannot_be_read(dapo: Run, places: Path, tmp_path: Path) -> None:
    write_experiment("tiny.yaml", places, methods=["model", "local contrast"])
    tree = labelled_tree(tmp_path / "data/parts", images=2)
    (tree / "plate/test/good/1.png").write_bytes(b"no picture")
    result = reproduce("tiny.yaml", "--data", tmp_path / "data", "--out", "rep")
    assert result.exit_code == 1
    assert result.stderr.count("1.png") == 1
    assert "9 images measured; 1 failed" in result.stdout


def test_reproduce_names_a_model_that_is_not_the_experiments(dapo: Run, places: Path) -> None:
    write_experiment("tiny.yaml", places, methods=["model"])
    result = dapo("reproduce", "tiny.yaml", "--data", places, "--out", "rep")
    assert "tiny (with the model model)" in result.stdout
    assert "on model in place of the experiment's model" in result.stdout
    assert "in place of" not in reproduce("tiny.yaml", "--data", places, "--out", "own").stdout


def test_reproduce_lists_what_there_is(dapo: Run) -> None:
    result = dapo("reproduce", "--list")
    assert result.exit_code == 0
    for name in ("baselines", "ablations", "embedded", "shift", "references", "paper-mvtec"):
        assert name in result.stdout
    assert dapo("reproduce", "embedded").exit_code == 2
    assert "got 'tabels'" in dapo("reproduce", "tabels", "--data", ".").stderr

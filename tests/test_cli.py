"""The command: what it prints where, what it writes, how it ends."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dapo.cli.main import VERBS, main

Run = Callable[..., Result]


@pytest.fixture
def dapo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``dapo ARGUMENTS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)

    return run


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with two images, one of them below, and one broken file."""
    folder = tmp_path / "parts"
    (folder / "below").mkdir(parents=True)
    Image.effect_noise((96, 64), 40).convert("RGB").save(folder / "part 1.png")
    Image.effect_noise((64, 80), 20).save(folder / "below" / "gray.png")
    (folder / "part 2.png").write_bytes((folder / "part 1.png").read_bytes()[:200])
    return folder


def sentence(result: Result) -> str:
    """The only line on stderr; a traceback or a second line fails."""
    assert isinstance(result.exception, SystemExit | None), result.exception
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def records(text: str) -> Iterator[dict[str, Any]]:
    """Every line of JSONL, checked against the shipped schema."""
    from dapo.inspection import json_schema

    for line in text.splitlines():
        record = json.loads(line)
        jsonschema.validate(record, json_schema())
        yield record


# Usage


def test_help_names_every_verb(dapo: Run) -> None:
    result = dapo("--help")
    assert result.exit_code == 0
    assert all(f"  {verb}" in result.stdout and line in result.stdout for verb, line in VERBS.items())
    assert dapo().stdout == result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(dapo: Run, verb: str) -> None:
    result = dapo(verb, "--help")
    assert result.exit_code == 0, result.stderr
    assert f"dapo {verb}" in result.stdout
    assert "--debug" in result.stdout


def test_the_same_from_a_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dapo", "inspct"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "dapo: there is no verb 'inspct'; did you mean 'inspect'? (see dapo --help)"
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fold"], ["'fold'", *VERBS]),
        (["--nonsense"], ["--nonsense"]),
        (["inspect"], ["PATH"]),
        (["inspect", "a.png", "--format", "csw"], ["'csw'", "jsonl", "html"]),
        (["inspect", "a.png", "--save", "overlay,films"], ["'films'", "overlay", "heatmap"]),
        (["inspect", "a.png", "--save", ","], ["--save", "overlay", "none"]),
        (["inspect", "a.png", "--precision", "fp8"], ["auto", "fp32", "bf16"]),
        (["inspect", "a.png", "--fail-on", "ok"], ["defective"]),
        (["inspect", "a.png", "--threshold", "1.5"], ["1.5", "0<=x<=1"]),
        (["inspect", "a.png", "--batch-size", "0"], ["x>=1"]),
        (["inspect", "a.png", "--defects", "a", "--vocabulary", "b.yaml"], ["--defects", "--vocabulary"]),
        (["inspect", "a.png", "--defects", " , "], ["name"]),
        (["inspect", "a.png", "--defects", "scratch, scratch"], ["scratch"]),
        (["inspect", "a.png", "--vocabulary", "none.yaml"], ["none.yaml"]),
    ],
)
def test_wrong_usage_is_one_sentence(dapo: Run, arguments: list[str], words: list[str]) -> None:
    result = dapo(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    line = sentence(result)
    assert all(word in line for word in words), line
    assert not Path("out").exists()


def test_out_must_be_a_folder(dapo: Run) -> None:
    Path("notes.txt").write_text("mine", encoding="utf-8")
    result = dapo("inspect", "a.png", "--out", "notes.txt")
    assert result.exit_code == 2
    assert "notes.txt" in sentence(result)
    assert Path("notes.txt").read_text(encoding="utf-8") == "mine"


# Inputs that are none


def test_a_missing_file_is_named_and_counted(dapo: Run) -> None:
    result = dapo("inspect", "no such.png", "--json")
    assert result.exit_code == 1
    (record,) = records(result.stdout)
    assert record["image"] == "no such.png"
    assert record["error"]["kind"] == "missing"
    assert "no such.png" in result.stderr
    assert not Path("out").exists()


def test_an_empty_folder_is_named(dapo: Run) -> None:
    Path("bare").mkdir()
    result = dapo("inspect", "bare")
    assert result.exit_code == 1
    assert "bare" in result.stderr
    (record,) = records(Path("out/inspect/results.jsonl").read_text(encoding="utf-8"))
    assert record["error"]["kind"] == "missing"


def test_an_empty_list_is_wrong_usage(dapo: Run) -> None:
    result = dapo("inspect", "-", stdin="\n\n")
    assert result.exit_code == 2
    assert "stdin" in sentence(result)


# Models that are none


def test_a_model_folder_must_exist(dapo: Run, parts: Path) -> None:
    result = dapo("inspect", parts, "--model", "./no-model")
    assert result.exit_code == 2
    assert "no-model" in sentence(result)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "config.json"), ("[1", "JSON"), ('{"model_type": "bert"}', "bert"), ('{"format": 99}', "format")],
)
def test_a_foreign_model_folder_is_one_sentence(
    dapo: Run, parts: Path, content: str | None, word: str
) -> None:
    folder = Path("foreign")
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content, encoding="utf-8")
    result = dapo("inspect", parts, "--model", folder)
    assert result.exit_code == 2
    assert word in sentence(result)


def test_an_unknown_device_is_one_sentence(dapo: Run, parts: Path, some_model: Path) -> None:
    result = dapo("inspect", parts, "--model", some_model, "--device", "abacus")
    assert result.exit_code == 2
    assert "abacus" in sentence(result)


# Real runs


def test_inspect_writes_what_it_says(dapo: Run, parts: Path, some_model: Path) -> None:
    result = dapo(
        "inspect", parts, "--model", some_model, "--defects", "scratch, pin hole", "--save", "overlay,heatmap"
    )
    assert result.exit_code == 1  # for part 2
    assert "part 2.png" in result.stderr
    assert "part 2.png" not in result.stdout
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["image", "verdict", "score", "regions", "types"]
    assert {row.split("  ")[0] for row in rows[:2]} == {"part 1.png", str(Path("below/gray.png"))}
    assert "2 inspected" in result.stdout
    assert "1 failed" in result.stdout
    assert str(Path("out/inspect")) in result.stdout
    written = list(records(Path("out/inspect/results.jsonl").read_text(encoding="utf-8")))
    assert [("error" in record) for record in written].count(True) == 1
    answers = [record for record in written if "error" not in record]
    assert {(record["width"], record["height"]) for record in answers} == {(96, 64), (64, 80)}
    assert all([kind["name"] for kind in record["types"]] == ["scratch", "pin hole"] for record in answers)
    assert "<html" in Path("out/inspect/report.html").read_text(encoding="utf-8")
    for folder in ("overlay", "heatmap"):
        pictures = [path for path in Path("out/inspect", folder).rglob("*") if path.is_file()]
        assert len(pictures) == 2
        for picture in pictures:
            with Image.open(picture) as opened:
                assert min(opened.size) > 1


def test_json_is_pure_and_writes_nothing(dapo: Run, parts: Path, some_model: Path) -> None:
    result = dapo("inspect", parts, "--model", some_model, "--json")
    assert result.exit_code == 1
    assert len(list(records(result.stdout))) == 3
    assert "2 inspected" in result.stderr
    assert not Path("out").exists()


def test_json_with_out_writes_too(dapo: Run, parts: Path, some_model: Path) -> None:
    result = dapo(
        "inspect", parts / "part 1.png", "--model", some_model, "--json", "--out", "here", "--save", "none"
    )
    assert result.exit_code == 0
    assert {path.name for path in Path("here").iterdir()} == {"report.html", "results.jsonl", "run.json"}
    (written,) = records(Path("here/results.jsonl").read_text(encoding="utf-8"))
    (printed,) = records(result.stdout)
    for region in written["regions"]:
        del region["rle"]  # the file is exact, what is printed is for drawing
    assert written == printed


def test_a_list_from_stdin_and_a_pattern(dapo: Run, parts: Path, some_model: Path) -> None:
    listed = f"{parts / 'part 1.png'}\n\n{parts / 'below' / 'gray.png'}\n"
    result = dapo(
        "inspect", "-", str(parts / "below" / "*.png"), "--model", some_model, "--json", stdin=listed
    )
    assert result.exit_code == 0, result.stderr
    assert [Path(record["image"]).name for record in records(result.stdout)] == ["part 1.png", "gray.png"]


def test_threshold_and_fail_on(dapo: Run, parts: Path, some_model: Path) -> None:
    run = [
        "inspect",
        parts / "part 1.png",
        "--model",
        some_model,
        "--json",
        "--fail-on",
        "defective",
        "--threshold",
    ]
    strict, lax = dapo(*run, 0), dapo(*run, 1)
    assert (strict.exit_code, lax.exit_code) == (3, 0)
    assert [next(records(result.stdout))["verdict"] for result in (strict, lax)] == ["defective", "ok"]
    assert (
        dapo("inspect", parts, "--model", some_model, "--threshold", 0, "--fail-on", "defective").exit_code
        == 3
    )


def test_a_vocabulary_file_is_used(dapo: Run, parts: Path, some_model: Path) -> None:
    Path("words.yaml").write_text(
        "defects:\n  - name: kratzer\n    phrases: [fine scratch mark]\n", encoding="utf-8"
    )
    result = dapo(
        "inspect", parts / "part 1.png", "--model", some_model, "--vocabulary", "words.yaml", "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert [kind["name"] for kind in next(records(result.stdout))["types"]] == ["kratzer"]


def test_a_cold_run_loads_no_more_than_it_needs(tmp_path: Path, parts: Path, tiny_model: Path) -> None:
    arguments = ["inspect", parts / "part 1.png", "--model", tiny_model, "--defects", "scratch", "--json"]
    command = [sys.executable, "-X", "importtime", "-m", "dapo", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "torch" in loaded
    # each costs a second of a cold start
    assert not loaded & {"torch._dynamo", "transformers", "sympy", "sklearn", "skimage", "matplotlib", "rich"}


def test_interrupted_keeps_what_is_done(
    dapo: Run, parts: Path, some_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dapo.inspector import Inspector

    whole = Inspector.stream

    def stops(self: Inspector, *arguments: Any, **options: Any) -> Iterator[Any]:
        yield next(iter(whole(self, *arguments, **options)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Inspector, "stream", stops)
    result = dapo("inspect", parts / "part 1.png", parts / "below", "--model", some_model)
    assert result.exit_code == 130
    assert len(list(records(Path("out/inspect/results.jsonl").read_text(encoding="utf-8")))) == 1
    assert "</html>" in Path("out/inspect/report.html").read_text(encoding="utf-8")
    assert "1 not looked at" in result.stdout


def test_what_should_not_happen_is_a_sentence_too(
    dapo: Run, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: Any) -> list[Path]:
        raise RuntimeError("three\nlines\nlong")

    monkeypatch.setattr("dapo.images.expand_paths", breaks)
    result = dapo("inspect", parts)
    assert result.exit_code == 2
    assert "RuntimeError: three" in sentence(result)
    assert "--debug" in sentence(result)
    for arguments in (["--debug", "inspect", parts], ["inspect", parts, "--debug"]):
        loud = dapo(*arguments)
        assert loud.exit_code == 2
        assert "Traceback" in loud.stderr


def test_the_bar_stays_off_a_pipe(dapo: Run, parts: Path) -> None:
    from dapo.cli.inspect import progress

    assert not io.StringIO().isatty()
    items = [1, 2, 3]
    with progress(items, 3) as same:
        assert same is items


# Table


def test_the_table_leaves_out_the_common_folder() -> None:
    from dapo.cli.table import ResultTable, shorten

    table = ResultTable([str(Path("line/a/1.png")), str(Path("line/b/2.png"))])
    assert table.label(str(Path("line/b/2.png"))) == str(Path("b/2.png"))
    assert ResultTable([str(Path("line/a/1.png"))]).label(str(Path("line/a/1.png"))) == "1.png"
    assert ResultTable(["1.png", str(Path("a/2.png"))]).label("1.png") == "1.png"
    assert shorten("abcdefgh", 5) == "…efgh"
    assert shorten("abc", 5) == "abc"


# pull and doctor


def test_pull_makes_a_folder_that_works(dapo: Run, parts: Path, tiny_model: Path) -> None:
    result = dapo("pull", tiny_model, "--out", "models/copy")
    assert result.exit_code == 0, result.stderr
    assert "CLIP" in result.stdout
    assert (Path("models/copy") / "model.safetensors").is_file()
    assert [path.name for path in Path("models").iterdir()] == ["copy"]
    assert dapo("inspect", parts / "part 1.png", "--model", "models/copy", "--json").exit_code == 0
    again = dapo("pull", tiny_model, "--out", "models/copy")
    assert again.exit_code == 2
    assert "--out" in sentence(again)


def test_pull_converts_a_pickle_of_tensors(dapo: Run, tiny_model: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file

    old = Path(shutil.copytree(tiny_model, "old"))
    state = load_file(old / "model.safetensors")
    torch.save(state | {"text_model.embeddings.position_ids": torch.arange(3)}, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    assert dapo("pull", "old", "--out", "new").exit_code == 0
    converted = load_file(Path("new") / "model.safetensors")
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[name], state[name]) for name in state)


def test_pull_refuses_a_pickle_of_anything_else(dapo: Run, tiny_model: Path) -> None:
    import shutil

    import torch

    old = Path(shutil.copytree(tiny_model, "old"))
    (old / "model.safetensors").unlink()
    torch.save({"weight": Path("anything")}, old / "pytorch_model.bin")
    result = dapo("pull", "old", "--out", "new")
    assert result.exit_code == 2
    assert "plain tensors" in sentence(result)
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("openai/clip-vit-large-patch14-336", ["HF_HUB_OFFLINE"]),
        ("not an id", ["OWNER/NAME"]),
        ("a/b/c", ["OWNER/NAME"]),
    ],
)
def test_pull_without_a_model_is_one_sentence(dapo: Run, model: str, words: list[str]) -> None:
    result = dapo("pull", model, "--out", "new")
    assert result.exit_code == 2
    assert all(word in sentence(result) for word in words)
    assert not Path("new").exists()


def test_pull_without_network_says_what_to_do(dapo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    result = dapo("pull", "openai/clip-vit-large-patch14-336")
    assert result.exit_code == 2
    assert "machine with network" in sentence(result)


def test_pull_refuses_other_models(dapo: Run) -> None:
    Path("bert").mkdir()
    Path("bert/config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    result = dapo("pull", "bert", "--out", "new")
    assert result.exit_code == 2
    assert "'bert'" in sentence(result)


def findings(result: Result) -> dict[str, str]:
    return {finding["topic"]: finding["status"] for finding in json.loads(result.stdout)}


def test_doctor_looks_at_everything(dapo: Run) -> None:
    from dapo.model.artifact import EMBEDDED

    result = dapo("doctor", "--json")
    seen = findings(result)
    embedded = (EMBEDDED / "config.json").is_file()
    assert seen["model"] == ("ok" if embedded else "wrong")
    assert {seen[topic] for topic in ("python", "torch", "packages", "cpu", "writing")} == {"ok"}
    assert result.exit_code == (0 if embedded else 1)


def test_doctor_names_a_broken_torchvision(
    dapo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dapo.cli import doctor

    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "CHECKS", (doctor.check_torchvision,))
    result = dapo("doctor")
    assert result.exit_code == 1
    assert "pip uninstall torchvision" in result.stdout
    assert len(result.stdout.splitlines()) == 1


def test_doctor_survives_a_check_that_breaks(dapo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dapo.cli import doctor

    def check_moon() -> Iterator[doctor.Finding]:
        raise OSError("too far")

    monkeypatch.setattr(doctor, "CHECKS", (check_moon, doctor.check_python))
    result = dapo("doctor", "--json")
    assert findings(result) == {"moon": "wrong", "python": "ok"}
    assert result.exit_code == 1


def test_the_report_tells_the_causes_the_user_wrote(tmp_path: Path) -> None:
    from results import inspected

    from dapo.cli.outputs import open_documents
    from dapo.vocabulary import Vocabulary

    words = tmp_path / "words.yaml"
    words.write_text(
        "defects:\n  - name: scratch\n    causes: [belt 7 runs dry]\n    actions: [oil belt 7]\n"
    )
    writers = open_documents(tmp_path, ("html",), ["part.png"], Vocabulary.from_yaml(words))
    for writer in writers:
        with writer:
            writer.write(inspected())
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "belt 7 runs dry" in report and "oil belt 7" in report

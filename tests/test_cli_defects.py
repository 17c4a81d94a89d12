"""``dapo defects``: what it prints where, what it writes, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result
from tiny import tiny_model_folder

from dapo.cli.main import main
from dapo.config import PromptSettings
from dapo.model.artifact import EMBEDDED
from dapo.vocabulary import Vocabulary, builtin, builtin_groups

Run = Callable[..., Result]
TEXTS = {"type": "array", "items": {"type": "string"}}
FINDING = {
    "type": "object",
    "additionalProperties": False,
    "required": ["kind", "level", "defects", "phrases", "what", "why", "do", "alternatives"],
    "properties": {
        "kind": {"type": "string"},
        "level": {"enum": ["warning", "hint"]},
        "defects": {**TEXTS, "minItems": 1},
        "phrases": TEXTS,
        "what": {"type": "string", "minLength": 1},
        "why": {"type": "string", "minLength": 1},
        "do": {"type": "string", "minLength": 1},
        "alternatives": TEXTS,
    },
}
REPORT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "model", "scale", "clean", "findings"],
    "properties": {
        "schema": {"const": 1},
        "model": {"type": "string"},
        "scale": {"type": ["object", "null"], "required": ["close", "alike"]},
        "clean": {"type": "boolean"},
        "findings": {"type": "array", "items": FINDING},
    },
}


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``dapo defects ...`` in an empty folder; with ``model=True`` on the tiny model."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, model: bool = False) -> Result:
        extra = ["--model", str(tiny_model)] if model else []
        return CliRunner().invoke(main, ["defects", *arguments, *extra])

    return invoke


def test_warnings_exit_1_and_each_says_what_why_and_what_to_do(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defects: [{name: scratch, phrases: [scratch, scratches]}]", "utf-8")
    done = run("lint", "mine.yaml", model=True)
    assert done.exit_code == 1, done.output
    block = done.stdout.splitlines()
    at = next(i for i, line in enumerate(block) if line.startswith("warning"))
    assert "'scratches'" in block[at]
    assert "why:" in "".join(block[at + 1 : at + 4]) and "do:" in "".join(block[at + 1 : at + 5])
    assert "warning" in block[-1] and "1 types" in block[-1]


@pytest.mark.skipif(not (EMBEDDED / "config.json").is_file(), reason="needs the embedded model")
def test_no_warning_exits_0(run: Run) -> None:
    done = run("lint", "--defects", "scratch, dent")
    assert done.exit_code == 0, done.output
    assert "0 warnings" in done.stdout and "hint" in done.stdout


def test_json_of_lint(run: Run) -> None:
    done = run("lint", "--defects", "scratch, zigzag", "--json", model=True)
    report = json.loads(done.stdout)
    jsonschema.validate(report, REPORT)
    assert report["clean"] is (done.exit_code == 0)
    assert any(one["kind"] == "bare" and one["defects"] == ["zigzag"] for one in report["findings"])


def test_a_model_that_does_not_read_names_says_so(run: Run, tmp_path: Path) -> None:
    prompts = PromptSettings(groups=1, context=3, binary_phrase="damaged")
    folder = str(tiny_model_folder(tmp_path / "binary", prompts=prompts))
    done = run("lint", "--defects", "scratch, dent", "--json", "--model", folder)
    report = json.loads(done.stdout)
    jsonschema.validate(report, REPORT)
    assert done.exit_code == 1 and report["findings"][0]["kind"] == "unread" and report["scale"] is None
    shown = run("show", "scratch", "--model", folder)
    assert shown.exit_code == 2 and "does not read" in shown.stderr


def test_out_writes_a_vocabulary_and_nothing_else_is_written(run: Run, tmp_path: Path) -> None:
    mine, text = (
        tmp_path / "mine.yaml",
        "defects: [{name: scratch, phrases: [scratch, scratches, fine line]}]",
    )
    mine.write_text(text, "utf-8")
    run("lint", "mine.yaml", model=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"], "lint alone writes nothing"
    done = run("lint", "mine.yaml", "--out", "new/better.yaml", model=True)
    assert "better.yaml" in done.stdout
    assert mine.read_text("utf-8") == text
    assert Vocabulary.from_yaml("new/better.yaml")["scratch"].phrases == ("scratch", "fine line")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["better.yaml"]
    again = run("lint", "mine.yaml", "--out", "new/better.yaml", model=True)
    assert again.exit_code == 2 and "exists" in again.stderr


def test_json_stays_json_with_out(run: Run) -> None:
    done = run("lint", "--defects", "scratch", "--json", "--out", "better.yaml", model=True)
    jsonschema.validate(json.loads(done.stdout), REPORT)
    assert "better.yaml" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "got neither"),
        (("mine.yaml", "--defects", "dent"), "exclude each other"),
        (("none.yaml",), "none.yaml"),
        (("--defects", "dent, dent"), "twice"),
        (("--defects", "dent", "--model", "nowhere"), "nowhere"),
    ],
)
def test_usage_of_lint(run: Run, arguments: tuple[str, ...], said: str) -> None:
    done = run("lint", *arguments)
    assert done.exit_code == 2 and said in done.stderr + str(done.exception)
    assert done.stdout == ""


def test_the_list_needs_no_model_and_holds_every_type(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapo.model.artifact.load", lambda *_: pytest.fail("a model was loaded"))
    done = run("show")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert all(title in lines for title in builtin_groups())
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in builtin().names)
    assert max(map(len, lines)) <= 100
    assert lines[-1].startswith(f"{len(builtin())} types")


def test_json_of_the_list(run: Run) -> None:
    groups = json.loads(run("show", "--json").stdout)["groups"]
    listed = [defect for group in groups for defect in group["defects"]]
    assert [defect["name"] for defect in listed] == list(builtin().names)
    assert set(listed[0]) == {"name", "phrases", "severity", "causes", "actions"}


def test_show_names(run: Run, tmp_path: Path) -> None:
    done = run("show", "scratch", "pin hole", model=True)
    assert done.exit_code == 0, done.output
    assert "scratch: scratch" in done.stdout and "pin hole: pin hole" in done.stdout
    assert done.stdout.count("causes:") == 6 and "similarity: from" in done.stdout
    (tmp_path / "mine.yaml").write_text("defects: [{name: mark, phrases: [scratch]}]", "utf-8")
    facts = json.loads(run("show", "mine.yaml", "--count", "2", "--json", model=True).stdout)
    (mark,) = facts["defects"]
    assert mark["name"] == "mark" and len(mark["nearest"]) == 2
    assert all(0 <= one["similarity"] <= 100 and one["causes"] for one in mark["nearest"])


def test_the_same_words_as_a_known_type_come_first(run: Run) -> None:
    """Whatever the weights: the built-in 'knot' is nearest to its own phrases."""
    text = ", ".join(builtin()["knot"].phrases)
    Path("mine.yaml").write_text(f"defects: [{{name: branch, phrases: [{text}]}}]", "utf-8")
    (branch,) = json.loads(run("show", "mine.yaml", "--json", model=True).stdout)["defects"]
    assert branch["nearest"][0]["name"] == "knot" and branch["nearest"][0]["similarity"] >= 95


def test_help_of_the_group(run: Run) -> None:
    done = run()
    assert done.exit_code == 0 and "lint" in done.stdout and "show" in done.stdout

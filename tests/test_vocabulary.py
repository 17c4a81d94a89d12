"""Names in, defect types out: what the user wrote stays as written, and an error says where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo.data.taxonomy import FOLDER, TAXONOMIES, load_taxonomy
from dapo.errors import VocabularyError
from dapo.pretraining.lexicon import Lexicon
from dapo.vocabulary import RESERVED, SEVERITIES, Defect, Vocabulary, builtin, builtin_groups

# The defect types of the public datasets, by the names their papers and label files use.
PUBLIC_TYPES = {
    "MVTec AD": """bent, broken, color, combined, contamination, crack, cut, fabric, faulty imprint, glue,
        hole, missing, poke, rough, scratch, squeeze, thread, liquid, misplaced, damaged""",
    "VisA": """damage, scratch, breakage, burnt, weird wick, stuck, crack, wrong place, partical, bubble,
        melded, hole, melt, bent, spot, extra, chip, missing""",
    "MPDD": "hole, scratch, bent, mismatch, defective painting, rust, flattening",
    "Real-IAD": "pit, deformation, abrasion, scratch, damage, missing, foreign, contamination",
    "MAD": "Stains, Missing, Burrs",
    "Magnetic tile": "blowhole, break, crack, fray, uneven",
    "X-SDD": """iron sheet ash, plate oxide scale, red iron, roll mark, scratch, slag inclusion,
        temperature oxide scale""",
    "NEU-DET": "crazing, inclusion, patches, pitted_surface, rolled-in_scale, scratches",
    "PCB": "missing_hole, mouse_bite, open_circuit, short_circuit, spur, spurious_copper",
}


def refuse(make: Any, *parts: str) -> str:
    """The message with which ``make()`` is refused, after checking its form and that it names ``parts``."""
    with pytest.raises(VocabularyError) as caught:
        make()
    message = str(caught.value)
    assert "expected" in message and "came" in message and ";" in message, message
    for part in parts:
        assert part in message, message
    assert "\n" not in message
    return message


# The built-in vocabulary


@pytest.mark.parametrize("dataset", PUBLIC_TYPES)
def test_every_public_type_is_known(dataset: str) -> None:
    unknown = [name for name in Vocabulary.of(PUBLIC_TYPES[dataset]).names if builtin().find(name) is None]
    assert unknown == []


@pytest.mark.parametrize("dataset", TAXONOMIES)
def test_every_type_of_every_taxonomy_finds_a_whole_entry(dataset: str) -> None:
    """In the spelling of the labels and in the one told to the text tower, in every published variant."""
    facts = yaml.safe_load((FOLDER / f"{dataset}.yaml").read_text(encoding="utf-8"))
    for variant in facts.get("variants", {None: {}}):
        taxonomy = load_taxonomy(dataset, variant)
        assert taxonomy.classes
        for name in (*taxonomy.classes, *map(taxonomy.spoken, taxonomy.classes)):
            entry = builtin().find(name)
            assert entry is not None, name
            assert entry.phrases and entry.causes and entry.actions and entry.severity in SEVERITIES


def test_every_type_the_embedded_model_was_taught_is_known() -> None:
    assert [kind.name for kind in Lexicon.builtin().types if builtin().find(kind.name) is None] == []


def test_groups_hold_every_builtin_type_once() -> None:
    groups = builtin_groups()
    assert [defect for defects in groups.values() for defect in defects] == list(builtin())
    assert len(groups) >= 10 and all(groups.values())
    assert "Heat" in groups and builtin()["melt"] in groups["Heat"]
    with pytest.raises(TypeError):
        groups["Heat"] = ()  # type: ignore[index]


def test_a_group_is_no_entry_of_a_users_file(tmp_path: Path) -> None:
    refuse(lambda: Vocabulary.from_yaml(write(tmp_path, "defects: [{group: Heat}]")), "entry 1", "'group'")


def test_the_builtin_vocabulary_is_complete_and_tidy() -> None:
    assert len(builtin()) >= 60
    assert {defect.severity for defect in builtin()} == set(SEVERITIES)
    for defect in builtin():
        assert 3 <= len(defect.phrases) <= 8, defect.name
        assert 2 <= len(defect.causes) <= 4, defect.name
        assert 2 <= len(defect.actions) <= 4, defect.name
        assert not set(defect.causes) & set(defect.actions), defect.name
        assert all(len(phrase.split()) <= 7 for phrase in defect.phrases), (
            "phrases are short: the model reads them"
        )
        assert not any(phrase.casefold() in RESERVED for phrase in defect.phrases)


def test_no_builtin_phrase_means_two_types() -> None:
    for defect in builtin():
        for phrase in (defect.name, *defect.phrases):
            assert builtin().find(phrase) is defect, phrase


def test_the_builtin_vocabulary_can_be_saved_and_read_back(tmp_path: Path) -> None:
    builtin().to_yaml(tmp_path / "all.yaml")
    assert Vocabulary.from_yaml(tmp_path / "all.yaml") == builtin()


# Names


@pytest.mark.parametrize(
    "source",
    [
        "scratch, pin hole",
        " scratch ,pin  hole ",
        ["scratch", "pin hole"],
        ("scratch", "pin hole"),
        (name for name in ("scratch", "pin hole")),
    ],
)
def test_names_in_every_form(source: Any) -> None:
    vocabulary = Vocabulary.of(source)
    assert vocabulary.names == ("scratch", "pin hole")
    assert [defect.phrases for defect in vocabulary] == [("scratch",), ("pin hole",)]


def test_known_names_borrow_for_the_report_but_never_phrases() -> None:
    scratch, dents, own = Vocabulary.of(["Scratch", "dents", "zigzag ghost"])
    assert scratch.phrases == ("Scratch",), "the model reads what the user wrote"
    assert scratch.causes == builtin()["scratch"].causes != ()
    assert scratch.severity == builtin()["scratch"].severity == "minor"
    assert (
        dents.name == "dents" and dents.phrases == ("dents",) and dents.actions == builtin()["dent"].actions
    )
    assert own == Defect("zigzag ghost", ("zigzag ghost",), "major", (), ())


def test_a_defect_object_is_taken_as_it_is() -> None:
    bare = Defect("scratch")
    assert Vocabulary.of([bare, "dent"])[0] is bare
    assert bare.causes == () and bare.severity == "major" and bare.phrases == ("scratch",)
    assert Vocabulary.of(bare).defects == (bare,)
    vocabulary = Vocabulary((bare,))
    assert Vocabulary.of(vocabulary) is vocabulary


def test_reading_a_vocabulary() -> None:
    vocabulary = Vocabulary.of("scratch, dent, crack")
    assert len(vocabulary) == 3 and [d.name for d in vocabulary] == list(vocabulary.names)
    assert vocabulary[1] is vocabulary["dent"] is vocabulary[-2]
    assert "dent" in vocabulary and vocabulary[0] in vocabulary
    assert "Dent" not in vocabulary and "hole" not in vocabulary and 3 not in vocabulary
    refuse(lambda: vocabulary["dnet"], "'dnet'", "did you mean 'dent'?")
    with pytest.raises(IndexError):
        vocabulary[3]
    assert hash(vocabulary) == hash(Vocabulary.of("scratch, dent, crack"))
    assert vocabulary != Vocabulary.of("dent, scratch, crack"), "the order is part of it"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("SCRATCHES", "scratch"),
        ("pin-hole", "pin hole"),
        ("pin_holes", "pin hole"),
        ("hairline scratch", "scratch"),
        ("boxes", "box"),
        ("glass", "glass"),
        ("shared", None),
        ("unheard of", None),
    ],
)
def test_find(words: str, name: str | None) -> None:
    vocabulary = Vocabulary(
        (
            Defect("scratch", ("hairline scratch", "shared")),
            Defect("pin hole", ("shared",)),
            Defect("box"),
            Defect("glass"),
        )
    )
    found = vocabulary.find(words)
    assert (found.name if found else None) == name


@pytest.mark.parametrize("source", ["", "  ", [], ()])
def test_no_names(source: Any) -> None:
    refuse(lambda: Vocabulary.of(source), "at least one", "none", "scratch, dent")


@pytest.mark.parametrize("source", ["scratch,,dent", "scratch,", ["scratch", ""], ["scratch", " \t"]])
def test_empty_names(source: Any) -> None:
    refuse(lambda: Vocabulary.of(source), "name", "empty")


@pytest.mark.parametrize("source", ["scratch, dent, scratch", ["dent", "Dent"], ["pin hole", "pin  hole"]])
def test_two_of_one_name(source: Any) -> None:
    refuse(lambda: Vocabulary.of(source), "different names", "twice")


@pytest.mark.parametrize("name", ["normal", "Good", "OK", "unknown"])
def test_names_of_states_that_are_there_anyway(name: str) -> None:
    refuse(lambda: Vocabulary.of(["scratch", name]), repr(name))


@pytest.mark.parametrize("source", [None, 3, {"scratch": ["fine scratch"]}, object()])
def test_things_that_are_no_vocabulary(source: Any) -> None:
    refuse(lambda: Vocabulary.of(source), type(source).__name__)


@pytest.mark.parametrize("item", [3, None, True, ["scratch"], b"scratch"])
def test_names_that_are_no_text(item: Any) -> None:
    refuse(lambda: Vocabulary.of(["dent", item]), "expected text")
    refuse(lambda: Defect("dent", phrases=(item,)), "'dent', phrases")


def test_defects_that_are_wrong_in_themselves() -> None:
    refuse(lambda: Defect("dent", severity="high"), "'dent', severity", "came high")  # type: ignore[arg-type]
    refuse(lambda: Defect("dent", phrases=("a dent", "A dent")), "'dent', phrases", "twice")
    refuse(lambda: Defect("dent", causes=7), "'dent', causes", "came 7")  # type: ignore[arg-type]
    refuse(lambda: Defect("dent\x07"), "printable")
    refuse(lambda: Vocabulary(("dent",)), "Vocabulary.of")  # type: ignore[arg-type]


def test_lists_become_tuples_and_one_text_becomes_one_phrase() -> None:
    defect = Defect("dent", phrases="small dent", causes=["a fall"], actions=[" check  it "])  # type: ignore[arg-type]
    assert defect == Defect("dent", ("small dent",), "major", ("a fall",), ("check it",))


# Files


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "defects.yaml"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_file_with_everything(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
defects:
  - name: scratch
    phrases: ["scratch", "scratched line", "Kratzer über alles"]
    severity: critical
    causes: [handling, worn conveyor guide]
    actions: []
  - name: zigzag
    phrases: one phrase
  - dent
""",
    )
    scratch, zigzag, dent = Vocabulary.from_yaml(path)
    phrases = ("scratch", "scratched line", "Kratzer über alles")
    assert scratch == Defect("scratch", phrases, "critical", ("handling", "worn conveyor guide"), ())
    assert zigzag == Defect("zigzag", ("one phrase",))
    assert dent == Vocabulary.of("dent")[0] and dent.causes
    assert Vocabulary.of(path) == Vocabulary.of(str(path)) == Vocabulary.from_yaml(str(path))


def test_what_an_entry_does_not_say_is_borrowed_and_what_it_says_is_not(tmp_path: Path) -> None:
    path = write(tmp_path, "defects: [{name: crack, phrases: [rift], severity: minor, causes: }]")
    (crack,) = Vocabulary.from_yaml(path)
    assert crack.phrases == ("rift",) and crack.severity == "minor"
    assert crack.causes == builtin()["crack"].causes and crack.actions == builtin()["crack"].actions
    (bare,) = Vocabulary.from_yaml(write(tmp_path, "defects: [{name: crack, causes: [], actions: []}]"))
    assert bare.causes == () and bare.actions == () and bare.phrases == ("crack",)


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path, "defects:\r\n  - name: Öl\r\n    severity: minor\r\n", "utf-8-sig")
    assert Vocabulary.from_yaml(path) == Vocabulary((Defect("Öl", severity="minor"),))


words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
texts = st.lists(words, max_size=3, unique_by=str.casefold)


@given(
    st.lists(
        st.builds(
            Defect,
            name=words.filter(lambda name: name.casefold() not in RESERVED),
            phrases=texts,
            severity=st.sampled_from(SEVERITIES),
            causes=texts,
            actions=texts,
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda defect: defect.name.casefold(),
    )
)
@settings(max_examples=60, deadline=None)
def test_any_vocabulary_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, defects: list[Defect]
) -> None:
    path = tmp_path_factory.mktemp("v") / "own words.yml"
    vocabulary = Vocabulary(tuple(defects))
    vocabulary.to_yaml(path)
    assert Vocabulary.from_yaml(path) == vocabulary == Vocabulary.of(str(path))
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["defects"][0]["name"] == defects[0].name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["defects", "nothing"]),
        ("scratch", ["came scratch"]),
        ("- scratch\n- dent\n", ["came a list"]),
        ("defects: scratch", ["a list under", "came scratch"]),
        ("defects: []", ["at least one"]),
        ("defect: [scratch]", ['"defects"', "came defect;"]),
        ("defects: [scratch]\nmodel: x", ["no other", "came defects, model;"]),
        ("defects: [scratch, no]", ["entry 2", "came False", "quotes"]),
        ("defects: [scratch, 12]", ["entry 2", "came 12"]),
        ("defects: [{name: 12}]", ["entry 1", "name", "came 12"]),
        ("defects: [{name: }]", ["entry 1", "name", "nothing"]),
        ("defects: [{phrases: [a]}]", ["entry 1", "a name", "came phrases"]),
        ("defects: [{}]", ["entry 1", "came nothing"]),
        ("defects: [dent, {name: scratch, prases: [a]}]", ["entry 2", "'prases'", "did you mean 'phrases'?"]),
        ("defects: [{name: scratch, severity: high}]", ["entry 1", "'scratch', severity", "came high"]),
        ("defects: [{name: scratch, severity: [1]}]", ["entry 1", "severity", "came a list"]),
        ("defects: [{name: scratch, phrases: [[a]]}]", ["entry 1", "phrases", "came a list"]),
        ("defects: [{name: scratch, causes: {a: b}}]", ["entry 1", "causes", "came keys"]),
        ("defects: [{name: scratch, phrases: ['']}]", ["entry 1", "phrases", "empty"]),
        ("defects: [scratch, dent, scratch]", ["different names", "'scratch' twice"]),
        ("defects: [{name: scratch, name: dent}]", ["the key 'name' twice", "line 1"]),
        ("defects: [scratch\n  - dent", ["expected YAML", "line 2"]),
        ("defects:\n\t- dent", ["expected YAML", "line 2"]),
        ("defects: [2024-02-32]", ["expected YAML"]),
        ("defects: !!python/object/apply:os.getcwd []", ["expected YAML"]),
        ("defects: &a [*a]", ["expected a name", "a list"]),
        ("defects: " + "[" * 50_000, ["expected YAML"]),
        ("defects: [dent\x00]", ["expected YAML"]),
    ],
)
def test_files_that_are_wrong_say_where(tmp_path: Path, text: str, parts: list[str]) -> None:
    refuse(lambda: Vocabulary.from_yaml(write(tmp_path, text)), "defects.yaml'", *parts)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    refuse(lambda: Vocabulary.of(str(tmp_path / "none.yaml")), "none.yaml", "No such file")
    refuse(lambda: Vocabulary.of(tmp_path), "came")
    refuse(lambda: Vocabulary.of(write(tmp_path, "defects: [Öl]", "latin-1")), "UTF-8")
    refuse(lambda: Vocabulary.of(write(tmp_path, "defects: [Öl]", "utf-16")), "UTF-8")


def test_aliases_that_multiply_end_at_once(tmp_path: Path) -> None:
    """Nine levels of nine aliases: 400 million nodes for whoever follows them all."""
    levels = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    text = "{" + ", ".join(levels) + ", defects: [{name: dent, causes: *a9}]}"
    refuse(lambda: Vocabulary.from_yaml(write(tmp_path, text)), "no other")

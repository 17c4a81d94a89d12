"""The trade's language: the lexicon keeps its promises, held-out phrases are others, bad files are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dapo.errors import DataError
from dapo.pretraining.lexicon import NORMAL, TEMPLATES, Lexicon, fill

ASKED = """
scratch, crack, dent, hole, pin hole, pit, blowhole, stain, spot, discoloration, color, rust, burn,
bubble, bump, chip, broken, burr, fray, uneven, rough, abrasion, wrinkle, fold, cut, tear, thread,
missing, misplaced, extra, faulty imprint, smudged print, glue, dust, hair, fiber, foreign,
contamination, liquid, oil, watermark, fingerprint, oxide scale, inclusion, slag, roll mark,
peeling, weld spatter, deformation, bent, squeeze, poke, short circuit, open circuit, spur, mouse
bite, spurious copper, knot, nep, weaving fault, streak, groove, ash, red iron, patch, porosity,
corrosion, misprint, melt, flattening, mismatch, damage
"""

READ = "from dapo.pretraining.lexicon import Lexicon"
TINY = """
format: 1
types:
  - {id: scratch, name: scratch, group: line, visual: scratch, phrases: [scratch, score, scuff line]}
  - {id: hole, name: hole, group: opening, visual: hole, phrases: [hole], held_out: [puncture]}
normal: [flawless, good]
materials: [steel]
surfaces: [plate]
objects: [screw]
"""


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.builtin()


@pytest.mark.parametrize("name", " ".join(ASKED.split()).split(", "))
def test_every_promised_type_is_there_under_its_name(lexicon: Lexicon, name: str) -> None:
    assert lexicon[name].name == name
    assert lexicon[name].phrases[0] == name


def test_the_shipped_lexicon_is_large_enough(lexicon: Lexicon) -> None:
    assert len(lexicon.types) >= 64
    assert all(len(kind.phrases) >= 30 and len(kind.held_out) >= 5 for kind in lexicon.types)
    assert len(lexicon.normal) >= 25
    assert len(lexicon.materials) >= 40
    assert len(lexicon.objects) >= 40
    for words in (lexicon.materials, lexicon.surfaces, lexicon.objects):
        assert len(set(words)) == len(words)


def test_held_out_and_taught_phrases_share_nothing_and_make_the_whole(lexicon: Lexicon) -> None:
    for type_id in (*lexicon.ids, NORMAL):
        taught, held = lexicon.train_phrases(type_id), lexicon.held_out(type_id)
        assert (*taught, *held) == lexicon.phrases(type_id)
        assert not set(taught) & set(held)


def test_the_plain_flawless_words_are_always_taught(lexicon: Lexicon) -> None:
    assert {"flawless", "normal", "good", "perfect"} <= set(lexicon.train_phrases(NORMAL))


def test_reading_the_lexicon_loads_no_torch() -> None:
    code = f"import sys; {READ}; Lexicon.builtin(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_affinity_orders_looks(lexicon: Lexicon) -> None:
    same_look = lexicon.affinity("hole", "pinhole")
    same_group = lexicon.affinity("stain", "spot")
    apart = lexicon.affinity("hole", "rust")
    assert lexicon.affinity("hole", "hole") == 1
    assert 1 > same_look > same_group > apart > lexicon.affinity("hole", NORMAL)
    assert apart < 0.3
    assert lexicon.affinity(NORMAL, "hole") == lexicon.affinity("hole", NORMAL)


def test_affinities_are_cosines_that_can_exist(lexicon: Lexicon) -> None:
    ids = (*lexicon.ids, NORMAL)
    gram = np.array([[lexicon.affinity(one, two) for two in ids] for one in ids])
    values, vectors = np.linalg.eigh(gram)
    nearest = (vectors * np.clip(values, 0, None)) @ vectors.T
    assert np.abs(nearest - gram).max() < 0.1  # unit vectors with nearly these cosines exist


def test_types_are_found_by_the_family_that_draws_them(lexicon: Lexicon) -> None:
    assert "hole" in lexicon.visuals
    assert {kind.id for kind in lexicon.by_visual("hole")} >= {"hole", "pinhole"}
    assert None not in lexicon.visuals


def test_every_template_carries_its_phrase(lexicon: Lexicon) -> None:
    for template in TEMPLATES:
        sentence = fill(template, "fissure", lexicon, lambda pool: pool[0])
        assert "fissure" in sentence
        assert "{" not in sentence


def test_an_unknown_type_names_the_known_ones(lexicon: Lexicon) -> None:
    with pytest.raises(DataError, match=r"no defect type 'wobble'.*scratch"):
        lexicon["wobble"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format: 1", "format: 2", "format 1"),
        ("puncture", "SCORE", "'SCORE' occurs twice"),
        ("id: hole", "id: scratch", "type id 'scratch' occurs twice"),
        ("id: hole", "id: normal", "reserved"),
        ("visual: hole, ", "", "and may have held_out"),
        ("visual: hole", "visual: [hole]", "must be text or null"),
        ("name: hole", "name: 3", "name must be text"),
        ("[hole]", "[]", "phrases of 'hole'"),
        ("[hole]", "[hole, no]", "phrases of 'hole'"),  # YAML reads a bare no as false
        ("[puncture]", "puncture", "held_out of 'hole'"),
        (
            "normal: [flawless, good]",
            "normal: [flawless]\nnormal_held_out: [flawless]",
            "'flawless' occurs twice",
        ),
        ("materials: [steel]", "", "materials"),
        ("format: 1", "format: [", "cannot read the lexicon"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TINY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Lexicon.from_yaml(path)


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TINY, encoding="utf-8")
    own = Lexicon.from_yaml(path)
    assert own.ids == ("scratch", "hole")
    assert own.held_out("hole") == ("puncture",)
    assert own.train_phrases("hole") == ("hole",)
    assert own.held_out("scratch") == own.held_out(NORMAL) == ()


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the lexicon"):
        Lexicon.from_yaml(tmp_path / "none.yaml")

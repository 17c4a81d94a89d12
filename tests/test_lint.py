"""Lint: each finding on words made for it, nothing on words that are fine, and proposals that help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import tiny_detector

from dapo.config import PromptSettings
from dapo.lint import Finding, Reader, Scale, lint, proposed
from dapo.model.artifact import EMBEDDED, load
from dapo.vocabulary import Defect, Vocabulary, builtin

trained = pytest.mark.skipif(not (EMBEDDED / "config.json").is_file(), reason="needs the embedded model")
CLEAN = "scratch, dent, rust, hole, wrinkle, missing, bubble, glue"


@pytest.fixture(scope="module")
def tiny() -> Reader:
    """Random weights: it reads, but means nothing. Its text tower takes 77 places."""
    return Reader(tiny_detector())


@pytest.fixture(scope="module")
def embedded() -> Reader:
    return Reader(load()[0])


def words(**phrases: Any) -> Vocabulary:
    return Vocabulary(tuple(Defect(name, tuple(own)) for name, own in phrases.items()))


def of_kind(found: tuple[Finding, ...], kind: str) -> list[Finding]:
    return [finding for finding in found if finding.kind == kind]


# What is written


def test_a_phrase_in_two_types(tiny: Reader) -> None:
    found = lint(tiny, words(scratch=["scratch", "Fine line"], crack=["crack", "fine lines"], hole=["hole"]))
    (twice,) = of_kind(found, "twice")
    assert twice.level == "warning" and twice.defects == ("scratch", "crack")
    assert twice.phrases == ("Fine line", "fine lines")
    assert "merge" in twice.do


def test_a_phrase_and_its_plural(tiny: Reader) -> None:
    (variant,) = of_kind(lint(tiny, words(scratch=["pin-hole", "Pin Holes", "dent"])), "variant")
    assert variant.level == "warning" and variant.phrases == ("pin-hole", "Pin Holes")
    assert "drop 'Pin Holes'" in variant.do


def test_missing_facts_are_hints(tiny: Reader) -> None:
    vocabulary = Vocabulary((Defect("zigzag"), Defect("wobble", causes=("a",), actions=("b",))))
    (bare,) = of_kind(lint(tiny, vocabulary), "bare")
    assert bare.level == "hint" and bare.defects == ("zigzag",)
    assert of_kind(lint(tiny, Vocabulary.of(CLEAN)), "bare") == [], "known types bring their facts"
    (pore,) = of_kind(lint(tiny, words(pore=["pore", "porosity"])), "bare")
    assert pore.alternatives == ("porosity",) and "'porosity'" in pore.do
    assert proposed(tiny, words(pore=["pore", "porosity"]))["pore"].causes == builtin()["porosity"].causes


# What can be read


def test_a_phrase_longer_than_the_text_tower(tiny: Reader) -> None:
    """One letter a place: 77 of them, less the context and the template, are too few for 80."""
    (long,) = of_kind(lint(tiny, words(scratch=["scratch", "z" * 80])), "unreadable")
    assert long.level == "warning" and long.phrases == ("z" * 80,)
    assert "at most" in long.why
    fits = of_kind(lint(tiny, words(scratch=["scratch", "z" * 20])), "unreadable")
    assert fits == []


def test_words_the_tokenizer_does_not_know(tiny: Reader) -> None:
    part, whole = of_kind(
        lint(tiny, words(scratch=["long ☃ scratch"], dent=["☃"], hole=["hole"])), "unreadable"
    )
    assert (part.defects, whole.defects) == (("scratch",), ("dent",))
    assert "unknown words" in part.what and "☃" in part.what and "cannot take" in whole.what


def test_spelled_words_warn_only_where_nothing_else_is_said(tiny: Reader) -> None:
    found = of_kind(lint(tiny, words(a=["qwxz"], b=["dent", "qwxz hole"])), "spelled")
    assert [(one.level, one.defects) for one in found] == [("warning", ("a",)), ("hint", ("b",))]
    assert of_kind(lint(tiny, words(a=["pin-hole", "scratch, dent"])), "spelled") == [], "signs are no pieces"


@trained
def test_spelled_words_that_were_taught_are_no_matter(embedded: Reader) -> None:
    assert embedded.spelled("wrinkle") == ["wrinkle"] and embedded.understands("wrinkle")
    assert not embedded.understands("Quergeschlechtlichkeit")
    assert of_kind(lint(embedded, Vocabulary.of("wrinkle")), "spelled") == []
    (german,) = of_kind(lint(embedded, Vocabulary.of("Kratzspurenfeld, dent")), "spelled")
    assert german.level == "warning"


def test_nothing_readable_at_all_is_still_an_answer(tiny: Reader) -> None:
    found = lint(tiny, words(snow=["☃"], rain=["☔"]))
    assert {one.kind for one in found} == {"unreadable", "bare"}
    assert proposed(tiny, words(snow=["☃"])) == words(snow=["☃"])


def test_a_model_that_does_not_read_names() -> None:
    prompts = PromptSettings(groups=1, context=3, binary_phrase="damaged")
    blind = Reader(tiny_detector(prompts=prompts))
    first = lint(blind, Vocabulary.of(CLEAN))[0]
    assert first.kind == "unread" and first.level == "warning"


# What the model tells apart


@trained
def test_good_words_are_clean(embedded: Reader) -> None:
    found = lint(embedded, Vocabulary.of(CLEAN))
    assert [one for one in found if one.level == "warning"] == []


@trained
@pytest.mark.parametrize(
    ("one", "two"), [("crack", "fissure"), ("blister", "bubble"), ("rust", "rust stain")]
)
def test_synonyms_cannot_be_told_apart(embedded: Reader, one: str, two: str) -> None:
    (alike,) = of_kind(lint(embedded, Vocabulary.of([one, two, "dent"])), "alike")
    assert alike.level == "warning" and set(alike.defects) == {one, two}
    assert "merge" in alike.do


@trained
def test_a_phrase_that_means_another_type(embedded: Reader) -> None:
    vocabulary = words(stain=["stain", "dark stain", "fissure"], crack=["crack", "cracked surface"])
    (stray,) = of_kind(lint(embedded, vocabulary), "stray")
    assert stray.phrases == ("fissure",) and stray.defects == ("stain", "crack")


@trained
def test_words_for_a_good_part(embedded: Reader) -> None:
    (normal,) = of_kind(lint(embedded, words(odd=["undamaged", "scratch"], dent=["dent"])), "normal")
    assert normal.phrases == ("undamaged",) and normal.level == "warning"


@trained
def test_proposals_resolve_what_they_can(embedded: Reader) -> None:
    draft = words(
        scratch=["scratch", "scratches", "z" * 200],
        dent=["dent"],
        rust=["rust", "Scratch"],
    )
    before, fixed = lint(embedded, draft), proposed(embedded, draft)
    assert {one.kind for one in before if one.level == "warning"} >= {"twice", "variant", "unreadable"}
    assert [one for one in lint(embedded, fixed) if one.level == "warning"] == []
    assert fixed.names == draft.names
    assert fixed["dent"].phrases == builtin()["dent"].phrases
    assert "Scratch" not in fixed["rust"].phrases and "scratches" not in fixed["scratch"].phrases
    assert lint(embedded, fixed) == lint(embedded, fixed), "nothing depends on what was asked before"


@trained
def test_a_fuller_entry_is_proposed_only_where_it_stays_apart(embedded: Reader) -> None:
    thin, _ = of_kind(lint(embedded, Vocabulary.of("dent, rust")), "thin")
    assert thin.level == "hint" and set(thin.alternatives) >= {"dent", "ding"}
    taken = Vocabulary((Defect("dent"), Defect("hollow", builtin()["dent"].phrases[1:])))
    assert [one.defects for one in of_kind(lint(embedded, taken), "thin")] == []


@trained
def test_alternatives_are_told_apart_from_the_rest(embedded: Reader) -> None:
    vocabulary = Vocabulary.of("crack, scratch, oxide scale, rolled-in scale")
    normal, states = embedded.states(vocabulary)
    for i in range(len(states)):
        others = np.delete(states, i, 0)
        for name in embedded.alternatives(states[i], others):
            _, (state,) = embedded.states(Vocabulary((builtin()[name],)))
            assert (others @ state).max() < embedded.scale.alike
    assert normal.shape == states[0].shape


@trained
def test_the_nearest_known_types(embedded: Reader) -> None:
    _, (fissure, sag) = embedded.states(Vocabulary.of("fissure, paint sag"))
    near = embedded.nearest(fissure)
    assert near[0].defect.name == "crack" and near[0].similarity > 90
    assert [one.similarity for one in near] == sorted((one.similarity for one in near), reverse=True)
    assert {one.defect.name for one in embedded.nearest(sag, 2)} == {"paint run", "defective painting"}


@trained
def test_the_scale_is_as_documented(embedded: Reader) -> None:
    scale = embedded.scale
    measured = (scale.other, scale.near, scale.alike)
    assert measured == pytest.approx((0.13, 0.55, 0.97), abs=0.03)
    assert scale.other < scale.near < scale.alike < 1


def test_similarity_runs_from_another_type_to_the_same() -> None:
    scale = Scale(other=0.2, near=0.5, alike=0.8, normal=0.3)
    assert [scale.similarity(cosine) for cosine in (-1, 0.2, 0.6, 1.0)] == [0, 0, 50, 100]

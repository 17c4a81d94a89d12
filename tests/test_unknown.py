"""Unknown types: what the background says of a patch, and the value that is read off generated scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_detector
from torch.nn import functional as F

from dapo.config import ModelConfig, PromptSettings, parse
from dapo.errors import ConfigError
from dapo.model.background import ahead, rivals
from dapo.pretraining.scenes import World
from dapo.pretraining.unknown import (
    Trial,
    ask,
    choose_unknown,
    drawn_lists,
    figures,
    flaw_under,
    trials,
)
from dapo.regions import find_regions
from dapo.vocabulary import Vocabulary

NAMES = Vocabulary.of(["scratch", "hole"])
COMMON = Vocabulary.of(["stain", "crack", "bump", "scratch"])


def unit(*rows: list[float]) -> torch.Tensor:
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def test_a_patch_that_looks_like_another_type_is_ahead_of_the_names() -> None:
    states, others = unit([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]), unit([0, 0, 0, 1])
    patches = unit([0, 1, 0, 0.1], [0, 0.1, 0, 1], [0, 0.5, 0.5, 0.5], [1, 0, 0, 0])[None]
    lead = ahead([patches], states, others, 10.0)[0]
    assert lead[0] < 0.01 and lead[1] > 0.99
    assert lead[2] == pytest.approx(0.5) and lead[3] == pytest.approx(0.5)  # normal says nothing


def test_a_further_name_never_raises_and_a_further_rival_never_lowers_it() -> None:
    torch.manual_seed(0)
    states, others, patches = (F.normalize(torch.randn(n, 8), dim=-1) for n in (5, 6, 40))
    lead = ahead([patches[None]], states, others, 5.0)
    assert (ahead([patches[None]], states[:4], others, 5.0) >= lead).all()
    assert (ahead([patches[None]], states, others[:3], 5.0) <= lead).all()


def test_taps_are_averaged() -> None:
    states, others = unit([1, 0, 0], [0, 1, 0]), unit([0, 0, 1])
    same, other = unit([0, 1, 0])[None], unit([0, 0, 1])[None]
    both = ahead([same, other], states, others, 3.0)
    assert both == pytest.approx(0.5)


def test_a_name_in_other_words_is_no_rival() -> None:
    states = unit([1, 0, 0, 0], [0, 1, 0, 0])
    common = unit([0, 1, 0.05, 0], [0, 0, 1, 0.4], [0, 0.1, 0, 1], [0, 0, -1, 0.3])
    assert torch.equal(rivals(states, common), common[1:])


def test_without_a_background_to_speak_of_nothing_is_ahead() -> None:
    states = unit([1, 0], [0, 1])
    assert len(rivals(states, unit([0, 1]))) == 0
    assert torch.equal(ahead([unit([0, 1])[None]], states, states[:0], 9.0), torch.zeros(1, 1))


def test_the_detector_tells_it_beside_its_other_scores() -> None:
    detector = tiny_detector(scales=(1.0, 0.5), binary="max")
    pixels = torch.rand(2, 3, detector.input_side, detector.input_side)
    with torch.inference_mode():
        background = detector.background(NAMES, COMMON)
        plain, asked = detector(pixels, NAMES), detector(pixels, NAMES, background=background)
    assert plain.unknown is None and asked.unknown is not None
    assert len(background) < len(COMMON)  # "scratch" is a name
    assert asked.unknown.shape == plain.binary.shape
    assert 0 < asked.unknown.min() < asked.unknown.max() < 1
    for field in ("image", "binary", "types", "type_image"):
        assert torch.equal(getattr(plain, field), getattr(asked, field))


def test_types_that_cannot_be_told_apart_have_no_rivals() -> None:
    detector = tiny_detector(prompts=PromptSettings(groups=2, context=3, binary_phrase="damaged object"))
    with torch.inference_mode():
        assert len(detector.background(NAMES, COMMON)) == 0


def test_the_flaw_under_a_region_is_the_one_it_shares_most_with() -> None:
    stain, dot = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    stain[5:15, 5:15], dot[7:9, 16:18] = True, True
    anomaly = np.zeros((30, 30), np.float32)
    anomaly[6:14, 6:17] = anomaly[20:24, 20:24] = 0.9
    on_it, beside = sorted(find_regions(anomaly, {}, threshold=0.5), key=lambda region: region.bbox[1])
    assert flaw_under(on_it, {"stain": stain, "dot": dot}) == "stain"
    assert flaw_under(on_it, {"dot": dot}) == "dot"  # half of the dot
    assert flaw_under(beside, {"stain": stain, "dot": dot}) is None


def test_lists_are_drawn_by_seed_and_speak_plainly() -> None:
    drawn = drawn_lists(World().families, {3: 2, 5: 1}, seed=1)
    assert [len(one) for one in drawn] == [3, 3, 5]
    assert drawn == drawn_lists(World().families, {3: 2, 5: 1}, seed=1)
    assert drawn != drawn_lists(World().families, {3: 2, 5: 1}, seed=2)
    (broken,) = drawn_lists(("break",), {3: 1}, seed=0)
    assert (broken.names, broken["break"].phrases) == (("break",), ("broken",))


def test_trials_know_what_was_left_out() -> None:
    detector = tiny_detector(binary="max")
    mask = np.ones((40, 40), bool)
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    lists = [ask(detector, NAMES, COMMON), ask(detector, Vocabulary.of(["stain"]), COMMON)]
    found = list(trials(detector, [(picture, {"stain": mask})], lists, map_threshold=0.0, min_area=0.0))
    assert {(trial.names, trial.known, trial.flaw) for trial in found} == {
        (2, False, "stain"),
        (1, True, "stain"),
    }
    assert all(0 <= trial.ahead <= 1 and 0 <= trial.doubt <= 1 for trial in found)


def test_the_value_keeps_the_stated_share_of_named_flaws() -> None:
    world = World(seed=5, normal=0.0, families=("scratch", "hole", "stain", "crack"))
    value, told = choose_unknown(
        tiny_detector(binary="max"),
        world,
        map_threshold=0.1,
        min_area=0.0,
        count=25,
        side=32,
        lost=0.2,
        lists={2: 2},
    )
    assert value is not None and 0 < value < 1
    assert told["known"] > 5 and told["held_out"] > 5
    assert told["known_lost"] == pytest.approx(0.2, abs=1 / told["known"])


def test_nothing_is_read_off_where_no_flaw_lacks_a_name() -> None:
    world = World(seed=5, normal=0.0, families=("stain",))
    options = {"map_threshold": 0.0, "min_area": 0.0, "count": 2, "side": 32, "lists": {1: 1}}
    assert choose_unknown(tiny_detector(), world, **options)[0] is None


def test_figures_count_both_errors() -> None:
    found = [Trial(3, "a", True, x, 0, 0) for x in (0.1, 0.2, 0.3, 0.8)]
    found += [Trial(3, "b", False, x, 0, 0) for x in (0.25, 0.9)]
    told = figures(found, 0.5)
    assert (told["known_lost"], told["found_unknown"]) == (0.25, 0.5)
    assert told["auroc"] == pytest.approx(6 / 8)
    assert figures(found[:4], 0.5)["found_unknown"] is None


def test_an_older_model_calls_no_region_unknown() -> None:
    assert parse(ModelConfig, {"name": "old"}).unknown_above is None
    with pytest.raises(ConfigError, match="unknown_above"):
        parse(ModelConfig, {"name": "odd", "unknown_above": 1.5})

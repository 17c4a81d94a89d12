"""Thresholds from generated scenes: the fusion, the order statistic, and the recipe that ends in a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import tiny_clip, tiny_clip_folder, tiny_detector

import dapo
from dapo.cli.pretrain import command as pretrain_command
from dapo.config import DetectorSettings, Fusion, PromptSettings, TowerTuning, TrainingSettings
from dapo.model.clip import load_clip
from dapo.pretraining.contrastive import SIDE_STAGE, ImageStage
from dapo.pretraining.defaults import best_f1, choose_defaults, fit_fusion, fuse
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.phrases import PhraseStage
from dapo.pretraining.recipe import Recipe, blend, pretrain, train_backbone
from dapo.pretraining.scenes import World
from dapo.pretraining.transfer import held_out_words
from dapo.vocabulary import Vocabulary


def test_the_fusion_weighs_what_tells_flawed_from_good() -> None:
    rng = np.random.default_rng(0)
    flawed = rng.random(800) < 0.6
    features = np.column_stack([rng.normal(size=800), flawed * 2.0 + rng.normal(size=800)])
    fusion = fit_fusion(features, flawed)
    assert fusion.map_weight > 1.0 and fusion.global_weight < 0.3
    assert fuse(features[flawed], fusion).mean() > fuse(features[~flawed], fusion).mean() + 0.3


def test_a_feature_that_points_the_wrong_way_gets_no_weight() -> None:
    rng = np.random.default_rng(1)
    flawed = rng.random(500) < 0.5
    features = np.column_stack([-2.0 * flawed + rng.normal(size=500), flawed + rng.normal(size=500)])
    fusion = fit_fusion(features, flawed)
    assert fusion.global_weight == 0.0 and fusion.map_weight > 0


def test_the_fused_score_here_is_the_detectors() -> None:
    fusion = Fusion(global_weight=0.7, map_weight=0.2, bias=-0.4)
    detector = tiny_detector(image_score="global", binary="max", top=0.2)
    vocabulary = Vocabulary.of(["scratch", "hole"])
    pixels = torch.rand(2, 3, detector.input_side, detector.input_side)
    with torch.inference_mode():
        plain = detector(pixels, vocabulary)
        fused = detector.changed(image_score="fused", fusion=fusion)(pixels, vocabulary)
    flat = plain.binary.flatten(1)
    top = flat.topk(max(1, round(0.2 * flat.shape[1]))).values.mean(1).logit(1e-6)
    ours = fuse(np.column_stack([plain.image.logit(1e-6).numpy(), top.numpy()]).astype(float), fusion)
    assert np.allclose(ours, fused.image.numpy(), atol=1e-5)


def test_best_f1_finds_the_value_that_separates() -> None:
    rng = np.random.default_rng(2)
    masks = rng.random((4, 20, 20)) < 0.2
    maps = np.where(masks, rng.uniform(0.61, 0.9, masks.shape), rng.uniform(0.0, 0.6, masks.shape))
    assert best_f1(maps.astype(np.float32), masks) == pytest.approx(0.6, abs=0.02)


def test_about_the_stated_share_of_good_scenes_is_above_the_threshold() -> None:
    detector = tiny_detector(image_score="global", binary="max")
    world = World(seed=4, normal=0.5)
    chosen = choose_defaults(detector, world, count=60, side=32, false_alarm=0.1, defects=("scratch", "hole"))
    fused = detector.changed(image_score="fused", fusion=chosen.fusion).eval()
    alarms, good = 0, 0
    from dapo.images import prepare

    for i in range(60):
        scene = world.scene(i, 32, 32)
        if scene.masks:
            continue
        pixels = prepare(scene.image, fused.input_side, fused.clip.config.patch, fused.settings.fit)
        with torch.inference_mode():
            score = float(fused(torch.from_numpy(pixels)[None], Vocabulary.of(["scratch", "hole"])).image)
        good += 1
        alarms += score >= chosen.threshold
    assert good > 15 and alarms <= 0.1 * (good + 1)
    assert 0 <= chosen.map_threshold < 1


def test_the_recipe_ends_in_a_model_that_inspects(tmp_path: Path) -> None:
    tiny_clip_folder(tmp_path / "backbone")
    detector = DetectorSettings(
        prompts=PromptSettings(groups=1, context=2),
        text_deep=TowerTuning(depth=1, tokens=2),
        vision_deep=TowerTuning(depth=0),
        adapter="none",
        side=32,
    )
    recipe = replace(
        Recipe(),
        side=32,
        prompts=TrainingSettings(detector=detector, batch=4, precision="fp32"),
        prompt_samples=8,
        answer={"side": 32, "fit": "aspect", "binary": "max"},
        threshold_scenes=24,
        word_scenes=6,
    )
    folder = pretrain(tmp_path, recipe=recipe, log=lambda line: None)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["detector"]["image_score"] == "fused" and config["seed"] == 0
    assert 0 <= config["unknown_above"] <= 1
    assert set(config["metrics"]["generated"]) == {"learned", "handwritten"}
    assert "CC0" in (folder / "README.md").read_text(encoding="utf-8")
    result = dapo.Inspector.from_pretrained(folder).inspect(np.full((40, 60, 3), 99, np.uint8), ["dent"])
    assert result.anomaly_map.shape == (40, 60) and result.threshold == config["threshold"]
    again = pretrain(tmp_path, recipe=recipe, log=lambda line: None)
    assert again == folder


def test_without_learned_prompts_the_recipe_speaks_in_the_words_of_people(tmp_path: Path) -> None:
    tiny_clip_folder(tmp_path / "backbone")
    recipe = replace(
        Recipe(),
        side=32,
        prompt_samples=0,
        answer={"side": 32, "fit": "aspect", "binary": "max"},
        threshold_scenes=24,
        word_scenes=6,
    )
    folder = pretrain(tmp_path, recipe=recipe, log=lambda line: None)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["detector"]["prompts"]["kind"] == "handwritten"
    assert set(config["metrics"]["generated"]) == {"handwritten"} and not (tmp_path / "prompts").exists()
    assert config["recipe"]["command"] == "dapo pretrain --seed 0 --textures DIR --prompt-samples 0"
    assert dapo.Inspector.from_pretrained(folder).inspect(np.full((40, 60, 3), 99, np.uint8), ["dent"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep-words"], "--keep-words is for --start"),
        (["--samples", "5"], "expected at least 64 images, got 5"),
        (["--side-samples", "5"], "expected at least 64 images for the side network, got 5"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(pretrain_command, arguments)
    assert found.exit_code == 2 and said in found.output


FEW_PHRASES = PhraseStage(steps=2, phrases=20, general_batch=8, trade_batch=8, warmup=1)


@pytest.mark.parametrize(("samples", "towers"), [(16, {"text", "vision"}), (0, {"text"})])
def test_a_run_that_starts_from_a_backbone_goes_on_in_both_towers(
    tmp_path: Path, samples: int, towers: set[str]
) -> None:
    start, out = tiny_clip_folder(tmp_path / "start"), tmp_path / "out"
    image = ImageStage(samples=samples, batch=8, side=32, large_side=32, taps=(1,))
    none = replace(SIDE_STAGE, samples=0)
    recipe = replace(Recipe(), start=str(start), side=32, phrases=FEW_PHRASES, image=image, side_network=none)
    lines: list[str] = []

    def backbone() -> dict[str, torch.Tensor]:
        folder = train_backbone(out, textures=None, recipe=recipe, workers=0, device="cpu", log=lines.append)
        return load_clip(folder).state_dict()

    before, after = load_clip(start).state_dict(), backbone()
    moved = {name for name in before if not torch.equal(before[name].half(), after[name].half())}
    assert {name.split(".")[0] for name in moved} == towers
    assert not (out / "text").exists() and any("never taught" in line for line in lines)
    said = len(lines)
    again = backbone()  # finished: not done again
    assert all(torch.equal(after[name], value) for name, value in again.items())
    assert len(lines) == said + 1


def test_a_blend_lies_between_two_towers() -> None:
    one, other = tiny_clip(0), tiny_clip(1)
    first = one.vision.patch_embedding.weight.clone()
    blend(one, other, 0.25)
    second = other.vision.patch_embedding.weight
    assert torch.allclose(one.vision.patch_embedding.weight, 0.75 * first + 0.25 * second, atol=1e-6)


def test_held_out_words_are_asked_of_the_flaws_they_mean() -> None:
    lexicon, world = Lexicon.builtin(), World(seed=4)
    figures = held_out_words(tiny_detector(), world, lexicon, count=12, side=32)
    assert figures["scenes"] == 12 and figures["families"] == len(world.families)
    assert 0 <= figures["held_out"] < 0.3 and 0 <= figures["taught"] < 0.3  # a model that has learned nothing
    again = held_out_words(tiny_detector(), world, lexicon, count=12, side=32)
    assert again == figures

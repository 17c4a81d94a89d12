"""The generated world and the image stage: exact masks, determinism, resuming, refusing foreign states."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import maximum_filter
from tiny import losses_on_one_batch, one_batch, tiny_clip, tiny_world

from dapo.errors import ConfigError
from dapo.pretraining.captions import caption
from dapo.pretraining.contrastive import ImageStage, PhraseTable, look, stage_loss
from dapo.pretraining.fields import blur, noise, ramp, strokes
from dapo.pretraining.flaws import FLAWS, Canvas, draw_flaw
from dapo.pretraining.flaws.finish import _bare, _finish_step
from dapo.pretraining.image_stage import train_images
from dapo.pretraining.lettering import strip
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.materials import FAMILIES
from dapo.pretraining.parts import draw_part
from dapo.pretraining.scenes import World, _not_blinded
from dapo.pretraining.shapes import OTHER_SHAPES, SHAPES
from dapo.pretraining.surfaces import SHOWN_IN_THE_DEMO, Textures, draw_surface

SIDE = 112


def plain_canvas(rng: np.random.Generator, side: int = SIDE) -> Canvas:
    """A mid-grey, faintly textured part on a dark ground, with an edge inside the picture."""
    image = 0.5 + 0.02 * noise(rng, side, side, 1.0)[..., None] * np.ones(3, np.float32)
    support = ramp(np.abs(np.mgrid[0:side, 0:side][1].astype(np.float32) - side / 2) - side * 0.42)
    background = np.full((side, side, 3), 0.1, np.float32)
    whole = background + (image - background) * support[..., None]
    return Canvas(whole.astype(np.float32), support, background, upright=False)


@pytest.mark.parametrize("family", FLAWS)
def test_a_flaw_changes_the_picture_where_its_mask_is_and_hardly_elsewhere(family: str) -> None:
    inside, outside = [], []
    for seed in range(14):
        rng = np.random.default_rng(seed)
        canvas = plain_canvas(rng)
        answer = draw_flaw(family, canvas, rng)
        if answer is None:
            continue
        image, cover = answer
        assert image.shape == canvas.image.shape and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1 and np.isfinite(image).all()
        assert cover.shape == (SIDE, SIDE) and cover.min() >= 0 and cover.max() <= 1.001
        change = np.abs(image - canvas.image).max(2)
        inside.append(change[cover > 0.3].mean())
        outside.append(change[maximum_filter(cover, size=13) < 0.02].mean())
    assert len(inside) >= 3, "hardly ever visible"  # a shift shows on a pattern, hardly on a plain part
    assert np.mean(inside) > 4 * np.mean(outside)


def ground_canvas(rng: np.random.Generator) -> Canvas:
    """A ground part: streaks along x that run through the whole picture."""
    streaks = rng.normal(0, 0.04, (SIDE, 1, 1)) * np.ones((1, SIDE, 3))
    image = (0.5 + streaks).astype(np.float32)
    return Canvas(image, np.ones((SIDE, SIDE), np.float32), image, upright=False)


def streak_contrast(image: np.ndarray, inside: np.ndarray) -> float:
    """Deviation from row to row of what the pixels of one row inside share."""
    fine = image.mean(2) - blur(image.mean(2), 3.0)
    return float(np.std([row[at].mean() for row, at in zip(fine, inside, strict=True) if at.sum() > 15]))


def contrast_ratios(draw, count: int = 24) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Streak contrast under the flaw after against before, one number a seed."""
    ratios = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        canvas = ground_canvas(rng)
        image, cover = draw(canvas, rng)
        inside = cover > 0.95
        if (inside.sum(1) > 15).sum() > 8:
            ratios.append(streak_contrast(image, inside) / streak_contrast(canvas.image, inside))
    return np.array(ratios)


def test_a_finish_step_makes_the_streaks_stronger_or_fainter() -> None:
    ratios = contrast_ratios(_finish_step)
    assert len(ratios) > 15
    assert (ratios > 1.2).any() and (ratios < 0.8).any()
    assert (np.abs(np.log(ratios)) > 0.1).mean() > 0.8


def test_an_unfinished_face_has_lost_the_streaks() -> None:
    ratios = contrast_ratios(_bare, 50)
    assert len(ratios) > 10 and np.median(ratios) < 0.6


@pytest.mark.parametrize("family", ["uneven", "scale", "patch", "inclusion", "ash", "pit", "crack", "break"])
def test_a_flaw_in_the_surface_has_its_mask_on_the_part(family: str) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        canvas = plain_canvas(rng)
        assert FLAWS[family](canvas, rng)[1][canvas.support == 0].max() == 0


def test_a_line_of_print_is_drawn_once_and_shared() -> None:
    first, again = (strip(np.random.default_rng(3), 9.0) for _ in range(2))
    assert first is again and not first.flags.writeable
    assert first.min() == 0 and 0.9 < first.max() <= 1 and first.shape[0] <= 12


@pytest.mark.parametrize("side", [64, 112, 256])
def test_flaws_scale_with_the_picture(side: int) -> None:
    shares = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        answer = draw_flaw("hole", plain_canvas(rng, side), rng)
        if answer is not None:
            shares.append((answer[1] > 0.35).mean())
    assert 0.003 < np.median(shares) < 0.05


def test_a_scene_is_the_same_whenever_it_is_drawn() -> None:
    first, again = World(seed=3).scene(7), World(seed=3).scene(7)
    assert np.array_equal(first.image, again.image)
    assert first.masks.keys() == again.masks.keys()
    assert not np.array_equal(first.image, World(seed=4).scene(7).image)
    assert not np.array_equal(first.image, World(seed=3).scene(8).image)


def test_scenes_have_exact_disjoint_masks_and_the_stated_share_of_good_parts() -> None:
    world = World(seed=1, normal=0.4)
    scenes = [world.scene(i, 64, 64) for i in range(150)]
    good = sum(not scene.masks for scene in scenes)
    assert 45 <= good <= 90
    assert len({name for scene in scenes for name in scene.masks}) > 25
    assert any(len(scene.masks) > 1 for scene in scenes)
    for scene in scenes:
        assert scene.image.dtype == np.uint8 and scene.image.shape == (64, 64, 3)
        stacked = list(scene.masks.values())
        assert all(mask.sum() >= 4 for mask in stacked)
        if len(stacked) > 1:
            assert np.sum(stacked, axis=0).max() == 1, "two flaws claim one pixel"


def test_twins_show_one_part_and_as_a_rule_only_one_of_them_is_flawed() -> None:
    world = World(seed=1, normal=0.3, twins=True)
    scenes = [world.scene(i, 48, 48) for i in range(120)]
    pairs = list(zip(scenes[::2], scenes[1::2], strict=True))
    assert all((a.part, a.surface) == (b.part, b.surface) for a, b in pairs)
    assert len({(a.part, a.surface) for a, _ in pairs}) > 20
    assert not any(np.array_equal(a.image, b.image) for a, b in pairs), "each has its own light"
    seconds = sum(bool(b.masks) for _, b in pairs)
    assert seconds > 50, "only what came out invisible may leave a second twin good"
    assert 20 <= sum(not a.masks for a, _ in pairs) <= 52  # 0.6 of 60, and what came out invisible
    alone = World(seed=1, normal=0.3, twins=True).scene(77, 48, 48)
    assert np.array_equal(alone.image, scenes[77].image), "a twin does not depend on what was drawn before"


def test_flaws_of_boards_are_drawn_on_boards_only() -> None:
    board = World(seed=2, normal=0.0, families=("open", "short", "spur", "mouse_bite"))
    scenes = [board.scene(i, 64, 64) for i in range(150)]
    assert {scene.surface for scene in scenes if scene.masks} == {"circuit board"}


def test_a_flaw_that_overexposure_swallows_is_not_asked_for() -> None:
    pixels = np.full((20, 20, 3), 255, np.uint8)
    pixels[:, :10] = 90
    left, right = np.zeros((2, 20, 20), bool)
    left[5:9, 2:6] = right[5:9, 12:16] = True
    assert set(_not_blinded({"dent": left, "stain": right}, pixels)) == {"dent"}


def test_the_other_world_shows_parts_the_first_never_does() -> None:
    def names(other: bool) -> set[str]:
        return {draw_part(np.random.default_rng(i), 64, 64, None, other=other).name for i in range(150)}

    first, second = names(False), names(True)
    assert first & set(OTHER_SHAPES) == set()
    assert second & set(SHAPES) <= set(OTHER_SHAPES)
    assert len(second & set(OTHER_SHAPES)) > len(OTHER_SHAPES) / 2, "of 150 parts"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_surface_fits_oblong_pictures(family: str) -> None:
    for seed in range(4):
        drawn = FAMILIES[family](np.random.default_rng(seed), 40, 72)
        assert drawn.shape[:2] == (40, 72) and np.isfinite(drawn).all()


def test_textures_are_trimmed_and_worn_ones_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for material in ("steel", "rust"):
        (tmp_path / material).mkdir()
        pixels = rng.integers(40, 200, (128, 128, 3), dtype=np.uint8)
        pixels[96:] = 255  # the white padding of a preview sheet
        Image.fromarray(pixels).save(tmp_path / material / "001.jpg", quality=95)
    textures = Textures(tmp_path)
    assert [name for name, _ in textures.items] == ["steel"]
    assert textures.items[0][1].shape[0] < 98
    surface = draw_surface(rng, 48, 64, textures, share=1.0)
    assert surface.name == "steel" and surface.image.shape == (48, 64, 3)
    assert not Textures(tmp_path / "nowhere") and not Textures(None)


def test_textures_that_the_demo_shows_are_left_out(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(40, 200, (64, 64, 3), dtype=np.uint8)
    for material, number in (*SHOWN_IN_THE_DEMO, ("gravel", "005")):
        (tmp_path / material).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / material / f"{number}.jpg")
    assert [name for name, _ in Textures(tmp_path).items] == ["gravel"]


def test_captions_name_every_flaw_with_taught_phrases_only() -> None:
    lexicon, world, rng = Lexicon.builtin(), World(seed=2, normal=0.0), np.random.default_rng(0)
    for i in range(60):
        scene = world.scene(i)
        text = caption(scene, lexicon, rng)
        for family in scene.masks:
            taught = [p for kind in lexicon.by_visual(family) for p in lexicon.train_phrases(kind.id)]
            assert any(phrase in text for phrase in taught), (family, text)


def test_the_lexicon_has_words_for_every_family_that_is_drawn() -> None:
    assert set(FLAWS) == set(Lexicon.builtin().visuals)


def test_strokes_cover_what_their_width_says() -> None:
    line = strokes(40, 40, [[(5.0, 20.0), (35.0, 20.0)]], [4.0])
    assert line.sum() == pytest.approx(30 * 4, rel=0.2)
    assert strokes(40, 40, [[(5.0, 20.0), (35.0, 20.0)]], [0.5]).max() <= 1.0


def test_a_batch_tells_each_patch_what_covers_it() -> None:
    world, batch = one_batch(48)
    for i in range(8):
        scene = world.scene(i, 48, 48)
        flawed = np.zeros((48, 48), bool)
        for mask in scene.masks.values():
            flawed |= mask
        share = flawed.reshape(6, 8, 6, 8).mean((1, 3)).ravel()
        assert np.allclose(batch.cover[i].numpy(), share, atol=1e-6)
        assert ((batch.kind[i].numpy() >= 0) == (share > 0)).all()
        present = torch.nonzero(batch.present[i]).ravel().tolist()
        assert {world.families[k] for k in present} == set(scene.masks)


TINY = ImageStage(
    samples=48,
    batch=8,
    side=32,
    large_side=48,
    large_share=0.25,
    taps=(1,),
    save_every=3,
    masked_until=0.5,
    seed=1,
)


def trained(folder: Path, stage: ImageStage = TINY, until: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    clip = tiny_clip(max_position_embeddings=160)
    answer = train_images(clip, tiny_world(), Lexicon.builtin(), folder, stage, workers=0, until=until)
    return {name: tensor.clone() for name, tensor in answer.vision.state_dict().items()}


def test_an_interrupted_image_stage_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", until=3)
    again = trained(tmp_path / "parts")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert not list(tmp_path.rglob("*.part"))


def test_a_state_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    trained(tmp_path, until=3)
    with pytest.raises(ConfigError, match=r"lr_rest = 0\.0012.*0\.5"):
        trained(tmp_path, dataclasses.replace(TINY, lr_rest=0.5))


def test_the_text_tower_stays_locked_and_the_vision_tower_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = tiny_clip(max_position_embeddings=160)
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    train_images(clip, tiny_world(), Lexicon.builtin(), tmp_path, TINY, workers=0, until=2)
    moved = {name for name, tensor in clip.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith("vision.") for name in moved)


def test_the_loss_falls_on_one_batch() -> None:
    torch.manual_seed(0)
    clip = tiny_clip(max_position_embeddings=160)
    losses = losses_on_one_batch(clip, clip.vision, TINY, steps=25)
    assert losses[-1] < 0.8 * losses[0]


def test_what_is_not_visible_is_not_judged() -> None:
    torch.manual_seed(0)
    clip = tiny_clip(max_position_embeddings=160)
    world, batch = one_batch()
    states = PhraseTable(clip, Lexicon.builtin(), world.families).draw(np.random.default_rng(0))
    texts = torch.randn(8, states.shape[1])
    visible = torch.arange(8).expand(8, 8)
    hidden = dataclasses.replace(batch, kind=batch.kind.clone(), cover=batch.cover.clone())
    hidden.kind[:, 8:] = 0
    hidden.cover[:, 8:] = 1.0
    seen = look(clip, batch, TINY, visible=visible)
    first = stage_loss(seen, batch, states, texts, TINY, visible=visible)["dense"]
    second = stage_loss(seen, hidden, states, texts, TINY, visible=visible)["dense"]
    assert torch.equal(first, second)

"""The side network: what it gives, what folding keeps, how it is stored, and how a detector asks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import losses_on_one_batch, tiny_clip, tiny_clip_folder, tiny_detector, tiny_settings, tiny_world
from torch.nn import functional as F
from transformers import CLIPModel

import dapo
from dapo.config import DetectorSettings, ModelConfig, parse
from dapo.errors import ConfigError, ModelError
from dapo.model.artifact import backbone_facts, load, save
from dapo.model.clip import Clip, load_clip, save_clip
from dapo.model.crowd import gather
from dapo.model.detector import Detector
from dapo.model.memory import remember
from dapo.model.side_network import (
    FILE,
    SideConfig,
    SideNetwork,
    load_side_network,
    save_side_network,
)
from dapo.model.weights import write_tensors
from dapo.pretraining.contrastive import SIDE_STAGE
from dapo.pretraining.corners import mend_corners
from dapo.pretraining.defaults import DEFECTS
from dapo.pretraining.image_stage import train_images
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.recipe import Recipe, train_backbone
from dapo.pretraining.scenes import World
from dapo.vocabulary import Vocabulary

SIZES = SideConfig(dim=12, widths=(4, 6, 8, 8), blocks=(1, 1, 1, 1), joined=8, layers=1, heads=2, hidden=8)
STAGE = replace(SIDE_STAGE, samples=48, batch=8, side=32, large_side=48, large_share=0.25, save_every=3)
NAMES = Vocabulary.of(["scratch", "hole"])


def tiny_side(seed: int = 0, *, normalised: bool = False) -> SideNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        side = SideNetwork(SIZES, normalised=normalised)
        with torch.no_grad():
            for parameter in side.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return side


def sided_clip(seed: int = 0) -> Clip:
    clip = tiny_clip(seed)
    clip.side_network = tiny_side(seed)
    return clip.freeze()


def sided_detector(**changes: object) -> Detector:
    detector = Detector(sided_clip(), tiny_settings(**{"side_scales": (1.0, 0.5), **changes}))
    detector.precision = "fp32"
    return detector.eval()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 72), (8, 8), (40, 8)])
def test_it_gives_one_feature_for_the_picture_and_for_every_patch(height: int, width: int) -> None:
    seen = tiny_side()(torch.rand(2, 3, height, width))
    assert (seen.rows, seen.columns) == (height // 8, width // 8)
    assert seen.cls.shape == (2, 12) and seen.patches.shape == (2, seen.rows * seen.columns, 12)
    assert [layer.shape[1:] for layer in seen.layers] == [(seen.rows * seen.columns, 8)] * 2


def test_a_patch_is_where_it_is_in_the_picture() -> None:
    side, plain = tiny_side(), torch.full((1, 3, 96, 96), 0.5)
    marked = plain.clone()
    marked[..., 16:24, 64:72] = 1.0  # patch (2, 8)
    moved = (side(marked).layers[0] - side(plain).layers[0]).norm(dim=-1).view(12, 12)
    row, column = divmod(int(moved.argmax()), 12)
    assert abs(row - 2) <= 1 and abs(column - 8) <= 1
    assert moved[8:, :3].max() < 0.02 * moved.max(), "far away nothing changes"


def test_folding_says_the_same() -> None:
    side, pixels = tiny_side(normalised=True), torch.rand(4, 3, 32, 40)
    for _ in range(5):
        side(pixels * torch.rand(1) + 0.2 * torch.randn_like(pixels))  # the normalisation counts
    side.eval()
    folded = side.folded()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    for ours, theirs in zip(
        (folded(pixels).cls, folded(pixels).patches), (side(pixels).cls, side(pixels).patches), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_it_is_stored_beside_a_clip_that_transformers_still_reads(tmp_path: Path) -> None:
    clip, pixels = sided_clip(), torch.rand(1, 3, 32, 32)
    save_clip(clip, tmp_path)
    again = load_clip(tmp_path)
    assert again.side_network is not None and clip.side_network is not None
    assert again.side_network.config == SIZES
    assert torch.equal(again.side_network(pixels).patches, clip.side_network(pixels).patches)
    _, info = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert backbone_facts(again) == backbone_facts(clip) != backbone_facts(tiny_clip())


def test_a_file_that_is_no_side_network_is_refused(tmp_path: Path) -> None:
    assert load_side_network(tmp_path) is None
    write_tensors(tmp_path / FILE, {"out.weight": torch.zeros(2)}, format="pt")
    with pytest.raises(ModelError, match=r"side_network\.safetensors does not say the sizes"):
        load_side_network(tmp_path)
    write_tensors(tmp_path / FILE, {"out.weight": torch.zeros(2)}, sizes='{"dim": 12, "eyes": 2}')
    with pytest.raises(ModelError, match="eyes"):
        load_side_network(tmp_path)
    write_tensors(tmp_path / FILE, {"out.weight": torch.zeros(2)}, sizes='{"dim": 12}')
    with pytest.raises(ModelError, match="lacks weight"):
        load_side_network(tmp_path)
    save_side_network(tiny_side(), tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:200])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_side_network(tmp_path)


def test_a_detector_asks_it_and_all_looks_count_alike() -> None:
    detector, pixels = sided_detector(scales=(1.0,)), torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        looks = detector.looks(pixels)
        states = detector.text_features(NAMES)
        scores = detector(pixels, NAMES)
        side = detector.clip.side_network(detector.clip.normalise(pixels))  # type: ignore[misc]
    assert [(f.rows, f.columns) for f in looks] == [(4, 6), (4, 6), (2, 3)]
    torch.testing.assert_close(looks[1].cls, F.normalize(side.cls, dim=-1))
    torch.testing.assert_close(looks[1].taps[0], F.normalize(side.patches, dim=-1))
    abnormal = torch.stack([detector._abnormal_logit(f, states) for f in looks]).mean(0)
    torch.testing.assert_close(scores.image, abnormal.sigmoid())
    with torch.inference_mode():
        alone = detector.changed(side_scales=()).judge(looks[:1], states)
    assert not torch.allclose(scores.binary, alone.binary, atol=1e-3)
    assert torch.equal(scores.types, alone.types) and torch.equal(scores.type_image, alone.type_image)


def test_a_side_network_that_looks_alone_also_names() -> None:
    detector, pixels = sided_detector(scales=()), torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        scores = detector(pixels, NAMES)
    assert scores.types.shape == (2, 2, 4, 6) and scores.types.std() > 0
    with pytest.raises(ConfigError, match="both empty"):
        parse(DetectorSettings, {"scales": [], "side_scales": []})


def test_a_backbone_with_one_answers_as_before_where_it_is_not_asked() -> None:
    pixels = torch.rand(1, 3, 32, 32)
    plain, detector = tiny_detector(), Detector(sided_clip(), tiny_settings())
    detector.load_learned(plain.learned_state())
    detector.precision = "fp32"
    with torch.inference_mode():
        ours, theirs = detector.eval()(pixels, NAMES), plain(pixels, NAMES)
    assert torch.equal(ours.binary, theirs.binary) and torch.equal(ours.image, theirs.image)
    assert not any("side_network" in name for name in detector.learned_state())


def test_a_backbone_without_one_says_so() -> None:
    with pytest.raises(ConfigError, match=r"side_scales asks for a side network.*has none"):
        Detector(tiny_clip(), tiny_settings(side_scales=(1.0,)))


def test_the_largest_look_of_either_gives_the_side() -> None:
    assert sided_detector(scales=(0.5,), side_scales=(2.0,)).input_side == 64
    looks = sided_detector(scales=(0.5,), side_scales=(2.0,)).looks(torch.rand(1, 3, 64, 64))
    assert [look.rows for look in looks] == [2, 8]


def test_good_parts_and_folders_are_remembered_through_it_too() -> None:
    detector = sided_detector()
    pictures = [torch.rand(3, 32, 32) * 0.1 + 0.4 for _ in range(6)]
    memory = remember(detector, [[picture] for picture in pictures])
    crowd = gather(detector, pictures)
    assert len(memory.banks) == 3 == len(crowd.banks[0])
    odd = pictures[0].clone()
    odd[:, 8:20, 8:20] = 1.0
    for kept in (memory, crowd):
        looks = detector.looks(torch.stack([pictures[1], odd]), kept.layers)
        far, farthest = kept.unusual(kept.distance(looks))
        assert far.shape == (2, 4, 4) and farthest[1] > farthest[0]


def test_a_model_folder_keeps_it(tmp_path: Path) -> None:
    detector = sided_detector()
    save(detector, tmp_path / "model", ModelConfig(name="sided", defects=("scratch", "hole")))
    again, info = load(tmp_path / "model")
    again.precision = "fp32"
    pixels = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(again(pixels, NAMES).binary, detector(pixels, NAMES).binary)
    before = info.sha256
    save_side_network(tiny_side(5), tmp_path / "model" / "backbone")
    assert load(tmp_path / "model")[1].sha256 != before
    result = dapo.Inspector.from_pretrained(tmp_path / "model").inspect(np.full((40, 60, 3), 99, np.uint8))
    assert result.anomaly_map.shape == (40, 60)


def learning_clip(seed: int = 0) -> Clip:
    with torch.random.fork_rng():
        clip = tiny_clip(max_position_embeddings=160)
        torch.manual_seed(seed)
        clip.side_network = SideNetwork(SIZES, normalised=True)
    return clip


def trained(folder: Path, until: int | None = None) -> Clip:
    clip = learning_clip()
    return train_images(clip, tiny_world(), Lexicon.builtin(), folder, STAGE, workers=0, until=until)


def test_an_interrupted_stage_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole").state_dict()
    trained(tmp_path / "parts", until=3)
    assert (tmp_path / "parts" / "side-stage-00000003" / "1-of-1.piece").is_file()
    again = trained(tmp_path / "parts").state_dict()
    assert whole.keys() == again.keys() and not any("norm.running" in name for name in whole)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_towers_stay_locked_while_it_learns(tmp_path: Path) -> None:
    clip = learning_clip()
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    train_images(clip, tiny_world(), Lexicon.builtin(), tmp_path, STAGE, workers=0, until=2)
    moved = {name for name, tensor in clip.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith("side_network.") for name in moved)
    convolutions = {name for name in before if name.endswith("conv.weight")}
    assert convolutions <= moved, "those that Muon moves through their flat twins too"


def test_its_loss_falls_on_one_batch() -> None:
    clip = learning_clip()
    assert clip.side_network is not None
    losses = losses_on_one_batch(clip, clip.side_network.train(), STAGE, steps=30)
    assert losses[-1] < 0.8 * losses[0]


def test_the_recipe_makes_one_from_nothing_beside_the_towers_it_starts_from(tmp_path: Path) -> None:
    start, lines = tiny_clip_folder(tmp_path / "start"), list[str]()
    recipe = replace(
        Recipe(),
        start=str(start),
        keep_words=True,
        image=replace(Recipe().image, samples=0),
        side_network=replace(STAGE, samples=16),
        side=32,
    )
    folder = train_backbone(
        tmp_path / "out", textures=None, recipe=recipe, workers=0, device="cpu", log=lines.append
    )
    clip, before = load_clip(folder), load_clip(start).state_dict()
    assert clip.side_network is not None and clip.side_network.config == SideConfig(dim=12)
    after = clip.state_dict()
    assert all(torch.equal(after[name], value.half().float()) for name, value in before.items())
    assert (folder / FILE).is_file() and not (tmp_path / "out" / "start").exists()


def test_a_corner_that_always_said_the_same_says_what_its_neighbours_say() -> None:
    """As far as eight features of chance tell a corner from the rest; on the embedded model see below."""
    torch.manual_seed(0)
    side = tiny_side().eval()
    pictures = [torch.rand(4, 3, 48, 40) for _ in range(6)]
    with torch.no_grad():
        before = [side(pixels).patches.view(4, 6, 5, -1) for pixels in pictures]
        mend_corners(side, pictures)
        after = [side(pixels).patches.view(4, 6, 5, -1) for pixels in pictures]
    was, now = torch.cat(before), torch.cat(after)

    def apart(patches: torch.Tensor) -> float:
        """How far the top left corner is from its neighbours."""
        near = (patches[:, 0, 1] + patches[:, 1, 0] + patches[:, 1, 1]) / 3
        return float((patches[:, 0, 0] - near).norm(dim=-1).mean())

    assert apart(now) < 0.8 * apart(was)
    inner = (now - was)[:, 1:-1, 1:-1].norm(dim=-1).mean() / was[:, 1:-1, 1:-1].norm(dim=-1).mean()
    assert inner < 0.2


def test_the_recipe_keeps_the_starts_and_mends_its_corners(tmp_path: Path) -> None:
    save_clip(sided_clip(), tmp_path / "start")
    recipe = replace(
        Recipe(),
        start=str(tmp_path / "start"),
        keep_words=True,
        image=replace(Recipe().image, samples=0),
        side_network=replace(STAGE, samples=0),
        side=32,
    )
    folder = train_backbone(
        tmp_path / "out", textures=None, recipe=recipe, workers=0, device="cpu", log=lambda _: None
    )
    ours, theirs = load_clip(folder).state_dict(), load_clip(tmp_path / "start").state_dict()
    moved = {name for name in ours if not torch.equal(ours[name], theirs[name].half().float())}
    assert moved == {"side_network.out.weight", "side_network.out.bias"}


def test_the_embedded_model_calls_no_corner_of_a_good_picture_flawed() -> None:
    """Version 0.5's did, of every picture: a patch that a loss had made a constant of."""
    detector, _ = load()
    world, words = World(seed=31, normal=1.0), Vocabulary.of(list(DEFECTS))
    corners = []
    with torch.inference_mode():
        for i in range(4):
            pixels = pixels_for(detector, world.scene(i, 112, 112).image)
            for scale in detector.settings.side_scales:
                binary = detector.changed(scales=(), side_scales=(scale,))(pixels, words).binary[0]
                corners.append([binary[0, 0], binary[0, -1], binary[-1, 0], binary[-1, -1]])
    assert np.mean(corners, axis=0).max() < 0.25

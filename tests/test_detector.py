"""The detector: the published arithmetic, an open vocabulary, and nothing that depends on its neighbours."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tiny import tiny_clip, tiny_detector, tiny_settings, tiny_tokenizer
from torch.nn import functional as F

from dapo.config import DetectorSettings, Fusion, PromptSettings, TowerTuning
from dapo.errors import ConfigError, ModelError
from dapo.model.clip import Clip, ClipConfig, Tokenizer, TowerConfig
from dapo.model.detector import ANCHOR_SHARE, Detector, default_taps
from dapo.model.grid import top_mean
from dapo.model.precision import has_bf16
from dapo.vocabulary import Defect, Vocabulary

WORDS = Vocabulary.of("scratch, pin hole, stain, broken thread")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

LARGE = ClipConfig(  # ViT-L/14 at 336 px
    text=TowerConfig(width=768, layers=12, heads=12, mlp=3072),
    vision=TowerConfig(width=1024, layers=24, heads=16, mlp=4096),
    dim=768,
    vocabulary_size=49408,
    max_length=77,
    bos_id=49406,
    eos_id=2,
    pad_id=1,
    side=336,
    patch=14,
)


def pixels(n: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, height, width)


def test_learned_parameters_of_the_published_size() -> None:
    """76,800 context + 36,864 text deep + 98,304 vision deep + 3,148,800 adapters."""
    with torch.device("meta"):
        detector = Detector(Clip(LARGE, Tokenizer.wrap(tiny_tokenizer())))
    counts = {name: tensor.numel() for name, tensor in detector.learned_state().items()}
    assert sum(counts.values()) == 3_360_768
    assert sum(n for name, n in counts.items() if name.startswith("prompts.")) == 76_800
    assert (counts["text_deep"], counts["vision_deep"]) == (36_864, 98_304)
    assert sum(n for name, n in counts.items() if name.startswith("adapters.")) == 3_148_800
    assert detector.taps == (6, 12, 18, 24)
    assert detector.input_side == 518


def test_only_the_learned_is_trainable_and_its_names_are_exact() -> None:
    detector = tiny_detector()
    adapters = {f"adapters.{m}.{leaf}" for m in range(4) for leaf in ("weight", "bias")}
    contexts = {"prompts.normal_context", "prompts.abnormal_context"}
    expected = adapters | contexts | {"text_deep", "vision_deep"}
    assert set(detector.learned_state()) == expected
    assert {name for name, p in detector.named_parameters() if p.requires_grad} == expected
    assert tiny_detector(
        adapter="none", vision_deep=TowerTuning(depth=0)
    ).learned_state().keys() == contexts | {"text_deep"}


def test_every_learned_tensor_receives_a_gradient() -> None:
    detector = tiny_detector().train()
    scores = detector(pixels(), WORDS)
    (scores.image.sum() + (scores.types**2).sum()).backward()
    assert [
        name for name, p in detector.named_parameters() if p.requires_grad and not p.grad.abs().sum()
    ] == []
    assert all(p.grad is None for p in detector.clip.parameters())


def test_start_of_the_vision_tokens_and_adapters() -> None:
    detector = Detector(tiny_clip(), tiny_settings(adapter="residual"))
    bound = (6 / (3 * 8**2 + 24)) ** 0.5
    assert bound * 0.9 < detector.vision_deep.abs().max() <= bound
    assert not any(p.any() for p in detector.adapters.parameters())


@torch.no_grad()
def test_a_residual_adapter_starts_at_the_plain_projection() -> None:
    residual = Detector(tiny_clip(), tiny_settings(adapter="residual", taps=(2, 4))).eval()
    plain = Detector(tiny_clip(), tiny_settings(adapter="none", taps=(2, 4))).eval()
    plain.vision_deep = residual.vision_deep
    x = pixels()
    for ours, theirs in zip(residual.features(x).taps, plain.features(x).taps, strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_scores_by_the_published_formulas() -> None:
    """Everything recomputed here from the two towers' outputs."""
    detector, x = tiny_detector(), pixels()
    scores = detector(x, WORDS)
    clip, tau = detector.clip, 0.07
    batch = detector.prompts(clip, WORDS)
    text = clip.text(batch.embeddings, batch.eos, deep=detector.text_deep, alpha=0.01, lengths=batch.lengths)
    t = F.normalize(torch.stack([text[batch.state == k].mean(0) for k in range(5)]), dim=-1)
    normalised = (x - torch.tensor(clip.config.mean).view(3, 1, 1)) / torch.tensor(clip.config.std).view(
        3, 1, 1
    )
    seen = clip.vision(normalised, deep=detector.vision_deep, alpha=0.01, taps=[1, 2, 3, 4])
    z = [
        F.normalize(tap @ a.weight.T + a.bias, dim=-1)
        for tap, a in zip(seen.taps, detector.adapters, strict=True)
    ]
    p = sum((z_m @ t.T / tau).softmax(-1) for z_m in z) / 4
    torch.testing.assert_close(scores.binary, p[..., 1:].sum(-1).view(3, 4, 4), **CLOSE)
    torch.testing.assert_close(scores.types, p[..., 1:].transpose(1, 2).reshape(3, 4, 4, 4), **CLOSE)
    g, t_a = F.normalize(seen.cls, dim=-1), F.normalize(t[1:].mean(0), dim=-1)
    image = (g @ torch.stack([t[0], t_a]).T / tau).softmax(-1)[:, 1]
    torch.testing.assert_close(scores.image, image, **CLOSE)
    overall = (g @ t.T / tau).softmax(-1)[:, 1:]
    torch.testing.assert_close(scores.type_image, (overall + p[..., 1:].amax(1)) / 2, **CLOSE)
    assert scores.image.std() > 0.01  # the test would notice a constant


@torch.no_grad()
def test_a_batch_equals_its_images_one_by_one() -> None:
    detector, x = tiny_detector(), pixels(3, 32, 48)
    together = detector(x, WORDS)
    for i in range(3):
        alone = detector(x[i : i + 1], WORDS)
        for name in ("image", "binary", "types", "type_image"):
            torch.testing.assert_close(getattr(together, name)[i : i + 1], getattr(alone, name), **CLOSE)


@torch.no_grad()
def test_permuting_types_permutes_maps() -> None:
    detector, x, order = tiny_detector(), pixels(), [2, 0, 3, 1]
    plain = detector(x, WORDS)
    mixed = detector(x, Vocabulary(tuple(WORDS.defects[i] for i in order)))
    torch.testing.assert_close(mixed.types, plain.types[:, order], **CLOSE)
    torch.testing.assert_close(mixed.type_image, plain.type_image[:, order], **CLOSE)
    torch.testing.assert_close(mixed.binary, plain.binary, **CLOSE)
    torch.testing.assert_close(mixed.image, plain.image, **CLOSE)


@torch.no_grad()
def test_any_number_of_names_of_any_length() -> None:
    detector, x = tiny_detector(), pixels(1)
    many = Vocabulary.of(
        [f"{a} {b}" for a, b in itertools.product(["long", "fine", "bent", "burnt"], "abcdefgh")]
    )
    assert detector(x, many).types.shape == (1, 32, 4, 4)
    one = detector(x, Vocabulary.of(["a discoloured and slightly bent pin with rust on it"]))
    assert one.types.shape == (1, 1, 4, 4)
    torch.testing.assert_close(one.types[:, 0], one.binary, **CLOSE)


@torch.no_grad()
def test_the_best_type_against_normal_does_not_grow_with_names() -> None:
    """A repeated meaning doubles its share of a softmax sum, and leaves the maximum where it was."""
    x = pixels()
    once = Vocabulary((Defect("scratch"), Defect("hole")))
    twice = Vocabulary((*once.defects, Defect("again", ("scratch",)), Defect("more", ("hole",))))
    summed, best = tiny_detector(), tiny_detector(binary="max", image_abnormal="max")
    assert (summed(x, twice).binary > summed(x, once).binary).all()
    torch.testing.assert_close(best(x, twice).binary, best(x, once).binary, **CLOSE)
    torch.testing.assert_close(best(x, twice).image, best(x, once).image, **CLOSE)


@pytest.mark.parametrize("best", ["mean", "max"])
@torch.no_grad()
def test_anchors_stand_beside_the_names_in_the_image_score_alone(best: str) -> None:
    x, names, anchors = pixels(), Vocabulary.of("hole"), ("wrinkle", "rust", "dent")
    own = tiny_detector(image_abnormal=best)
    plain, anchored = own(x, names), own.changed(anchors=anchors)(x, names)
    both = own(x, Vocabulary.of(["hole", *anchors]))
    torch.testing.assert_close(anchored.image, both.image, **CLOSE)
    assert not torch.allclose(anchored.image, plain.image, **CLOSE)
    for part in ("binary", "types", "type_image"):
        torch.testing.assert_close(getattr(anchored, part), getattr(plain, part))


@torch.no_grad()
def test_the_image_score_hears_the_top_of_the_anchors_map() -> None:
    x, names, anchors = pixels(), Vocabulary.of("hole"), ("wrinkle", "rust", "dent")
    deaf = tiny_detector(binary="max", anchors=anchors, taps=(2,))
    hearing = deaf.changed(anchor_top=0.5)
    alone = deaf.changed(anchors=())(x, Vocabulary.of(list(anchors)))
    patches = alone.binary.flatten(1)
    local = patches.topk(max(1, round(ANCHOR_SHARE * patches.shape[1]))).values.logit().mean(1)
    expected = deaf(x, names).image.logit() + 0.5 * local
    torch.testing.assert_close(hearing(x, names).image.logit(), expected, **CLOSE)
    torch.testing.assert_close(hearing(x, names).binary, deaf(x, names).binary)
    without = tiny_detector(binary="max")
    torch.testing.assert_close(without.changed(anchor_top=0.5)(x, names).image, without(x, names).image)


@torch.no_grad()
def test_fused_image_score_by_hand() -> None:
    fusion = Fusion(global_weight=0.5, map_weight=2.0, bias=-0.25)
    x = pixels()
    plain, fused = tiny_detector()(x, WORDS), tiny_detector(image_score="fused", fusion=fusion)(x, WORDS)
    top = plain.binary.flatten(1).amax(1)
    torch.testing.assert_close(
        fused.image, (0.5 * plain.image.logit() + 2 * top.logit() - 0.25).sigmoid(), **CLOSE
    )


TYPE_SCORES = ("map", "global", "both", "geometric")


@torch.no_grad()
def test_type_scores_from_map_or_whole() -> None:
    x = pixels()
    own = {kind: tiny_detector(type_score=kind)(x, WORDS) for kind in TYPE_SCORES}
    torch.testing.assert_close(own["map"].type_image, own["map"].types.flatten(2).amax(2))
    both = (own["map"].type_image + own["global"].type_image) / 2
    torch.testing.assert_close(own["both"].type_image, both)
    product = own["map"].type_image * own["global"].type_image
    torch.testing.assert_close(own["geometric"].type_image.square(), product, **CLOSE)


BINARY = PromptSettings(groups=2, context=3, binary_phrase="broken")


@pytest.mark.parametrize("binary", ["sum", "max"])
@torch.no_grad()
def test_binary_prompts_give_each_type_an_equal_share(binary: str) -> None:
    """p(abnormal) is a softmax of two, whatever the list; a type is p(abnormal) / k, from map and whole."""
    detector, x = tiny_detector(prompts=BINARY, binary=binary), pixels()
    scores, alone = detector(x, WORDS), detector(x, Vocabulary.of("hole"))
    states = detector.text_features(WORDS)
    assert states.shape == (5, 12)
    assert all(torch.equal(row, states[1]) for row in states[2:])
    seen = detector.features(x)
    p = sum((z @ states[:2].T / 0.07).softmax(-1)[..., 1] for z in seen.taps) / 4
    torch.testing.assert_close(scores.binary, p.view(3, 4, 4), **CLOSE)
    torch.testing.assert_close(scores.types, scores.binary[:, None].expand(-1, 4, -1, -1) / 4, **CLOSE)
    torch.testing.assert_close(scores.types.sum(1), scores.binary, **CLOSE)
    torch.testing.assert_close(scores.type_image.sum(1), alone.type_image[:, 0], **CLOSE)
    torch.testing.assert_close(scores.image, alone.image, **CLOSE)
    torch.testing.assert_close(scores.binary, alone.binary, **CLOSE)
    torch.testing.assert_close(alone.types[:, 0], alone.binary, **CLOSE)


@torch.no_grad()
def test_patch_attention_changes_maps_and_not_the_global_feature() -> None:
    x = pixels()
    plain, values = tiny_detector(), tiny_detector(patch_attention="value-value")
    assert torch.equal(plain.features(x).cls, values.features(x).cls)
    assert torch.equal(plain(x, WORDS).image, values(x, WORDS).image)
    assert not torch.allclose(plain(x, WORDS).binary, values(x, WORDS).binary, atol=1e-2)


def test_text_that_never_changes_is_encoded_once_in_training_too() -> None:
    handwritten = PromptSettings(kind="handwritten", templates=("{}",))
    detector = tiny_detector(prompts=handwritten, text_deep=TowerTuning(depth=0)).train()
    with torch.inference_mode():
        first = detector.text_features(WORDS)
    assert detector.text_features(WORDS) is first
    detector(pixels(), WORDS).types.square().sum().backward()  # what was kept can be trained with
    assert all(p.grad.abs().sum() for p in detector.adapters.parameters())
    learning = tiny_detector().train()
    assert learning.text_features(WORDS).requires_grad
    assert learning.text_features(WORDS) is not learning.text_features(WORDS)


def test_top_of_a_map() -> None:
    maps = torch.arange(200.0).view(1, 10, 20)
    assert top_mean(maps, 0.01).tolist() == [198.5]
    assert top_mean(maps, 0.0001).tolist() == [199]


@torch.no_grad()
def test_scales_are_averaged_on_the_finest_grid() -> None:
    detector = tiny_detector(scales=(1.0, 2.0))
    assert detector.input_side == 64
    x = pixels(2, 64, 64)
    scores = detector(x, WORDS)
    assert scores.binary.shape == (2, 8, 8)
    single, small = tiny_detector(), F.interpolate(x, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    coarse = F.interpolate(single(small, WORDS).binary[:, None], (8, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(scores.binary, (coarse + single(x, WORDS).binary) / 2, **CLOSE)


@torch.no_grad()
def test_text_features_are_kept_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = tiny_detector()
    encoded: list[int] = []
    forward = detector.clip.text.forward
    monkeypatch.setattr(
        detector.clip.text, "forward", lambda *a, **k: (encoded.append(1), forward(*a, **k))[1]
    )
    first = detector.text_features(Vocabulary.of("scratch, hole"))
    assert detector.text_features(Vocabulary.of(["scratch", "hole"])) is first
    assert len(encoded) == 1
    other = detector.text_features(Vocabulary((Defect("scratch", ("long scratch",)), Defect("hole"))))
    assert not torch.allclose(first, other)
    assert len(encoded) == 2
    detector.prompts.abnormal_context.normal_()
    detector.train().eval()  # what was learned since counts
    assert not torch.allclose(detector.text_features(Vocabulary.of("scratch, hole")), first)


@torch.no_grad()
def test_text_features_do_not_depend_on_neighbours() -> None:
    detector = tiny_detector()
    alone = detector.text_features(Vocabulary.of(["hole"]))
    among = detector.text_features(
        Vocabulary.of(["a very long scratch with rust on the good part", "hole", "dent"])
    )
    torch.testing.assert_close(alone[0], among[0], **CLOSE)
    torch.testing.assert_close(alone[1], among[2], **CLOSE)


@pytest.mark.parametrize("setting", [{"text_mask": "full"}, {"text_pool": "unshifted"}])
@torch.no_grad()
def test_text_settings_take_effect(setting: dict[str, Any]) -> None:
    prompts = PromptSettings(groups=2, context=3, **setting)
    assert not torch.allclose(
        tiny_detector(prompts=prompts).text_features(WORDS), tiny_detector().text_features(WORDS), atol=1e-3
    )


@torch.no_grad()
def test_bf16_agrees_with_single_precision() -> None:
    detector, x = tiny_detector(tau=0.2), pixels(2)
    exact = detector(x, WORDS)
    detector.precision = "bf16"
    rough = detector(x, WORDS)
    assert rough.binary.dtype == torch.float32
    for name in ("image", "binary", "types", "type_image"):
        torch.testing.assert_close(getattr(rough, name), getattr(exact, name), atol=0.03, rtol=0)
    assert not torch.equal(rough.binary, exact.binary)


def test_bf16_is_chosen_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, cpu = tiny_detector(), torch.device("cpu")
    detector.precision = "auto"
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    assert not has_bf16(cpu)
    with detector.autocast(cpu):
        assert not torch.is_autocast_enabled("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    with detector.autocast(cpu):
        assert torch.is_autocast_enabled("cpu")


@torch.no_grad()
def test_training_free_uses_the_clip_as_it_is() -> None:
    clip = tiny_clip()
    detector = Detector(clip, DetectorSettings.training_free()).eval()
    detector.precision = "fp32"
    x = pixels(2)
    assert detector.learned_state() == {}
    assert detector.taps == (4,)
    states = detector.text_features(WORDS)
    z = F.normalize(clip.vision(clip.normalise(x)).patches, dim=-1)
    p = (clip.logit_scale.exp() * z @ states.T).softmax(-1)
    torch.testing.assert_close(detector(x, WORDS).types, p[..., 1:].mT.unflatten(2, (4, 4)), **CLOSE)


def test_default_taps() -> None:
    assert default_taps(24, "linear") == (6, 12, 18, 24)
    assert default_taps(12, "residual") == (3, 6, 9, 12)
    assert default_taps(6, "linear") == (2, 3, 5, 6)
    assert default_taps(2, "linear") == (1, 2)
    assert default_taps(6, "none") == (6,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 30}, "side is 30 px, expected a multiple of the patch, 8 px; 32 is the nearest"),
        ({"taps": (5,)}, "taps names layer 5, but the vision tower has 4 layers"),
        ({"text_deep": TowerTuning(depth=4)}, "text_deep.depth is 4, but the tower has 3 layers"),
    ],
)
def test_settings_that_do_not_fit_the_towers(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_detector(**settings)


def test_foreign_learned_weights_are_refused() -> None:
    detector = tiny_detector()
    state = detector.learned_state()
    with pytest.raises(ModelError, match=r"has a foreign weight 'clip\.logit_scale'"):
        detector.load_learned({**state, "clip.logit_scale": torch.zeros(())})
    with pytest.raises(ModelError, match=r"weight 'text_deep' has shape \(3, 2, 8\)"):
        detector.load_learned({**state, "text_deep": torch.zeros(3, 2, 8)})

"""Contrast: which type the difference between flawed and good patches speaks for."""

import pytest
import torch
from tiny import tiny_detector

from dapo.config import PromptSettings
from dapo.model.contrast import contrast, moved, of_flawed
from dapo.vocabulary import Vocabulary

WORDS = Vocabulary.of("scratch, pin hole, stain")
PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
UNIT = torch.eye(4)  # normal, two types, and a surface
FLAWED = torch.full((1, 16), 0.05).index_fill(1, torch.tensor([5]), 0.9)  # the fifth patch


def leaning(share: float) -> torch.Tensor:
    """A surface that reads like the first type, and in one patch like the second too, (1, 16, 4)."""
    patches = (UNIT[3] + 0.8 * UNIT[1]).expand(1, 16, 4).clone()
    patches[0, 5] += share * UNIT[2]
    return torch.nn.functional.normalize(patches, dim=-1)


def test_what_the_whole_picture_shares_is_not_the_flaw() -> None:
    patches, states = leaning(0.4), UNIT[:3]
    assert (patches[0, 5] @ states.T).argmax() == 1  # the patch itself reads like the surface's word
    found = contrast(patches, FLAWED, states)
    assert found.shape == (1, 16, 2)
    assert found[0, 5, 1] > 0.5 > 0 > found[0, 5, 0]
    pooled = of_flawed(found.mT.unflatten(2, (4, 4)), FLAWED.view(1, 4, 4))
    torch.testing.assert_close(pooled, found[:, 5], atol=1e-3, rtol=0)


def test_each_picture_of_a_batch_is_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.nn.functional.normalize(torch.randn(3, 16, 4, generator=generator), dim=-1)
    abnormal = torch.rand(3, 16, generator=generator)
    alone = [contrast(patches[i : i + 1], abnormal[i : i + 1], UNIT[:3]) for i in range(3)]
    torch.testing.assert_close(contrast(patches, abnormal, UNIT[:3]), torch.cat(alone))


@pytest.mark.parametrize("level", [0.0, 1e-30, 0.5, 1.0])
def test_any_anomaly_map_will_do(level: float) -> None:
    flat = torch.full((1, 16), level)
    found = contrast(leaning(0.4), flat, UNIT[:3])
    assert found.isfinite().all()
    assert found[0, 5].argmax() == 1
    assert of_flawed(found.mT.unflatten(2, (4, 4)), flat.view(1, 4, 4)).isfinite().all()


def test_moving_keeps_the_sum_and_the_order_of_the_rest() -> None:
    probabilities = torch.tensor([[[[0.5]], [[0.2]], [[0.1]]]])
    odds = torch.tensor([[[[0.0]], [[2.0]], [[0.0]]]])
    found = moved(probabilities, odds)
    torch.testing.assert_close(found.sum(), torch.tensor(0.8))
    torch.testing.assert_close(found[0, 0] / found[0, 2], torch.tensor([[5.0]]))
    torch.testing.assert_close((found[0, 1] / found[0, 0]).log(), torch.log(torch.tensor([[0.4]])) + 2)
    torch.testing.assert_close(moved(probabilities, 0 * odds), probabilities)
    assert torch.equal(moved(0 * probabilities, odds), 0 * probabilities)


@torch.no_grad()
def test_it_moves_probability_between_the_types_and_nothing_else() -> None:
    without, with_it = (
        tiny_detector(type_score="global", type_contrast=weight)(PIXELS, WORDS) for weight in (0.0, 8.0)
    )
    for name in ("type_image", "types"):
        before, after = getattr(without, name), getattr(with_it, name)
        assert not torch.allclose(before, after)
        torch.testing.assert_close(before.sum(1), after.sum(1))
    for name in ("image", "binary"):
        assert torch.equal(getattr(without, name), getattr(with_it, name))


@torch.no_grad()
def test_the_order_of_the_names_changes_nothing() -> None:
    order = [2, 0, 1]
    detector = tiny_detector(type_score="geometric", type_contrast=8.0)
    mixed = Vocabulary(tuple(WORDS.defects[i] for i in order))
    for name in ("type_image", "types"):
        found, wanted = getattr(detector(PIXELS, mixed), name), getattr(detector(PIXELS, WORDS), name)
        torch.testing.assert_close(found, wanted[:, order], atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_a_single_type_keeps_its_map() -> None:
    one = Vocabulary.of("stain")
    without, with_it = (tiny_detector(type_contrast=weight)(PIXELS, one) for weight in (0.0, 8.0))
    torch.testing.assert_close(without.types, with_it.types)


@torch.no_grad()
def test_types_without_words_of_their_own_have_no_contrast() -> None:
    binary = PromptSettings(groups=2, context=3, binary_phrase="broken")
    without, with_it = (tiny_detector(prompts=binary, type_contrast=weight) for weight in (0.0, 8.0))
    assert torch.equal(without(PIXELS, WORDS).type_image, with_it(PIXELS, WORDS).type_image)

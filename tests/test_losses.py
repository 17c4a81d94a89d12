"""Losses against worked examples and against PyTorch's own."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import tiny_detector
from torch.nn import functional as F

from dapo.learning.losses import (
    IGNORE,
    dice_loss,
    focal_loss,
    global_loss,
    local_loss,
    names_loss,
    total_loss,
    upsampled,
)
from dapo.vocabulary import Vocabulary


def test_focal_by_hand() -> None:
    p = torch.tensor([[0.75, 0.5], [0.25, 0.5]]).view(1, 2, 1, 2)
    labels = torch.tensor([[[0, 1]]])
    expected = (0.25**2 * -math.log(0.75) + 0.5**2 * -math.log(0.5)) / 2
    assert focal_loss(p, labels).item() == pytest.approx(expected, abs=1e-6)
    unknown = torch.tensor([[[0, IGNORE]]])
    assert focal_loss(p, unknown).item() == pytest.approx(0.25**2 * -math.log(0.75), abs=1e-6)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, labels = torch.randn(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4))
    torch.testing.assert_close(
        focal_loss(logits.softmax(1), labels, gamma=0.0), F.cross_entropy(logits, labels)
    )


def test_dice_counts_by_its_weight() -> None:
    logits, labels = [torch.randn(2, 12, 4)], torch.randint(0, 4, (2, 6, 8))
    without, published, twice = (local_loss(logits, 3, 4, labels, weight) for weight in (0.0, 1.0, 2.0))
    p = upsampled(logits[0].softmax(-1), 3, 4, (6, 8))
    torch.testing.assert_close(without, focal_loss(p, labels))
    torch.testing.assert_close(twice - published, published - without)
    torch.testing.assert_close(local_loss(logits, 3, 4, labels), published)


def test_names_are_judged_on_defective_pixels_alone() -> None:
    p = torch.tensor([[0.9, 0.2, 0.5], [0.06, 0.2, 0.25], [0.04, 0.6, 0.25]]).view(1, 3, 1, 3)
    labels = torch.tensor([[[0, 2, IGNORE]]])
    assert names_loss(p, labels).item() == pytest.approx(-math.log(0.75), abs=1e-6)
    assert names_loss(p, torch.zeros_like(labels)).item() == 0
    logits, maps = [torch.randn(2, 12, 4)], torch.randint(0, 4, (2, 6, 8))
    extra = local_loss(logits, 3, 4, maps, names_weight=0.5) - local_loss(logits, 3, 4, maps)
    torch.testing.assert_close(extra, 0.5 * names_loss(upsampled(logits[0].softmax(-1), 3, 4, (6, 8)), maps))


def test_dice_by_hand() -> None:
    """First image: 2 * 0.5 + 1 over 1.5 + 1; second is empty and blank: perfect."""
    p = torch.tensor([[[0.5, 0.0]], [[0.0, 0.0]]])
    mask = torch.tensor([[[True, False]], [[False, False]]])
    assert dice_loss(p, mask).item() == pytest.approx((1 - 2 / 2.5) / 2)
    p[1, 0, 1] = 1.0
    known = torch.tensor([[[True, True]], [[True, False]]])
    assert dice_loss(p, mask, known).item() == pytest.approx((1 - 2 / 2.5) / 2)


def test_upsampling_keeps_the_corners() -> None:
    p = torch.arange(4.0).view(1, 4, 1)
    up = upsampled(p, 2, 2, (5, 5))[0, 0]
    assert [up[i, j].item() for i, j in ((0, 0), (0, -1), (2, 2), (-1, 0), (-1, -1))] == [0, 1, 1.5, 2, 3]


def test_local_is_a_sum_over_taps_and_zero_only_when_right() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, :2] = 1
    right = torch.full((1, 4, 3), -50.0)
    right[0, :2, 1] = right[0, 2:, 0] = 50.0
    exact = F.interpolate(labels[:, None].float(), (2, 2), mode="nearest").flatten().tolist()
    assert exact == [1, 1, 0, 0]
    coarse = labels[:, ::2, ::2]
    assert local_loss([right], 2, 2, coarse).item() == pytest.approx(0, abs=1e-5)
    wrong = right.roll(1, dims=2)
    assert local_loss([wrong], 2, 2, coarse).item() > 1
    both = local_loss([right, wrong], 2, 2, coarse)
    torch.testing.assert_close(both, local_loss([right], 2, 2, coarse) + local_loss([wrong], 2, 2, coarse))


def test_calling_one_type_another_costs_only_the_focal_part() -> None:
    labels = torch.ones(1, 2, 2, dtype=torch.long)
    other = torch.tensor([-50.0, -50.0, 50.0]).expand(1, 4, 3)
    assert local_loss([other], 2, 2, labels).item() == pytest.approx(-math.log(1e-6), rel=1e-4)


def test_total_weighs_local_by_four() -> None:
    logits, labels = [torch.randn(2, 4, 3)], torch.randint(0, 3, (2, 4, 4))
    image, defective = torch.randn(2, 2), torch.tensor([True, False])
    expected = 4 * local_loss(logits, 2, 2, labels) + F.cross_entropy(image, torch.tensor([1, 0]))
    torch.testing.assert_close(total_loss(logits, 2, 2, labels, image, defective), expected)
    torch.testing.assert_close(global_loss(image, defective), F.cross_entropy(image, torch.tensor([1, 0])))


def test_a_few_steps_on_one_batch_lower_the_loss() -> None:
    """The detector's features and the losses fit together, and gradients point downhill."""
    detector = tiny_detector().train()
    vocabulary, x = Vocabulary.of("scratch, hole"), torch.rand(2, 3, 32, 32)
    labels = torch.zeros(2, 32, 32, dtype=torch.long)
    labels[0, 8:24, 8:24] = 2
    optimiser = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], lr=1e-2)
    history = []
    for _ in range(12):
        states, features = detector.text_features(vocabulary), detector.features(x)
        patches = [detector.logits(tap, states) for tap in features.taps]
        image = detector.global_logits(features, states)
        loss = total_loss(
            patches, features.rows, features.columns, labels, image, torch.tensor([True, False])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.7 * history[0]

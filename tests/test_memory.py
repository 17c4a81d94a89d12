"""References: a memory of good parts finds what none of them shows, in one file, for one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_detector

from dapo.config import Fusion
from dapo.errors import InputError, ModelError
from dapo.model.memory import (
    DOUBT,
    Memory,
    coreset,
    layers_of,
    load_memory,
    nearest,
    remember,
    save_memory,
)
from dapo.pretraining.lines import Line
from dapo.pretraining.references import Evidence, choose_references, evidence_of, smallest
from dapo.pretraining.scenes import World


def stripes(seed: int, side: int = 32, spot: bool = False) -> torch.Tensor:
    """A striped plate, a little noisy; with a bright spot in its lower right quarter."""
    rng = np.random.default_rng(seed)
    picture = np.tile(0.4 + 0.2 * (np.arange(side) // 4 % 2), (3, side, 1)) + rng.normal(
        0, 0.02, (3, side, side)
    )
    if spot:
        picture[:, side * 5 // 8 : side * 7 // 8, side * 5 // 8 : side * 7 // 8] = 1
    return torch.from_numpy(picture.clip(0, 1).astype(np.float32))


@pytest.fixture(scope="module")
def memory() -> Memory:
    return remember(tiny_detector(), [[stripes(seed)] for seed in range(8)])


def test_what_no_good_part_shows_is_far(memory: Memory) -> None:
    detector = tiny_detector()
    looks = detector.looks(torch.stack([stripes(100), stripes(101, spot=True)]), memory.layers)
    with torch.no_grad():
        distance = memory.distance(looks)
        patch, peak = memory.unusual(distance)
    assert distance.shape == (2, 4, 4)
    assert peak[1] > peak[0] + 3
    assert patch[0].abs().max() < 5
    row, column = divmod(int(distance[1].argmax()), 4)
    assert row >= 2
    assert column >= 2


def test_maps_and_image_score_rise_and_types_stay(memory: Memory) -> None:
    detector = tiny_detector()
    words = ["scratch", "hole"]
    from dapo.vocabulary import Vocabulary

    pixels = torch.stack([stripes(100), stripes(101, spot=True)])
    with torch.no_grad():
        plain = detector(pixels, Vocabulary.of(words))
        referred = detector(pixels, Vocabulary.of(words), memory)
    assert torch.equal(plain.types, referred.types)
    assert torch.equal(plain.type_image, referred.type_image)
    gain = referred.image.logit() - plain.image.logit()
    assert gain[1] > gain[0] + 1
    assert referred.binary[1, 2:, 2:].max() > plain.binary[1, 2:, 2:].max()


def test_the_largest_distance_counts_less_with_few_parts(memory: Memory) -> None:
    distance = torch.full((1, 4, 4), memory.peak.mean + memory.peak.deviation)
    patches, peaks = zip(*(replace(memory, images=k).unusual(distance) for k in (1, 3, 300)), strict=True)
    assert torch.equal(patches[0], patches[2])  # there are thousands of patches in a single part
    assert [float(peak) for peak in peaks] == pytest.approx([1 / (1 + DOUBT), 3 / (3 + DOUBT), 1], rel=0.02)


def test_a_good_part_is_judged_without_itself(memory: Memory) -> None:
    detector = tiny_detector()
    looks = detector.looks(stripes(3)[None], memory.layers)
    with torch.no_grad():
        own, others = memory.distance(looks), memory.without(3).distance(looks)
    assert own.max() < 0.01  # half precision
    assert others.min() >= -1e-6
    assert others.mean() > own.mean()


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_good_parts_are_enough_to_compare(count: int) -> None:
    found = remember(tiny_detector(), [[stripes(seed)] for seed in range(count)])
    assert found.images == count
    assert found.patch.deviation > 0
    assert np.isfinite([found.peak.mean, found.peak.deviation]).all()


def test_tiles_of_one_part_count_as_one(memory: Memory) -> None:
    tiled = remember(tiny_detector(), [[stripes(seed), stripes(50 + seed)] for seed in range(4)])
    assert tiled.images == 4
    assert {int(owner) for owners in tiled.owners for owner in owners} == {0, 1, 2, 3}


def test_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match="good parts to remember; got none"):
        remember(tiny_detector(), [])


def test_the_coreset_covers_better_than_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    crowd = torch.nn.functional.normalize(
        torch.randn(1, 32, generator=generator) + 0.05 * torch.randn(2000, 32), dim=1
    )
    rare = torch.nn.functional.normalize(torch.randn(10, 32, generator=generator), dim=1)
    patches = torch.cat([crowd, rare])
    kept = patches[coreset(patches, 40, torch.Generator().manual_seed(1))]
    chance = patches[torch.randperm(len(patches), generator=generator)[:40]]
    assert nearest(rare[None], kept).max() < 0.05
    assert nearest(rare[None], chance).max() > 0.3
    assert len(coreset(patches, 5000, torch.Generator())) == len(patches)


def test_a_file_gives_back_the_memory_to_its_model_only(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "references.safetensors"
    save_memory(memory, path, "abc")
    again = load_memory(path, "abc")
    assert again.layers == memory.layers == layers_of(tiny_detector())
    assert again.patch == memory.patch
    assert again.peak == memory.peak
    assert again.images == 8
    assert all(torch.equal(a, b) for a, b in zip(again.banks, memory.banks, strict=True))
    with pytest.raises(ModelError, match=r"another model.*Calibrate again"):
        load_memory(path, "abd")
    with pytest.raises(ModelError, match="there is none"):
        load_memory(tmp_path / "nowhere", "abc")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match="not a memory"):
        load_memory(path, "abc")


def test_a_full_disk_leaves_the_old_memory(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "references.safetensors"
    save_memory(memory, path, "abc")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dapo.model.weights.save_file", full)
    with pytest.raises(ModelError, match="make room"):
        save_memory(memory, path, "abc")
    assert load_memory(path, "abc").images == 8


def told(parts: int | None, known: float, seed: int, lines: int = 4) -> list[Evidence]:
    """Lines of 40 pictures, 8 flawed: words tell a little, distances `known` standard deviations."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(lines):
        truths = np.zeros((40, 8, 8), bool)
        truths[:8, 2:5, 3:6] = True
        flawed = truths.any((1, 2))
        found.append(
            Evidence(
                parts,
                truths,
                (truths + rng.normal(0, 1, truths.shape)).astype(np.float32),
                (known * truths + rng.normal(0, 1, truths.shape)).astype(np.float32),
                (flawed + rng.normal(0, 1, 40)).astype(np.float32),
                (known * flawed + rng.normal(0, 1, 40)).astype(np.float32),
            )
        )
    return found


def test_a_distance_weighs_as_much_as_it_knows() -> None:
    crowd = told(None, 4.0, seed=9)
    blind = choose_references([*told(1, 0.0, 0), *told(20, 0.0, 1), *crowd], Fusion(), 0.5)
    assert blind.map_weight == blind.image_weight == 0
    seeing = choose_references([*told(1, 4.0, 0), *told(20, 4.0, 1), *crowd], Fusion(), 0.5)
    assert seeing.map_weight >= 0.3
    assert seeing.image_weight >= 0.3
    assert seeing.doubt == 0  # one part tells as much as twenty
    mixed = choose_references([*told(1, 0.0, 0), *told(20, 4.0, 1), *crowd], Fusion(), 0.5)
    assert mixed.doubt >= 4
    assert seeing.usual > 0  # without, half of the good parts would be called defective


def test_the_smallest_nearly_best_is_taken() -> None:
    assert smallest({0.0: 0.8, 1.0: 0.895, 2.0: 0.9}, slack=0.01) == 1.0
    assert smallest({0.0: 0.8, 1.0: 0.895, 2.0: 0.9}, slack=0.001) == 2.0


def test_a_line_is_seen_with_good_parts_and_as_a_folder() -> None:
    found = list(evidence_of(tiny_detector(), Line(World(seed=3, other=True), 0, 32, 32), ("dent",), (1, 2)))
    assert [one.parts for one in found] == [1, 2, 1, 2, None]
    assert found[0].words.shape == found[0].far.shape == (40, 4, 4)
    assert found[0].truths.shape == (40, 8, 8)
    assert 1 <= found[0].flawed.sum() <= 8
    assert np.array_equal(found[0].overall, found[-1].overall)
    assert not np.array_equal(found[0].far, found[1].far)

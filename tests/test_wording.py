"""The words decide: on generated flaws the embedded model never saw, other words give another answer.

The bounds are the measured figures of docs/vocabulary.md (benchmarks/wording.py) with room for few scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dapo.images import prepare, restore_map
from dapo.model.artifact import EMBEDDED, load
from dapo.model.detector import Detector, Scores
from dapo.model.features import Features
from dapo.model.grid import top_mean
from dapo.pretraining.scenes import World
from dapo.vocabulary import Defect, Vocabulary

pytestmark = pytest.mark.skipif(not (EMBEDDED / "config.json").is_file(), reason="needs the embedded model")

TYPES = ("scratch", "crack", "hole", "rust", "bubble", "wrinkle", "fingerprint", "spot")
NONSENSE = ("banana", "elephant", "violin concerto", "monday", "tax return", "holiday", "river", "library")
ELSEWHERE = ("mold", "capping", "tombstone", "dropped stitch")
PER_TYPE, GOOD, SIDE = 2, 8, 160
SCORE_BOUND = 0.06  # of one more name, after any number; the largest measured: see docs/vocabulary.md
MAP_BOUND = 0.15  # of one more name after eight


@dataclass(frozen=True)
class Bench:
    """A detector that has seen its pictures, and the pictures."""

    detector: Detector
    good: list[list[Features]]
    flawed: list[tuple[list[Features], str, NDArray[np.bool_]]]

    def score(self, seen: list[Features], words: Any) -> Scores:
        with torch.inference_mode():
            return self.detector.judge(seen, self.detector.text_features(Vocabulary.of(words)))


@pytest.fixture(scope="module")
def bench() -> Bench:
    detector, _ = load()
    detector.eval()

    @torch.inference_mode()
    def seen(image: NDArray[np.uint8]) -> list[Features]:
        ready = prepare(image, detector.input_side, detector.clip.config.patch, detector.settings.fit)
        return detector.looks(torch.from_numpy(ready)[None])

    parts = World(seed=40_003, normal=1.0)
    good = [seen(parts.scene(i, SIDE, SIDE).image) for i in range(GOOD)]
    world, wanted = World(seed=40_004, normal=0.0, families=TYPES), dict.fromkeys(TYPES, PER_TYPE)
    flawed = []
    for i in range(400):
        scene = world.scene(i, SIDE, SIDE)
        (family, mask), *more = scene.masks.items() or [("", np.zeros((1, 1), bool))]
        if not more and mask.sum() >= 60 and wanted[family]:
            wanted[family] -= 1
            flawed.append((seen(scene.image), family, mask))
        if not any(wanted.values()):
            return Bench(detector, good, flawed)
    raise AssertionError(f"the world yields too few of {wanted}")


def called(**words: str) -> Vocabulary:
    """The eight types, some of them called otherwise."""
    return Vocabulary(tuple(Defect(kind, (words.get(kind, kind),)) for kind in TYPES))


def accuracy(bench: Bench, vocabulary: Vocabulary) -> float:
    """Share of regions whose true type has the largest mean inside them."""
    right = []
    for pixels, family, mask in bench.flawed:
        maps = restore_map(bench.score(pixels, vocabulary).types[0].float().numpy(), *mask.shape)
        right.append(TYPES[int(maps[:, mask].mean(1).argmax())] == family)
    return float(np.mean(right))


def test_editing_a_phrase_changes_the_result(bench: Bench) -> None:
    pictures = [pixels for pixels, family, _ in bench.flawed if family == "rust"]
    before = [bench.score(one, called()) for one in pictures]
    after = [bench.score(one, called(rust="wrinkled film")) for one in pictures]
    at = TYPES.index("rust")
    changes = [float((b.types - a.types)[0, at].abs().max()) for b, a in zip(before, after, strict=True)]
    assert max(changes) > 0.2
    scores = [abs(float((b.type_image - a.type_image)[0, at])) for b, a in zip(before, after, strict=True)]
    assert max(scores) > 0.1
    assert not any(torch.equal(b.image, a.image) for b, a in zip(before, after, strict=True))


def test_the_name_is_a_label_and_the_phrases_are_read(bench: Bench) -> None:
    pixels = bench.flawed[0][0]
    renamed = Vocabulary(tuple(Defect(f"type {kind}", (kind,)) for kind in TYPES))
    torch.testing.assert_close(bench.score(pixels, renamed).types, bench.score(pixels, called()).types)


def test_shuffled_names_lose(bench: Bench) -> None:
    """Dealt out so that no type keeps its name, the same words name almost nothing rightly."""
    right = accuracy(bench, called())
    shuffled = [
        accuracy(bench, called(**dict(zip(TYPES, np.roll(TYPES, shift).tolist(), strict=True))))
        for shift in (1, 3, 5)
    ]
    assert right > 0.5
    assert right - max(shuffled) > 0.35


def test_irrelevant_names_lose(bench: Bench) -> None:
    nonsense = called(**dict(zip(TYPES, NONSENSE, strict=True)))
    assert accuracy(bench, called()) - accuracy(bench, nonsense) > 0.35


@pytest.mark.parametrize("extra", [*NONSENSE[:4], *ELSEWHERE])
def test_an_irrelevant_name_more_moves_a_good_part_little(bench: Bench, extra: str) -> None:
    for pixels in bench.good:
        for names in (["scratch"], ["bubble", "rust", "hole"], list(TYPES)):
            before, after = bench.score(pixels, names), bench.score(pixels, [*names, extra])
            assert abs(float(after.image - before.image)) <= SCORE_BOUND
        top = top_mean(after.binary, 0.01) - top_mean(before.binary, 0.01)
        assert abs(float(top)) <= MAP_BOUND
        assert float((after.binary - before.binary).abs().mean()) <= MAP_BOUND / 10


@pytest.mark.parametrize(
    ("kind", "synonym"),
    [("rust", "rust stain"), ("bubble", "air bubble"), ("crack", "fissure"), ("scratch", "fine scratch")],
)
def test_two_synonyms_give_nearly_the_same_maps(bench: Bench, kind: str, synonym: str) -> None:
    at, pictures = TYPES.index(kind), [pixels for pixels, _, _ in bench.flawed]
    first = torch.cat([bench.score(one, called()).types[0, at].flatten() for one in pictures])
    second = torch.cat(
        [bench.score(one, called(**{kind: synonym})).types[0, at].flatten() for one in pictures]
    )
    other = torch.cat([bench.score(one, called()).types[0, at - 1].flatten() for one in pictures])
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) > 0.95
    assert float(torch.corrcoef(torch.stack([first, other]))[0, 1]) < 0.75, "the test could tell"

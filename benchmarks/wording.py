"""What words do to the answer of the embedded model, on generated scenes it has not seen.

Run: python benchmarks/wording.py [--good 100] [--regions 20] [--model DIR]; Markdown on stdout. About three
minutes on two cores with the defaults. Scenes: worlds of seeds 40001 (good parts) and 40002 (one flaw or
more), 224 px, procedural surfaces only. The tables of docs/vocabulary.md are this output.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any, TypeAlias

import numpy as np
import torch

from dapo.images import prepare, restore_map
from dapo.lint import Reader
from dapo.metrics import pixel_metrics
from dapo.model.artifact import load
from dapo.model.detector import Detector, Scores
from dapo.model.features import Features
from dapo.model.grid import top_mean
from dapo.pretraining.defaults import DEFECTS
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import Scene, World
from dapo.vocabulary import Defect, Vocabulary, builtin

SIDE = 224
FAMILIES = ("scratch", "crack", "hole", "rust", "bubble", "wrinkle", "fingerprint", "spot")
NONSENSE = ("banana", "elephant", "violin concerto", "monday", "tax return", "holiday", "river", "library")
ELSEWHERE = ("mold", "bruise", "tombstone", "dropped stitch", "capping", "underfill", "knot", "wormhole")
PARAPHRASES = {
    "scratch": ("scratch", "fine scratch", "score mark", "scratched line", "thin linear mark"),
    "crack": ("crack", "fissure", "hairline crack", "fracture line", "split in the material"),
    "hole": ("hole", "perforation", "opening", "punched through", "round gap"),
    "rust": ("rust", "rust stain", "oxidised metal", "corrosion", "brown oxide"),
    "bubble": ("bubble", "air bubble", "blister", "trapped air", "gas pocket"),
    "wrinkle": ("wrinkle", "crease", "crinkled surface", "pucker", "wavy fold"),
}
EDGES = (-1.0, 0.2, 0.4, 0.57, 0.9, 1.01)  # of the cosines


Looks: TypeAlias = list[Features]  # what the vision tower saw of one picture, at each scale


def looks(detector: Detector, scene: Scene) -> Looks:
    """A scene, seen once; other words then cost next to nothing."""
    pixels = prepare(scene.image, detector.input_side, detector.clip.config.patch, detector.settings.fit)
    return detector.looks(torch.from_numpy(pixels)[None])


def judged(detector: Detector, seen: Looks, vocabulary: Vocabulary) -> Scores:
    return detector.judge(seen, detector.text_features(vocabulary))


def line(*cells: object) -> None:
    print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")


def header(*cells: str) -> None:
    line(*cells)
    line(*["---"] * len(cells))


def quantiles(values: Sequence[float]) -> tuple[float, ...]:
    return (*(float(np.quantile(values, q)) for q in (0.5, 0.95, 0.99)), float(np.max(values)))


def added_names(detector: Detector, good: Sequence[Looks], threshold: float) -> None:
    """How far one more name moves a good part: image score, map, verdict."""
    rng = np.random.default_rng(0)
    pool = [d.name for d in builtin() if d.name not in (*ELSEWHERE, "combined", "other", "damage")]
    lists = {1: 5, 3: 5, 8: 5}
    chosen = {n: [rng.choice(pool, n, replace=False).tolist() for _ in range(k)] for n, k in lists.items()}
    chosen[len(DEFECTS)] = [list(DEFECTS)]
    print("\n### One irrelevant name more: change on good parts (median, 95 %, 99 %, largest)\n")
    header("names before", "image score", "map, largest change", "map, top 1 %", "verdicts turned", "flagged")
    for size, names in chosen.items():
        score, largest, top, turned, flagged = [], [], [], [], []
        for own in names:
            before = [judged(detector, one, Vocabulary.of(own)) for one in good]
            flagged += [float(b.image) >= threshold for b in before]
            for extra in (*NONSENSE[::2], *ELSEWHERE[::2]):
                for one, b in zip(good, before, strict=True):
                    a = judged(detector, one, Vocabulary.of([*own, extra]))
                    score.append(abs(float(a.image - b.image)))
                    largest.append(float((a.binary - b.binary).abs().max()))
                    top.append(abs(float(top_mean(a.binary, 0.01) - top_mean(b.binary, 0.01))))
                    turned.append((float(a.image) >= threshold) != (float(b.image) >= threshold))
        shown = (" / ".join(f"{v:.3f}" for v in quantiles(values)) for values in (score, largest, top))
        line(size, *shown, f"{100 * np.mean(turned):.1f} %", f"{100 * np.mean(flagged):.1f} %")


def regions(detector: Detector, per_family: int, families: Sequence[str]) -> Iterator[tuple[Looks, str, Any]]:
    """(looks, family, mask) of single flaws, `per_family` of each where the world yields them in time."""
    world = World(seed=40_002, normal=0.0, families=tuple(families))
    wanted = dict.fromkeys(families, per_family)
    for i in range(40 * per_family * len(families)):
        if not any(wanted.values()):
            return
        scene = world.scene(i, SIDE, SIDE)
        if len(scene.masks) != 1:
            continue
        ((family, mask),) = scene.masks.items()
        if wanted[family] and mask.sum() >= 60:
            wanted[family] -= 1
            yield looks(detector, scene), family, mask


def named(types: torch.Tensor, mask: Any) -> int:
    """The type with the largest mean inside the region."""
    maps = restore_map(types[0].float().numpy(), *mask.shape)
    return int(maps[:, mask].mean(1).argmax())


def naming(detector: Detector, found: Sequence[tuple[Looks, str, Any]]) -> None:
    """Right names against the same names dealt out wrongly and against words of another world."""
    print("\n### Right, shuffled and irrelevant names (8 types)\n")
    header("names", "naming accuracy", "pixel AUROC")
    rng = np.random.default_rng(0)
    shuffles = [rng.permutation(len(FAMILIES)) for _ in range(20)]
    for label, words in (("right", FAMILIES), ("irrelevant", NONSENSE)):
        vocabulary = Vocabulary(tuple(Defect(f, (w,)) for f, w in zip(FAMILIES, words, strict=True)))
        answers, maps, masks, hits = [], [], [], []
        for seen, family, mask in found:
            scores = judged(detector, seen, vocabulary)
            answers.append((FAMILIES.index(family), named(scores.types, mask)))
            maps.append(restore_map(scores.binary[0].float().numpy(), *mask.shape))
            masks.append(mask)
        auroc = pixel_metrics(np.stack(maps), np.stack(masks))["auroc"]
        line(label, float(np.mean([a == b for a, b in answers])), float(auroc))
        if label == "right":
            hits = [np.mean([s[a] == b for a, b in answers]) for s in shuffles]
            line("shuffled, mean of 20", float(np.mean(hits)), "the same")


def paraphrases(detector: Detector, found: Sequence[tuple[Looks, str, Any]]) -> None:
    """One type's wording changes, the other seven stay; a wording was taught if the lexicon teaches it."""
    lexicon = Lexicon.builtin()
    taught = {phrase for kind in lexicon.ids for phrase in lexicon.train_phrases(kind)}
    print("\n### Paraphrases: the type's map against that of the first wording, and how well it names\n")
    header("type", "wording", "taught", "map correlation", "named right")
    for family, wordings in PARAPHRASES.items():
        at, own = FAMILIES.index(family), [one for one in found if one[1] == family]
        first = None
        for words in wordings:
            vocabulary = Vocabulary(tuple(Defect(f, (words if f == family else f,)) for f in FAMILIES))
            scores = [judged(detector, seen, vocabulary) for seen, _, _ in own]
            own_map = np.concatenate([s.types[0, at].flatten().numpy() for s in scores])
            first = own_map if first is None else first
            right = [named(s.types, mask) == at for s, (_, _, mask) in zip(scores, own, strict=True)]
            correlation = float(np.corrcoef(first, own_map)[0, 1])
            line(family, words, "yes" if words in taught else "no", correlation, f"{np.mean(right):.2f}")


def pairs(detector: Detector, reader: Reader, per_family: int) -> None:
    """Two texts, two looks: how often the picture decides rightly, by the cosine of the texts."""
    lexicon = Lexicon.builtin()
    families = [f for f in lexicon.visuals if f not in ("short", "open", "spur", "mouse_bite")]
    found = list(regions(detector, per_family, families))
    means = np.stack([inside(seen, mask) for seen, _, mask in found])
    truth = np.array([family for _, family, _ in found])
    spoken = {f: [p for kind in lexicon.by_visual(f) for p in lexicon.phrases(kind.id)] for f in families}
    states = {f: reader.phrases(words) for f, words in spoken.items()}
    near, wins = [], []
    for one, two in combinations(families, 2):
        a, b = means[truth == one], means[truth == two]
        if min(len(a), len(b)) >= 3:
            near.append((states[one] @ states[two].T).ravel())
            wins.append(((won(a, states[one], states[two]) + won(b, states[two], states[one]).T) / 2).ravel())
    cosines, right = np.concatenate(near), np.concatenate(wins)
    print("\n### Two texts for two looks: right choices by the cosine of the texts\n")
    header("cosine", "pairs of texts", "right")
    for low, high in pairwise(EDGES):
        own = (cosines >= low) & (cosines < high)
        if own.any():
            line(f"{low:g} to {min(high, 1):g}", int(own.sum()), float(right[own].mean()))


def won(means: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of the regions that are nearer to each of their own texts than to each of the other's."""
    return ((means @ own.T)[:, :, None] > (means @ other.T)[:, None, :]).mean(0)


def inside(seen: Looks, mask: Any) -> np.ndarray:
    """Mean patch feature of a region, over scales and taps."""
    cover = torch.from_numpy(mask)[None, None].float()
    total = []
    for one in seen:
        share = torch.nn.functional.adaptive_avg_pool2d(cover, (one.rows, one.columns)).flatten()
        total += [(share[:, None] * tap[0]).sum(0) / share.sum() for tap in one.taps]
    return torch.stack(total).mean(0).numpy()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--good", type=int, default=100, help="good parts")
    parser.add_argument("--regions", type=int, default=20, help="single flaws of each of the eight types")
    parser.add_argument("--model")
    options = parser.parse_args()
    detector, info = load(options.model)
    reader = Reader(detector)
    scale = reader.scale
    print(f"Model {info.name} {info.config.version}; cosines of its texts:", end=" ")
    print(
        f"other {scale.other:.2f}, near {scale.near:.2f}, alike {scale.alike:.2f}, normal {scale.normal:.2f}"
    )
    world = World(seed=40_001, normal=1.0)
    good = [looks(detector, world.scene(i, SIDE, SIDE)) for i in range(options.good)]
    added_names(detector, good, info.config.threshold)
    found = list(regions(detector, options.regions, FAMILIES))
    naming(detector, found)
    paraphrases(detector, found)
    pairs(detector, reader, max(3, options.regions // 3))


if __name__ == "__main__":
    main()

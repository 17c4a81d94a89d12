"""What a text tower makes of the lexicon: figures of its trade language.

In: a tower (or any encoder of phrases) and the lexicon. Out: how often phrases never taught are read as their
type, how far sentences agree with the bare phrase, and where types stand to one another in the joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dapo.model.clip import Clip
from dapo.pretraining.corpus import phrase_features
from dapo.pretraining.lexicon import NORMAL, TEMPLATES, Lexicon, fill
from dapo.pretraining.teacher import Floats, Teacher


def measure(clip: Clip, lexicon: Lexicon, teacher: Teacher | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Figures of the trade language: held-out phrases to types, agreement over sentences, joint geometry.

    A phrase is given to the type with the nearest centroid of taught phrases, the flawless state among them.
    """
    rng = np.random.default_rng([seed, 4])

    def ours(texts: Sequence[str]) -> Floats:
        return np.asarray(phrase_features(clip, texts), np.float32)

    def choose(pool: Sequence[str]) -> str:
        return pool[int(rng.integers(len(pool)))]

    def sentence(phrase: str) -> str:
        return fill(choose(TEMPLATES[1:]), phrase, lexicon, choose)

    figures: dict[str, Any] = {
        "held_out": naming(ours, lexicon),
        "held_out_in_sentences": naming(ours, lexicon, sentence),
    }
    if teacher is not None:
        figures["held_out_teacher"] = naming(teacher.encode, lexicon)
    phrases = [phrase for type_id in (*lexicon.ids, NORMAL) for phrase in lexicon.train_phrases(type_id)]
    bare = ours(phrases)
    agreement = {
        t: (bare * ours([fill(t, p, lexicon, choose) for p in phrases])).sum(1).mean() for t in TEMPLATES[1:]
    }
    figures["agreement"] = {template: round(float(value), 4) for template, value in agreement.items()}
    figures["geometry"] = _geometry(ours, lexicon)
    return figures


def _centroids(encode: Callable[[Sequence[str]], Floats], lexicon: Lexicon) -> Floats:
    """Unit means (k, width) of each type's taught phrases."""
    means = np.stack([encode(lexicon.train_phrases(type_id)).mean(0) for type_id in (*lexicon.ids, NORMAL)])
    units: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
    return units


def naming(
    encode: Callable[[Sequence[str]], Floats], lexicon: Lexicon, sentence: Callable[[str], str] = str
) -> dict[str, float]:
    """How the phrases never taught are read: the share whose type is nearest, among the three nearest, or
    nearest but for types of one group, or of one look.
    """
    ids = (*lexicon.ids, NORMAL)
    asked = [(sentence(phrase), i) for i, type_id in enumerate(ids) for phrase in lexicon.held_out(type_id)]
    truth = np.array([i for _, i in asked])
    ranked = np.argsort(-encode([text for text, _ in asked]) @ _centroids(encode, lexicon).T, axis=1)
    group = np.array([lexicon[i].group if i != NORMAL else NORMAL for i in ids])
    looks = np.array([(lexicon[i].visual or i) if i != NORMAL else NORMAL for i in ids])
    return {
        "phrases": len(asked),
        "top1": round(float((ranked[:, 0] == truth).mean()), 4),
        "top3": round(float((ranked[:, :3] == truth[:, None]).any(1).mean()), 4),
        "same_group": round(float((group[ranked[:, 0]] == group[truth]).mean()), 4),
        "same_visual": round(float((looks[ranked[:, 0]] == looks[truth]).mean()), 4),
    }


def _geometry(encode: Callable[[Sequence[str]], Floats], lexicon: Lexicon) -> dict[str, float]:
    """Cosines of type centroids that share no group and no look, and of the flawless state to all."""
    points = _centroids(encode, lexicon)
    cosine = points @ points.T
    kinds = lexicon.types
    apart = [
        cosine[i, j]
        for i, one in enumerate(kinds)
        for j, two in enumerate(kinds[:i])
        if one.group != two.group and (one.visual is None or one.visual != two.visual)
    ]
    own = [float((encode(lexicon.train_phrases(kind.id)) @ points[i]).mean()) for i, kind in enumerate(kinds)]
    return {
        "phrase_to_own_type": round(float(np.mean(own)), 4),
        "distinct_types_mean": round(float(np.mean(apart)), 4),
        "distinct_types_p99": round(float(np.quantile(apart, 0.99)), 4),
        "flawless_to_types_mean": round(float(cosine[-1, :-1].mean()), 4),
        "flawless_to_types_max": round(float(cosine[-1, :-1].max()), 4),
    }

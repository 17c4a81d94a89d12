"""Training in a campaign: a method, a seed and the experiment's settings in, a folder of their own out.

The folder's name ends in a hash of the settings, the backbone and the content of the train set, so that a run
goes on where, and only where, all of these are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from dapo.config import TrainingSettings
from dapo.data import Sample
from dapo.evaluation.experiment import GENERATED, Experiment, slug
from dapo.evaluation.fingerprint import data_facts, short_hash
from dapo.learning.methods import Method, _differences, training_settings
from dapo.learning.state import STATE
from dapo.learning.trainer import FREE
from dapo.model.artifact import backbone_facts
from dapo.model.clip import Clip

HASH = 6  # letters


def settings_for(
    experiment: Experiment, method: Method, seed: int, clip: Clip, data: Path
) -> TrainingSettings:
    """The method's settings on this backbone under the experiment's. data: the folder above the textures."""
    changes = dict(experiment.settings) | {
        "seed": seed,
        "name": f"{method.name}, seed {seed}",
        "backbone": "reference",
    }
    if experiment.held_out:
        changes["held_out"] = experiment.held_out
    train = experiment.train
    if train is not None and train.dataset == GENERATED and train.root is not None:
        changes["generated"] = {**changes.get("generated", {}), "textures": str(data / train.root)}
    return training_settings(method.for_backbone(clip), changes, experiment.title)


def run_folder(method: Method, settings: TrainingSettings, clip: Clip, samples: Sequence[Sample]) -> Path:
    """METHOD/seed-S-HASH."""
    own = settings.model_dump(mode="json", exclude=FREE - {"detector", "start"})
    made_of = short_hash([own, backbone_facts(clip), data_facts(samples)], HASH)
    return Path(slug(method.name)) / f"seed-{settings.seed}-{made_of}"


def adapted(method: Method, clip: Clip, changes: Mapping[str, Any]) -> tuple[str, ...]:
    """What was changed to fit the backbone, one sentence each; not what the user's settings say anyway."""
    fitted = method.for_backbone(clip).detector
    own = changes.get("detector") or {}
    said = [
        name
        for name, value in own.items()
        if name in ("taps", "side") or (name in ("text_deep", "vision_deep") and "depth" in value)
    ]
    published = method.detector.model_copy(update={name: getattr(fitted, name) for name in said})
    return _differences(published, fitted, clip.config)


def skipped_in(run: Path) -> dict[str, str]:
    """{image: why} of those a run could not learn from."""
    if not (run / STATE).is_file():
        return {}
    with safe_open(run / STATE, framework="pt") as file:
        found: dict[str, str] = json.loads((file.metadata() or {}).get("skipped", "{}"))
    return found

"""Learning: prompts, deep tokens and adapters on a frozen CLIP, from labelled or generated defects."""

from __future__ import annotations

from dapo.learning.trainer import Progress, train

__all__ = ["Progress", "train"]

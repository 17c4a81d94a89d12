"""What the lexicon taught, given to a detector as its concepts (``dapo.model.concepts``).

In: a detector and the lexicon. Out: the same detector, which reads other words as mixtures of the lexicon's
types. Only taught phrases enter, so that held-out ones stay a fair question.
"""

from __future__ import annotations

import torch

from dapo.config import Concepts
from dapo.model.detector import Detector
from dapo.pretraining.lexicon import Lexicon
from dapo.vocabulary import Defect, Vocabulary


@torch.no_grad()
def with_concepts(detector: Detector, lexicon: Lexicon) -> Detector:
    """A detector with one concept a type: the feature of its taught phrases through its prompts."""
    plain = detector if detector.settings.concepts is None else detector.changed(concepts=None)
    types = Vocabulary(tuple(Defect(kind, lexicon.train_phrases(kind)) for kind in lexicon.ids))
    features = plain.eval().text_features(types)[1:]
    settings = detector.settings.model_copy(update={"concepts": Concepts(names=lexicon.ids)})
    taught = Detector(detector.clip, settings)
    taught.load_learned({**plain.learned_state(), "concepts": features})
    taught.precision = detector.precision
    return taught.train(detector.training)

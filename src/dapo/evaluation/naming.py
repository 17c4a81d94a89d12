"""Names of types against a test set: the user's words for them, and those that training had.

Names are the same whatever their case, underscores and surplus spaces.
"""

from __future__ import annotations

from collections.abc import Sequence

from dapo.data import Sample, types_of
from dapo.data.taxonomy import plain
from dapo.errors import ConfigError, DataError
from dapo.evaluation.experiment import TestSettings
from dapo.learning.examples import spoken

Samples = Sequence[Sample]


def words_of(test: TestSettings, samples: Samples, where: str = "phrases") -> dict[str, tuple[str, ...]]:
    """The user's words for the types that occur; a name without any is read as it is spoken."""
    types = types_of(samples)
    own = {plain(name): phrases for name, phrases in test.phrases.items()}
    unknown = [name for name in test.phrases if plain(name) not in set(map(plain, types))]
    if test.products is None and unknown:
        raise DataError(
            f"{where}: expected types of {test.title} ({', '.join(types)}); got {', '.join(unknown)}. "
            "Correct these names."
        )
    return {name: own.get(plain(name), (spoken(name),)) for name in types}


def check_known(test: TestSettings, samples: Samples) -> None:
    """Raises ConfigError for known types that the test set does not have: a slip would make a type novel."""
    types = types_of(samples)
    unknown = [name for name in test.known or () if plain(name) not in set(map(plain, types))]
    if unknown:
        raise ConfigError(
            f"known: expected types of {test.title} ({', '.join(types)}); got {', '.join(unknown)}. "
            "Correct these names, or leave out what the test set does not have."
        )

"""Experiment: methods, seeds, what to train on and what to test on, as one file.

An experiment is a YAML file with the fields of `Experiment`; the package's own are in configs/experiments.
`dapo.evaluation.campaign` runs it. Protocols: section 7 of the method (in zero-shot transfer the test sets
are not the train set).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from dapo.config import Settings, Text, parse
from dapo.corruptions import CORRUPTIONS
from dapo.errors import ConfigError
from dapo.evaluation.run import DRAWS, Names

EXPERIMENTS = Path(__file__).parents[1] / "configs" / "experiments"
MODEL, CONTRAST = "model", "local contrast"  # methods that are none: the model as it is, and classic filters
GENERATED = "generated"
SHOT_DRAWS = 3


class DataSettings(Settings):
    """A dataset on disk. root: below the data folder; None = the data folder itself."""

    dataset: Text = "folder"
    root: Text | None = None
    products: tuple[Text, ...] | None = None
    variant: Text | None = None


class TestSettings(DataSettings):
    """One test set.

    name: in the tables; None = the dataset's. phrases: the user's words for a type; the others go by their
    names. names: see `evaluate`. group_key: the manifest's key of the physical part. known: types that
    training had, so that the others are reported as novel; None = those of a labelled training set.
    """

    __test__ = False  # no test for pytest
    name: Text | None = None
    splits: tuple[Literal["train", "test"], ...] = ("test",)
    group_key: Text | None = None
    phrases: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)
    names: Names = "product"
    known: tuple[Text, ...] | None = None

    @property
    def title(self) -> str:
        return self.name or self.root or self.dataset


class Experiment(Settings):
    """One experiment.

    methods: of `dapo.learning.methods`, or "model" (the model as it is), or "local contrast". seeds: of the
    training of learned methods. train: None when no method learns; dataset "generated" for generated scenes.
    settings: put over each method's own. held_out: types kept from training, and so novel in the test. shift:
    corruptions to test under as well (see `dapo.corruptions`); "all" for every one. shots: numbers of good
    parts to test beside as well (see `dapo.evaluation.shots`), each with so many draws of them (shot_draws).
    draws: of the bootstrap.

    In a file a test set may also be "EXPERIMENT/TEST SET": as that experiment of the package writes it out.
    """

    title: Text
    note: str = ""
    methods: tuple[Text, ...] = Field(default=(MODEL,), min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    model: Text | None = None
    train: DataSettings | None = None
    test: tuple[TestSettings, ...] = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    held_out: tuple[Text, ...] = ()
    shift: tuple[Text, ...] | Literal["all"] = ()
    shots: tuple[Annotated[int, Field(ge=0)], ...] = ()
    shot_draws: int = Field(default=SHOT_DRAWS, ge=1)
    draws: int = Field(default=DRAWS, ge=0)

    @model_validator(mode="after")
    def _known_corruptions(self) -> Experiment:
        wanted = () if self.shift == "all" else self.shift
        if unknown := [kind for kind in wanted if kind not in CORRUPTIONS]:
            raise ValueError(f"shift: {', '.join(unknown)} is not among {', '.join(CORRUPTIONS)}")
        return self

    @model_validator(mode="after")
    def _draws_of_something(self) -> Experiment:
        if "shot_draws" in self.model_fields_set and not any(self.shots):
            raise ValueError(
                "shot_draws (--shot-draws) would do nothing without shots (--shots) above 0; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_folder_each(self) -> Experiment:
        """Results are kept by test set, method and seed: two of one name would overwrite each other."""
        named = {
            "test": [folded(test.title) for test in self.test],
            "methods": [folded(method_name(method)) for method in self.methods],
            "seeds": [str(seed) for seed in self.seeds],
            "shots": [str(k) for k in self.shots],
        }
        for field, names in named.items():
            if twice := repeated(names):
                hint = "give each test set its own name" if field == "test" else "name each once"
                raise ValueError(f"{field}: {', '.join(twice)} stands there more than once; {hint}")
        return self

    def table_names(self) -> set[str]:
        """Names that tables of this experiment can have."""
        kinds = ["", " by type", " novel types", " by shots", " under shift"]
        kinds += [f" under shift, {method}" for method in self.methods]
        return {f"{test.title}{kind}" for test in self.test for kind in kinds}


def method_name(method: str) -> str:
    """A method of the package by its name, one of your own by its file's."""
    path = Path(method)
    return path.stem if path.suffix in (".yaml", ".yml") else method


def slug(name: str) -> str:
    """A folder's name."""
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name.strip())
    return kept.strip(".-") or "unnamed"


def folded(name: str) -> str:
    """The folder's name as file systems compare it that do not tell capitals apart."""
    return slug(name).casefold()


def repeated(names: Iterable[str]) -> list[str]:
    """Those that occur more than once."""
    return [name for name, number in Counter(names).items() if number > 1]


def load_experiment(name_or_path: str | Path) -> Experiment:
    """An experiment of the package by name, or one of your own. Raises ConfigError, which names the file."""
    path = Path(name_or_path)
    if (EXPERIMENTS / f"{name_or_path}.yaml").is_file():
        path = EXPERIMENTS / f"{name_or_path}.yaml"
    elif path.suffix not in (".yaml", ".yml"):
        known = ", ".join(experiment_names())
        raise ConfigError(
            f"expected an experiment ({known}) or the path of a YAML file; got {name_or_path!r}"
        )
    raw = read(path)
    if isinstance(raw.get("test"), list):
        raw["test"] = [lent(test, str(path)) if isinstance(test, str) else test for test in raw["test"]]
    return parse(Experiment, raw, str(path))


def read(path: Path) -> dict[str, Any]:
    """What an experiment's file holds. Raises ConfigError, which names it."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} should hold title, methods and test; it holds a {type(raw).__name__}")
    return raw


def lent(wanted: str, where: str) -> TestSettings:
    """The test set of "EXPERIMENT/TEST SET", which that experiment of the package must write out: what it
    borrows itself it does not lend. Raises ConfigError.
    """
    name, _, title = wanted.partition("/")
    if name not in experiment_names():
        raise ConfigError(
            f"{where}: test: expected EXPERIMENT/TEST SET with one of {', '.join(experiment_names())}; got "
            f"{wanted!r}. Correct the name, or write the test set out."
        )
    tests = read(EXPERIMENTS / f"{name}.yaml")["test"]
    own = [parse(TestSettings, test, name) for test in tests if isinstance(test, dict)]
    found = {test.title: test for test in own}
    if title not in found:
        raise ConfigError(
            f"{where}: test: expected {name}/TEST SET with one that {name} writes out "
            f"({', '.join(found) or 'none'}); got {wanted!r}. Correct the name, or write the test set out."
        )
    return found[title]


def experiment_names() -> list[str]:
    """Those that come with the package."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))

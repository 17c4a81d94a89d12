"""Taxonomies: what the owner of a set calls a defect -> the defect type; which product has which; how many.

The facts are in taxonomy/*.yaml, one file a set, and nowhere else. In: the set's name, and a variant: a named
protocol of the file, or a mapping ``{product: {label: type}}`` of your own ("*" = every product). Out: a
frozen Taxonomy. Labels match whatever their case, underscores and surplus spaces.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypedDict

import yaml

from dapo.errors import ConfigError, DataError

__all__ = ["TAXONOMIES", "Expected", "Taxonomy", "Variant", "load_taxonomy"]

Variant: TypeAlias = "str | Mapping[str, Mapping[str, str]] | None"
FOLDER = Path(__file__).with_name("taxonomy")
TAXONOMIES = ("mvtec", "visa", "mpdd", "mad_sim", "mad_real", "real_iad")
GOOD = "good"
EVERY = "*"
OWN = (
    "For types of your own name them as you like and use --dataset folder; from Python, "
    'variant={"PRODUCT": {"LABEL": "TYPE"}} says what a label is ("*" = every product)'
)


class Expected(TypedDict):
    """Pictures that the published set holds of one product. {} where only the sum was published."""

    train: int
    test: int
    test_by_raw: dict[str, int]
    test_by_type: dict[str, int]  # good parts under "good"


@dataclass(frozen=True)
class Taxonomy:
    """The types of one set.

    classes: all defect types in the order of the published test, without the word for good parts, which is
    `good`. raw_to_class: as published, good included. products: {product: its types}. unpublished: labels
    that occur but that the published classes leave out. overrides: {product: {label: type}}, told by the
    variant. single_type: only pictures of one published label belong to the variant. splits: the folder of
    the variant's split files.
    """

    dataset: str
    variant: str
    good: str
    classes: tuple[str, ...]
    raw_to_class: Mapping[str, str]
    products: Mapping[str, tuple[str, ...]]
    totals: Mapping[str, int]
    counts: Mapping[str, Mapping[str, Any]]
    spellings: Mapping[str, str]
    unpublished: frozenset[str]
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    single_type: bool = False
    splits: str = ""

    def class_of(self, product: str, raw: str, path: Path | None = None) -> str | None:
        """The type that the label `raw` means for this product; None for good.

        Raises DataError for a label that is not known; `path`, where it was found, goes with it.
        """
        label = plain(raw)
        own = self._own.get((product, label)) or self._own.get((EVERY, label))
        found = own or self._known.get(label)
        if found is None:
            close = difflib.get_close_matches(label, self._known, n=3, cutoff=0.7)
            labels = dict.fromkeys((*self.raw_to_class, *self.classes))
            names = [name for name in labels if plain(name) in close]
            hint = f"Did you mean {' or '.join(names)}? " if names else ""
            raise DataError(
                f"expected a known label of {self.dataset} for {product}; got {raw!r}. {hint}{OWN}.",
                kind="unknown_type",
                path=path,
            )
        return None if found in (GOOD, self.good) else found

    def types_of(self, product: str, raws: Iterable[str], path: Path | None = None) -> tuple[str, ...]:
        """The types of one picture from all its labels, each once, sorted; () for good."""
        return tuple(
            sorted({name for raw in raws if (name := self.class_of(product, raw, path)) is not None})
        )

    def keeps(self, raws: Iterable[str]) -> bool:
        """Whether a picture with these labels belongs to the variant."""
        labels = {plain(raw) for raw in raws}
        return not self.single_type or (len(labels) < 2 and not labels & self.unpublished)

    def spoken(self, name: str) -> str:
        """The type as it is told to the text tower."""
        return self.spellings.get(name, name)

    def expected(self, product: str) -> Expected | None:
        """What the published set holds of this product in this variant; None when nobody published it."""
        facts = self.counts.get(product)
        if facts is None:
            return None
        counted = facts.get("single_type_subset" if self.single_type else "test_by_raw", {})
        by_type: Counter[str] = Counter()
        for raw, number in counted.items():
            by_type[self.class_of(product, raw) or GOOD] += number
        return Expected(
            train=facts["train"],
            test=sum(counted.values()) or facts["test"],
            test_by_raw={} if self.single_type else dict(counted),
            test_by_type=dict(by_type),
        )

    @cached_property
    def _known(self) -> dict[str, str]:
        published = {plain(name): name for name in (GOOD, self.good, *self.classes)}
        return published | {plain(raw): name for raw, name in self.raw_to_class.items()}

    @cached_property
    def _own(self) -> dict[tuple[str, str], str]:
        return {
            (product, plain(raw)): name
            for product, labels in self.overrides.items()
            for raw, name in labels.items()
        }


def load_taxonomy(name: str, variant: Variant = None) -> Taxonomy:
    """The taxonomy of a set in TAXONOMIES ("visa_extended" has that of "visa"). Without a variant: the first.

    Raises ConfigError for a set or variant that is not there, or a product that the set does not have.
    """
    name = "visa" if name == "visa_extended" else name
    if name not in TAXONOMIES:
        raise ConfigError(
            f"expected a set with a taxonomy: {', '.join(TAXONOMIES)}; got {name!r}. "
            "The others take the types as they are named in the data."
        )
    facts = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    taxonomy = published(facts)
    variants: dict[str, dict[str, Any]] = facts.get("variants", {"published": {}})
    default = next(iter(variants))
    if isinstance(variant, Mapping):
        chosen = {**variants[default], "override": variant}
        return varied(taxonomy, "your own", chosen)
    if (variant or default) not in variants:
        raise ConfigError(
            f"expected a variant of {name}: {', '.join(variants)}, or a mapping "
            f'{{"PRODUCT": {{"LABEL": "TYPE"}}}}; got {variant!r}. Correct the name.'
        )
    return varied(taxonomy, variant or default, variants[variant or default])


def published(facts: Mapping[str, Any]) -> Taxonomy:
    """The file's facts, before any variant."""
    good, *classes = facts["classes"]
    products: dict[str, dict[str, Any]] = facts["products"]
    return Taxonomy(
        dataset=facts["dataset"],
        variant="",
        good=good,
        classes=tuple(classes),
        raw_to_class=MappingProxyType(facts["raw_to_class"]),
        products=MappingProxyType({name: tuple(own["classes"][1:]) for name, own in products.items()}),
        totals=MappingProxyType(facts.get("totals", {})),
        counts=MappingProxyType({name: own for name, own in products.items() if "train" in own}),
        spellings=MappingProxyType(facts.get("spoken", {})),
        unpublished=frozenset(facts.get("unpublished", ())),
    )


def varied(taxonomy: Taxonomy, variant: str, settings: Mapping[str, Any]) -> Taxonomy:
    """The taxonomy under a variant: new types join the classes, and the products' lists follow."""
    overrides: Mapping[str, Mapping[str, str]] = settings.get("override", {})
    if unknown := [name for name in overrides if name not in (*taxonomy.products, EVERY)]:
        raise ConfigError(
            f"expected products of {taxonomy.dataset} in the variant: {', '.join(taxonomy.products)} or "
            f'"*"; got {", ".join(unknown)}. Correct the names.'
        )
    named = [name for labels in overrides.values() for name in labels.values()]
    new = [name for name in dict.fromkeys(named) if name not in (*taxonomy.classes, GOOD, taxonomy.good)]
    own = replace(
        taxonomy,
        variant=variant,
        classes=(*taxonomy.classes, *new),
        overrides=MappingProxyType(dict(overrides)),
        single_type=bool(settings.get("single_type", False)),
        splits=settings.get("splits", ""),
    )
    return replace(own, products=MappingProxyType({name: product_types(own, name) for name in own.products}))


def product_types(taxonomy: Taxonomy, product: str) -> tuple[str, ...]:
    """The types of one product, in the order of the classes: what its labels mean, else as published."""
    labels = taxonomy.counts.get(product, {}).get("test_by_raw")
    found = taxonomy.products[product] if labels is None else taxonomy.types_of(product, labels)
    return tuple(name for name in taxonomy.classes if name in found)


def plain(raw: str) -> str:
    """A label in the form in which it is compared."""
    return " ".join(raw.replace("_", " ").casefold().split())

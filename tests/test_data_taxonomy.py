"""The facts of the taxonomies, and the variants of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

import dapo.data
from dapo.data import load_taxonomy
from dapo.data.taxonomy import TAXONOMIES
from dapo.errors import ConfigError, DataError

FILES = Path(dapo.data.__file__).with_name("taxonomy")
COUNTED = ("mvtec", "mpdd", "mad_sim", "mad_real")  # counts by type folder are published


def test_every_file_is_a_taxonomy() -> None:
    assert {path.stem for path in FILES.iterdir()} == set(TAXONOMIES)


@pytest.mark.parametrize("name", TAXONOMIES)
def test_a_taxonomy_is_whole(name: str) -> None:
    taxonomy = load_taxonomy(name)
    assert set(taxonomy.raw_to_class.values()) == {taxonomy.good, *taxonomy.classes}
    assert len(set(taxonomy.classes)) == len(taxonomy.classes)
    assert all(own and set(own) <= set(taxonomy.classes) for own in taxonomy.products.values())
    assert taxonomy.class_of("x", taxonomy.good) is taxonomy.class_of("x", "good") is None
    assert {taxonomy.class_of("x", name) for name in taxonomy.classes} == set(taxonomy.classes)


@pytest.mark.parametrize(
    ("name", "products", "types"),
    [
        ("mvtec", 15, 20),
        ("visa", 12, 23),
        ("mpdd", 6, 7),
        ("mad_sim", 20, 3),
        ("mad_real", 10, 2),
        ("real_iad", 30, 8),
    ],
)
def test_products_and_types_are_as_many_as_published(name: str, products: int, types: int) -> None:
    taxonomy = load_taxonomy(name)
    assert (len(taxonomy.products), len(taxonomy.classes)) == (products, types)
    assert len(taxonomy.classes) - len(taxonomy.unpublished) == (18 if name == "visa" else types)


@pytest.mark.parametrize("name", [*COUNTED, "visa"])
def test_the_products_add_up(name: str) -> None:
    taxonomy = load_taxonomy(name)
    own = [taxonomy.expected(product) for product in taxonomy.products]
    assert sum(counts["train"] for counts in own if counts) == taxonomy.totals["train"]
    assert sum(counts["test"] for counts in own if counts) == taxonomy.totals["test"]


@pytest.mark.parametrize("name", COUNTED)
def test_the_types_of_a_product_are_those_of_its_folders(name: str) -> None:
    """The lists as published say the same as the folders that are counted."""
    facts = yaml.safe_load((FILES / f"{name}.yaml").read_text(encoding="utf-8"))
    taxonomy = load_taxonomy(name)
    anomalous = 0
    for product, types in taxonomy.products.items():
        counts = taxonomy.expected(product)
        assert counts is not None
        assert set(types) == set(facts["products"][product]["classes"]) - {"good"}
        assert set(counts["test_by_type"]) == {"good", *types}
        assert sum(counts["test_by_type"].values()) == sum(counts["test_by_raw"].values()) == counts["test"]
        anomalous += counts["test"] - counts["test_by_type"]["good"]
    assert anomalous == taxonomy.totals["test_anomalous"]


def test_counts_join_the_folders_of_one_type() -> None:
    bottle = load_taxonomy("mvtec").expected("bottle")
    assert bottle == {
        "train": 209,
        "test": 83,
        "test_by_raw": {"broken_large": 20, "broken_small": 22, "contamination": 21, "good": 20},
        "test_by_type": {"broken": 42, "contamination": 21, "good": 20},
    }
    assert load_taxonomy("mvtec").expected("teapot") is None
    assert load_taxonomy("real_iad").expected("mint") is None


def test_visa_single_type() -> None:
    taxonomy = load_taxonomy("visa", "single-type")
    counts = [own for product in taxonomy.products if (own := taxonomy.expected(product))]
    assert sum(own["test"] for own in counts) == taxonomy.totals["multi_type_subset"] == 1878
    by_type = sum((Counter(own["test_by_type"]) for own in counts), Counter())
    assert by_type.total() - by_type["good"] == taxonomy.totals["multi_type_subset_anomalous"] == 916
    assert taxonomy.keeps(["small scratches"])
    assert taxonomy.keeps(["normal"])
    assert not taxonomy.keeps(["small scratches", "burnt"])
    assert not taxonomy.keeps(["Leak"])
    assert load_taxonomy("visa").keeps(["leak", "burnt"])
    assert load_taxonomy("visa").expected("candle") == {
        "train": 900,
        "test": 200,
        "test_by_raw": {},
        "test_by_type": {},
    }


def test_labels_match_in_any_spelling_of_case_and_blanks() -> None:
    taxonomy = load_taxonomy("visa_extended")
    assert taxonomy.class_of("candle", "  Chunk of  Wax_missing ") == "missing"
    assert taxonomy.types_of("candle", ["small scratches", "bent", "scratch", "normal"]) == (
        "bent",
        "scratch",
    )
    assert load_taxonomy("mvtec").class_of("carpet", "Metal Contamination") == "contamination"


def test_a_label_nobody_knows_is_named() -> None:
    with pytest.raises(
        DataError, match=r"label of mpdd for tubes; got 'dents'.*--dataset folder.*variant="
    ) as hit:
        load_taxonomy("mpdd").class_of("tubes", "dents", Path("tubes/test/dents"))
    assert (hit.value.kind, hit.value.path) == ("unknown_type", Path("tubes/test/dents"))
    with pytest.raises(DataError, match=r"got 'scratchs'\. Did you mean scratches or scratch\? For") as hit:
        load_taxonomy("mpdd").class_of("tubes", "scratchs")
    assert "rust" not in str(hit.value)  # close names only


def test_words_for_the_text_tower() -> None:
    taxonomy = load_taxonomy("visa")
    assert [taxonomy.spoken(name) for name in ("partical", "weird wick", "hole")] == [
        "particle",
        "irregular wick",
        "hole",
    ]
    assert set(taxonomy.spellings) <= set(taxonomy.classes)


def test_named_variants_and_your_own() -> None:
    default, fabric = load_taxonomy("mvtec"), load_taxonomy("mvtec", "front-as-fabric")
    assert (default.variant, fabric.variant) == ("front-as-bent", "front-as-fabric")
    assert default.products["screw"] == ("bent", "scratch", "thread")
    assert fabric.products["screw"] == ("fabric", "scratch", "thread")
    counts = fabric.expected("screw")
    assert counts is not None
    assert counts["test_by_type"]["fabric"] == 24
    own = load_taxonomy("mvtec", {"*": {"fold": "crease"}, "leather": {"poke": "good"}})
    assert own.classes[-1] == "crease"
    assert own.products["leather"] == ("color", "cut", "glue", "crease")
    assert own.class_of("leather", "poke") is None
    assert own.class_of("capsule", "poke") == "poke"
    assert load_taxonomy("real_iad", {"mint": {"YW": "hair"}}).splits == "realiad_jsons"


def test_variants_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match=r"front-as-bent, front-as-fabric, or a mapping .* got 'fabric'"):
        load_taxonomy("mvtec", "fabric")
    with pytest.raises(ConfigError, match=r"products of mpdd .*tubes.* got tube\."):
        load_taxonomy("mpdd", {"tube": {"flattening": "dent"}})
    with pytest.raises(ConfigError, match=r"a set with a taxonomy: .* got 'coco'"):
        load_taxonomy("coco")


def test_a_taxonomy_is_frozen() -> None:
    taxonomy = load_taxonomy("mvtec")
    with pytest.raises(AttributeError):
        taxonomy.good = "fine"  # type: ignore[misc]
    with pytest.raises(TypeError):
        taxonomy.raw_to_class["bent"] = "fine"  # type: ignore[index]

"""Reader of Real-IAD (Wang et al., CVPR 2024) by its published JSON splits.

::

    ROOT/PRODUCT/OK/S0001/*.jpg             one folder a part, one picture a camera
    ROOT/PRODUCT/NG/CODE/S0001/*.jpg        CODE is the defect type; STEM.png beside a picture is its mask
    ROOT/realiad_jsons/PRODUCT.json         the multi-view split; also in the folder above, or one deeper
    ROOT/realiad_jsons_sv/PRODUCT.json      the single-view split; realiad_jsons_fuiad_0.1: FUIAD's

    {"meta": {"prefix": "PRODUCT/", "normal_class": "OK"}, "train": [ROW], "test": [ROW]}
    ROW: {"image_path", "mask_path" or null, "anomaly_class"}, paths below PRODUCT

In: the folder of the products (or the one around it, or one product) and the taxonomy, whose variant says
which split. Out: Samples; group is the part, so that intervals count parts and not pictures. The type is the
row's anomaly_class, not the folder: a camera that does not see the flaw of a defective part shows a good one.
Figures of single- and multi-view splits differ by up to 15 points and do not compare.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dapo.data.folder import SPLITS, each_product, product_folders
from dapo.data.sample import Report, Sample, Split, telling
from dapo.data.taxonomy import Taxonomy
from dapo.errors import DataError

LAYOUT = "PRODUCT/{OK/S0001, NG/CODE/S0001}/*.jpg and realiad_jsons/PRODUCT.json"


def read_real_iad(
    root: str | Path,
    taxonomy: Taxonomy,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    usual: Sequence[str] = (),
    report: Report = None,
) -> tuple[Sample, ...]:
    """Samples ordered by product and split, then as in the JSON file.

    Without a report, raises DataError when the tree or a split file is not there, a row names a file that is
    not there, or a code is not in the taxonomy.
    """
    found: dict[str, Path] = {}
    with telling(report):
        found = product_folders(Path(root), usual=usual, is_product=holds_parts, layout=LAYOUT)

    def read(name: str, folder: Path) -> Iterator[Sample]:
        table = split_table(folder, name, taxonomy.splits)
        for split in splits:
            yield from read_rows(table, split, folder, name, taxonomy, report)

    return each_product(found, read, root, products, splits, report)


def holds_parts(folder: Path) -> bool:
    return (folder / "OK").is_dir() or (folder / "NG").is_dir()


def split_table(folder: Path, product: str, pattern: str) -> dict[str, Any]:
    """The product's JSON file of the split whose folder is called `pattern` (* = anything)."""
    above = (folder.parent, folder.parent.parent)
    places = [place for base in above for place in (base, base / "realiad_jsons")]
    files = sorted({path for place in places for path in place.glob(f"{pattern}/{product}.json")})
    if not files:
        raise DataError(
            f"expected the split file {pattern}/{product}.json in {places[0]} or {places[2]}; there is none. "
            "Put the published JSON files there.",
            path=folder,
        )
    if len(files) > 1:
        raise DataError(
            f"expected one split file of {product}; there are {', '.join(map(str, files))}. "
            'Name one as the variant ("fuiad_0.1"), or remove the others.',
            path=files[0],
        )
    try:
        table = json.loads(files[0].read_text(encoding="utf-8"))
        if all(isinstance(table[split], list) for split in SPLITS):
            return {**table, "path": files[0]}
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f'expected {{"train": [...], "test": [...]}} in {files[0]}; it is something else. '
        "Take the file as published.",
        path=files[0],
    )


def read_rows(
    table: dict[str, Any], split: Split, folder: Path, product: str, taxonomy: Taxonomy, report: Report
) -> Iterator[Sample]:
    """Samples of one split of one product."""
    for row in table[split]:
        with telling(report):
            try:
                inside, mask, code = str(row["image_path"]), row.get("mask_path"), str(row["anomaly_class"])
            except (KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"expected image_path and anomaly_class in each row of {table['path']}; got {row!r}. "
                    "Take the file as published.",
                    path=table["path"],
                ) from error
            image = existing(folder, inside, table["path"])
            types = taxonomy.types_of(product, [code], image)
            drawn = {name: existing(folder, str(mask), table["path"]) for name in types if mask}
            masks = drawn if drawn or not types else None
            yield Sample(image, product, types, masks, split, part_of(product, inside))


def existing(folder: Path, inside: str, table: Path) -> Path:
    """The file below the product that a row names; DataError when it is not there."""
    path = folder / inside.removeprefix(f"{folder.name}/")
    if not path.is_file():
        raise DataError(
            f"expected {path}, which {table} names; there is no such file. Unpack the product again.",
            kind="orphan_mask",
            path=path,
        )
    return path


def part_of(product: str, inside: str) -> str:
    """The physical part: the folder of its pictures, unique across products."""
    return f"{product}/{PurePosixPath(inside.removeprefix(f'{product}/')).parent}"

"""Reader of the sets that come as the MVTec-AD tree: mvtec, mpdd, mad_sim, mad_real.

The tree is that of `dapo.data.folder`; here the type folders get the names of the set's taxonomy (several
folders may be one type), and the number in MAD-Sim's product folders ("01Gorilla") is dropped. In: the folder
of the products, of one product, or the folder around it. Out: Samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dapo.data.folder import SPLITS, product_folders, read_products
from dapo.data.sample import Report, Sample, Split, telling
from dapo.data.taxonomy import Taxonomy
from dapo.errors import DataError


def read_mvtec(
    root: str | Path,
    taxonomy: Taxonomy,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    group_key: str | None = None,
    usual: Sequence[str] = (),
    report: Report = None,
) -> tuple[Sample, ...]:
    """Samples with the types of the taxonomy. usual: folders in root that may hold the products.

    Raises what `read_folder` raises, and DataError for a type folder that the taxonomy does not know.
    """
    found: dict[str, Path] = {}
    with telling(report):
        found = named(product_folders(Path(root), usual=usual))

    def type_of(product: str, folder: Path) -> str | None:
        return taxonomy.class_of(product, folder.name, folder)

    return read_products(found, type_of, root, products, splits, group_key, report)


def named(folders: dict[str, Path]) -> dict[str, Path]:
    """{product: its folder}, the product without the number in front of it."""
    found: dict[str, Path] = {}
    for folder_name, folder in folders.items():
        name = folder_name.lstrip("0123456789") or folder_name
        if name in found:
            raise DataError(
                f"expected one folder of {name}; there are {found[name]} and {folder}. Remove one of them.",
                path=folder,
            )
        found[name] = folder
    return found

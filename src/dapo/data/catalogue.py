"""The catalogue: every data set and layout that can be named, whose it is, and the one way to open it.

In: a name in DATASETS, the folder where the user unpacked it, products, splits and a variant. Out: Samples.
Nothing is fetched: `home` is the owner's page, where the licence is accepted and the archive is found.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dapo.data.folder import SPLITS
from dapo.data.recognise import with_hint
from dapo.data.sample import Report, Sample, Split
from dapo.data.taxonomy import Variant, load_taxonomy
from dapo.errors import ConfigError, DataError

__all__ = ["DATASETS", "Dataset", "open_dataset"]


@dataclass(frozen=True)
class Dataset:
    """One set, or one layout for your own pictures.

    home: the owner's page. layout: one line. note: what to know before believing a figure. reader: its module
    in dapo.data and its function. taxonomy: whether the types are those of `load_taxonomy(name)`; otherwise
    they are as named in the data. usual: lower-case names of the folder that holds the products inside the
    one that was given. manifest: whether a manifest.jsonl may tell the physical part of each picture.
    """

    name: str
    title: str
    licence: str
    home: str
    layout: str
    note: str
    reader: tuple[str, str]
    taxonomy: bool = True
    usual: tuple[str, ...] = ()
    manifest: bool = False


_TREE = "PRODUCT/{train/good, test/good, test/TYPE, ground_truth/TYPE/STEM_mask.png}"
_VISA = "PRODUCT/Data/{Images/{Normal, Anomaly}, Masks/Anomaly}"
_YOURS = "your own"

_ALL = (
    Dataset(
        name="mvtec",
        title="MVTec AD",
        licence="CC BY-NC-SA 4.0 (non-commercial)",
        home="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        layout=_TREE,
        note="screw/manipulated_front is bent by default; published tests also called it fabric "
        "(variant front-as-fabric). combined holds several types that nobody told apart.",
        reader=("mvtec", "read_mvtec"),
        usual=("mvtec", "mvtec_ad", "mvtec-ad", "mvtec_anomaly_detection"),
        manifest=True,
    ),
    Dataset(
        name="visa",
        title="VisA",
        licence="CC BY 4.0",
        home="https://github.com/amazon-science/spot-diff",
        layout=f"{_VISA}, PRODUCT/image_anno.csv, split_csv/1cls.csv",
        note="Published on all 2162 test images (variant all, the default) or on the 1878 with one type "
        "(single-type). Several types in one image share one mask. Without split_csv/1cls.csv all is test.",
        reader=("visa", "read_visa"),
        usual=("visa", "visa_20220922"),
    ),
    Dataset(
        name="visa_extended",
        title="VisA Extended",
        licence="images as VisA (CC BY 4.0); masks not stated",
        home="https://arxiv.org/abs/2504.06740",
        layout=f"{_VISA}/TYPE/STEM.png or {_VISA}/STEM_TYPE.png, split_csv/1cls.csv",
        note="One mask for each type of an image. The names of the mask files are an assumption. "
        "Without split_csv/1cls.csv all is test.",
        reader=("visa", "read_visa_extended"),
        usual=("visa_extended", "visa-extended"),
    ),
    Dataset(
        name="mpdd",
        title="MPDD",
        licence="non-commercial, as commonly stated",
        home="https://github.com/stepanje/MPDD",
        layout=_TREE,
        note="bend_and_parts_mismatch counts as bent; major_rust and total_rust are both rust.",
        reader=("mvtec", "read_mvtec"),
        usual=("mpdd",),
        manifest=True,
    ),
    Dataset(
        name="mad_sim",
        title="MAD-Sim",
        licence="not stated",
        home="https://github.com/EricLee0224/PAD",
        layout="NNPRODUCT/{train/good, test/{Stains, Missing, Burrs, good}, ground_truth/TYPE}",
        note="Rendered pictures. Product folders are numbered (01Gorilla); the number is dropped.",
        reader=("mvtec", "read_mvtec"),
        usual=("mad-sim", "mad_sim"),
        manifest=True,
    ),
    Dataset(
        name="mad_real",
        title="MAD-Real",
        licence="not stated",
        home="https://github.com/EricLee0224/PAD",
        layout="PRODUCT/{train/good, test/{Stains, Missing, good}, ground_truth/TYPE}",
        note="Five good test pictures a product: figures of one product are coarse.",
        reader=("mvtec", "read_mvtec"),
        usual=("mad-real", "mad_real"),
        manifest=True,
    ),
    Dataset(
        name="real_iad",
        title="Real-IAD",
        licence="non-commercial, as commonly stated",
        home="https://realiad4ad.github.io/Real-IAD/",
        layout="PRODUCT/{OK/S0001, NG/CODE/S0001}/*.jpg, realiad_jsons/PRODUCT.json",
        note="Variants multi_view (default), single_view and fuiad; single- and multi-view figures are up to "
        "15 points apart. Pictures of one part share a group.",
        reader=("real_iad", "read_real_iad"),
        usual=("real-iad", "real_iad", "realiad_256", "realiad_512", "realiad_1024", "realiad_raw"),
    ),
    Dataset(
        name="folder",
        title="folder by type",
        licence=_YOURS,
        home="",
        layout=_TREE,
        note="The MVTec AD tree with any names; a type without a mask folder has no masks.",
        reader=("folder", "read_folder"),
        taxonomy=False,
        manifest=True,
    ),
    Dataset(
        name="coco",
        title="COCO",
        licence=_YOURS,
        home="",
        layout="annotations/{train, test}.json, images/",
        note="Polygons and run lengths; an image without annotations is good.",
        reader=("coco", "read_coco"),
        taxonomy=False,
    ),
    Dataset(
        name="yolo",
        title="YOLO segmentation",
        licence=_YOURS,
        home="",
        layout="data.yaml, images/{train, val}, labels/{train, val}/STEM.txt",
        note="Polygons; an image with an empty label file, or none, is good.",
        reader=("yolo", "read_yolo"),
        taxonomy=False,
    ),
    Dataset(
        name="label_studio",
        title="Label Studio",
        licence=_YOURS,
        home="",
        layout="EXPORT.json (the JSON export, not JSON-MIN), images/",
        note="Polygons and brushes are masks, boxes and ellipses only tell the type; an image submitted "
        "without a mark is good.",
        reader=("label_studio", "read_label_studio"),
        taxonomy=False,
    ),
)
DATASETS: Mapping[str, Dataset] = MappingProxyType({dataset.name: dataset for dataset in _ALL})


def open_dataset(
    name: str,
    root: str | Path,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    variant: Variant = None,
    group_key: str | None = None,
    report: Report = None,
) -> tuple[Sample, ...]:
    """Samples of the set `name` in the folder `root`, ordered by product and split.

    root: the folder that holds the products, the one above it under its usual name, or one product.
    products, splits: only these. variant: a named protocol, or {product: {label: type}}. group_key: the
    manifest's key of the physical part. report: told of each problem in the data INSTEAD of raising it; what
    the problem concerns is left out. Raises ConfigError for names and options that do not fit, and without
    a report DataError for the first problem.
    """
    dataset = named(name)
    options: dict[str, Any] = {"products": products, "splits": splits, "report": report}
    if dataset.taxonomy:
        options |= {"taxonomy": load_taxonomy(name, variant), "usual": dataset.usual}
    elif variant is not None:
        raise ConfigError(
            f"expected no variant for {name}, whose types are as named in the data; got {variant!r}. "
            "Leave it out."
        )
    if dataset.manifest:
        options["group_key"] = group_key
    elif group_key is not None:
        raise ConfigError(
            f"expected no group key for {name}, which has no manifest; got {group_key!r}. Leave it out."
        )
    module, function = dataset.reader
    read = getattr(importlib.import_module(f"dapo.data.{module}"), function)
    try:
        samples: tuple[Sample, ...] = read(root, **options)
    except DataError as error:
        if error.kind != "layout":
            raise
        raise with_hint(error, name, Path(root)) from error
    return samples


def named(name: str) -> Dataset:
    """The entry of the catalogue; ConfigError for a name that is not in it."""
    if name not in DATASETS:
        raise ConfigError(f"expected a data set: {', '.join(DATASETS)}; got {name!r}. Correct the name.")
    return DATASETS[name]

"""Every dataset layout as its owner publishes it, written small into a temporary folder.

``write("visa", folder)`` writes several products with a few generated pictures each, one of them with several
types where the layout allows, and returns what it wrote: the truth that a reader must give back. The flaw of
a type is a brighter rectangle, two types of one picture overlap, and the masks are exact.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dapo.data.sample import Split

Mask = NDArray[np.bool_]
Labels = tuple[str, ...]  # what the owner calls the types of one picture; () is a good part
Plan = Mapping[str, Mapping[Labels, int]]  # {product: {labels: pictures in test}}

SIZE = (24, 32)  # height, width

# What is written of each set: the owner's labels, and pictures of each in test.
PLANS: dict[str, Plan] = {
    "mvtec": {
        "bottle": {(): 2, ("broken_large",): 2, ("contamination",): 1},
        "screw": {(): 1, ("manipulated_front",): 2, ("scratch_head",): 1, ("scratch_neck",): 1},
    },
    "mpdd": {
        "metal_plate": {(): 2, ("scratches",): 1, ("major_rust",): 1, ("total_rust",): 2},
        "tubes": {(): 1, ("flattening",): 2},
    },
    "mad_sim": {
        "Gorilla": {(): 2, ("Stains",): 1, ("Missing",): 1, ("Burrs",): 2},
        "Mallard": {(): 1, ("Stains",): 2},
    },
    "mad_real": {"Bird": {(): 2, ("Missing",): 2}, "Bear": {(): 1, ("Stains",): 2}},
    "visa": {
        "candle": {
            (): 2,
            ("chunk of wax missing",): 1,
            ("foreign particals on candle",): 1,
            ("extra wax in candle", "wax melded out of the candle"): 1,
            ("other",): 1,
        },
        "pcb1": {(): 1, ("bent",): 2, ("melt", "scratch"): 1},
    },
    "visa_extended": {
        "candle": {(): 2, ("chunk of wax missing",): 1, ("extra wax in candle", "weird candle wick"): 1},
        "pcb1": {(): 1, ("bent",): 2, ("bent", "melt", "scratch"): 1},
    },
    "real_iad": {"audiojack": {(): 2, ("BX",): 1, ("HS",): 1}, "mint": {(): 1, ("YW",): 2}},
    "folder": {
        "nut": {(): 2, ("bent",): 2, ("color stain",): 1},
        "gear": {(): 1, ("chipped tooth",): 2},
    },
    "coco": {
        "nut": {(): 2, ("bent",): 2, ("bent", "color stain"): 1},
        "gear": {(): 1, ("chipped tooth",): 2},
    },
    "yolo": {"plate": {(): 2, ("scratch",): 2, ("hole",): 1, ("scratch", "hole"): 1}},
    "label_studio": {
        "nut": {(): 2, ("bent",): 2, ("bent", "color stain"): 1},
        "gear": {(): 1, ("chipped tooth",): 2},
    },
}
NAMES = tuple(PLANS)

# The owner's label -> the type a reader says; what is not here keeps its name.
CLASSES: dict[str, dict[str, str]] = {
    "mvtec": {
        "broken_large": "broken",
        "manipulated_front": "bent",
        "scratch_head": "scratch",
        "scratch_neck": "scratch",
    },
    "mpdd": {"scratches": "scratch", "major_rust": "rust", "total_rust": "rust"},
    "visa": {
        "chunk of wax missing": "missing",
        "foreign particals on candle": "partical",
        "extra wax in candle": "extra",
        "wax melded out of the candle": "melded",
        "weird candle wick": "weird wick",
    },
    "real_iad": {"BX": "deformation", "HS": "scratch", "YW": "foreign"},
}
CLASSES["visa_extended"] = CLASSES["visa"]


@dataclass(frozen=True)
class Picture:
    """One written picture. labels: the owner's; types: what a reader says. masks: by type, {} for good.

    apart: the layout tells the types of this picture apart; otherwise only `joined` can be read.
    """

    image: Path
    product: str
    split: Split
    labels: Labels
    types: tuple[str, ...]
    masks: Mapping[str, Mask]
    apart: bool = True

    @property
    def joined(self) -> Mask:
        return np.any([*self.masks.values()], axis=0) if self.masks else np.zeros(SIZE, dtype=np.bool_)


@dataclass
class Written:
    """A data set on disk. root: what is given to a reader; pictures: all of them, in no special order."""

    name: str
    root: Path
    pictures: list[Picture] = field(default_factory=list)

    def split(self, split: Split) -> list[Picture]:
        return [picture for picture in self.pictures if picture.split == split]


def write(name: str, root: Path, *, train: int = 2, times: int = 1, plan: Plan | None = None) -> Written:
    """Writes the set `name` (one of NAMES) below root. train: good pictures a product; times: more of all."""
    written = Written(name, root)
    plan = {
        product: {labels: count * times for labels, count in kinds.items()}
        for product, kinds in (plan or PLANS[name]).items()
    }
    WRITERS[name](written, plan, train * times)
    return written


@dataclass(frozen=True)
class Shot:
    """One picture to write. number counts within the product, kind within its labels; both start at 0."""

    product: str
    split: Split
    labels: Labels
    number: int
    kind: int


def shots(plan: Plan, train: int) -> Iterator[Shot]:
    """All pictures of a plan, training first in each product."""
    for product, kinds in plan.items():
        todo: list[tuple[Split, Labels, int]] = [("train", (), train)]
        todo += [("test", labels, count) for labels, count in kinds.items()]
        number = 0
        for split, labels, count in todo:
            for kind in range(count):
                yield Shot(product, split, labels, number, kind)
                number += 1


def box(order: int, number: int) -> tuple[int, int, int, int]:
    """The flaw's rectangle (x0, y0, x1, y1), the upper ends outside; neighbouring orders overlap."""
    height, width = SIZE
    x, y = 2 + order * width // 4, 2 + (number + order) % 4
    return x, y, x + width // 3, y + height // 3


def drawn(box: tuple[int, int, int, int]) -> Mask:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def flaws(shot: Shot) -> dict[str, Mask]:
    """{label: mask} of one picture."""
    return {label: drawn(box(order, shot.number)) for order, label in enumerate(shot.labels)}


def by_type(name: str, masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """{type: mask}: labels of one type come together."""
    found: dict[str, Mask] = {}
    for label, mask in masks.items():
        kind = CLASSES.get(name, {}).get(label, label)
        found[kind] = found[kind] | mask if kind in found else mask
    return found


def save_image(path: Path, masks: Mapping[str, Mask], seed: int) -> None:
    """A noisy grey picture, brighter where the flaws are."""
    grey = np.random.default_rng(seed).integers(90, 120, (*SIZE, 3))
    for mask in masks.values():
        grey[mask] += 60
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(path)


def save_mask(path: Path, mask: Mask, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * np.uint8(value)).save(path)


def add(written: Written, shot: Shot, image: Path, *, apart: bool = True) -> dict[str, Mask]:
    """Saves the picture, notes it in `written`, and returns {label: mask}."""
    masks = flaws(shot)
    save_image(image, masks, seed=shot.number)
    typed = by_type(written.name, masks)
    picture = Picture(image, shot.product, shot.split, shot.labels, tuple(sorted(typed)), typed, apart)
    written.pictures.append(picture)
    return masks


def write_tree(
    written: Written,
    plan: Plan,
    train: int,
    *,
    folder: Callable[[str], str] = str,
    suffix: str = ".png",
    mask: str = "{stem}_mask.png",
) -> None:
    """PRODUCT/{train/good, test/LABEL, ground_truth/LABEL}: one label a picture."""
    for shot in shots(plan, train):
        base, label = written.root / folder(shot.product), shot.labels[0] if shot.labels else "good"
        stem = f"{shot.kind:03}"
        masks = add(written, shot, base / shot.split / label / f"{stem}{suffix}")
        for flaw in masks.values():
            save_mask(base / "ground_truth" / label / mask.format(stem=stem), flaw)


def write_mad_sim(written: Written, plan: Plan, train: int) -> None:
    """{NN}{Product}/... : the folder's name starts with a number that is not part of the product."""
    numbered = {product: f"{number:02}{product}" for number, product in enumerate(plan, start=1)}
    write_tree(written, plan, train, folder=numbered.__getitem__)


def write_mad_real(written: Written, plan: Plan, train: int) -> None:
    write_tree(written, plan, train, suffix=".jpg", mask="{stem}.png")


def write_visa(written: Written, plan: Plan, train: int) -> None:
    """Images in Data/Images/{Normal, Anomaly}, ONE mask of small numbers, image_anno.csv and 1cls.csv."""
    rows = []
    for shot, image, place in visa_places(written.root, plan, train):
        masks = add(written, shot, image, apart=len(by_type(written.name, flaws(shot))) < 2)
        values = sum((mask.astype(np.uint8) * (order + 1) for order, mask in enumerate(masks.values())))
        mask_place = place.replace("Images", "Masks").replace(".JPG", ".png") if masks else ""
        if masks:
            (written.root / mask_place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(values, dtype=np.uint8)).save(written.root / mask_place)
        rows.append((shot, place, mask_place))
    for product in plan:
        own = [
            (place, ",".join(shot.labels) or "normal", mask)
            for shot, place, mask in rows
            if shot.product == product
        ]
        save_csv(written.root / product / "image_anno.csv", ("image", "label", "mask"), own)
    save_split(written.root, rows)


def write_visa_extended(written: Written, plan: Plan, train: int) -> None:
    """As VisA, and one mask for each type in Data/Masks/Anomaly/LABEL/NNN.png (of the second product:
    Data/Masks/Anomaly/NNN_LABEL.png).
    """
    rows = []
    for shot, image, place in visa_places(written.root, plan, train):
        folder = written.root / shot.product / "Data" / "Masks" / "Anomaly"
        for label, mask in add(written, shot, image).items():
            nested = shot.product == next(iter(plan))
            path = f"{label}/{image.stem}.png" if nested else f"{image.stem}_{label.replace(' ', '_')}.png"
            save_mask(folder / path, mask, value=1)
        rows.append((shot, place, ""))
    save_split(written.root, rows)


def visa_places(root: Path, plan: Plan, train: int) -> Iterator[tuple[Shot, Path, str]]:
    """(picture, its file, the same as the CSV files say it); normal ones and anomalies count apart."""
    counts: dict[tuple[str, str], int] = {}
    for shot in shots(plan, train):
        kind = "Anomaly" if shot.labels else "Normal"
        number = counts.get((shot.product, kind), 0)
        counts[shot.product, kind] = number + 1
        place = f"{shot.product}/Data/Images/{kind}/{number:0{3 if shot.labels else 4}}.JPG"
        yield shot, root / place, place


def save_split(root: Path, rows: list[tuple[Shot, str, str]]) -> None:
    table = [
        (shot.product, shot.split, "anomaly" if shot.labels else "normal", place, mask)
        for shot, place, mask in rows
    ]
    save_csv(root / "split_csv" / "1cls.csv", ("object", "split", "label", "image", "mask"), table)


def save_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


REAL_IAD_JSONS = {
    "multi_view": "realiad_jsons",
    "single_view": "realiad_jsons_sv",
    "fuiad": "realiad_jsons_fuiad_0.1",
}


def write_real_iad(written: Written, plan: Plan, train: int) -> None:
    """ROOT/realiad_1024/PRODUCT/{OK, NG/CODE}/S####/*.jpg and ROOT/realiad_jsons/SPLIT/PRODUCT.json.

    Each part is photographed from two sides, C1 and C2; the second side of a defective part does not show the
    flaw (class OK, no mask). `written` holds the multi-view split. FUIAD trains on the flawed parts, too.
    """
    rows: dict[str, dict[str, list[dict[str, object]]]] = {
        product: {"train": [], "test": []} for product in plan
    }
    for shot in shots(plan, train):
        code = f"NG/{shot.labels[0]}" if shot.labels else "OK"
        for view in (1, 2):
            seen = shot if view == 1 else Shot(shot.product, shot.split, (), shot.number, shot.kind)
            stem = f"{shot.product}_{shot.number:04}_{code[:2]}_C{view}"
            inside = f"{code}/S{shot.number:04}/{stem}.jpg"
            image = written.root / "realiad_1024" / shot.product / inside
            masks = add(written, seen, image)
            for mask in masks.values():
                save_mask(image.with_suffix(".png"), mask)
            row: dict[str, object] = {
                "view": view,  # ours, so that the single-view split can be told
                "category": shot.product,
                "anomaly_class": seen.labels[0] if seen.labels else "OK",
                "image_path": inside,
                "mask_path": inside.replace(".jpg", ".png") if masks else None,
            }
            rows[shot.product][shot.split].append(row)
    for product, splits in rows.items():
        first = {split: [row for row in own if row["view"] == 1] for split, own in splits.items()}
        flawed = [row for row in splits["test"] if row["anomaly_class"] != "OK"]
        noisy = {**splits, "train": splits["train"] + flawed}
        for variant, own in {"multi_view": splits, "single_view": first, "fuiad": noisy}.items():
            path = written.root / "realiad_jsons" / REAL_IAD_JSONS[variant] / f"{product}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            meta = {"prefix": f"{product}/", "normal_class": "OK", "pre_transform": None}
            path.write_text(json.dumps({"meta": meta, **own}), encoding="utf-8")


def write_coco(written: Written, plan: Plan, train: int) -> None:
    """ROOT/annotations/{train, test}.json, ROOT/images/PRODUCT/NNN.png; the flaw of the first type of a
    picture is a polygon, those of further types are uncompressed run lengths.
    """
    names = sorted({label for kinds in plan.values() for labels in kinds for label in labels})
    categories = {label: 10 + 3 * number for number, label in enumerate(names)}  # ids with gaps, as they come
    tables: dict[Split, dict[str, list[dict[str, object]]]] = {
        split: {
            "images": [],
            "annotations": [],
            "categories": [{"id": number, "name": label} for label, number in categories.items()],
        }
        for split in ("train", "test")
    }
    for image_id, shot in enumerate(shots(plan, train), start=1):
        place = f"{shot.product}/{shot.number:03}.png"
        masks = add(written, shot, written.root / "images" / place)
        table = tables[shot.split]
        table["images"].append({"id": image_id, "file_name": place, "height": SIZE[0], "width": SIZE[1]})
        for order, (label, mask) in enumerate(masks.items()):
            x0, y0, x1, y1 = box(order, shot.number)
            polygon = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            table["annotations"].append(
                {
                    "id": 1000 * image_id + order,
                    "image_id": image_id,
                    "category_id": categories[label],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": polygon if order == 0 else run_lengths(mask),
                }
            )
    for split, table in tables.items():
        path = written.root / "annotations" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(table), encoding="utf-8")


def run_lengths(mask: Mask) -> dict[str, list[int]]:
    """COCO's uncompressed RLE: lengths down the columns, False first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return {"counts": [0, *counts] if flat[0] else counts, "size": list(mask.shape)}


def write_yolo(written: Written, plan: Plan, train: int) -> None:
    """ROOT/data.yaml, images/{train, val}/NAME.png and labels/{train, val}/NAME.txt, polygons 0..1.

    The layout knows no product: a plan names one. A good part has an empty label file in train, none in val.
    """
    assert len(plan) == 1, "the YOLO layout holds one product"
    names = list(dict.fromkeys(label for kinds in plan.values() for labels in kinds for label in labels))
    height, width = SIZE
    for shot in shots(plan, train):
        split, stem = "train" if shot.split == "train" else "val", f"{shot.number:03}"
        add(written, shot, written.root / "images" / split / f"{stem}.png")
        lines = []
        for order, label in enumerate(shot.labels):
            x0, y0, x1, y1 = box(order, shot.number)
            corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
            numbers = " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in corners)
            lines.append(f"{names.index(label)} {numbers}\n")
        if lines or split == "train":
            path = written.root / "labels" / split / f"{stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines), encoding="utf-8")
    classes = "".join(f"  {number}: {json.dumps(label)}\n" for number, label in enumerate(names))
    (written.root / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/val\nnames:\n{classes}", encoding="utf-8"
    )


def write_label_studio(written: Written, plan: Plan, train: int) -> None:
    """ROOT/annotations/{train, test}.json, ROOT/images/PRODUCT/NNN.png; the flaw of the first type of a
    picture is a polygon, those of further types are painted with the brush.
    """
    tasks: dict[Split, list[dict[str, object]]] = {"train": [], "test": []}
    for number, shot in enumerate(shots(plan, train), start=1):
        place = f"{shot.product}/{shot.number:03}.png"
        masks = add(written, shot, written.root / "images" / place)
        marks: list[dict[str, object]] = []
        for order, (label, mask) in enumerate(masks.items()):
            x0, y0, x1, y1 = box(order, shot.number)
            corners = [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x in (x0, x1) for y in (y0, y1)]
            ring = [corners[index] for index in (0, 1, 3, 2)]
            value: dict[str, object] = {"points": ring, "polygonlabels": [label]}
            if order:
                value = {"format": "rle", "rle": brush_rle(mask), "brushlabels": [label]}
            kind = "brushlabels" if order else "polygonlabels"
            size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
            marks.append({"type": kind, "value": value, **size})
        address = f"/data/local-files/?d={place.replace('/', '%2F')}"
        annotation = {"id": number, "was_cancelled": False, "result": marks}
        tasks[shot.split].append({"id": number, "data": {"image": address}, "annotations": [annotation]})
    for split, rows in tasks.items():
        path = written.root / "annotations" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")


def brush_rle(mask: Mask) -> list[int]:
    """The mask as RGBA in the bits of thi.ng/rle-pack: counts of 3, 4, 8 or 16 bits, runs and single values
    in turn as they come.
    """
    values = np.repeat(mask.ravel() * np.uint8(255), 4)
    bits = [f"{values.size:032b}", f"{7:05b}", *(f"{width - 1:04b}" for width in (3, 4, 8, 16))]
    at = 0
    while at < values.size:
        same = int(np.argmax(np.append(values[at:] != values[at], True)))
        count = min(same, 1 << 16)
        code = next(index for index, width in enumerate((3, 4, 8, 16)) if count <= 1 << width)
        single = count <= 4  # written out
        bits += ["0" if single else "1", f"{code:02b}", f"{count - 1:0{(3, 4, 8, 16)[code]}b}"]
        bits += [f"{values[at]:08b}"] * (count if single else 1)
        at += count
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]


WRITERS: dict[str, Callable[[Written, Plan, int], None]] = {
    "mvtec": write_tree,
    "mpdd": write_tree,
    "mad_sim": write_mad_sim,
    "mad_real": write_mad_real,
    "visa": write_visa,
    "visa_extended": write_visa_extended,
    "real_iad": write_real_iad,
    "folder": write_tree,
    "coco": write_coco,
    "yolo": write_yolo,
    "label_studio": write_label_studio,
}

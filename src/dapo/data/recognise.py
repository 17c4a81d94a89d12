"""What a folder looks like: the layout it is in, whatever it was called, so that an error can say so.

In: a folder. Out: the names of the data sets that come like this, and the folder in it that does; None when
it looks like none. Nothing is opened but folders and, for its first letter, a JSON file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dapo.data.folder import holds_splits, inner_folders
from dapo.data.taxonomy import load_taxonomy
from dapo.errors import DataError

TREES = ("mvtec", "mpdd", "mad_real")  # told apart by the names of their products
DEEPEST = 2  # folders that may be around the data set


@dataclass(frozen=True)
class Likeness:
    """names: data sets of this layout, the likeliest first. folder: where it starts."""

    names: tuple[str, ...]
    folder: Path


def recognise(root: Path) -> Likeness | None:
    """The layout of root, or of the first folder in it that has one."""
    for folder in around(root, DEEPEST):
        if names := layout_names(folder):
            return Likeness(names, folder)
    return None


def around(root: Path, depth: int) -> Iterator[Path]:
    """root, the folders in it, the folders in those."""
    level = [root] if root.is_dir() else []
    for _ in range(depth + 1):
        yield from level
        level = [inner for folder in level for inner in inner_folders(folder)]


def layout_names(folder: Path) -> tuple[str, ...]:
    """The data sets whose layout the folder has; () for none."""
    inner = inner_folders(folder)
    exports = [*folder.glob("annotations/*.json"), *folder.glob("*.json")]
    if any(entry.name == "images" for entry in inner) and any(map(holds_list, exports)):
        return ("label_studio",)
    if any(folder.glob("*/_annotations.coco.json")):
        return ("coco",)
    if any(folder.glob("annotations/*.json")):
        return ("coco", "label_studio")
    if any(folder.glob("*.y*ml")) and any((place / "labels").is_dir() for place in (folder, *inner)):
        return ("yolo",)
    if any((place / "Data" / "Images").is_dir() for place in inner):
        return ("visa", "visa_extended")
    if any((place / "OK").is_dir() or (place / "NG").is_dir() for place in inner):
        return ("real_iad",)
    if products := [place.name for place in inner if holds_splits(place)]:
        return tree_names(products)
    if (folder / "train" / "good").is_dir() or (folder / "test" / "good").is_dir():
        return tree_names([folder.name])
    return ()


def holds_list(path: Path) -> bool:
    """Whether a JSON file is a list, as Label Studio's export is and COCO's is not."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")
    return False


def tree_names(products: list[str]) -> tuple[str, ...]:
    """The data sets of the MVTec tree that have one of these products; `folder` takes any."""
    if any(re.match(r"\d+[A-Z]", name) for name in products):
        return "mad_sim", "folder"
    return *(name for name in TREES if {*products} & {*load_taxonomy(name).products}), "folder"


def with_hint(error: DataError, name: str, root: Path) -> DataError:
    """The error of opening root as the data set `name`, and what root looks like if that helps."""
    seen = recognise(root)
    if seen is None or (name in seen.names and seen.folder == root):
        return error
    if name in seen.names:
        hint = f"{seen.folder} looks like it: pass that folder."
    else:
        place, names = "This" if seen.folder == root else str(seen.folder), " or ".join(seen.names)
        hint = f"{place} looks like the {names} layout: pass --dataset {names}"
        hint += "." if seen.folder == root else " and that folder."
    return DataError(f"{error} {hint}", kind=error.kind, path=error.path)

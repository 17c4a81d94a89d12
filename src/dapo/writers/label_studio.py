"""Label Studio predictions (labelstud.io, guide/predictions): people correct what the model found.

In: inspections. Out: ``label-studio.json``, a list of tasks to import, each region's outlines as polygons in
percent of the image, with score and model version; and beside it ``label-studio.xml``, the labelling
configuration with the types and their colours that the project needs. Holes are not in this format. Images
are addressed as Label Studio's local files below ``root``: start it with
LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to that folder.
Pages of a TIFF are saved in ``images`` beside the tasks and addressed so: copy that folder into ``root``.
Both are written whole when closed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from dapo.inspection import DECIMALS, UNKNOWN, Failure, Inspection, Region
from dapo.whole import replacing
from dapo.writers.coco import addresses, names_in
from dapo.writers.pages import PageFiles
from dapo.writers.palette import Palette, hex_code
from dapo.writers.spool import Spool, Spooled

__all__ = ["LOCAL_FILES", "LabelStudioWriter", "labelling_config"]

LOCAL_FILES = "/data/local-files/?d="  # what Label Studio serves its document root as
PERCENT_DECIMALS = 4  # 0.005 pixels of an image 10,000 wide


class LabelStudioWriter(Spooled):
    """Tasks at ``path`` (.json) and the configuration beside it (.xml); ``root``: the document root."""

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        super().__init__(Path(path))
        self.path = Path(path)
        self.root = root

    def begin(self) -> None:
        self._names: dict[str, None] = {}
        self._pages = PageFiles(self.path.parent / "images", self.root)

    def add(self, result: Inspection | Failure, *spools: Spool) -> None:
        if isinstance(result, Failure):
            return
        self._names.update(dict.fromkeys(names_in(result)))
        name, path = addresses(result, self.path.parent, self.root, self._pages)
        address = LOCAL_FILES + quote(name, errors="backslashreplace")
        data = {"image": address, "path": path, "verdict": result.verdict}
        spools[0].add({"data": data, "predictions": [_prediction(result)]})

    def finish(self, *spools: Spool) -> None:
        with replacing(self.path.with_suffix(".xml")) as stream:
            stream.write(labelling_config(list(self._names)).encode("utf-8", "backslashreplace"))
        with replacing(self.path) as stream:
            stream.write(b"[")
            for number, task in enumerate(spools[0]):
                stream.write((",\n" if number else "\n").encode() + json.dumps(task).encode())
            stream.write(b"\n]\n")


def labelling_config(names: list[str]) -> str:
    """The configuration of the labelling page: polygons as we write them, and two more tools to correct."""
    colours = Palette(names)
    known = [name for name in names if name != UNKNOWN] + [UNKNOWN]
    labels = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(hex_code(colours[name]))}/>\n"
        for name in known
    )
    tools = (("polygon", "PolygonLabels"), ("brush", "BrushLabels"), ("box", "RectangleLabels"))
    choices = "".join(f'  <{tag} name="{name}" toName="image">\n{labels}  </{tag}>\n' for name, tag in tools)
    return f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n{choices}</View>\n'


def _prediction(result: Inspection) -> dict[str, Any]:
    facts = (result.model.get(key) for key in ("name", "version"))
    return {
        "model_version": " ".join(str(fact) for fact in facts if fact) or "dapo",
        "score": round(result.score, DECIMALS),
        "result": [part for region in result.regions for part in _parts(region, result)],
    }


def _parts(region: Region, result: Inspection) -> Iterator[dict[str, Any]]:
    """One entry for each connected part of a region."""
    for number, outline in enumerate(region.polygon, start=1):
        points = [
            [
                round(100 * x / result.width, PERCENT_DECIMALS),
                round(100 * y / result.height, PERCENT_DECIMALS),
            ]
            for x, y in zip(outline[::2], outline[1::2], strict=True)
        ]
        yield {
            "id": f"region-{region.id}-{number}",
            "type": "polygonlabels",
            "from_name": "polygon",
            "to_name": "image",
            "original_width": result.width,
            "original_height": result.height,
            "image_rotation": 0,
            "score": round(region.score, DECIMALS),
            "value": {"points": points, "closed": True, "polygonlabels": [region.type]},
        }

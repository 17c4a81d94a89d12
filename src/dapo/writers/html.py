"""The HTML report: one file that opens anywhere, needs no network, and can be sorted, filtered and printed.

In: inspections and failures as they come. Out: a page with counts, model and calibration, a table of images
that open large with their outlines and heat map, the types found with causes and actions, and the files that
failed. Rows wait in a temporary file until the counts above them are known, so memory does not grow with the
run. Every text is escaped, and the page forbids itself any script but its own and any address outside the
file.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from dapo import __version__
from dapo.errors import VocabularyError
from dapo.inspection import Failure, Inspection, Region
from dapo.masks import simplify, trace_outlines
from dapo.vocabulary import Vocabulary
from dapo.whole import replacing, telling_path
from dapo.writers.frame import TWO_JUDGEMENTS, two_scores
from dapo.writers.heatmap import heat_colours
from dapo.writers.palette import Palette, hex_code, is_light

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["HtmlReport"]

PHOTO_SIDE = 800  # pixels of the long side of an embedded photo
PHOTO_BYTES = 60_000  # before base64
HEAT_SIDE = 64  # pixels; the browser smooths it
ALL_PHOTOS = 1000  # images: a longer run embeds the photos of defective parts and of the first good ones
GOOD_PHOTOS = 200
MAX_PHOTOS = 3000  # in all: beyond it a page would no longer open
MAX_FAILURES = 1000  # listed; all are counted
SEVERITIES = ("critical", "major", "minor")


class _Defect(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def causes(self) -> tuple[str, ...]: ...
    @property
    def actions(self) -> tuple[str, ...]: ...


@dataclass
class _Found:
    """How often one type was found on defective parts."""

    name: str
    colour: str
    regions: int = 0
    images: int = 0
    best: float = 0.0


@dataclass
class _Tally:
    """What the head of the page says; grows with the number of types, not of images."""

    ok: int = 0
    defective: int = 0
    failed: int = 0
    photos: int = 0
    failures: list[Failure] = field(default_factory=list)
    found: dict[str, _Found] = field(default_factory=dict)
    types: dict[str, None] = field(default_factory=dict)  # names asked for, in order
    models: dict[str, None] = field(default_factory=dict)
    thresholds: dict[float, None] = field(default_factory=dict)
    calibrations: dict[str, bool] = field(default_factory=dict)  # statement -> calibrated

    @property
    def inspected(self) -> int:
        return self.ok + self.defective

    def add(self, result: Inspection, colours: Palette) -> None:
        self.ok += result.verdict == "ok"
        self.defective += result.verdict == "defective"
        self.types.update(dict.fromkeys(result.types))
        self.models[_model_line(result.model)] = None
        self.thresholds[result.threshold] = None
        self.calibrations[result.calibration_statement] = result.calibrated
        if result.verdict == "ok":
            return
        for region in result.regions:
            found = self.found.setdefault(region.type, _Found(region.type, hex_code(colours[region.type])))
            found.regions += 1
            found.best = max(found.best, region.score)
        for name in {region.type for region in result.regions}:
            self.found[name].images += 1


class HtmlReport:
    """A report at ``path``. ``vocabulary`` gives severity, causes and actions; without it the built-in one
    does.

    Leaving the ``with`` block writes the page, also after an error: then it says that the run was cut short.
    """

    def __init__(
        self, path: str | Path, title: str = "Inspection", vocabulary: Iterable[_Defect] | Any | None = None
    ) -> None:
        self.path = Path(path)
        self.title = title
        self.defects: dict[str, _Defect] = {}
        if vocabulary is not None:
            self.defects = {defect.name: defect for defect in getattr(vocabulary, "defects", vocabulary)}
        self.lookup = vocabulary is None
        self._rows: IO[bytes] | None = None
        self._pieces: list[tuple[int, bool]] = []  # bytes, and whether a long run leaves them out
        self._tally = _Tally()
        self._environment = _environment()

    def open(self) -> HtmlReport:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._pieces, self._tally = [], _Tally()
        return self

    def write(self, result: Inspection | Failure) -> None:
        """Add one row."""
        if self._rows is None:
            self.open()
        tally = self._tally
        if isinstance(result, Failure):
            tally.failed += 1
            if len(tally.failures) < MAX_FAILURES:
                tally.failures.append(result)
            return
        colours = Palette(result.types)
        tally.add(result, colours)
        spare = result.verdict == "ok" and tally.ok > GOOD_PHOTOS
        embed = (
            result.pixels is not None
            and tally.photos < MAX_PHOTOS
            and not (spare and tally.inspected > ALL_PHOTOS)
        )
        row = _row(result, colours, self._severity(result), tally.inspected)
        page = self._environment.get_template("row.html.j2")
        mark = secrets.token_hex(16)
        head, tail = page.render(row=row, picture=mark).split(mark)
        self._append(head)
        if embed:
            tally.photos += 1
            self._append(
                self._environment.get_template("picture.html.j2").render(_picture(result, colours)), spare
            )
        self._append(tail)

    def close(self, interrupted: bool = False) -> None:
        """Write the page; ``interrupted`` when the run ended before its last image."""
        if self._rows is None:
            return
        mark = secrets.token_hex(16)
        head, tail = self._page(mark, interrupted).split(mark)
        with self._rows as rows, replacing(self.path) as page:
            self._rows = None
            page.write(head.encode("utf-8", "backslashreplace"))
            self._copy_rows(rows, page)
            page.write(tail.encode("utf-8", "backslashreplace"))

    def __enter__(self) -> HtmlReport:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(interrupted=kind is not None)

    def _append(self, text: str, spare: bool = False) -> None:
        assert self._rows is not None
        data = text.encode("utf-8", "backslashreplace")
        with telling_path(self.path):
            self._rows.write(data)
        self._pieces.append((len(data), spare))

    def _copy_rows(self, rows: IO[bytes], page: IO[bytes]) -> None:
        rows.seek(0)
        if not self._long:
            shutil.copyfileobj(rows, page)
            return
        for size, spare in self._pieces:
            data = rows.read(size)
            if not spare:
                page.write(data)

    @property
    def _long(self) -> bool:
        return self._tally.inspected > ALL_PHOTOS

    def _page(self, rows: str, interrupted: bool) -> str:
        tally = self._tally
        script = _source(self._environment, "report.js")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        photos = tally.photos - sum(spare for _, spare in self._pieces) if self._long else tally.photos
        return self._environment.get_template("report.html.j2").render(
            title=self.title,
            rows=rows,
            interrupted=interrupted,
            tally=tally,
            share=lambda number: 100 * number / max(tally.inspected + tally.failed, 1),
            models=list(tally.models),
            thresholds=[_decimals(threshold) for threshold in tally.thresholds],
            calibrations=tally.calibrations,
            found=self._advice(),
            types=list(tally.types),
            photos=photos,
            trimmed=photos < tally.inspected,
            long_run=self._long,
            good_photos=GOOD_PHOTOS,
            unlisted=tally.failed - len(tally.failures),
            made=datetime.now(timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M"),
            version=__version__,
            style=_source(self._environment, "report.css"),
            script=script,
            script_hash=digest,
            scale=_scale(),
        )

    def _advice(self) -> list[dict[str, Any]]:
        """The types found, the most severe and frequent first, with what the vocabulary says about them."""
        entries = []
        for found in self._tally.found.values():
            defect = self._defect(found.name)
            entries.append(
                {
                    "found": found,
                    "severity": defect.severity if defect else "",
                    "causes": list(defect.causes) if defect else [],
                    "actions": list(defect.actions) if defect else [],
                }
            )
        return sorted(entries, key=lambda entry: (_rank(entry["severity"]), -entry["found"].regions))

    def _defect(self, name: str) -> _Defect | None:
        if self.lookup and name not in self.defects:
            try:
                self.defects[name] = Vocabulary.of([name]).defects[0]
            except VocabularyError:  # "unknown" and the like have no entry
                return None
        return self.defects.get(name)

    def _severity(self, result: Inspection) -> str:
        """The worst severity among the types of a defective part's regions."""
        if result.verdict == "ok":
            return ""
        known = (self._defect(region.type) for region in result.regions)
        return min((defect.severity for defect in known if defect), key=_rank, default="")


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _decimals(value: float) -> str:
    """Two decimals, or four digits where two would round it."""
    return f"{value:.2f}" if round(value, 2) == value else f"{value:.4g}"


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("dapo", "writers/report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(environment: Environment, name: str) -> str:
    """A file of the report that goes into the page as it is."""
    from markupsafe import Markup

    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _model_line(model: dict[str, Any]) -> str:
    name = " ".join(str(model[key]) for key in ("name", "version") if model.get(key))
    digest = model.get("sha256")
    return f"{name or 'not named'}{f' (sha256 {str(digest)[:12]})' if digest else ''}"


def _row(result: Inspection, colours: Palette, severity: str, number: int) -> dict[str, Any]:
    """What a row shows, and in ``data`` what its large view shows."""
    best: dict[str, float] = {}
    for region in result.regions:
        best[region.type] = max(best.get(region.type, 0.0), region.score)
    path = result.image.replace("\\", "/")
    score, threshold = two_scores(result.score, result.threshold)
    ranked = sorted(result.types.items(), key=lambda item: -item[1])
    data = {
        "image": result.image,
        "size": [result.width, result.height],
        "verdict": result.verdict,
        "score": score,
        "threshold": threshold,
        "at": [round(result.score, 4), round(result.threshold, 4)],
        "calibration": result.calibration_statement,
        "ms": round(result.timing_ms),
        "types": [[name, round(value, 2), hex_code(colours[name])] for name, value in ranked[:8]],
        "note": TWO_JUDGEMENTS if result.regions else "",
        "regions": [_region_data(region, colours) for region in result.regions],
    }
    return {
        "number": number,
        "name": path.rsplit("/", 1)[-1] or result.image,
        "folder": path.rsplit("/", 1)[0] if "/" in path else "",
        "verdict": result.verdict,
        "score": result.score,
        "score_text": score,
        "threshold": result.threshold,
        "chips": [(name, f"{value:.2f}", hex_code(colours[name])) for name, value in best.items()],
        "severity": severity,
        "severity_rank": _rank(severity),
        "regions": len(result.regions),
        "data": json.dumps(data, separators=(",", ":")),
    }


def _region_data(region: Region, colours: Palette) -> dict[str, Any]:
    colour = colours[region.type]
    return {
        "id": region.id,
        "type": region.type,
        "score": f"{region.score:.2f}",
        "margin": f"{region.margin:.2f}",
        "area": region.area_px,
        "bbox": region.bbox,
        "colour": hex_code(colour),
        "ink": "#0a0c10" if is_light(colour) else "#ffffff",
    }


def _picture(result: Inspection, colours: Palette) -> dict[str, Any]:
    """The photo, its outlines in the photo's pixels, and the heat map."""
    photo, data = _photo(result)
    scale = photo.width / result.width
    return {
        "width": photo.width,
        "height": photo.height,
        "photo": data,
        "heat": _heat(result),
        "coarse": max(photo.size) < 256,
        "outlines": [
            {
                "id": region.id,
                "path": _path(region, scale),
                "colour": hex_code(colours[region.type]),
                "halo": "#0a0c10" if is_light(colours[region.type]) else "#ffffff",
            }
            for region in result.regions
        ],
    }


def _photo(result: Inspection) -> tuple[Image.Image, str]:
    """The photo at most ``PHOTO_SIDE`` large, as a data address of at most ``PHOTO_BYTES``."""
    photo = Image.fromarray(result.photo())
    photo.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0)
    while True:
        for quality in (84, 74, 64, 54):
            buffer = io.BytesIO()
            photo.save(buffer, "JPEG", quality=quality)
            if buffer.tell() <= PHOTO_BYTES:
                return photo, _address("jpeg", buffer)
        photo = photo.resize((max(1, photo.width * 4 // 5), max(1, photo.height * 4 // 5)))


def _heat(result: Inspection) -> str:
    if result.anomaly_map is None:
        return ""
    values = Image.fromarray(np.ascontiguousarray(result.anomaly_map, dtype=np.float32))
    values.thumbnail((HEAT_SIDE, HEAT_SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    Image.fromarray(heat_colours(np.asarray(values))).save(buffer, "PNG", optimize=True)
    return _address("png", buffer)


def _scale() -> list[str]:
    """The heat map's colours from 0 to 1, for a CSS gradient."""
    colours = heat_colours(np.linspace(0, 1, 21, dtype=np.float32)[None, :])[0].tolist()
    return [f"rgb({red} {green} {blue} / {opacity / 2.55:.0f}%)" for red, green, blue, opacity in colours]


def _address(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _path(region: Region, scale: float) -> str:
    """SVG path of a region's outlines and holes, in the photo's pixels."""
    parts = []
    for ring in trace_outlines(region.crop, holes=True):
        points = simplify((ring + np.array(region.bbox[:2])) * scale, 0.4)
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z")
    return "".join(parts)

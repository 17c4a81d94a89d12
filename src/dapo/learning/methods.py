"""Methods: the published baselines and the ablations of DAPO, each a file of settings of the same parts.

Goes in: the name of a method that comes with the package (`METHODS`), or a YAML file of the same form; comes
out: a `Method`, whose settings train or build a detector. A file holds

    title, source (arXiv id), note   what it is
    base                             optional: the method it differs from; only differences are stated
    settings                         values of `TrainingSettings`, the detector's among them

Where a file and its base both have a section, the sections are merged key by key; any other value replaces
the base's, null and lists included.

Sources: CLIP (arXiv 2103.00020), CoOp (2109.01134), AnomalyCLIP (2310.18961), MultiADS (2504.06740), DAPO
(2512.09446).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from dapo.config import DetectorSettings, Settings, Text, TowerTuning, TrainingSettings, parse
from dapo.errors import ConfigError
from dapo.model.clip import Clip, ClipConfig
from dapo.model.detector import Detector

__all__ = [
    "ABLATIONS",
    "BASELINES",
    "METHODS",
    "Method",
    "build_method_detector",
    "load_method",
    "merged",
    "training_settings",
]

FOLDER = Path(__file__).parents[1] / "configs" / "methods"
BASELINES = ("clip", "coop", "anomalyclip", "multiads", "dapo")  # in the order of the papers
ABLATIONS = tuple(sorted(path.stem for path in (FOLDER / "ablations").glob("*.yaml")))
METHODS = BASELINES + ABLATIONS

TEXT_LAYERS, VISION_LAYERS = 12, 24  # of ViT-L/14, for which the layer numbers in the files are meant


class _File(Settings):
    title: Text
    source: str = ""
    note: str = ""
    base: Text | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A method. adapted: what of its published numbers was changed to fit a backbone, one sentence each."""

    name: str
    title: str
    source: str
    note: str
    settings: TrainingSettings
    adapted: tuple[str, ...] = ()

    @property
    def detector(self) -> DetectorSettings:
        """Settings of its detector."""
        return self.settings.detector or DetectorSettings()

    @property
    def learns(self) -> bool:
        """Whether there is anything to train."""
        return self.detector.learns

    def for_backbone(self, clip: Clip | ClipConfig) -> Method:
        """The method on this backbone; what was changed stands in `adapted`.

        Published numbers are meant for ViT-L/14 at 518 px, with 12 text and 24 vision layers. On towers of
        another depth a number of layers, and the number of a tapped layer, become the same share of the
        depth, rounded, at least 1. A side that the patch does not divide becomes the backbone's native side.
        Nothing else is changed; "every layer" and "the quarter depths" fit any tower.
        """
        facts = clip.config if isinstance(clip, Clip) else clip
        was, layers = self.detector, facts.vision.layers
        changes: dict[str, Any] = {
            "text_deep": _scaled(was.text_deep, facts.text.layers, TEXT_LAYERS),
            "vision_deep": _scaled(was.vision_deep, layers, VISION_LAYERS),
        }
        if was.taps is not None:
            changes["taps"] = tuple(dict.fromkeys(_share(tap, layers, VISION_LAYERS) for tap in was.taps))
        if was.side is not None and was.side % facts.patch:
            changes["side"] = None
        detector = was.model_copy(update=changes)
        settings = self.settings.model_copy(update={"detector": detector})
        return replace(self, settings=settings, adapted=_differences(was, detector, facts))


def load_method(method: str | Path) -> Method:
    """A method of the package by name, or one of your own by the path of its YAML file.

    `base` is the name of a method of the package, or a file beside this one. Raises ConfigError, which names
    the file, for a name that is unknown, a file that cannot be read, an unknown key or a value out of range.
    """
    return _load(_locate(method), ())


def training_settings(
    method: Method, changes: Mapping[str, Any], where: str = "settings"
) -> TrainingSettings:
    """Settings to train a method, with your own `changes` (nested, by name) put over them.

    Raises ConfigError for a change that is wrong, named with `where`, and when nothing is left to learn.
    """
    settings = parse(TrainingSettings, merged(method.settings.model_dump(), changes), where)
    if settings.detector is not None and not settings.detector.learns:
        raise ConfigError(
            f"the method {method.name} has nothing to learn: handwritten prompts, no deep tokens, no learned "
            f"adapter; use it as it is with `dapo evaluate --method {method.name}`"
        )
    return settings


def build_method_detector(method: str | Path | Method, clip: Clip) -> Detector:
    """An untrained detector of this method on `clip`, which is frozen; training-free methods are complete."""
    if not isinstance(method, Method):
        method = load_method(method)
    return Detector(clip, method.for_backbone(clip).detector)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`: mappings key by key, anything else replaced."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merged(inner, value)
        result[key] = value
    return result


# Files


def _locate(method: str | Path, beside: Path = Path()) -> Path:
    """The file of a method; `beside` is where relative paths begin."""
    name = str(method)
    if name in METHODS:
        return FOLDER / ("" if name in BASELINES else "ablations") / f"{name}.yaml"
    if isinstance(method, Path) or name.endswith((".yaml", ".yml")):
        return beside / method
    close = difflib.get_close_matches(name, METHODS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(METHODS)}"
    raise ConfigError(f"expected a method or the path of its YAML file, got {name!r}; {hint}")


def _load(path: Path, seen: tuple[Path, ...]) -> Method:
    if path.resolve() in seen:
        raise ConfigError(f"{path} is its own base, over {len(seen)} files; let base name another method")
    file = parse(_File, _read(path), str(path))
    values: Mapping[str, Any] = {"detector": DetectorSettings().model_dump()}
    if file.base is not None:
        base = _load(_locate(file.base, path.parent), (*seen, path.resolve()))
        values = base.settings.model_dump()
    values = merged(merged(values, file.settings), {"method": path.stem})
    settings = parse(TrainingSettings, values, f"{path}, settings")
    return Method(path.stem, file.title, file.source, " ".join(file.note.split()), settings)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(
            f"{path} cannot be read as YAML ({why}); give a method's name or its file"
        ) from error
    if not isinstance(raw, dict):
        came = "nothing" if raw is None else f"a {type(raw).__name__}"
        raise ConfigError(f"{path} should hold a title and settings by name, it holds {came}")
    return raw


# Backbones


def _share(number: int, layers: int, published: int) -> int:
    """The same share of a tower's depth, rounded half up, at least 1."""
    return max(1, (2 * number * layers + published) // (2 * published))


def _scaled(tuning: TowerTuning, layers: int, published: int) -> TowerTuning:
    if not tuning.depth:  # every layer, or none
        return tuning
    return tuning.model_copy(update={"depth": min(layers, _share(tuning.depth, layers, published))})


def _differences(was: DetectorSettings, now: DetectorSettings, facts: ClipConfig) -> tuple[str, ...]:
    said = []
    for tower, layers, published in (
        ("text", facts.text.layers, TEXT_LAYERS),
        ("vision", facts.vision.layers, VISION_LAYERS),
    ):
        old, new = (getattr(settings, f"{tower}_deep").depth for settings in (was, now))
        if old != new:
            said.append(f"deep tokens in {new} of {layers} {tower} layers, published in {old} of {published}")
    if was.taps != now.taps:
        said.append(
            f"layers {_listed(now.taps)} of {facts.vision.layers} are tapped, published "
            f"{_listed(was.taps)} of {VISION_LAYERS}"
        )
    if was.side != now.side:
        said.append(
            f"images at the native {facts.side} px, since the patch of {facts.patch} px does not divide "
            f"the published {was.side} px"
        )
    return tuple(said)


def _listed(numbers: tuple[int, ...] | None) -> str:
    return ", ".join(map(str, numbers or ()))

"""Model folders: a detector to and from disk, without pickle.

    config.json         ModelConfig: everything needed to rebuild, data, licences, seed, figures
    model.safetensors   only what was learned: contexts, deep tokens, adapters
    README.md           the model card
    backbone/           optional: a Hugging Face CLIPModel folder; else config.json names one

A folder that is only a Hugging Face CLIP works too: nothing is learned then and the prompts are handwritten.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from dapo.config import FORMAT, DetectorSettings, ModelConfig, parse
from dapo.errors import ConfigError, ModelError
from dapo.model.clip import Clip, ClipConfig, load_clip, save_clip
from dapo.model.detector import Detector
from dapo.model.weights import read_json, read_tensors, resolve_folder, write_json, write_tensors
from dapo.whole import staged

EMBEDDED = Path(__file__).parents[1] / "embedded"  # the model that comes with the package
BACKBONE = "backbone"
REFERENCES = "references.safetensors"  # of good parts, beside calibration.json


@dataclass(frozen=True)
class ModelInfo:
    """Facts of a loaded model. `training_free`: a plain CLIP with handwritten prompts."""

    config: ModelConfig
    folder: Path
    training_free: bool = False

    @property
    def name(self) -> str:
        """For results; says so when the prompts are handwritten."""
        return f"{self.config.name} (handwritten prompts)" if self.training_free else self.config.name

    @cached_property
    def sha256(self) -> str:
        """Of the configuration and all weights in the folder."""
        digest = hashlib.sha256()
        files = [self.folder / "config.json", *self.folder.glob("*.safetensors")]
        files = [path for path in files if path.name != REFERENCES]  # calibrating is not another model
        files += (self.folder / BACKBONE).glob("*.safetensors")
        for path in sorted(files):
            digest.update(path.name.encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def to_dict(self) -> dict[str, str]:
        """What a result says about its model."""
        return {"name": self.name, "version": self.config.version, "sha256": self.sha256}


def load(model: str | Path | None = None, *, local_only: bool = True) -> tuple[Detector, ModelInfo]:
    """A detector in evaluation mode, on the CPU, with its facts.

    model: a folder, a hub id (looked up in the local cache; on the hub too unless `local_only`), or None for
    the embedded model. Raises ModelError, in one sentence, for anything that is not a whole model folder.
    """
    if model is None and not (EMBEDDED / "config.json").is_file():
        raise ModelError(
            f"this installation has no embedded model in {EMBEDDED}; give a model folder or hub id"
        )
    folder = EMBEDDED if model is None else resolve_folder(model, local_only=local_only)
    raw = read_json(folder / "config.json")
    if "model_type" in raw and "format" not in raw:
        return _load_clip_alone(folder, raw, str(model), local_only)
    config = _read_config(raw, folder / "config.json")
    clip = load_clip(_backbone_of(config, folder), local_only=local_only)
    _check_backbone(clip, config, folder)
    try:
        detector = Detector(clip, config.detector)
    except ConfigError as error:
        raise ModelError(f"{folder} and its backbone {config.backbone!r} do not fit: {error}") from error
    weights = folder / "model.safetensors"
    detector.load_learned(read_tensors(weights), str(weights))
    return detector.requires_grad_(False).eval(), ModelInfo(config, folder)


def backbone_config(model: str | Path | None = None, *, local_only: bool = True) -> ClipConfig:
    """Sizes of a model's backbone, without its weights; `model` as in `load`."""
    folder = EMBEDDED if model is None else resolve_folder(model, local_only=local_only)
    raw = read_json(folder / "config.json")
    if "format" in raw:
        backbone = _backbone_of(_read_config(raw, folder / "config.json"), folder)
        raw = read_json(resolve_folder(backbone, local_only=local_only) / "config.json")
    return ClipConfig.from_dict(raw)


def backbone_facts(clip: Clip) -> dict[str, int | str]:
    """What tells one backbone from another: its sizes, and "weights", a hash of the first 256 of each tensor.

    Hashed in half precision, so that a backbone stored as float16 is still the same one.
    """
    sizes = asdict(clip.config)
    for tower in ("text", "vision"):
        sizes |= {f"{tower}.{name}": value for name, value in sizes.pop(tower).items()}
    digest = hashlib.sha256()
    for name, tensor in sorted(clip.state_dict().items()):
        digest.update(name.encode() + tensor.flatten()[:256].half().cpu().numpy().tobytes())
    plain = {name: value if isinstance(value, int) else str(value) for name, value in sizes.items()}
    return {**plain, "weights": digest.hexdigest()[:16]}


def _check_backbone(clip: Clip, config: ModelConfig, folder: Path) -> None:
    wanted, came = config.learned_on, backbone_facts(clip)
    if wanted is None:
        return
    for name in {**wanted, **came}:
        if wanted.get(name) != came.get(name):
            raise ModelError(
                f"{folder} was learned on a backbone with {name} = {wanted.get(name)}, but its backbone "
                f"{config.backbone!r} has {came.get(name)}; put the right one there, or train on this one"
            )


def _read_config(raw: dict[str, Any], path: Path) -> ModelConfig:
    if raw.get("format") != FORMAT:
        came = f"format {raw['format']!r}" if "format" in raw else "no format"
        raise ModelError(
            f"{path} has {came}, expected {FORMAT}; install the dapo version that wrote it, "
            "or save the model again"
        )
    try:
        return parse(ModelConfig, raw, str(path))
    except ConfigError as error:
        raise ModelError(str(error)) from error


def _load_clip_alone(
    folder: Path, raw: dict[str, Any], name: str, local_only: bool
) -> tuple[Detector, ModelInfo]:
    if raw["model_type"] != "clip":
        raise ModelError(
            f"{folder} holds a model of type {raw['model_type']!r}; expected a DAPO model folder or a CLIP "
            "(type 'clip')"
        )
    settings = DetectorSettings.training_free()
    detector = Detector(load_clip(folder, local_only=local_only), settings)
    config = ModelConfig(name=name.rstrip("/").rsplit("/", 1)[-1] or "clip", backbone=".", detector=settings)
    return detector.requires_grad_(False).eval(), ModelInfo(config, folder, training_free=True)


def _backbone_of(config: ModelConfig, folder: Path) -> str | Path:
    inside = folder / config.backbone
    if inside.is_dir():
        return inside
    if config.backbone == BACKBONE:
        raise ModelError(
            f"expected the folder {inside}, which does not exist; the model folder is incomplete"
        )
    return config.backbone


def save(
    detector: Detector,
    folder: str | Path,
    config: ModelConfig,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    card: str | None = None,
) -> Path:
    """Write a model folder: all at once, or, over an older one, file by file with config.json last.

    The detector's settings are written, whatever `config.detector` says. The backbone is saved along if
    `config.backbone` is "backbone", and only named otherwise. Files of other names in the folder are left
    alone. dtype: of everything stored; loading always gives float32. card: README.md, else one made from the
    config.
    """
    folder = Path(folder)
    config = config.model_copy(update={"detector": detector.settings})
    with staged(folder) as staging:
        kind = getattr(torch, dtype)
        learned = {
            name: t.detach().to("cpu", kind).contiguous() for name, t in detector.learned_state().items()
        }
        if config.backbone == BACKBONE:
            save_clip(detector.clip, staging / BACKBONE, dtype=kind)
        write_tensors(staging / "model.safetensors", learned, format="pt")
        (staging / "README.md").write_text(card or model_card(config), encoding="utf-8")
        write_json(staging / "config.json", config.model_dump(mode="json"))
        _publish(staging, folder)
    return folder


def _publish(staging: Path, folder: Path) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    files = [path for path in staging.rglob("*") if path.is_file()]
    (folder / "config.json").unlink(missing_ok=True)  # until the new one comes, nothing mixed can be loaded
    for path in sorted(files, key=lambda path: path == staging / "config.json"):
        target = folder / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def model_card(config: ModelConfig) -> str:
    """README.md of a model folder."""
    data = "\n".join(
        f"- {d.name}: {d.licence}{f' ({d.note})' if d.note else ''}" for d in config.training_data
    )
    facts = [
        f"- {key}: {value}"
        for key, value in {"seed": config.seed, **config.recipe}.items()
        if value is not None
    ]
    sections = {
        "Use": '```python\nimport dapo\ninspector = dapo.Inspector.from_pretrained("THIS_FOLDER")\n```',
        "Trained on": data,
        "Recipe": "\n".join(facts),
        "Figures": "\n".join(f"- {key}: {value}" for key, value in config.metrics.items()),
        "Licence": config.licence,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"# {config.name} {config.version}\n\n{config.description}\n\n{body}\n"

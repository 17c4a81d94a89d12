"""Files of a model folder: where it is, its JSON, its tensors; every complaint is a ModelError."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dapo.errors import ModelError
from dapo.whole import replaced

UMASK = os.umask(0)
os.umask(UMASK)


def fill_weights(
    module: nn.Module, names: Mapping[str, str], state: Mapping[str, Tensor], where: str
) -> None:
    """Put stored tensors into a module as float32, refusing missing, foreign or misshapen ones.

    names: stored name -> the module's name. `where` is named in the ModelError.
    """
    own = module.state_dict()
    missing, foreign = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
    if missing or foreign:
        kind, examples = ("lacks", missing) if missing else ("has a foreign", foreign)
        more = f" and {len(examples) - 1} more" if len(examples) > 1 else ""
        raise ModelError(
            f"{where} {kind} weight {examples[0]!r}{more}; it is not the weights file of this model"
        )
    for stored, ours in names.items():
        if state[stored].shape != own[ours].shape:
            raise ModelError(
                f"{where}: weight {stored!r} has shape {tuple(state[stored].shape)}, its configuration "
                f"asks for {tuple(own[ours].shape)}"
            )
    values = {ours: state[stored].float() for stored, ours in names.items()}
    module.load_state_dict(values, strict=False, assign=True)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file. Raises ModelError if it is missing or something else."""
    if not path.is_file():
        raise ModelError(
            f"expected the weights file {path}, which does not exist; the model folder is incomplete"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}); fetch or save the model again"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **facts: str) -> None:
    """A whole safetensors file with facts, open to whom any new file is: safetensors makes private ones.

    Raises OSError and SafetensorError as it does.
    """
    with replaced(path) as partial:
        save_file(dict(tensors), partial, metadata=facts)
        partial.chmod(0o666 & ~UMASK)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError if the file is missing or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"expected the file {path}, which does not exist; the model folder is incomplete"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON ({error}); fetch or save the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object, it holds a {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, readable by people."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def resolve_folder(folder_or_id: str | Path, *, local_only: bool = True) -> Path:
    """The folder of a model given as a folder or a hub id. Raises ModelError if it is not there."""
    folder = Path(folder_or_id).expanduser()
    if folder.is_dir():
        return folder
    name = str(folder_or_id)
    if (
        isinstance(folder_or_id, Path)
        or name.count("/") > 1
        or name.startswith((".", "/", "~"))
        or "\\" in name
    ):
        raise ModelError(f"there is no model folder {folder}")
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.safetensors", "backbone/*"]
    try:
        return Path(snapshot_download(name, local_files_only=local_only, allow_patterns=wanted))
    except Exception as error:  # of the hub's library, of the HTTP library below it, or of the disk
        what = "is neither a folder nor in the local cache"
        if not local_only:
            what = f"is no folder and could not be fetched ({type(error).__name__})"
        raise ModelError(
            f"the model {name!r} {what}; fetch it with `dapo pull {name}`, or give a model folder"
        ) from error

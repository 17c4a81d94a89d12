"""``dapo pull``: a model from the hub to a folder that works without a network, weights in safetensors."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from dapo.cli.main import debug_option
from dapo.errors import ModelError

# What a model folder may hold. No code, no weights of other frameworks.
FACTS = ["*.json", "*.txt", "*.md", "LICENSE*", "NOTICE*"]
WEIGHTS = ["*.safetensors"]
PICKLE = "pytorch_model.bin"  # how older models are kept; read as plain tensors and converted
BACKBONE = ["backbone/*"]


@click.command(name="pull")
@click.argument("model", metavar="ID")
@click.option("--out", type=click.Path(path_type=Path), help="New folder to write to. Default: models/NAME.")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit. Default: the newest.")
@debug_option
def command(model: str, out: Path | None, revision: str | None) -> None:
    """Fetch a model for a machine without network.

    ID is a CLIP or DAPO model on the Hugging Face hub, such as openai/clip-vit-large-patch14-336, or a
    folder. The result is a folder for --model; copy it to where it is needed.
    """
    out = out if out is not None else Path("models") / re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise click.UsageError(f"{out} exists; expected a new or empty folder, name another with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dapo-pull-", dir=out.parent) as staging:
        folder = Path(staging) / "model"
        kind = fetch(model, folder, revision)
        if out.exists():
            out.rmdir()
        folder.rename(out)  # only a complete, checked folder gets its name
    weights = sorted(out.rglob("*.safetensors"))
    for path in weights:
        click.echo(f"{_sha256(path)}  {path} ({path.stat().st_size / 2**20:.0f} MiB)")
    click.echo(f"{model} ({kind}) is in {out}: copy the folder, then dapo inspect IMAGE --model {out.name}")


def fetch(model: str, folder: Path, revision: str | None = None) -> str:
    """Copy the model ``model`` (hub id or folder) into the new ``folder``, convert and open it.

    Returns what it is. Raises ``ModelError`` when it cannot be fetched or is not a model DAPO can use.
    """
    source = Path(model).expanduser()
    if not source.is_dir():
        source = download(model, revision)
    config = _config(source, model)
    if config.get("model_type") == "clip":
        from dapo.model.clip import load_clip, save_clip

        plain = folder.with_name("source")
        _copy(source, plain, [*FACTS, *WEIGHTS])
        if not list(source.glob("*.safetensors")) and (source / PICKLE).is_file():
            convert_pickle(source / PICKLE, plain / "model.safetensors")
        clip = load_clip(plain)
        save_clip(clip, folder)
        _copy(plain, folder, ["*.md", "LICENSE*", "NOTICE*"])
        shutil.rmtree(plain)
        return f"a CLIP of {clip.config.side} px, patch {clip.config.patch}, used with hand-written prompts"
    if "format" in config:
        from dapo.model.artifact import load

        _copy(source, folder, [*FACTS, *WEIGHTS, *BACKBONE])
        load(folder)
        return "a DAPO model"
    found = config.get("model_type", "no model_type")
    raise ModelError(f"{model} is neither a CLIP nor a DAPO model: config.json says {found!r}, not 'clip'")


def download(model: str, revision: str | None = None) -> Path:
    """The hub's files of ``model`` in the local cache; a pickle only where there are no safetensors."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def snapshot(patterns: list[str]) -> Path:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))

    try:
        folder = snapshot([*FACTS, *WEIGHTS, *BACKBONE])
        if not list(folder.glob("*.safetensors")) and not (folder / "backbone").is_dir():
            folder = snapshot([*FACTS, PICKLE])
        return folder
    except HFValidationError as error:
        raise ModelError(f"{model!r} is neither a folder nor a hub id (OWNER/NAME)") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{model} asks to accept its terms: do so on its page, then `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{model} has no branch, tag or commit {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no model {model!r}; check the spelling of OWNER/NAME") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if constants.HF_HUB_OFFLINE:
            raise ModelError(f"{model} was not fetched: HF_HUB_OFFLINE is set; unset it first") from error
        raise ModelError(
            f"{model} could not be fetched: the hub was not reached; "
            f"run `dapo pull {model}` on a machine with network and copy the folder here"
        ) from error
    except Exception as error:  # the HTTP library's own errors, whichever it is
        if type(error).__module__.split(".")[0] not in ("httpx", "httpcore", "requests", "urllib3", "hf_xet"):
            raise
        raise ModelError(
            f"{model} could not be fetched ({type(error).__name__}); "
            f"run `dapo pull {model}` on a machine with network and copy the folder here"
        ) from error


def convert_pickle(source: Path, target: Path) -> None:
    """Tensors of a ``pytorch_model.bin`` to safetensors; anything but tensors in it is refused, never run."""
    import torch

    from dapo.model.weights import write_tensors

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
        tensors = {name: state.pop(name).contiguous().clone() for name in list(state)}  # frees as it goes
    except Exception as error:  # whatever a damaged or hostile file leads the reader into
        raise ModelError(f"{source} holds more than plain tensors or is damaged; it was not used") from error
    write_tensors(target, tensors, format="pt")


def _config(folder: Path, model: str) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{model} has no config.json; expected a CLIP or DAPO model folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"the config.json of {model} is not JSON; fetch it again") from error
    if not isinstance(config, dict):
        raise ModelError(f"the config.json of {model} holds a {type(config).__name__}; expected an object")
    return config


def _copy(source: Path, target: Path, patterns: list[str]) -> None:
    for pattern in patterns:
        for path in source.glob(pattern):
            if path.is_file():
                place = target / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)  # contents, also of the cache's symbolic links


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

"""Where a run stands, written so that a kill at any moment leaves the older state or the newer, never half.

    OUT/training.safetensors   what is learned so far, the optimiser's state, the step, the settings
    OUT/log.jsonl              losses, rate and speed, a line now and then

Goes in: learned tensors, the optimiser, plain facts; comes out, later: the same. No pickle.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dapo.errors import ConfigError, ModelError
from dapo.model.weights import write_tensors
from dapo.whole import replaced

STATE, LOG = "training.safetensors", "log.jsonl"


@contextlib.contextmanager
def saving(what: str, path: Path) -> Iterator[None]:
    """Around a write: what the disk refuses becomes a ModelError that says how to go on."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{what} could not be saved to {path} ({error}); make room, then go on with --resume"
        ) from error


def keep(
    path: Path,
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    mean: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    step: int,
    skipped: Mapping[str, str],
) -> None:
    """Write the state of a run, replacing the older one in one step. Raises ModelError where it cannot."""
    tensors = {f"learned.{name}": p.detach() for name, p in learned.items()}
    tensors |= {f"mean.{name}": value for name, value in mean.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
    plain = {name: tensor.to("cpu").contiguous() for name, tensor in tensors.items()}
    words = {"step": str(step), "facts": json.dumps(facts), "skipped": json.dumps(skipped)}
    with saving(f"step {step}", path):
        write_tensors(path, plain, **words)


def restore(
    out: Path,
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    mean: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    resume: bool,
) -> tuple[int, dict[str, str]]:
    """(steps done, images skipped) of the run in `out`, whose state is put in place; (0, {}) without one.

    Raises ConfigError when the state is of a run with other settings or is not to be gone on with, ModelError
    when the file cannot be read.
    """
    path = out / STATE
    if not path.is_file():
        return 0, {}
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        step, skipped = int(words["step"]), dict(json.loads(words["skipped"]))
        was = dict(json.loads(words["facts"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is not the state of a run ({error}); remove it to begin again") from error
    if not resume:
        raise ConfigError(f"{out} holds a run at step {step}; go on with --resume, or choose another --out")
    if differing := next((name for name in {**was, **facts} if was.get(name) != facts.get(name)), None):
        raise ConfigError(
            f"{path} was made with {differing} = {was.get(differing)}, this run asks for "
            f"{facts.get(differing)}; use the same to go on, or choose another --out"
        )
    put_back(tensors, learned, optimizer, mean, path)
    return step, skipped


def put_back(
    tensors: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    mean: Mapping[str, Tensor],
    path: Path,
) -> None:
    """Stored tensors into what is learned, its running mean and the optimiser, or ModelError."""
    wanted = {f"learned.{name}": p for name, p in learned.items()}
    wanted |= {f"mean.{name}": value for name, value in mean.items()}
    for name, own in wanted.items():
        if name not in tensors or tensors[name].shape != own.shape:
            came = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise ModelError(
                f"expected {name} of shape {tuple(own.shape)} in {path}, which holds {came}; "
                "remove it to begin again"
            )
    with torch.no_grad():
        for name, own in wanted.items():
            own.copy_(tensors[name])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def write_log(path: Path, row: Mapping[str, Any]) -> None:
    """One line of JSON more. Raises ModelError where it cannot be written."""
    with saving(f"the log of step {row['step']}", path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def trim_log(path: Path, step: int) -> None:
    """Take out what the log says of steps that will be done again, and a line cut short."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    with saving("the log", path), replaced(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")

"""The processes of a run: one, or those that `torchrun` or `accelerate launch` started.

Each learns from its own batches; before every step of the optimiser their gradients are added up, so that all
hold the same weights. They are added up here and not by torch's DistributedDataParallel: what is learned is a
few million numbers, a tensor may take no part in a step, and a process may have no readable image in it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

from dapo.errors import ConfigError, DapoError, DependencyError
from dapo.model.precision import Precision

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """`rank` of this process among `size`; rank 0 leads: it alone writes, logs and reports."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def own(self, numbers: Iterable[int]) -> list[int]:
        """The batches of this process: every size-th number."""
        return [number for number in numbers if number % self.size == self.rank]

    def add_up(self, learned: Sequence[nn.Parameter], counts: Sequence[float]) -> list[float]:
        """Add up the gradients in place, and `counts`, over all processes; returns the counts.

        A tensor without gradient in every process keeps none. Raises DapoError when another process ended.
        """
        if self.size == 1:
            return list(counts)
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
        facts = torch.tensor([*counts, *(float(p.grad is not None) for p in learned)])
        flat = torch.cat([*(piece.flatten().float() for piece in pieces), facts.to(pieces[0].device)])
        with together():
            distributed.all_reduce(flat)
        *sums, facts = flat.split([*(p.numel() for p in learned), len(facts)])
        totals: list[float] = facts.tolist()
        for p, total, took_part in zip(learned, sums, totals[len(counts) :], strict=True):
            p.grad = total.view_as(p).to(p.dtype) if took_part else None
        return totals[: len(counts)]

    def collect(self, found: Mapping[Key, Value]) -> dict[Key, Value]:
        """The entries of all processes."""
        if self.size == 1:
            return dict(found)
        everything: list[Mapping[Key, Value]] = [{}] * self.size
        with together():
            distributed.all_gather_object(everything, dict(found))
        return {key: value for part in everything for key, value in part.items()}

    def wait(self) -> None:
        """For all processes to come here."""
        if self.size > 1:
            with together():
                distributed.barrier()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around what all processes do at once. Raises DapoError when one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        raise DapoError("another process of this run has ended; its own message says why") from error


def launched() -> Team:
    """This process's place, as the launcher wrote it into the environment."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    return Team(int(os.environ.get("RANK", "0")), size) if size > 1 else Team()


def join(device: str | torch.device) -> tuple[Team, torch.device]:
    """Meet the other processes, if there are any; with them, "cuda" becomes the GPU of this one."""
    team, place = launched(), torch.device(device)
    if team.size == 1:
        return team, place
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise DependencyError.for_extra("train", "accelerate") from error
    if place.type == "cpu" and not distributed.is_initialized():
        # Its default arguments hold the group for ever when it is first imported, by an optimiser, later on.
        importlib.import_module("torch.distributed.nn.functional")
        atexit.register(part)
    state = PartialState(cpu=place.type == "cpu")
    if str(device) == "cuda":
        place = torch.device("cuda", state.local_process_index)
    return Team(state.process_index, state.num_processes), place


def part() -> None:
    """Close the connections: a thread of theirs that the interpreter finds at its end aborts the process."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def precision_of(wanted: Precision) -> Precision:
    """The precision: "auto" gives way to what `accelerate launch --mixed_precision` says; fp16 is refused."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if wanted != "auto" or asked == "no":
        return wanted
    if asked != "bf16":
        raise ConfigError(f"mixed precision is bf16 or no, the launcher asks for {asked}; change it")
    return "bf16"

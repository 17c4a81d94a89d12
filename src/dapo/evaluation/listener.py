"""Listener: whom a campaign tells how it goes on."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Told how a campaign goes on: each stage with its number of steps, each step, and notes."""

    def stage(self, name: str, total: int | None) -> None: ...
    def advance(self, facts: str = "") -> None: ...
    def note(self, text: str) -> None: ...


class Silent:
    """A listener that says nothing."""

    def stage(self, name: str, total: int | None) -> None:
        pass

    def advance(self, facts: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        pass

"""The command line's reference page from its own help: ``python -m dapo.cli.reference > docs/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from dapo.cli.main import VERBS, main

WIDTH = 100  # characters of a help text
INTRODUCTION = """\
# Command line

Written by `make docs` from the commands' own help; a test keeps it current.

Results go to stdout, progress and complaints to stderr.
Exit: 0 done; 1 some input failed (each named, the rest done); 2 usage or configuration; 3 with
`--fail-on defective` when a part is defective (3 wins over 1); 130 interrupted (what was done
is kept; of `evaluate` and `reproduce` each evaluation that was finished).
"""


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    yield INTRODUCTION
    root = _context(main, "dapo", None)
    yield _block(root)
    for verb in VERBS:
        command = main.get_command(root, verb)
        if command is not None:
            yield from _pages(_context(command, verb, root))


def _pages(context: click.Context) -> Iterator[str]:
    """The help of a command, then of those inside it."""
    yield _block(context)
    if isinstance(context.command, click.Group):
        for name, inner in context.command.commands.items():
            yield from _pages(_context(inner, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    names = main.context_settings["help_option_names"]
    return click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=names,
    )


def _block(context: click.Context) -> str:
    lines = "\n".join(line.rstrip() for line in context.get_help().splitlines())
    return f"## {context.command_path}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(reference())

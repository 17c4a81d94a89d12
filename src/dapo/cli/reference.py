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
`--fail-on defective` when a part is defective (3 wins over 1); 130 interrupted (what was done is kept).
"""


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    yield INTRODUCTION
    root = click.Context(main, info_name="dapo", terminal_width=WIDTH, max_content_width=WIDTH)
    yield _block("dapo", main.get_help(root))
    for verb in VERBS:
        command = main.get_command(root, verb)
        if command is not None:
            context = click.Context(
                command, info_name=verb, parent=root, terminal_width=WIDTH, max_content_width=WIDTH
            )
            yield _block(f"dapo {verb}", command.get_help(context))


def _block(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {title}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(reference())

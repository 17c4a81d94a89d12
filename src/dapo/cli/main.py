"""The group ``dapo``: which verbs there are, and how every one of them ends.

Exit codes: 0 done; 1 some input failed, the rest is done; 2 usage or configuration; 3 a part is defective and
``--fail-on defective`` asks; 130 interrupted. An error is one sentence on stderr; ``--debug`` adds a trace.
"""

from __future__ import annotations

import difflib
import errno
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn, TypeVar

import click

from dapo import __version__
from dapo.errors import DapoError

# verb -> its line in `dapo --help`; the command is the attribute `command` of dapo.cli.<verb>
VERBS = {
    "inspect": "Find flaws in images and name them.",
    "demo": "Sample images with known flaws, inspected and drawn.",
    "data": "Check a data set, add one from an archive, look at one.",
    "defects": "Check your words; find the nearest known types.",
    "calibrate": "Thresholds at a stated false-alarm rate, from good parts.",
    "train": "Learn prompts, deep tokens and adapters from labelled defects.",
    "evaluate": "Measure a model or a method on a labelled dataset.",
    "reproduce": "The tables of the documentation, from their experiments.",
    "pretrain": "Train the embedded backbone from generated images.",
    "doctor": "What is installed and what is wrong, in one sentence each.",
    "pull": "Fetch a model for a machine without network.",
}
FAILED_INPUT, USAGE, DEFECTIVE, INTERRUPTED = 1, 2, 3, 130
_DEBUG = "dapo.debug"  # key in click's context metadata

Command = TypeVar("Command", bound=Callable[..., Any])


class Fault(click.ClickException):
    """An error as the user sees it: one sentence on stderr, exit code 2."""

    exit_code = USAGE

    def show(self, file: Any = None) -> None:
        click.echo(f"dapo: {self.message}", err=True, file=file)


def debug_option(command: Command) -> Command:
    """Adds ``--debug``, which may stand before or after the verb."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.meta[_DEBUG] = True

    option = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="Show tracebacks of errors.",
    )
    return option(command)


class Shell(click.Group):
    """A group whose verbs load on use and whose errors are sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"dapo.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"verbs: {', '.join(VERBS)}"
            raise click.UsageError(f"there is no verb {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; what it raises becomes a sentence."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(error, (click.exceptions.Exit, click.Abort)) or _broken_pipe(error):
                raise
            if ctx.meta.get(_DEBUG):
                traceback.print_exc()
            if isinstance(error, click.UsageError):
                raise
            raise Fault(_sentence(error)) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, but every error ends in one sentence and one of our exit codes."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a name the terminal cannot show is no reason to stop
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "dapo"
            _leave(f"{where}: {_plain(error.format_message())} (see {where} --help)", error.exit_code)
        except click.ClickException as error:
            _leave(f"dapo: {error.format_message()}", USAGE)
        except (click.Abort, KeyboardInterrupt):
            _leave("dapo: interrupted", INTERRUPTED)
        raise SystemExit(code if isinstance(code, int) else 0)


def _leave(sentence: str, code: int) -> NoReturn:
    click.echo(sentence, err=True)
    raise SystemExit(code)


def _plain(message: str) -> str:
    """Click's sentence on one line, without its full stop: ours continues."""
    return " ".join(message.split()).rstrip(".")


def _sentence(error: Exception) -> str:
    if isinstance(error, DapoError | click.ClickException):
        return str(error.format_message() if isinstance(error, click.ClickException) else error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the file system'}: {error.strerror}"
    first = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {first[0] if first else 'no message'}"
    return f"this should not have happened ({reason}); run again with --debug and report what it prints"


def _broken_pipe(error: Exception) -> bool:
    """The reader of our output has gone (`dapo inspect ... | head`); click ends such a run quietly."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


@click.group(
    name="dapo",
    cls=Shell,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit: 0 done; 1 some input failed, the rest is done; 2 usage or configuration; "
    "3 a part is defective, with --fail-on defective.",
)
@click.version_option(__version__, prog_name="dapo")
@debug_option
@click.pass_context
def main(context: click.Context) -> None:
    """Find flaws in pictures of parts and name them, from a list of words.

    Results go to stdout, progress and complaints to stderr. No labels, no training, no network.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())

"""The ``maskhub`` program: its commands, and the one place where errors become a line on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from maskhub.errors import ArgumentError, MaskhubError
from maskhub.interrupts import status as interrupted
from maskhub.interrupts import word
from maskhub.options import nearest
from maskhub_cli.command import Command
from maskhub_cli.output import DEBUG, ERROR_STATUS, error_line, warning_line

# In the order of the help, under its headings.
COMMANDS = {
    "Learn": ("train", "predict", "evaluate", "plot"),
    "Look": ("info", "verify", "diff"),
    "Make": ("pack", "apply", "extract", "compose", "export"),
    "Share": ("push", "pull", "list"),
    "Try": ("demo",),
}
# What people type who come from elsewhere.
MEANT = {
    "upload": "push", "download": "pull", "fetch": "pull", "build": "apply", "merge": "apply", "compare": "diff",
    "combine": "compose", "show": "info", "inspect": "info", "ls": "list", "search": "list", "convert": "pack",
    "import": "pack", "finetune": "train", "fit": "train", "infer": "predict", "classify": "predict",
    "eval": "evaluate", "test": "evaluate", "check": "verify", "draw": "plot",
    "--lr": "--learning-rate", "--bs": "--batch-size", "--out": "--output", "--output-dir": "--output",
    "--num-epochs": "--epochs", "--num-train-epochs": "--epochs", "--overwrite": "--force", "--replace": "--force",
    "--validation-file": "--eval-file", "--test-file": "--eval-file", "--max-seq-length": "--max-length",
    "--per-device-train-batch-size": "--batch-size", "--hub-model-id": "--push-to-hub", "--torch-dtype": "--dtype",
    "--commit-message": "--message", "--branch": "--revision", "--max-shard-size": "--shard-size", "--key": "--sign",
}  # fmt: skip


class Commands(TyperGroup):
    """Makes a command when it is asked for, and ends errors as one line.

    The status is 1, 2 for usage, and for a signal its number and 128.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in COMMANDS.values() for name in names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One that is not to be run has its help alone, which is quick to make."""
        if cmd_name in self.commands or cmd_name not in self.list_commands(ctx):
            return self.commands.get(cmd_name)
        panel = next(panel for panel, names in COMMANDS.items() if cmd_name in names)
        return TyperCommand(cmd_name, help=Command.named(cmd_name).help, rich_help_panel=panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known = args[0], self.list_commands(ctx)
        if name not in known:
            raise ArgumentError(f"there is no command {name}{meant(name, known)} Help: {ctx.command_path} --help")
        made = Command.named(name)
        one = typer.Typer(add_completion=False, context_settings=dict(self.context_settings))
        one.command(name, help=made.help)(made.run())
        self.commands[name] = typer.main.get_command(one)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn  # type: ignore[assignment]
                status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except Exception as error:
            if not hasattr(error, "format_message"):  # not typer's own over wrong usage
                raise
            typer.echo(error_line(usage(error)), err=True)
            status = 2
        sys.exit(status if isinstance(status, int) else 0)

    def make_context(self, *given: Any, **options: Any) -> Any:
        with _one_line():
            return super().make_context(*given, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _one_line():
                super().invoke(ctx)
            sys.stdout.flush()  # so that a closed pipe shows here, not at the interpreter's exit
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            if isinstance(error, typer.Exit) or hasattr(error, "format_message") or debug(ctx):
                raise
            typer.echo(error_line(explain(error)), err=True)
            status = 2 if isinstance(error, ArgumentError) else ctx.meta.get(ERROR_STATUS, 1)
            if isinstance(error.__cause__, KeyboardInterrupt):  # what was under way has been saved
                status = interrupted(error.__cause__)
            raise typer.Exit(status) from None


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Ends an interrupt with a line, and its status."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(word(error), err=True)
        raise typer.Exit(interrupted(error)) from None


def explain(error: BaseException) -> str:
    """An error that is not the user's way to type, as one line."""
    if isinstance(error, MaskhubError):
        return str(error)
    return f"unexpected error: {type(error).__name__}: {error}. Run again with --debug"


def usage(error: Any) -> str:
    """What was typed wrongly, with what may have been meant, and where the help is."""
    message = error.format_message().splitlines()[0].rstrip(".") + "."
    context = error.ctx
    if type(error).__name__ == "NoSuchOption":  # of typer or of click
        flags = [flag for parameter in context.command.params for flag in parameter.opts if flag.startswith("-")]
        message = f"there is no option {error.option_name}{meant(error.option_name, flags)}"
    return f"{message} Help: {context.command_path} --help" if context else message


def meant(wrong: str, known: Sequence[str]) -> str:
    """The end of a sentence: what may have been meant."""
    found = MEANT[wrong] if MEANT.get(wrong) in known else nearest(wrong, known)
    return f". Did you mean {found}?" if found else "."


def debug(ctx: Any) -> bool:
    """Whether the user asked for tracebacks, before the command or after it."""
    return bool(ctx.params.get("debug") or ctx.meta.get(DEBUG))


def _warn(message: Warning | str, *_: Any) -> None:
    """What a library warns of, as a line of ours."""
    typer.echo(warning_line(str(message)), err=True)


app = typer.Typer(
    cls=Commands,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from maskhub import __version__

        typer.echo(f"maskhub {__version__}")
        raise typer.Exit


HELP = """Learned binary masks: a task costs a fraction of a bit a weight beside one base model.

A BASE is a checkpoint folder or file, or a model on the Hub: user/repo or user/repo@revision.
A MASK is a .msk file, the URL of one (https:, hf: or any that fsspec knows), or user/repo, user/repo/name or
user/repo/name@revision on the Hub.
"""


@app.callback(help="\n\n".join(" ".join(p.split()) for p in HELP.split("\n\n")), invoke_without_command=True)
def options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="MASKHUB_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before a command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())

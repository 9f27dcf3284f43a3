"""The ``maskhub`` program: its commands, and the one place where errors become a line on stderr."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from maskhub.errors import MaskhubError
from maskhub_cli.commands import (
    apply,
    compose,
    demo,
    diff,
    evaluate,
    export,
    extract,
    info,
    list,
    pack,
    plot,
    pull,
    push,
    train,
    verify,
)
from maskhub_cli.options import ERROR_STATUS
from maskhub_cli.output import as_called, printable


class Commands(TyperGroup):
    """Runs a command. With ``--debug`` errors pass through; without, they end as one line and status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # so that a closed pipe shows here, not at the interpreter's exit
            return result
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params.get("debug") or isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise  # the latter two are typer's own, usage errors among them
            typer.echo(explain(error), err=True)
            raise typer.Exit(ctx.meta.get(ERROR_STATUS, 1)) from None


def explain(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if isinstance(error, MaskhubError):
        text = str(error)
    else:
        text = f"unexpected error: {type(error).__name__}: {error}; run again with --debug (before the command)"
    return "Error: " + printable(as_called(" ".join(text.splitlines())))


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from maskhub import __version__

        typer.echo(f"maskhub {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="MASKHUB_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Learned binary masks: a task costs a fraction of a bit a weight beside one base model.

    A BASE is a checkpoint folder or file, or a model on the Hub: user/repo or user/repo@revision.
    A MASK is a .msk file, the URL of one (https:, hf: or any that fsspec knows), or user/repo, user/repo/name or
    user/repo/name@revision on the Hub.
    """


# In the order of the help.
app.command()(train.train)
app.command()(plot.plot)
app.command()(pack.pack)
app.command()(info.info)
app.command()(verify.verify)
app.command()(apply.apply)
app.command()(extract.extract)
app.command()(diff.diff)
app.command()(compose.compose)
app.command()(export.export)
app.command()(evaluate.evaluate)
app.command()(push.push)
app.command()(pull.pull)
app.command("list")(list.list_masks)
app.command()(demo.demo)


def main() -> None:
    app()


def hf_mask() -> None:
    """The program as an extension of ``hf``."""
    app(prog_name="hf mask")

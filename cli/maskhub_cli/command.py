"""Commands made of the library's public functions: what is said of a parameter there becomes an argument or option."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import typer

import maskhub
from maskhub.options import Option, options
from maskhub_cli.output import Format, Output

R = TypeVar("R")


class Call(Generic[R]):
    """A public function of the library, and what the user asked of it (``asked``, by the parameters' names)."""

    def __init__(self, function: Callable[..., R], asked: dict[str, Any], out: Output) -> None:
        self.asked, self._function, self._out = asked, function, out

    def __call__(self, doing: str = "", unit: str = "bytes", **more: Any) -> R:
        """What the function returns; ``doing`` and ``unit`` are for its progress, ``more`` goes to it besides."""
        given = self.asked | more
        parameters = inspect.signature(self._function).parameters
        words = next((given.pop(p.name) for p in parameters.values() if p.kind is p.VAR_POSITIONAL), ())
        if not doing:
            return self._function(*words, **given)
        with self._out.progress(doing, unit=unit) as progress:
            return self._function(*words, progress=progress, **given)


def command(name: str) -> tuple[Callable[..., None], str]:
    """The command of this name, as a function that typer understands, and its help.

    ``commands/NAME.py`` has a function called as the library's, which it is given as a ``Call``: it shows what comes of
    it. Its own options stand in its signature; its docstring says what only the command line has.
    """
    module = importlib.import_module(f"maskhub_cli.commands.{name}")
    show = getattr(module, "list_masks" if name == "list" else name)
    function = getattr(maskhub, show.__name__) if show.__name__ in maskhub.__all__ else None
    own = {parameter.name: (parameter, kind, option) for parameter, kind, option in options(show)}
    asked = {p.name: (p, kind, option) for p, kind, option in (options(function) if function else ())}
    everything = {n: _parameter(*told) for n, told in (asked | own).items()} | FORMATS

    def run(context: typer.Context, **given: Any) -> None:
        out = Output(*(given.pop(name) for name in FORMATS if name != "debug"))
        out.meta = context.meta
        given.pop("debug")
        mine = {name: given.pop(name) for name in own}
        # What was left out is as the function has it.
        asked_for = {n: v for n, v in given.items() if v is not None or asked[n][0].default is None}
        show(Call(function, asked_for, out), out, **mine) if function else show(out, **mine)

    ordered = [CONTEXT, *sorted(everything.values(), key=lambda parameter: parameter.default is not parameter.empty)]
    run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
    return run, help_of(function, show)


def help_of(function: Callable[..., Any] | None, show: Callable[..., Any]) -> str:
    """What the function's docstring says before it comes to Python, and what the command line adds; a line a paragraph."""
    said = (inspect.getdoc(function) or "").split("\n\n") if function else []
    common = itertools.takewhile(lambda paragraph: not paragraph.startswith(("In Python", "Raises", ">>>")), said)
    paragraphs = [*common, *(inspect.getdoc(show) or "").split("\n\n")]
    return "\n\n".join(" ".join(paragraph.replace("``", "").split()) for paragraph in paragraphs if paragraph)


def _parameter(parameter: inspect.Parameter, kind: Any, option: Option) -> inspect.Parameter:
    """The parameter of a command that a function's becomes."""
    words = parameter.kind is parameter.VAR_POSITIONAL
    kinds = [one for one in get_args(kind) if one is not NoneType] if get_origin(kind) in (Union, UnionType) else [kind]
    simple = (
        kinds[0] if len(kinds) == 1 and (kinds[0] in (bool, int, float) or get_origin(kinds[0]) is Literal) else str
    )
    several = words or any(get_origin(one) not in (None, Literal) for one in kinds)
    choices = tuple(option.choices()) if option.choices else ()
    if choices and option.metavar is None:
        simple = Literal[choices]
    default = parameter.default
    required = default is parameter.empty
    if several or (required and not words) or (default is not None and simple is str and not isinstance(default, str)):
        default = parameter.empty if required else None
    told: dict[str, Any] = {
        "help": option.help,
        "metavar": option.metavar,
        "rich_help_panel": option.group,
        "show_default": not required and default not in (None, False),
        "autocompletion": (lambda: list(choices)) if choices else None,
    }
    if parameter.kind is not parameter.KEYWORD_ONLY and not option.flags:
        note = typer.Argument(**told)
    else:
        flag = "--" + parameter.name.replace("_", "-")
        note = typer.Option(f"{flag}/--no-{flag[2:]}" if default is True else flag, *option.flags, **told)
    plain: Any = list[str] if several else simple
    if not required and default is None:
        plain = plain | None
    return inspect.Parameter(
        parameter.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[plain, note]
    )


def _flag(name: str, kind: Any, default: Any, *flags: str, help: str, **more: Any) -> inspect.Parameter:
    note = typer.Option(*flags, help=help, rich_help_panel="Output", show_default=False, **more)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, note])


CONTEXT = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
# What every command has.
FORMATS = {
    parameter.name: parameter
    for parameter in (
        _flag("format", Format, Format.AUTO, "--format", help="How to print the result; auto is human."),
        _flag("json", bool, False, "--json", help="Short for --format json."),
        _flag("quiet", bool, False, "--quiet", "-q", help="Short for --format quiet: the one value a script needs."),
        _flag("debug", bool, False, "--debug", help="Show the traceback of an error.", envvar="MASKHUB_DEBUG"),
    )
}

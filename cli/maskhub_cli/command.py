"""Commands made of the library's public functions: what is said of a parameter there becomes an argument or option."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Set
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import typer

import maskhub
from maskhub.options import Option, options
from maskhub_cli.output import DEBUG, Format, Output

R = TypeVar("R")


class Call(Generic[R]):
    """A public function of the library, and what the user asked of it (``asked``, by the parameters' names).

    What was ``left`` out has its default there, and is not given to the function, which may have it from elsewhere.
    """

    def __init__(self, function: Callable[..., R], asked: dict[str, Any], left: Set[str], out: Output) -> None:
        self.asked, self._function, self._left, self._out = asked, function, left, out

    def __call__(self, doing: str = "", unit: str = "bytes", **more: Any) -> R:
        """What the function returns; ``doing`` and ``unit`` are for its progress, ``more`` goes to it besides."""
        given = {name: value for name, value in self.asked.items() if name not in self._left} | more
        parameters = inspect.signature(self._function).parameters
        words = next((given.pop(p.name) for p in parameters.values() if p.kind is p.VAR_POSITIONAL), ())
        if not doing:
            return self._function(*words, **given)
        with self._out.progress(doing, unit=unit) as progress:
            return self._function(*words, progress=progress, **given)


@dataclass(frozen=True)
class Command:
    """A command: a public function of the library, and what shows what comes of it.

    ``show``, of ``commands/NAME.py``, is given a ``Call`` of ``function``, and is called as that is. Options of its own
    stand in its signature; its docstring says what only the command line has. One without a function does all itself.
    """

    name: str
    show: Callable[..., None]
    function: Callable[..., Any] | None

    @classmethod
    def named(cls, name: str) -> Command:
        show = getattr(importlib.import_module(f"maskhub_cli.commands.{name}"), CALLED.get(name, name))
        return cls(name, show, getattr(maskhub, show.__name__) if show.__name__ in maskhub.__all__ else None)

    @property
    def help(self) -> str:
        """What the function's docstring says before it comes to Python, and what the command line adds."""
        said = (inspect.getdoc(self.function) or "").split("\n\n") if self.function else []
        common = itertools.takewhile(lambda paragraph: not paragraph.startswith(PYTHON), said)
        paragraphs = [*common, *(inspect.getdoc(self.show) or "").split("\n\n")]
        return "\n\n".join(" ".join(paragraph.replace("``", "").split()) for paragraph in paragraphs)

    def run(self) -> Callable[..., None]:
        """The command as a function that typer understands."""
        own = {parameter.name: _parameter(parameter, *told) for parameter, *told in options(self.show)}
        asked = {p.name: _parameter(p, *told) for p, *told in (options(self.function) if self.function else ())}
        defaults = inspect.signature(self.function).parameters if self.function else {}

        def run(context: typer.Context, **given: Any) -> None:
            context.meta[DEBUG] = given.pop("debug")
            out = Output(given.pop("format"), given.pop("json"), given.pop("quiet"), meta=context.meta)
            out.quiet_hub()
            mine = {name: given.pop(name) for name in own}
            if self.function is None:
                self.show(out, **mine)
                return
            left = {name for name in given if getattr(context.get_parameter_source(name), "name", "") == "DEFAULT"}
            wanted = {name: v for name, v in given.items() if v is not None or defaults[name].default is None}
            self.show(Call(self.function, wanted, left, out), out, **mine)

        parameters = sorted((asked | own | FORMATS).values(), key=lambda p: p.default is not p.empty)
        run.__signature__ = inspect.Signature([CONTEXT, *parameters])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (CONTEXT, *parameters)}
        return run


CALLED = {"list": "list_masks"}  # list is Python's own
PYTHON = ("Gives", "In Python", "Raises", ">>>")  # how paragraphs start that are not for the command line


def _parameter(parameter: inspect.Parameter, kind: Any, option: Option) -> inspect.Parameter:
    """The parameter of a command that a function's becomes. Choices are the library's to check."""
    kinds = [one for one in get_args(kind) if one is not NoneType] if get_origin(kind) in (Union, UnionType) else [kind]
    simple = kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float) else str
    literal = get_origin(kinds[0]) is Literal
    # Of texts with commas the library makes tuples itself.
    several = parameter.kind is parameter.VAR_POSITIONAL or get_origin(kinds[-1]) not in (None, Literal, tuple)
    choices = list(option.choices()) if option.choices else list(get_args(kinds[0])) if literal else []
    default = parameter.default
    required = default is parameter.empty
    if not required and (several or (simple is str and not isinstance(default, str))):
        default = None
    told: dict[str, Any] = {
        "help": option.help,
        "metavar": option.metavar or "|".join(choices) or None,
        "rich_help_panel": option.group,
        "show_default": default not in (parameter.empty, None, False),
        "autocompletion": (lambda: choices) if choices else None,
    }
    flag = "--" + parameter.name.replace("_", "-")
    if parameter.kind is not parameter.KEYWORD_ONLY and not option.flags:
        note = typer.Argument(**told)
    else:
        note = typer.Option(f"{flag}/--no-{flag[2:]}" if default is True else flag, *option.flags, **told)
    plain: Any = list[str] if several else simple
    if default is None:
        plain = plain | None
    return _keyword(parameter.name, Annotated[plain, note], default)


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag(name: str, kind: Any, default: Any, *flags: str, help: str, **more: Any) -> inspect.Parameter:
    note = typer.Option(*flags, help=help, rich_help_panel="Output", show_default=False, **more)
    return _keyword(name, Annotated[kind, note], default)


CONTEXT = _keyword("context", typer.Context)
# What every command has.
FORMATS = {
    parameter.name: parameter
    for parameter in (
        _flag(
            "format", str, "auto", "--format", help="How to print the result; auto is human.", metavar="|".join(Format)
        ),
        _flag("json", bool, False, "--json", help="Short for --format json."),
        _flag("quiet", bool, False, "--quiet", "-q", help="Short for --format quiet: the one value a script needs."),
        _flag("debug", bool, False, "--debug", help="Show the traceback of an error.", envvar="MASKHUB_DEBUG"),
    )
}

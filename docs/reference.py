"""Writes the two reference pages, of what the program and the package say of themselves: ``make docs``."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

NOTE = "<!-- Written by `make docs`. -->"


def commands(root: Any, name: str) -> str:
    """A page of all commands of a program; ``root`` is its command, of typer or click."""
    lines = [f"# The commands of `{name}`", NOTE, paragraphs(root.help), *options(root)]
    for word in root.list_commands(None):
        command = root.resolve_command(None, [word])[1]
        if not command.hidden:
            usage = " ".join([name, word, "[OPTIONS]", *map(value, arguments(command))])
            lines += [f"## {word}", f"```\n{usage}\n```", paragraphs(command.help), *options(command)]
    return "\n\n".join(lines) + "\n"


def options(command: Any) -> Iterator[str]:
    """The lists of a command's parameters, under their headings."""
    lists: dict[str | None, list[str]] = {}
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            lists.setdefault(getattr(parameter, "rich_help_panel", None), []).append(item(parameter))
    for heading, items in lists.items():
        if heading:
            yield f"**{heading}**"
        yield "\n".join(items)


def item(parameter: Any) -> str:
    """One parameter, as an item of a list."""
    if parameter.param_type_name == "argument":
        written = f"`{value(parameter)}`"
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
        written = ", ".join(f"`{option}`" for option in names)
        if not (parameter.is_flag or parameter.count):
            written += f" `{value(parameter)}`"
    return f"- {written}: {oneline(parameter.help or '')}{default(parameter)}"


def default(parameter: Any) -> str:
    """What holds where the option is left out, if that is a plain value."""
    found = parameter.default
    found = found.value if isinstance(found, enum.Enum) else found
    shown = isinstance(found, str | int | float) and not isinstance(found, bool) and parameter.show_default
    return f" Default: `{found}`." if shown and found != "" else ""


def value(parameter: Any) -> str:
    """What stands for a parameter's value."""
    if parameter.metavar:
        return str(parameter.metavar)
    if isinstance(parameter.default, enum.Enum):
        return "|".join(choice.value for choice in type(parameter.default))
    return str(parameter.name).upper()


def arguments(command: Any) -> Iterator[Any]:
    """A command's parameters that are no options."""
    return (parameter for parameter in command.params if parameter.param_type_name == "argument")


def names(*modules: Any) -> str:
    """A page of the public names of these modules, each with its purpose."""
    lines = ["# The public names in Python", NOTE]
    for module in modules:
        lines += [f"## {module.__name__}", oneline((module.__doc__ or "").split("\n\n")[0])]
        lines.append("\n".join(entry(module, name) for name in sorted(public(module), key=str.lower)))
    return "\n\n".join(lines) + "\n"


def public(module: Any) -> list[str]:
    """Its names but those like ``__version__``."""
    return [name for name in module.__all__ if not name.startswith("__")]


def entry(module: Any, name: str) -> str:
    """One public name, as an item of a list."""
    purpose = (inspect.getdoc(getattr(module, name)) or "").split("\n\n")[0]
    return f"- `{module.__name__}.{name}`: {oneline(purpose)}"


def paragraphs(text: str | None) -> str:
    """Help as typer has it: paragraphs whose lines run on."""
    return "\n\n".join(map(oneline, re.split(r"\n\s*\n", (text or "").strip())))


def oneline(text: str) -> str:
    """Text of several lines as one, in Markdown."""
    return " ".join(text.replace("``", "`").split())


def pages() -> dict[str, str]:
    """Each page's text by the name of its file."""
    import maskhub
    import maskhub.training
    from maskhub_cli.app import app

    return {
        "cli.md": commands(typer.main.get_command(app), "maskhub"),
        "python.md": names(maskhub, maskhub.training),
    }


if __name__ == "__main__":
    for filename, text in pages().items():
        (Path(__file__).parent / filename).write_text(text, encoding="utf-8")

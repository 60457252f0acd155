"""Options that several commands take, and the terminal that they write to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from search.run.profile import SETTINGS

PROFILES_SET = ("model", "data", "trials", "hours")
"""What every shipped profile sets, so that its default is never the one in effect."""

_TYPES: dict[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}


class LastingConsole(Console):
    """A console that falls silent where nobody reads it any more: a search does not end of that."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


console = LastingConsole(stderr=True)


def takes_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command an option for each of these settings of a profile.

    They arrive as the command's keyword arguments, so it takes ``**flags``. One that is not given is None: a flag
    overrides the profile, also with a value that is the default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        # typer reads the signature with inspect, which believes this attribute.
        command.__dict__["__signature__"] = signature.replace(parameters=own + [_option(name) for name in names])
        return command

    return decorate


def _option(name: str) -> inspect.Parameter:
    schema = SETTINGS[name]
    kind = _TYPES[schema["type"]]
    option = typer.Option(
        None,
        f"--{name.replace('_', '-')}",
        help=schema["description"],
        metavar="|".join(schema["enum"]) if "enum" in schema else None,
        show_default=kind is not bool and ("the profile's" if name in PROFILES_SET else str(schema["default"])),
        rich_help_panel=schema["group"],
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


Run = Annotated[Path, typer.Option("--run", help="The run's directory.")]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="miniature, cola, or a TOML file.", show_default="miniature")
]
ReadBitMap = Annotated[Path | None, typer.Option("--bitmap", help="A bit map, as text or JSON.")]

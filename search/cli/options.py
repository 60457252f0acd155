"""Options that several commands share, and the console that messages go to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from objectives.files import user_path
from search.run.profile import SETTINGS, flag_of, off_flag_of

SET_BY_PROFILES = ("model", "data", "trials", "hours")
"""Settings that the shipped profiles choose; the help shows no other default for them."""

_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list[str]}


class PipeSafeConsole(Console):
    """A console that goes quiet if its reader is gone, so that a search continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True

    @property
    def can_animate(self) -> bool:
        """Whether a bar or spinner may be drawn; FORCE_COLOR asks for colours in a log, not for these."""
        return self.file.isatty() and self.is_terminal and not self.is_dumb_terminal

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Show a spinner beside a text, on a terminal."""
        return self.status(text) if self.can_animate else nullcontext()

    def message(self, text: str, style: str) -> None:
        """Print a text as it is, without markup or line breaks."""
        self.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


console = PipeSafeConsole(stderr=True)


def expands_home(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose paths may begin with ``~``; shells leave it as it is in ``--run=~/x``, and services do."""

    @wraps(command)
    def run(**options: Any) -> None:
        command(**{name: _expanded(value) for name, value in options.items()})

    return run


def _expanded(value: object) -> object:
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return user_path(value) if isinstance(value, Path) else value


def takes_settings(*names: str, default: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command one option for each of these profile settings.

    The command receives them as ``**flags``. An option that is not given is None, so that an option given with its
    default value still overrides the profile. ``default`` is what the help calls it, if not the profile's.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        declared = [option for option in signature.parameters.values() if option.kind is not option.VAR_KEYWORD]
        # typer uses inspect.signature, which prefers this attribute.
        command.__dict__["__signature__"] = signature.replace(
            parameters=declared + [_option(name, default) for name in names]
        )
        return command

    return decorate


def help_text(text: str, default: object) -> str:
    """Return an option's help with its default; typer itself would put a default given as text in round brackets."""
    return f"{text} [dim]\\[default: {default}][/dim]"


def _option(name: str, default: object) -> inspect.Parameter:
    schema = SETTINGS[name]
    kind, description = _TYPES[schema["type"]], schema["description"]
    usual = schema.get("default")
    if isinstance(usual, list):
        usual = ",".join(map(str, usual)) or "usual names"
    if schema.get("items", {}).get("type") == "integer":
        kind = str
    default = default or ("the profile's" if name in SET_BY_PROFILES else usual)
    option = typer.Option(
        None,
        f"{flag_of(name)}/{off_flag_of(name)}" if kind is bool else flag_of(name),
        help=description if kind is bool else help_text(description, default),
        metavar="|".join(schema["enum"]) if "enum" in schema else "<str>" if kind == list[str] else None,
        show_default=False,
        rich_help_panel=schema["group"],
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


Run = Annotated[Path, typer.Option("--run", help="Directory of the run.")]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help=help_text("Preset (miniature, cola) or a TOML file.", "miniature"))
]
BitMapFile = Annotated[Path | None, typer.Option("--bitmap", help="File with a bit map, as text or JSON.")]

"""The command line. A user's mistake gives one clear line and exit status 2."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from objectives.errors import InputError, is_out_of_memory
from search.cli import allocate, caching, distill, model_commands, run_commands
from search.cli.options import console, expands_home

app = typer.Typer(
    name="bitfront",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",  # the only mode in which typer groups options
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"bitfront {version('bitfront')}")
        raise typer.Exit


_ENVIRONMENT = (
    "Environment: BITFRONT_CACHE is the directory for the codes and sensitivities that searches share, by default the "
    "system's cache; BITFRONT_STORAGE is the default of --storage."
)


@app.callback(epilog=_ENVIRONMENT)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find how many bits each layer of a fine-tuned BERT needs."""


for command in (
    *(run_commands.search, run_commands.status, run_commands.report, run_commands.export),
    *(distill.distill, distill.polish),
    allocate.allocate,
    *(model_commands.evaluate, model_commands.sensitivity, model_commands.finetune),
    caching.cache,
):
    app.command()(expands_home(command))


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that say how OpenMP's threads wait."""
BRIEFLY = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}  # libgomp (Linux) reads the one, libomp (macOS) the other


def let_waiting_threads_sleep() -> None:
    """Let OpenMP's threads sleep after a short wait, unless the user has chosen; child processes inherit it.

    By default they spin, so that two searches on the same cores nearly stop each other. ``OMP_WAIT_POLICY=passive``
    would not let them spin at all, and a search alone would be slower (`python -m tests.benchmarks contention`). Call
    it before torch is imported: the libraries read the variables once, when they are loaded.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ.update(BRIEFLY)


_INTERRUPTED = 130  # typer's exit status for a KeyboardInterrupt


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 the machine failed, 2 a user's mistake, 130 interrupted."""
    let_waiting_threads_sleep()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may have bytes that are no text
    try:
        app()
    except InputError as error:
        console.message(f"error: {error}", "red")
        sys.exit(2)
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        console.message(f"error: {file}{error.strerror or error}", "red")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        console.message(f"error: out of memory: {reason}", "red")
        sys.exit(1)
    except SystemExit as error:
        if error.code == _INTERRUPTED:
            console.message("interrupted; start the same command again to continue", "yellow")
        raise
    sys.exit(0)


if __name__ == "__main__":
    main()

"""The command line. A user's mistake is one clear line and exit status 2."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from objectives.errors import InputError, is_out_of_memory
from search.cli import model_commands, run_commands
from search.cli.options import console

app = typer.Typer(
    name="bitfront",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",  # the only one in which typer groups options
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bitfront {version('bitfront')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """How many bits does each layer of a fine-tuned BERT need?"""


for command in (
    *(run_commands.search, run_commands.status, run_commands.report, run_commands.export, run_commands.polish),
    *(model_commands.evaluate, model_commands.sensitivity, model_commands.finetune),
):
    app.command()(command)


_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 the machine failed, 2 a mistake in what was asked, 130 interrupted."""
    try:
        app()
    except InputError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        console.print(
            f"error: {where}{error.strerror or error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        why = str(error).partition("\n")[0]
        console.print(f"error: out of memory: {why}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            console.print("interrupted; start the same command again to continue", style="yellow")
        raise
    sys.exit(0)


if __name__ == "__main__":
    main()

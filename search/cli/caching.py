"""The command that shows and prunes the cache of codes and sensitivities."""

from __future__ import annotations

from typing import Annotated

import typer


def cache(
    prune: Annotated[
        int | None,
        typer.Option(min=1, metavar="DAYS", help="Remove what was not used for so many days; it can be made again."),
    ] = None,
) -> None:
    """List what the cache holds with size and last use, or remove what is old."""
    from datetime import datetime

    from objectives import cache as caches
    from results.formatting import megabytes

    directory = caches.cache_directory()
    parts = caches.cache_parts(directory) if prune is None else caches.prune(directory, prune)
    for part in parts:
        used = datetime.fromtimestamp(part.used_s).astimezone()
        name = part.path.relative_to(directory)
        typer.echo(f"{megabytes(part.size_bytes):>10}  {used:%Y-%m-%d %H:%M}  {part.kind:13}  {name}")
    total = megabytes(sum(part.size_bytes for part in parts))
    typer.echo(f"{directory}: {total}" + (" in all" if prune is None else " removed"))

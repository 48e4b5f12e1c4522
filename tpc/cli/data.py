"""Commands for data sets: data ls, get, verify."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from tpc.cli.common import print_json
from tpc.cli.group import Commands
from tpc.cli.lasting import outlives_output
from tpc.cli.options import DATA, debug_option, json_option
from tpc.cli.types import Named
from tpc.errors import UserError


@click.group(cls=Commands)
@debug_option
def data() -> None:
    """List, fetch and verify data sets.

    \b
    Examples:
      tpc data ls --data-dir data
      tpc data get cifar10 --data-dir data
      tpc data verify cifar10 --data-dir data
    """


data_dir_option = click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Default: $TPC_DATA_DIR, else data/."
)


@data.command("ls")
@data_dir_option
@json_option
@debug_option
def data_ls(data_dir: Path | None, as_json: bool) -> None:
    """Show which data sets are there (by names and sizes only).

    \b
    Example:
      tpc data ls --data-dir data
    """
    from tpc.data import ls
    from tpc.report.console import print_holdings

    rows = ls(data_dir)
    if as_json:
        print_json({"holdings": [dataclasses.asdict(row) for row in rows]})
    else:
        print_holdings(rows)


@data.command("get")
@click.argument("name", type=Named(*DATA))
@data_dir_option
@click.option("--url", metavar="URL", help="Another address of the same file (a mirror).")
@json_option
@debug_option
@outlives_output(lambda given: not given["as_json"])
def data_get(name: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    """Download NAME from its publisher, go on with a partial download, check size and checksum.

    \b
    Examples:
      tpc data get cifar10 --data-dir data
      tpc data get omniglot --data-dir data
    """
    from tpc.data import get
    from tpc.report.download_progress import download_progress

    with download_progress(name) as progress:
        path = get(name, data_dir, url=url, progress=progress)
    if as_json:
        print_json({"dataset": name, "path": str(path)})
    else:
        click.echo(f"{name} is there, its checksum is right: {path}")


@data.command("verify")
@click.argument("name", type=Named(*DATA))
@data_dir_option
@json_option
@debug_option
def data_verify(name: str, data_dir: Path | None, as_json: bool) -> None:
    """Read every file of NAME and say whether it can be used; exit code 1 when one cannot.

    \b
    Example:
      tpc data verify cifar10 --data-dir data
    """
    from tpc.data import verify
    from tpc.report.console import print_checks

    rows = verify(name, data_dir)
    if as_json:
        print_json({"ok": bool(rows) and all(row.ok for row in rows), "files": [row._asdict() for row in rows]})
    else:
        print_checks(rows)
    bad = sum(not row.ok for row in rows)
    if bad or not rows:
        raise UserError(f"{bad} of {len(rows)} files of {name} cannot be used." if rows else f"{name} is not there.")

"""init: a first capi.toml with every setting, its default and why."""

import secrets
from pathlib import Path

import click

from capi_middleware.cli.terminal import JSON, print_json


@click.command()
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@JSON
@click.pass_obj
def init(source: str, force: bool, as_json: bool) -> None:
    """Write a commented capi.toml and say what comes next. Secrets stay in the environment."""
    path = Path(source)
    if path.suffix != ".toml":
        raise click.UsageError(f"--config: found {source!r}, expected the name of a .toml file")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(Path(__file__).with_name("capi.toml").read_text("utf-8"))
    except FileExistsError:
        raise click.ClickException(
            f"{path}: found a file, expected none; --force replaces it"
        ) from None
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written ({error.strerror})") from None
    made = {
        "CAPI_SECRET_KEY": secrets.token_urlsafe(32),
        "CAPI_REPORT_TOKEN": secrets.token_urlsafe(16),
    }
    if as_json:
        print_json({"written": str(path), "environment": made})
    else:
        text = Path(__file__).with_name("init.txt").read_text("utf-8")
        click.echo(text.format(path=path, **made), nl=False)

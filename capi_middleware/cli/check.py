"""Is this setup right? Everything that can be looked at from here, with a fix for what is wrong."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from capi_middleware.cli.checks.model import Finding, error, ok
from capi_middleware.cli.checks.setup import check_file, check_setup
from capi_middleware.cli.checks.store import check_store
from capi_middleware.cli.opening import config_of
from capi_middleware.cli.printing import JSON, print_json, print_line
from capi_middleware.config.settings import Config
from capi_middleware.errors import CapiError
from capi_middleware.store.opening import open_store


@click.command()
@click.option("--url", help="A page of the site: its tag, other pixels, policy and caches.")
@click.option("--send", is_flag=True, help="Send a test event to each pixel and show the answer.")
@click.option("--test-event-code", "code", help="For the test event; implies --send.")
@JSON
@click.pass_obj
def check(source: str, url: str | None, send: bool, code: str | None, as_json: bool) -> None:
    """Look at the configuration, the store, Meta's answer and a page; exit code 1 for an error.

    A test event is sent with --send, and without it where a test_event_code is configured. It is
    named CapiMiddlewareCheck and counts as a custom event, as Meta counts test events too. Getting
    the page of --url is a visit like any other, without JavaScript.
    """
    found = []
    for one in _look(source, url, send or bool(code), code):
        found.append(one)
        if not as_json:
            print_line(f"{one.level:<8} {one.part}: {one.text}")
            if one.fix:
                print_line(f"{'':<8} fix: {one.fix}")
    errors = sum(one.level == "error" for one in found)
    if as_json:
        print_json({"ok": not errors, "findings": found})
    sys.exit(1 if errors else 0)


def _look(source: str, url: str | None, send: bool, code: str | None) -> Iterator[Finding]:
    try:
        config = config_of(source)
    except CapiError as failure:
        yield error(
            "config",
            str(failure),
            "Mend this setting; `capi-middleware init` writes a file that loads.",
        )
        return
    yield ok("config", f"{source} loads: {len(config.pixels)} pixels, {len(config.routes)} routes")
    if Path(source).is_file():
        yield from check_file(Path(source))
    yield from check_setup(config)
    yield from _store(config)
    tested = config.test_event_code or any(one.test_event_code for one in config.pixels)
    if send or tested:
        from capi_middleware.cli.checks.sending import check_sending

        yield from check_sending(config, code)
    if url:
        from capi_middleware.cli.checks.page import check_page

        yield from check_page(config, url)


def _store(config: Config) -> Iterable[Finding]:
    try:
        store = open_store(config.store, queue_limit=config.queue_limit)
    except CapiError as failure:
        return [error("store", str(failure), "Make the directory, or name another.")]
    try:
        return list(check_store(config, store))
    finally:
        store.close()

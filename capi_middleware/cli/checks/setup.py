"""The configuration: secrets, pixels and routes that load, but may not do what was meant."""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from capi_middleware.cli.checks.model import Finding, error, ok, warning
from capi_middleware.config.routes import EventRoute
from capi_middleware.config.settings import Config

_GRAPH = "https://graph.facebook.com"
#: Methods of requests that show nobody a page; they are never events.
_SILENT = ("HEAD", "OPTIONS", "TRACE", "CONNECT")


def check_setup(config: Config) -> Iterator[Finding]:
    """Findings on a Config that loaded, so that what can never work is out already."""
    yield from _secrets(config)
    yield from _settings(config)
    for pixel in config.pixels:
        names = "all events" if pixel.events is None else ", ".join(pixel.events) or "no event"
        yield Finding(
            "pixel",
            "ok" if pixel.events != [] else "warning",
            f"{pixel.id} takes {names}",
            "" if pixel.events != [] else "Leave events out, or list some.",
        )
    for route in config.routes:
        yield _route(config, route)
    if not config.routes and not config.page_view and not config.mirror:
        yield warning(
            "routes",
            "no route, no page_view and no mirror: only track() makes events",
            "Add [[routes]], or leave page_view on.",
        )


def check_file(path: Path) -> Iterator[Finding]:
    """Secrets that stand in a capi.toml themselves; the file has been loaded."""
    data = msgspec.toml.decode(path.read_bytes())
    places = [("", data), *(("pixels.", one) for one in data.get("pixels", []))]
    for prefix, table in places:
        for name in (
            "secret_key",
            "report_token",
            "access_token",
            "read_token",
            "app_secret",
            "alert_webhook",
        ):
            value = table.get(name, "env:")
            values = value if isinstance(value, list) else [value]
            if not all(str(one).startswith("env:") for one in values):
                yield warning(
                    "secrets",
                    f"{prefix}{name} stands in {path} itself",
                    f'Write {name} = "env:NAME" and set NAME in the environment.',
                )


def _secrets(config: Config) -> Iterator[Finding]:
    for place, secret in enumerate(config.secrets):
        # Eight digits tell two keys apart and help nobody to guess one.
        mark = sha256(f"capi.check.{secret}".encode()).hexdigest()[:8]
        which = "signs" if place == 0 else "still verifies"
        text = f"{len(secret)} characters, {which}, fingerprint {mark} (the same on every machine)"
        if len(set(secret)) < 10:
            yield warning(
                "secret_key",
                f"{text}; few different characters",
                "Make a random one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        else:
            yield ok("secret_key", text)
    here = os.environ.get("CAPI_SECRET_KEY")
    if here is not None and here not in config.secrets:
        yield warning(
            "secret_key",
            "the configuration has another one than this environment's CAPI_SECRET_KEY",
            'Use one for all: secret_key = "env:CAPI_SECRET_KEY". Processes with different keys '
            "do not believe each other's event_ids.",
        )


def _settings(config: Config) -> Iterator[Finding]:
    if config.report_token is None:
        yield Finding(
            "report",
            "ok" if not config.debug else "warning",
            "without a report_token the report is not served"
            if not config.debug
            else "debug serves the report to everybody",
            "" if not config.debug else "Set debug to false in production.",
        )
    elif len(config.report_token) < 16:
        yield warning(
            "report",
            f"a report_token of {len(config.report_token)} characters",
            "Make a longer one.",
        )
    else:
        yield ok("report", f"served at {config.prefix}/parity")
    codes = {config.test_event_code, *(one.test_event_code for one in config.pixels)} - {None}
    if codes:
        yield warning(
            "test_event_code",
            "set: all events show up in Test Events, and count as well",
            "Remove it when the test is over.",
        )
    if config.graph_url.rstrip("/") != _GRAPH:
        yield warning(
            "graph_url",
            f"events go to {config.graph_url}, not to Meta",
            "Remove graph_url, unless this is a test.",
        )
    if config.consent is None:
        yield ok("consent", "everybody is tracked: no consent rule is set")


def _route(config: Config, route: EventRoute) -> Finding:
    text = f"{route.match} → {route.event_name}"
    excluded = next((one for one in config.exclude if route.path.text.startswith(one)), None)
    if excluded is not None:
        return error(
            "route",
            f"{text} can never match: exclude has {excluded!r}",
            "Remove the route, or the path from exclude.",
        )
    if route.method in _SILENT:
        return error(
            "route",
            f"{text} never counts: {route.method} shows no page",
            "Name the method of the request that is the event.",
        )
    if route.event_name == "Purchase" and route.dedupe_key is None:
        return warning(
            "route",
            f"{text} has no dedupe_key: a refreshed page counts twice",
            'Add a dedupe_key such as "{path.order_id}", or give one to track().',
        )
    return ok("route", text)

"""What a site is configured by: a capi.toml, an object of a module, a factory, or Django."""

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from inspect import isfunction, ismethod
from pathlib import Path
from typing import Any

import click

from capi_middleware.capi import CAPI
from capi_middleware.config.settings import Config
from capi_middleware.errors import ConfigError

#: What stands for the settings of Django.
DJANGO = "--django"
_FILE, _MANAGE = "capi.toml", "manage.py"
#: What compresses with br or zstd, which our middleware cannot open.
_COMPRESSORS = (
    "brotli_asgi.", "compression_middleware.", "django_brotli.", "flask_compress.",
    "litestar.config.compression.", "quart_compress.", "starlette_compress.", "zstd_asgi.",
)  # fmt: skip
_DOOR = re.compile(r"capi_middleware\.(asgi|wsgi|django|flask)\.")
_EXPECTED = "a Config, a CAPI, an app that is wrapped, or a function that makes one of them"


def _choose(context: click.Context, parameter: click.Parameter, value: str | bool | None) -> None:
    """The last one that is given counts, before the command or after it."""
    if value:
        context.obj = DJANGO if value is True else value
    elif context.obj is None:
        named = "DJANGO_SETTINGS_MODULE" in os.environ or Path(_MANAGE).exists()
        context.obj = DJANGO if named and not Path(_FILE).exists() else _FILE


def take_source(command: click.Command, variable: str | None = None) -> None:
    """Let a command, and those below it, be told what the site is configured by.

    `variable` of the environment may say it to the command itself.
    """
    command.params += [
        click.Option(
            ["--config"], envvar=variable, callback=_choose, expose_value=False,
            help="A capi.toml, or module:name of a Config, a CAPI, an app that is wrapped, or a "
            f"function that makes one.  [default: {_FILE}]",
        ),
        click.Option(
            ["--django"], is_flag=True, callback=_choose, expose_value=False,
            help="CAPI of Django's settings, which DJANGO_SETTINGS_MODULE or manage.py names; it "
            f"is so where there is one of them and no {_FILE} is here.",
        ),
    ]  # fmt: skip
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        take_source(one)


def config_of(source: str) -> Config:
    """The Config that `source` names. Raises ConfigError."""
    return site_of(source)[0]


def site_of(source: str) -> tuple[Config, Sequence[str]]:
    """The Config that `source` names, and what a request comes through in its app, by name.

    From the outermost in; a file tells nothing of an app. Raises ConfigError.
    """
    if source == DJANGO:
        return _of_django()
    if ":" not in source or Path(source).exists():
        if source == _FILE and not Path(source).exists():
            raise ConfigError(
                f"found no {_FILE} in {Path.cwd()}, expected one here or what configures the site: "
                "--config path/to/capi.toml, --config module:name (tracking:config), or --django"
            )
        return Config.load(source), ()
    found = _object(source)
    layers = list(_layers(found))
    named = _config_in(layers)
    if named is None:
        raise ConfigError(
            f"--config: found a {type(found).__name__} at {source}, expected {_EXPECTED}"
        )
    return named, [_name(one) for one in layers]


def compressors(layers: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """What compresses with more than gzip, and whether it stands outside of our middleware."""
    door = next((at for at, one in enumerate(layers) if _DOOR.match(one)), None)
    for at, name in enumerate(layers):
        if door is not None and name.startswith(_COMPRESSORS):
            yield name, at < door


def _object(source: str) -> Any:
    """What module:name names, or what the function of that name makes. Raises ConfigError."""
    module, _, name = source.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module), name.removesuffix("()"))
        return found() if isfunction(found) else found
    except Exception as error:  # whatever that module does
        raise ConfigError(
            f"--config: found no {source} ({type(error).__name__}: {error}), expected module:name "
            "that loads here, with the environment of the web processes"
        ) from None


def _layers(app: Any) -> Iterator[Any]:
    """An app and all that a request comes through, from the outermost in."""
    last: list[Any] = []
    for _ in range(30):  # it ends somewhere, also where it is a circle
        yield app
        yield from getattr(app, "user_middleware", ())  # Starlette's
        hooks = getattr(app, "after_request_funcs", None)  # Flask's and Quart's
        if isinstance(hooks, dict):
            last += [getattr(one, "__self__", one) for one in hooks.get(None, ())]
        last.append(getattr(app, "compression_config", None))  # Litestar's
        inner = (getattr(app, name, None) for name in ("app", "wsgi_app", "asgi_app"))
        app = next((one for one in inner if one is not None and not ismethod(one)), None)
        if app is None:
            break
    for one in last:
        used = getattr(one, "enabled_algorithms", None) or [getattr(one, "backend", None)]
        if list(used) != ["gzip"]:
            yield one


def _name(layer: Any) -> str:
    """The class of a layer, or of what an entry of a list names, with its module."""
    named = getattr(layer, "cls", None)
    kind = named if isinstance(named, type) else type(layer)
    return f"{kind.__module__}.{kind.__qualname__}"


def _config_in(layers: Sequence[Any]) -> Config | None:
    """The Config of an app: our own, a door of ours, Flask's extension, an entry of a list."""
    given = []
    for one in layers:
        given += [one, getattr(one, "capi", None)]
        for name in ("args", "extensions", "kwargs"):
            found = getattr(one, name, None)
            given += found.values() if isinstance(found, dict) else ()
            given += found if isinstance(found, tuple) else ()
    configs = [one.config if isinstance(one, CAPI) else one for one in given]
    return next((one for one in configs if isinstance(one, Config)), None)


def _of_django() -> tuple[Config, Sequence[str]]:
    sys.path.insert(0, str(Path.cwd()))
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        manage = Path(_MANAGE)
        text = manage.read_text("utf-8") if manage.exists() else ""
        named = re.search(r"""DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""", text)
        if named is None:
            raise ConfigError(
                "--django: found no DJANGO_SETTINGS_MODULE in the environment and none in "
                "manage.py here, expected one of them"
            )
        os.environ["DJANGO_SETTINGS_MODULE"] = named[1]
    try:
        import django
        from django.conf import settings

        django.setup()
        from capi_middleware.django import configured
    except Exception as error:  # whatever the settings and the apps do
        name, what = os.environ["DJANGO_SETTINGS_MODULE"], f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"--django: found settings {name} that do not load ({what}), expected a project that "
            "runs"
        ) from None
    return configured(), settings.MIDDLEWARE

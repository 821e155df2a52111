"""What a site is configured by: a capi.toml, an object of a module, a factory, or Django."""

import importlib
import os
import re
import sys
from inspect import isfunction
from pathlib import Path
from typing import Any

import click

from capi_middleware.capi import CAPI
from capi_middleware.config.settings import Config
from capi_middleware.errors import ConfigError

#: What stands for the settings of Django.
DJANGO = "--django"
_FILE, _MANAGE = "capi.toml", "manage.py"
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
    if source == DJANGO:
        return _of_django()
    module, colon, name = source.partition(":")
    if not colon or Path(source).exists():
        if source == _FILE and not Path(source).exists():
            raise ConfigError(
                f"found no {_FILE} in {Path.cwd()}, expected one here or what configures the site: "
                "--config path/to/capi.toml, --config module:name (tracking:config), or --django"
            )
        return Config.load(source)
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module), name.removesuffix("()"))
        if isfunction(found):
            found = found()
    except Exception as error:  # whatever that module does
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"--config: found no {source} ({what}), expected module:name that loads here, with the "
            "environment of the web processes"
        ) from None
    config = _config_in(found)
    if config is None:
        kind = type(found).__name__
        raise ConfigError(f"--config: found a {kind} at {source}, expected {_EXPECTED}")
    return config


def _config_in(found: Any) -> Config | None:
    """The Config of an object: our own, a door of ours, Flask's extension, Starlette's list."""
    extensions = getattr(found, "extensions", None)
    given = [found, getattr(found, "capi", None)]
    if isinstance(extensions, dict):
        given.append(extensions.get("capi"))
    for one in getattr(found, "user_middleware", ()):
        given += [*getattr(one, "args", ()), *getattr(one, "kwargs", {}).values()]
    configs = [one.config if isinstance(one, CAPI) else one for one in given]
    return next((one for one in configs if isinstance(one, Config)), None)


def _of_django() -> Config:
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

        django.setup()
        from capi_middleware.django import configured
    except Exception as error:  # whatever the settings and the apps do
        name, what = os.environ["DJANGO_SETTINGS_MODULE"], f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"--django: found settings {name} that do not load ({what}), expected a project that "
            "runs"
        ) from None
    return configured()

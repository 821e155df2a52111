"""From --config to a Config and to an opened CAPI."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from capi_middleware.capi import CAPI
from capi_middleware.config.settings import Config
from capi_middleware.errors import CapiError, ConfigError


def config_of(source: str) -> Config:
    """The Config that `source` names. Raises ConfigError."""
    module, colon, name = source.partition(":")
    if not colon or Path(source).exists():
        return Config.load(source)
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--config: found no {source} ({error}), expected module:name") from None
    if isinstance(found, CAPI):
        found = found.config
    if not isinstance(found, Config):
        kind = type(found).__name__
        raise ConfigError(f"--config: found a {kind} at {source}, expected a Config or a CAPI")
    return found


def capi_of(source: str, *, delivery: bool) -> CAPI:
    """The CAPI that `source` names; its errors are lines for people."""
    try:
        return CAPI(replace(config_of(source), delivery=delivery))
    except CapiError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def opened(source: str) -> Iterator[CAPI]:
    """A CAPI that delivers nothing, its store closed at the end; errors are lines for people."""
    capi = capi_of(source, delivery=False)
    try:
        yield capi
    except CapiError as error:
        raise click.ClickException(str(error)) from None
    finally:
        capi.close()
        capi.store.close()

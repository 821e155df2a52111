"""ASGI and WSGI middleware plus a pixel-parity toolkit for Meta's Conversions API.

A name is imported when it is first used: a WSGI app never loads asyncio, a test run that only has
the plugin installed loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capi_middleware.alerts.rules import Alert as Alert
    from capi_middleware.asgi import CAPIMiddleware as CAPIMiddleware
    from capi_middleware.capi import CAPI as CAPI
    from capi_middleware.capi import current_visitor as current_visitor
    from capi_middleware.capi import track as track
    from capi_middleware.config.pixels import Pixel as Pixel
    from capi_middleware.config.pixels import Tenant as Tenant
    from capi_middleware.config.routes import EventRoute as EventRoute
    from capi_middleware.config.settings import Config as Config
    from capi_middleware.errors import CapiError as CapiError
    from capi_middleware.errors import ConfigError as ConfigError
    from capi_middleware.events import Event as Event
    from capi_middleware.meta.user_data import UserData as UserData
    from capi_middleware.meta.visitor import Visitor as Visitor
    from capi_middleware.signing import verify_alert as verify_alert

__version__ = "0.1.0"

_HOMES = {
    "CAPI": "capi",
    "Alert": "alerts.rules",
    "CAPIMiddleware": "asgi",
    "CapiError": "errors",
    "Config": "config.settings",
    "ConfigError": "errors",
    "Event": "events",
    "EventRoute": "config.routes",
    "Pixel": "config.pixels",
    "Tenant": "config.pixels",
    "UserData": "meta.user_data",
    "Visitor": "meta.visitor",
    "current_visitor": "capi",
    "track": "capi",
    "verify_alert": "signing",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""ASGI and WSGI middleware plus a pixel-parity toolkit for Meta's Conversions API.

A name is imported when it is first used: a WSGI app never loads asyncio, a test run that only has
the plugin installed loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capi_middleware.alerts.rules import Alert
    from capi_middleware.asgi import CAPIMiddleware
    from capi_middleware.capi import CAPI, current_visitor, track
    from capi_middleware.config.pixels import Pixel
    from capi_middleware.config.routes import EventRoute
    from capi_middleware.config.settings import Config
    from capi_middleware.errors import CapiError, ConfigError
    from capi_middleware.events import Event
    from capi_middleware.meta.user_data import UserData
    from capi_middleware.meta.visitor import Visitor
    from capi_middleware.signing import verify_alert

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
    "UserData": "meta.user_data",
    "Visitor": "meta.visitor",
    "current_visitor": "capi",
    "track": "capi",
    "verify_alert": "signing",
}

__all__ = [
    "CAPI",
    "Alert",
    "CAPIMiddleware",
    "CapiError",
    "Config",
    "ConfigError",
    "Event",
    "EventRoute",
    "Pixel",
    "UserData",
    "Visitor",
    "current_visitor",
    "track",
    "verify_alert",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

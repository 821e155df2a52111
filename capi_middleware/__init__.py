"""ASGI and WSGI middleware plus a pixel-parity toolkit for Meta's Conversions API.

A name is imported when it is first used: a WSGI app never loads asyncio, a test run that only has
the plugin installed loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capi_middleware.asgi import CAPIMiddleware
    from capi_middleware.config import Config
    from capi_middleware.errors import CapiError, ConfigError
    from capi_middleware.events import Event
    from capi_middleware.parity.alerts import Alert
    from capi_middleware.parity.signing import verify_alert
    from capi_middleware.pixels import Pixel
    from capi_middleware.routes import EventRoute
    from capi_middleware.tracker import CAPI
    from capi_middleware.tracking import current_visitor, track
    from capi_middleware.user_data import UserData
    from capi_middleware.visitor import Visitor

__version__ = "0.1.0"

_HOMES = {
    "CAPI": "tracker",
    "Alert": "parity.alerts",
    "CAPIMiddleware": "asgi",
    "CapiError": "errors",
    "Config": "config",
    "ConfigError": "errors",
    "Event": "events",
    "EventRoute": "routes",
    "Pixel": "pixels",
    "UserData": "user_data",
    "Visitor": "visitor",
    "current_visitor": "tracking",
    "track": "tracking",
    "verify_alert": "parity.signing",
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

"""ASGI and WSGI middleware plus a pixel-parity toolkit for Meta's Conversions API."""

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

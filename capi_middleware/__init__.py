"""ASGI and WSGI middleware plus a pixel-parity toolkit for Meta's Conversions API."""

__version__ = "0.1.0"

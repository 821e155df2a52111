"""Injection: the pixel tag gets into the pages of the app, and nothing else of them changes.

The gate decides whether a response may be touched, an injector streams its body, and the headers
are adjusted to it. All of it is pure: bytes in, bytes out.
"""

from capi_middleware.page.gate import (
    Header,
    Verdict,
    inspect,
    is_public,
    may_be_page,
    rewrite,
    rewrite_head,
)
from capi_middleware.page.gzip import GzipInjector
from capi_middleware.page.injector import Injector, Piece

__all__ = [
    "GzipInjector",
    "Header",
    "Injector",
    "Piece",
    "Verdict",
    "inspect",
    "is_public",
    "may_be_page",
    "rewrite",
    "rewrite_head",
]

"""Answers: what the responses of our own endpoints have in common."""

from starlette.responses import Response

#: For everything that is not a visitor's: not stored, not indexed, not guessed at, not framed.
PRIVATE = {
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def bare(status: int, **headers: str) -> Response:
    """An answer without a body."""
    return Response(b"", status, {**PRIVATE, **headers}, "text/plain")

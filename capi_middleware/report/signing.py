"""Signing: how the receiver of an alert knows that it comes from this site and is fresh."""

import time
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest, digest

HEADER = "X-Capi-Signature"
#: How far the receiver's clock may be from ours, in seconds.
TOLERANCE = 300.0


def sign(secret_key: str, body: bytes, now: float) -> str:
    """The header's value: t=<Unix seconds>,v1=<hexadecimal HMAC-SHA256 of "t.body">."""
    moment = str(int(now))
    return f"t={moment},v1={_signature(secret_key, moment, body)}"


def verify_alert(
    body: bytes,
    signature: str | None,
    secret_key: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether a webhook's `body` was signed by a site with this secret_key a short time ago.

    Args:
        body: as it came, not decoded.
        signature: the header X-Capi-Signature; None where there is none.
        secret_key: that of the Config; of a list, any may have signed.
        tolerance: how old it may be, in seconds; it is also what clocks may differ by.
    """
    parts = dict(part.partition("=")[::2] for part in (signature or "").split(","))
    moment, given = parts.get("t", ""), parts.get("v1", "")
    if not (moment.isascii() and moment.isdecimal() and len(moment) < 16 and given.isascii()):
        return False
    if abs(time.time() - int(moment)) > tolerance:
        return False
    keys = [secret_key] if isinstance(secret_key, str) else secret_key
    return any(compare_digest(given, _signature(key, moment, body)) for key in keys)


def _signature(secret_key: str, moment: str, body: bytes) -> str:
    # A key for this purpose alone: who checks alerts need not be able to mint event_ids.
    key = digest(secret_key.encode("utf-8", "surrogatepass"), b"capi.alert", sha256)
    return digest(key, f"{moment}.".encode() + body, sha256).hex()

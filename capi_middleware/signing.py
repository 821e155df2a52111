"""Minting: signed event_ids that anyone with the key ring can verify without a database."""

import binascii
import random
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest

from itsdangerous import BadSignature, Signer

from capi_middleware.errors import BadEventId

#: 64 characters in ASCII order, so that ids sort by time: URL- and cookie-safe.
_ALPHABET = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SORTED = bytes.maketrans(_BASE64, _ALPHABET.encode())
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_DIGIT = {character: number for number, character in enumerate(_ALPHABET)}
_LONGEST = 64
_BODY = 20


def _encode(number: int) -> str:
    """19 digits of _ALPHABET for the 114 lowest bits of `number`."""
    whole = (number << 6 & (1 << 120) - 1).to_bytes(15)
    return binascii.b2a_base64(whole, newline=False).translate(_SORTED)[:19].decode("ascii")


class _Key:
    """HMAC-SHA256 with one key (RFC 2104), whose two pads are hashed once instead of each time."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def signature(self, value: bytes) -> str:
        """43 characters of URL-safe base64."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(value)
        outer.update(inner.digest())
        text = binascii.b2a_base64(outer.digest(), newline=False).translate(_URL_SAFE)
        return text[:-1].decode("ascii")  # 32 bytes have one "=" of padding


class Minter:
    """Mints and verifies event_ids: 20 characters, a dot, 43 characters of HMAC-SHA256.

    The signature covers the event_name too, so an event_id proves one event of one name. The
    body starts with "t" and the time, or with "k" when it comes from a dedupe_key.
    """

    def __init__(self, secrets_: Sequence[str]) -> None:
        # itsdangerous derives the keys, and would do so again for each id.
        signer = Signer(list(secrets_), salt="capi.event_id", digest_method=sha256)
        self._keys = [_Key(signer.derive_key(secret)) for secret in secrets_]
        self._sign = self._keys[0].signature

    def mint(self, event_name: str, now: float, dedupe_key: object = None) -> str:
        """A new event_id of at most 64 characters of [A-Za-z0-9_.-].

        `now` is Unix time in seconds. With a `dedupe_key` the same (event_name, dedupe_key)
        gives the same event_id in every process that has the same signing key.
        """
        if dedupe_key is None:
            # Random bits keep ids apart and guard nothing. `random` takes them from no system
            # call, for which a busy process would lose its turn, and starts anew after a fork.
            body = "t" + _encode(int(now * 1000) << 66 | random.getrandbits(66))
        else:
            text = f"{event_name}\x00{dedupe_key}".encode("utf-8", "surrogatepass")
            body = "k" + _encode(int.from_bytes(sha256(text).digest()))
        value = f"{body}.{event_name}".encode("utf-8", "surrogatepass")
        return f"{body}.{self._sign(value)}"

    def verify(self, event_id: str, event_name: str) -> None:
        """Raises BadEventId unless this site minted `event_id` for `event_name`."""
        body, dot, signature = event_id.partition(".")
        if not dot or len(event_id) > _LONGEST or len(body) != _BODY:
            raise BadEventId("found no event_id of ours, expected one that this site minted")
        value = f"{body}.{event_name}".encode("utf-8", "surrogatepass")
        if not event_id.isascii() or not any(
            compare_digest(key.signature(value), signature) for key in self._keys
        ):
            raise BadEventId("found an event_id with a wrong signature, expected one of this site")

    def verifies(self, event_id: str, event_name: str) -> bool:
        """Whether this site minted `event_id` for `event_name`."""
        try:
            self.verify(event_id, event_name)
        except BadEventId:
            return False
        return True

    def minted_at(self, event_id: str) -> float | None:
        """Unix time in seconds; None for an id that comes from a dedupe_key. Checks nothing."""
        if event_id[:1] != "t" or len(event_id) < 9:
            return None
        number = 0
        for character in event_id[1:9]:
            number = number << 6 | _DIGIT.get(character, 0)
        return number / 1000


class TextSigner:
    """Signs short texts for one purpose; a text signed for another purpose does not verify."""

    def __init__(self, secrets_: Sequence[str], purpose: str) -> None:
        ring = list(reversed(secrets_))
        self._signer = Signer(ring, salt=f"capi.{purpose}", digest_method=sha256)

    def sign(self, text: str) -> str:
        """`text`, a dot and its signature."""
        return self._signer.sign(text).decode()

    def unsign(self, signed: str) -> str | None:
        """The text, or None when the signature is not ours."""
        try:
            return self._signer.unsign(signed).decode()
        except (BadSignature, UnicodeError):
            return None

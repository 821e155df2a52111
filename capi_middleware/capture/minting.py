"""Minting: signed event_ids that anyone with the key ring can verify without a database."""

import secrets
from collections.abc import Sequence
from hashlib import sha256

from itsdangerous import BadSignature, Signer

from capi_middleware.errors import BadEventId

#: 64 characters in ASCII order, so that ids sort by time: URL- and cookie-safe.
_ALPHABET = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_LONGEST = 64
#: How base64 ends the 43 characters of 32 bytes: any other last character is a second spelling of
#: the same signature, and would make another event of the same id.
_LAST = frozenset("AEIMQUYcgkosw048")
_BODY = 20


def _encode(number: int, length: int) -> str:
    characters = []
    for _ in range(length):
        characters.append(_ALPHABET[number & 63])
        number >>= 6
    return "".join(reversed(characters))


class Minter:
    """Mints and verifies event_ids: 20 characters, a dot, 43 characters of HMAC-SHA256.

    The signature covers the event_name too, so an event_id proves one event of one name. The
    body starts with "t" and the time, or with "k" when it comes from a dedupe_key.
    """

    def __init__(self, secrets_: Sequence[str]) -> None:
        # itsdangerous wants the oldest key first; ours signs with the first.
        ring = list(reversed(secrets_))
        self._signer = Signer(ring, salt="capi.event_id", digest_method=sha256)

    def mint(self, event_name: str, now: float, dedupe_key: object = None) -> str:
        """A new event_id of at most 64 characters of [A-Za-z0-9_.-].

        `now` is Unix time in seconds. With a `dedupe_key` the same (event_name, dedupe_key)
        gives the same event_id in every process that has the same signing key.
        """
        if dedupe_key is None:
            body = "t" + _encode(int(now * 1000), 8) + _encode(secrets.randbits(66), 11)
        else:
            text = f"{event_name}\x00{dedupe_key}".encode("utf-8", "surrogatepass")
            body = "k" + _encode(int.from_bytes(sha256(text).digest()), _BODY - 1)
        return f"{body}.{self._signature(body, event_name)}"

    def verify(self, event_id: str, event_name: str) -> None:
        """Raises BadEventId unless this site minted `event_id` for `event_name`."""
        body, dot, signature = event_id.partition(".")
        if not dot or len(event_id) > _LONGEST or len(body) != _BODY:
            raise BadEventId("found no event_id of ours, expected one that this site minted")
        value = f"{body}.{event_name}".encode("utf-8", "surrogatepass")
        if (
            not event_id.isascii()
            or signature[-1:] not in _LAST
            or not self._signer.verify_signature(value, signature)
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
            number = number << 6 | max(0, _ALPHABET.find(character))
        return number / 1000

    def _signature(self, body: str, event_name: str) -> str:
        value = f"{body}.{event_name}".encode("utf-8", "surrogatepass")
        return self._signer.get_signature(value).decode()


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

"""Signing: every key of a site, each for one purpose, and all that is signed or hashed with one."""

import binascii
import random
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from hashlib import blake2b, sha256
from hmac import compare_digest, digest
from typing import Any

from itsdangerous import BadSignature, Signer

# What keys are for. One purpose's key is of no use for another: who checks alerts cannot mint.
_EVENT_ID = "capi.event_id"
VISITOR, CARRIED, WAITING, HELD, _LOGIN = "visitor", "carried", "waiting", "held", "report"
_LINK = "report-link"
_ALERT, _VALUE, _TOKEN, _SECRET = b"capi.alert", b"capi.value", b"capi.token", b"secret_key"
_USE, _PAGE = b"capi.use", b"capi.page"

#: How far the clock of who gets an alert may be from ours, in seconds.
TOLERANCE = 300.0
#: Hexadecimal digits that tell two values, tokens or secrets apart.
_SHORT = 16
#: 64 characters in ASCII order, so that ids sort by time: URL- and cookie-safe.
_ALPHABET = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SORTED = bytes.maketrans(_BASE64, _ALPHABET.encode())
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_DIGIT = {character: number for number, character in enumerate(_ALPHABET)}
_LONGEST = 64
_BODY = 20
#: See order_of().
ORDER_SIGNED = 12


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
    body starts with "t" and the time, or with "k" when it comes from a dedupe_key. Of several keys
    the first signs the former and the last, which is the oldest, the latter: an order has one id
    for as long as that key is listed.
    """

    def __init__(self, secrets_: Sequence[str]) -> None:
        # itsdangerous derives the keys, and would do so again for each id.
        signer = Signer(list(secrets_), salt=_EVENT_ID, digest_method=sha256)
        self._keys = [_Key(signer.derive_key(secret)) for secret in secrets_]
        self._sign, self._sign_order = self._keys[0].signature, self._keys[-1].signature

    def mint(self, event_name: str, now: float, dedupe_key: object = None) -> str:
        """A new event_id of at most 64 characters of [A-Za-z0-9_.-].

        `now` is Unix time in seconds. With a `dedupe_key` the same (event_name, dedupe_key)
        gives the same event_id in every process that has the same last key.
        """
        if dedupe_key is None:
            # Random bits keep ids apart and guard nothing. `random` takes them from no system
            # call, for which a busy process would lose its turn, and starts anew after a fork.
            kind, sign = "t", self._sign
            number = int(now * 1000) << 66 | random.getrandbits(66)
        else:
            text = f"{event_name}\x00{dedupe_key}".encode("utf-8", "surrogatepass")
            kind, sign, number = "k", self._sign_order, int.from_bytes(sha256(text).digest())
        # The 114 lowest bits as 19 digits of _ALPHABET.
        whole = (number << 6 & (1 << 120) - 1).to_bytes(15)
        digits = binascii.b2a_base64(whole, newline=False).translate(_SORTED)
        body = kind + digits[:19].decode("ascii")
        value = f"{body}.{event_name}".encode("utf-8", "surrogatepass")
        return f"{body}.{sign(value)}"

    def verifies(self, event_id: str, event_name: str) -> bool:
        """Whether this site minted `event_id` for `event_name`."""
        body, _, signature = event_id.partition(".")
        if len(event_id) > _LONGEST or len(body) != _BODY or not event_id.isascii():
            return False
        value = f"{body}.{event_name}".encode("utf-8", "surrogatepass")
        for key in self._keys:  # noqa: SIM110 - any() of a generator takes two calls more
            if compare_digest(key.signature(value), signature):
                return True
        return False

    def mark(self, text: str) -> str:
        """The signature of a text that is no event: of a page that was answered."""
        return self._sign(_marked(text))

    def marks(self, text: str, signature: str) -> bool:
        """Whether mark() made this signature of `text`."""
        if not signature.isascii():
            return False
        value = _marked(text)
        return any(compare_digest(key.signature(value), signature) for key in self._keys)

    def minted_at(self, event_id: str) -> float | None:
        """Unix time in seconds; None for an id that comes from a dedupe_key. Checks nothing."""
        if event_id[:1] != "t" or len(event_id) < 9:
            return None
        number = 0
        for character in event_id[1:9]:
            number = number << 6 | _DIGIT.get(character, 0)
        return number / 1000


def signed_name(event_name: str, tenant: str) -> str:
    """What an event_id of a tenant is minted for: it proves no event of another one."""
    return f"{tenant}/{event_name}" if tenant else event_name


def _marked(text: str) -> bytes:
    return b"\0" + _bytes(text)  # no event_id starts so


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


def login_signer(secrets_: Sequence[str], report_token: str | None) -> TextSigner:
    """Signs logins of this `report_token` alone: with another one all of them end."""
    return TextSigner(secrets_, f"{_LOGIN}.{sha256(_bytes(report_token or '')).hexdigest()}")


def link_signer(secrets_: Sequence[str], report_token: str | None) -> TextSigner:
    """Signs links to the report, which end with this `report_token`, too."""
    return TextSigner(secrets_, f"{_LINK}.{sha256(_bytes(report_token or '')).hexdigest()}")


def equal(one: str, other: str) -> bool:
    """Whether two tokens are the same, in a time that tells neither them nor their lengths."""
    return compare_digest(sha256(_bytes(one)).digest(), sha256(_bytes(other)).digest())


class ValueDigest:
    """Value and currency of an event as a keyed hash, to compare its two copies.

    Hashes with the last of `secrets_`, which all processes know while they change to a new first:
    who has the store learns from it nothing of what a browser told.
    """

    def __init__(self, secrets_: Sequence[str]) -> None:
        self._key = _key(secrets_[-1], _VALUE)

    def __call__(self, value: object, currency: object) -> str:
        """16 hexadecimal digits, the same for 12.5 and "12.50" and for "eur" and "EUR".

        "" without a value and for one that is no finite number.
        """
        if value is None or isinstance(value, bool):
            return ""
        try:
            number = Decimal(str(value).strip()).normalize()
        except ArithmeticError:
            return ""
        if not number.is_finite():
            return ""
        unit = currency.strip().upper() if isinstance(currency, str) else ""
        text = f"{number or 0}|{unit}".encode("utf-8", "surrogatepass")
        return digest(self._key, text, sha256).hex()[:_SHORT]


def use_digest(secrets_: Sequence[str]) -> Callable[[bytes], Any]:
    """A keyed hash of 8 hexadecimal digits for who used an event_id, see Use in store/records.py.

    Hashes with the last of `secrets_`, which all processes know while they change to a new first.
    It is C code throughout: every event has two.
    """
    return partial(blake2b, key=_key(secrets_[-1], _USE), digest_size=4)


def page_digest(secrets_: Sequence[str]) -> Callable[[bytes], Any]:
    """A keyed hash of 16 hexadecimal digits for the address that a page was answered at."""
    return partial(blake2b, key=_key(secrets_[-1], _PAGE), digest_size=8)


def is_unique(event_id: str) -> bool:
    """Whether this looks like an id that was made at random, for one event alone."""
    return event_id[:1] == "m" or (event_id[:1] == "t" and event_id[_BODY : _BODY + 1] == ".")


def short_hash(text: str) -> str:
    """What stands for a text, such as an address, in one that is signed: 16 hexadecimal digits."""
    return sha256(_bytes(text)).hexdigest()[:_SHORT]


def order_of(event_id: str) -> int | None:
    """What an order is remembered by, 63 bits of an id that comes from a dedupe_key.

    The lowest ORDER_SIGNED bits are of its signature, all others of (event_name, dedupe_key):
    whatever the key, it is the same order. None for other ids.
    """
    if event_id[:1] != "k" or len(event_id) != _LONGEST or event_id[_BODY] != ".":
        return None
    number = 0
    for character in event_id[1:10]:
        number = number << 6 | _DIGIT.get(character, 0)
    number >>= 3
    for character in event_id[_BODY + 1 : _BODY + 3]:
        number = number << 6 | _DIGIT.get(character, 0)
    return number


def fingerprint(secret: str) -> str:
    """What tells a secret from others without telling it: 16 hexadecimal digits."""
    return _key(secret, _SECRET).hex()[:_SHORT]


def token_mark(secret: str, text: str) -> str:
    """The same of a `text` with an access token in it; nobody without the `secret` can guess."""
    return digest(_key(secret, _TOKEN), _bytes(text), sha256).hex()[:_SHORT]


def sign_alert(secret_key: str, body: bytes, now: float) -> str:
    """The value of X-Capi-Signature: t=<Unix seconds>,v1=<hexadecimal HMAC-SHA256 of "t.body">."""
    moment = str(int(now))
    return f"t={moment},v1={_alert_signature(secret_key, moment, body)}"


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
    return any(compare_digest(given, _alert_signature(key, moment, body)) for key in keys)


def _alert_signature(secret_key: str, moment: str, body: bytes) -> str:
    return digest(_key(secret_key, _ALERT), f"{moment}.".encode() + body, sha256).hex()


def _key(secret: str, purpose: bytes) -> bytes:
    return digest(_bytes(secret), purpose, sha256)


def _bytes(text: str) -> bytes:
    """UTF-8, whatever the host hands in: lone surrogates too."""
    return text.encode("utf-8", "surrogatepass")

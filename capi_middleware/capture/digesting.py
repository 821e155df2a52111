"""Digesting: value and currency of an event as a keyed hash, to compare its two copies."""

from collections.abc import Sequence
from decimal import Decimal
from hashlib import sha256
from hmac import digest

#: Hexadecimal digits: enough to tell two values of one event apart.
_LENGTH = 16


class ValueDigest:
    """Hashes values with the first of `secrets_`: who has the store learns no amounts from it."""

    def __init__(self, secrets_: Sequence[str]) -> None:
        self._key = digest(secrets_[0].encode("utf-8", "surrogatepass"), b"capi.value", sha256)

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
        text = f"{number or 0}|{unit}"
        return digest(self._key, text.encode("utf-8", "surrogatepass"), sha256).hex()[:_LENGTH]

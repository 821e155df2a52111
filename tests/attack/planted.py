"""What must be found nowhere: made-up values that name a person or open a door."""

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from urllib.parse import quote, quote_plus

_MARKED = re.compile("<([^>]+)>")
_KINDS = Path(__file__).parents[1] / "data" / "private_addresses.txt"
#: Shorter texts turn up by chance, and shorter numbers.
_SHORTEST, _SHORTEST_NUMBER = 7, 10


def forms_of(value: str) -> set[bytes]:
    """A planted value as it may turn up."""
    texts = (value, value.lower(), value.lstrip("+"))
    return {one.encode() for text in texts for one in (text, quote(text), quote_plus(text))}


class Planted:
    """The values of one attack, and `addresses` that have them."""

    def __init__(self, random: Random) -> None:
        tag = "".join(random.choices("bcdfghklmnprst", k=6))
        self.emails = [f"canary{n:02}.{tag}@birds-{n}.example" for n in range(20)]
        self.phones = [f"+4930{random.randrange(10**7, 10**8)}" for _ in range(20)]
        self.names = [f"Zilpzalp{chr(97 + n)}{tag}" for n in range(20)]
        self.values = [*self.emails, *self.phones, *self.names]
        self.addresses: list[str] = []
        for line in _KINDS.read_text("utf-8").splitlines():
            if line and not line.startswith("#"):
                for address in line.split(" | ")[1].split():
                    self.addresses.append(_MARKED.sub(self._plant, address))
        self.values = list(dict.fromkeys(self.values))

    def _plant(self, found: re.Match[str]) -> str:
        text = found[1]
        if text.isalpha() and text.isascii() and len(text) < _SHORTEST:
            text = f"Zilp{text}zalp" if text[0].isupper() else f"zilp{text}zalp"
        if text == "example.com":
            text = "zilpzalp-birds.example"
        shortest = _SHORTEST_NUMBER if text.isdigit() else _SHORTEST
        if len(text) >= shortest and "%" not in text:
            self.values.append(text)
        return text

    def found(self, data: bytes) -> Iterator[str]:
        """The values that are in `data`, with what is around them."""
        for value in self.values:
            places = [data.find(form) for form in forms_of(value)]
            if max(places) >= 0:
                at = max(places)
                yield f"{value}: {data[max(0, at - 90) : at + 60]!r}"

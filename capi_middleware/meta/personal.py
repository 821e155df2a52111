"""Personal data and secrets in what leaves in clear: told by name, by shape and by length.

Everything here is linear in its input, which callers cut to its limit before.
"""

import re
import tomllib
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

_WORDS = tomllib.loads(Path(__file__).with_name("personal.toml").read_text("utf-8"))


def _words(name: str) -> frozenset[str]:
    return frozenset(_WORDS[name].split())


_HARMLESS = _words("harmless")
_PERSONAL = _words("personal")
_SECRET = _words("secret")
_WHOLE = _words("whole")
_MATCH_KEYS = _words("match_keys")
_STEMS = tuple(_WORDS["stems"].split())
#: Words that mean nothing personal beside one of these: product_name, promo_code, user_type.
_BESIDE: dict[str, frozenset[str]] = {
    word: frozenset(others.split())
    for words, others in _WORDS["beside"].items()
    for word in words.split()
}
_BEFORE_A_PERSON = _words("before_a_person")
#: Meta's own fields of travel, vehicle and property catalogues.
_CATALOGUE = _words("catalogue")
_BEFORE_A_TOKEN = _words("before_a_token")
#: Values that say nothing of anybody, whatever they are called.
_SAYS_NOTHING = _words("says_nothing")
#: Names whose value a visitor types.
_TYPED = _words("typed")

_PARTS = re.compile(r"[\[\].]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+|\d+")
# No part of them can start in the middle of another: each character is looked at once or twice.
_AFTER_AT = re.compile(r"[^\s@/?&=]{1,63}?\.[^\s@/.]")
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.")
_PHONE = re.compile(r"(?<![\w.-])(?:\+|00|\(0|0)[\d ()/.-]{6,22}\d(?![\w-])")
_IBAN = re.compile(
    r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Z0-9])"
)
_CARD = re.compile(
    r"(?<![\d.-])(?:[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{3,4}|3[47]\d\d[ -]?\d{6}[ -]?\d{5})(?![\d-])"
)
# Numbers in groups: telephones of countries without a leading 0, social security.
_GROUPS = re.compile(
    r"(?<![\w.-])(?!19\d\d|20\d\d)\(?\d{2,3}\)?(?:[ .-]{1,2}\d{2,4}){2,4}(?![\w-]|\.\d)"
)
_PLUS = re.compile(r"(?<!\w)\+\d[\d ()/.-]{6,22}\d(?![\w-])")
_PLACE = re.compile(r"-?\d{1,2}\.\d{3,15},\s?-?\d{1,3}\.\d{3,15}")
_AT = re.compile(r"\s?[(\[{]\s?at\s?[)\]}]\s?|&#64;|\uff20", re.IGNORECASE)
#: What services begin their keys with, so that they can be found.
_KNOWN_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:[spr]k_(?:live|test)_|gh[opsur]_|github_pat_|xox[abeprs]-|AKIA|ASIA|AIza|"
    r"ya29\.|glpat-|whsec_|npm_|EAA[A-Z])[A-Za-z0-9_-]{10}"
)
# @jane.doe, ~jane
_HANDLE = re.compile(r"~\w|@[\w-]+\.\w")
#: Names in an object (JSON), and what divides an address into its parts.
_JSON_NAME = re.compile(r"[\"']([^\"']{1,100})[\"']\s?:")
_PIECES = re.compile(r"[?&;#]")
_MOST_PIECES = 100
_SPLIT = re.compile(r"[\s_.:,|+~!*()-]+")
_DIGITS = re.compile(r"\d")
_MIXED_CASE = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Z]\d|\d[A-Z]")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}")
_DATE = re.compile(r"(?:19|20)\d\d[-./]?\d\d[-./]?\d\d|\d\d?[-./]\d\d?[-./](?:19|20)\d\d")


#: Paths that need no judge: short segments of plain characters that follow no person or token.
ORDINARY_PATH: re.Pattern[str] = re.compile(
    rf"(?!.*(?:^|[^a-z])(?:{'|'.join(_BEFORE_A_PERSON | _BEFORE_A_TOKEN)})/)"
    r"(?!.*/~)(?!.*\d{7})(?!.*[^/]{16})[a-z0-9/._~-]*",
    re.IGNORECASE | re.ASCII,
)


def decoded(text: str) -> str:
    """`text` without its percent-encoding, also where it was encoded twice or three times."""
    for _ in range(3):
        if "%" not in text:
            break
        text = unquote(text)
    return text


def has_email(text: str) -> bool:
    """Whether an e-mail address is in it."""
    at = text.find("@")
    while at >= 0:
        before = text[at - 1 : at]
        if before and not before.isspace() and before not in "@/" and _AFTER_AT.match(text, at + 1):
            return True
        at = text.find("@", at + 1)
    return False


def is_personal(text: str) -> bool:
    """Whether free text holds what is_unmistakable, or a telephone, card or account number."""
    if is_unmistakable(text):
        return True
    if not _DIGITS.search(text):
        return False
    return (
        any(_is_phone(found[0]) for found in _PHONE.finditer(text))
        or any(_is_phone(found[0]) for found in _GROUPS.finditer(text))
        or any(_is_card(found[0]) for found in _CARD.finditer(text))
        or _IBAN.search(text.upper()) is not None
    )


def is_unmistakable(text: str) -> bool:
    """Whether an e-mail address, a place, a service's key or +49… is in it: no id looks so."""
    if text.isalnum() and text.isascii():
        return _KNOWN_KEY.match(text) is not None
    if "@" in text or _AT.search(text):
        text = _AT.sub("@", text)
        if has_email(text):
            return True
    return (
        ("eyJ" in text and _JWT.search(text) is not None)
        or _KNOWN_KEY.search(text) is not None
        or ("+" in text and any(_is_phone(found[0]) for found in _PLUS.finditer(text)))
        or ("," in text and _PLACE.search(text) is not None)
    )


def _is_phone(text: str) -> bool:
    digits = sum(map(str.isdigit, text))
    return 9 <= digits <= 15 and _DATE.fullmatch(text) is None


def _is_card(text: str) -> bool:
    digits = [int(one) for one in text if one.isdigit()]
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_token(text: str) -> bool:
    """Whether it looks like a key that was drawn by lot: too long and too mixed for words."""
    if len(text) < 16:
        return False
    if _UUID.fullmatch(text):
        return True
    mixed = 0
    for part in _SPLIT.split(text.rstrip("=")):
        digits = len(_DIGITS.findall(part))
        if digits == len(part):
            continue  # a number
        changes = len(_MIXED_CASE.findall(part))
        if (digits and len(part) > 4) or (len(part) > 6 and changes * 6 >= len(part)):
            mixed += len(part)
    return mixed >= 16 and mixed * 2 >= len(text)


@lru_cache(maxsize=1024)
def _kind(name: str) -> str:
    """What a name says: "harmless", "personal" (a secret, too), or ""."""
    # prénom, straße
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(one for one in plain if not unicodedata.combining(one))
    lower = plain.casefold()
    if lower in _WHOLE or not _MATCH_KEYS.isdisjoint(_PARTS.split(lower)):
        return "personal"
    words = [one.casefold() for one in _WORD.findall(_CAMEL.sub(" ", plain))]
    found = set(words)
    for word in words:
        if (word in _PERSONAL or word in _SECRET) and not found & _BESIDE.get(word, frozenset()):
            return "personal"
        if word not in _HARMLESS and any(stem in word for stem in _STEMS):
            return "personal"
    for joined in ("".join(words), *map("".join, pairwise(words))):
        if joined in _PERSONAL or joined in _SECRET:
            return "personal"
    named = [one for one in words if not one.isdigit()]
    return "harmless" if named and all(one in _HARMLESS for one in named) else ""


def names_a_person(name: str) -> bool:
    """Whether the name of a property of custom_data says that it is personal data or a secret."""
    if name in _CATALOGUE:
        return False
    return _kind(name[:100]) == "personal" or is_personal(name)


def may_leave(
    name: str, value: str, keep: Collection[str] = (), drop: Collection[str] = ()
) -> bool:
    """Whether a parameter of an address may leave, `name` and `value` decoded.

    `keep` and `drop` are names in lower case that the site decided about.
    """
    lower = name.lower()
    if lower in drop:
        return False
    if lower in keep:
        return True
    kind = _kind(name[:100])
    if kind == "harmless":
        says = is_personal(value) if lower in _TYPED else is_unmistakable(value)
        return not says and _holds_nothing(value, keep, drop)
    if is_personal(name) or is_token(name):
        return False
    if kind == "personal":
        return value.lower() in _SAYS_NOTHING
    if is_personal(value) or is_token(value) or _is_address(value) or len(name) > 100:
        return False
    return _holds_nothing(value, keep, drop)


def _is_address(value: str) -> bool:
    """Whether it is an IP address."""
    if value.count(".") != 3 and value.count(":") < 2:
        return False
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _holds_nothing(value: str, keep: Collection[str], drop: Collection[str]) -> bool:
    """Whether no address or object within a value says what may not leave."""
    if value.isalnum():
        return True
    if any(_kind(name) == "personal" for name in _JSON_NAME.findall(value)):
        return False
    for piece in _PIECES.split(value, _MOST_PIECES)[:_MOST_PIECES]:
        name, equals, inner = piece.partition("=")
        if equals and not may_leave(name, inner.replace("=", ""), keep, drop):
            return False
        segments = (inner if equals else name).split("/")
        if len(segments) > 1:
            if segments[0].endswith(":"):
                segments = segments[3:]
            if [*parts_of_path(segments)] != segments:
                return False
    return True


def parts_of_path(segments: Iterable[str]) -> Iterator[str]:
    """Each segment of a path, "-" in the place of one that is a token or a person's."""
    before = ""
    for segment in segments:
        raw, *parameters = segment.split(";")
        text = decoded(raw)
        text, *hidden = text.split(";")
        told = text and (is_personal(text) or is_token(text) or _is_ones_own(before, text))
        if told or not all(map(_may_stay, hidden)):
            raw = "-"
        yield ";".join([raw, *(one for one in parameters if _may_stay(one))])
        words = _WORD.findall(text.lower())
        before = words[-1] if words else ""


def _may_stay(parameter: str) -> bool:
    """Whether a parameter of a segment, as written, may leave."""
    name, _, value = decoded(parameter).partition("=")
    return may_leave(name, value)


def _is_ones_own(before: str, segment: str) -> bool:
    """Whether the segment after one with this last word is a person's, or a token."""
    if _HANDLE.match(segment):
        return True
    if before in _BEFORE_A_PERSON:
        return not (segment.isdigit() or segment.lower() in _HARMLESS)
    has_digits = _DIGITS.search(segment) is not None
    return before in _BEFORE_A_TOKEN and len(segment) >= (5 if has_digits else 16)

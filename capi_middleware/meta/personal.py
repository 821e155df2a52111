"""Personal data and secrets in what leaves in clear: told by name, by shape and by length.

Everything here is linear in its input, which callers cut to its limit before.
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

_WORDS = tomllib.loads(Path(__file__).with_name("personal.toml").read_text("utf-8"))


def _words(name: str) -> frozenset[str]:
    return frozenset(_WORDS[name].split())


_HARMLESS = _words("harmless")
_PERSONAL = _words("personal")
_SECRET = _words("secret")
_WHOLE = _words("whole")
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

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+|\d+")
# No part of them can start in the middle of another: each character is looked at once or twice.
_AFTER_AT = re.compile(r"[^\s@/?&=]{1,63}?\.[^\s@/.]")
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.")
_PHONE = re.compile(r"(?<![\w.-])(?:\+|00|\(0|0)[\d ()/.-]{6,22}\d(?![\w-])")
_IBAN = re.compile(
    r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Z0-9])"
)
_CARD = re.compile(r"(?<![\d.-])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{3,4}(?![\d-])")
_SPLIT = re.compile(r"[\s_.:,|+~!*()-]+")
_DIGITS = re.compile(r"\d")
_MIXED_CASE = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Z]\d|\d[A-Z]")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}")
_DATE = re.compile(r"(?:19|20)\d\d[-./]?\d\d[-./]?\d\d|\d\d?[-./]\d\d?[-./](?:19|20)\d\d")


#: Paths that need no judge: short segments of plain characters that follow no person or token.
ORDINARY_PATH: re.Pattern[str] = re.compile(
    rf"(?!.*(?:^|[^a-z])(?:{'|'.join(_BEFORE_A_PERSON | _BEFORE_A_TOKEN)})/)"
    r"(?!.*\d{7})(?!.*[^/]{16})[a-z0-9/._~-]*",
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
    """Whether free text holds an e-mail address, a telephone, card or account number, or a JWT."""
    if ("@" in text and has_email(text)) or ("eyJ" in text and _JWT.search(text)):
        return True
    if not _DIGITS.search(text):
        return False
    return (
        any(_is_phone(found[0]) for found in _PHONE.finditer(text))
        or any(_is_card(found[0]) for found in _CARD.finditer(text))
        or _IBAN.search(text.upper()) is not None
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


@lru_cache(maxsize=2048)
def _kind(name: str) -> str:
    """What a name says: "harmless", "personal" (a secret, too), or ""."""
    lower = name.lower()
    if lower in _WHOLE:
        return "personal"
    words = [one.lower() for one in _WORD.findall(_CAMEL.sub(" ", name))]
    found = set(words)
    for word in words:
        if (word in _PERSONAL or word in _SECRET) and not found & _BESIDE.get(word, frozenset()):
            return "personal"
        if word not in _HARMLESS and any(stem in word for stem in _STEMS):
            return "personal"
    joined = "".join(words)
    if joined in _PERSONAL or joined in _SECRET:
        return "personal"
    return "harmless" if words and all(one in _HARMLESS or one.isdigit() for one in words) else ""


def names_a_person(name: str) -> bool:
    """Whether the name of a property of custom_data says that it is personal data or a secret."""
    return _kind(name[:100]) == "personal" and name not in _CATALOGUE


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
        return not (is_personal(value) if lower in _TYPED else has_email(value))
    if is_personal(name) or is_token(name):
        return False
    if kind == "personal":
        return value.lower() in _SAYS_NOTHING
    if is_personal(value) or is_token(value) or len(name) > 100:
        return False
    return all(may_leave(*pair, keep, drop) for pair in _nested(value))


def _nested(value: str) -> Iterator[tuple[str, str]]:
    """The parameters of an address within an address."""
    path, mark, query = value.partition("?")
    if not mark and "=" in value:
        query = value
    for pair in query.split("&")[:50] if query else ():
        name, _, inner = pair.partition("=")
        yield name, inner.replace("?", "").replace("=", "")
    if "/" in path:
        for segment in path.split("/")[3:]:
            yield "page", segment


def parts_of_path(segments: Iterable[str]) -> Iterator[str]:
    """Each segment of a path, "-" in the place of one that is a token or a person's."""
    before = ""
    for segment in segments:
        raw, *parameters = segment.split(";")
        text = decoded(raw)
        if text and (is_personal(text) or is_token(text) or _is_ones_own(before, text)):
            raw = "-"
        pairs = (one.partition("=") for one in parameters)
        kept = (name + mark + value for name, mark, value in pairs if may_leave(name, value))
        yield ";".join([raw, *kept])
        words = _WORD.findall(text.lower())
        before = words[-1] if words else ""


def _is_ones_own(before: str, segment: str) -> bool:
    """Whether the segment after one with this last word is a person's, or a token."""
    if before in _BEFORE_A_PERSON:
        return not (segment.isdigit() or segment.lower() in _HARMLESS)
    has_digits = _DIGITS.search(segment) is not None
    return before in _BEFORE_A_TOKEN and len(segment) >= (5 if has_digits else 16)

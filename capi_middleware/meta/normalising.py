"""Normalizing: the clear text that is hashed for each match key, by Meta's documented rules.

Source: Meta's page "Customer Information Parameters". Where Meta's two libraries differ from it
or from one another, the page holds; tests/data/differences.jsonl lists every difference.
"""

import re
import tomllib
import unicodedata
from collections.abc import Callable
from datetime import date, datetime
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

_ASCII_EMAIL = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]++(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]++)*+"
    r"@[a-z0-9]++(?:-++[a-z0-9]++)*+(?:\.[a-z0-9]++(?:-++[a-z0-9]++)*+)++"
)
_LOCAL_PART = re.compile(r"[^\s@,;:<>()\[\]\\\"]{1,64}")
_LONGEST_EMAIL = 254
_ZIP_PLUS_4 = re.compile(r"[0-9]{5}(?:[0-9]{4})?")


def _words(table: str) -> dict[str, str]:
    """The code by word, from words.toml."""
    codes: dict[str, str] = _TABLES[table]
    return {word: code for code, words in codes.items() for word in words.split()}


_TABLES = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))
_GENDERS, _MONTHS = _words("genders"), _words("months")
_EVERYDAY_COUNTRIES, US_STATES = _words("countries"), _words("us_states")
#: What a long form of a name starts with.
_TITLES = (
    "the", "republicof", "federalrepublicof", "kingdomof", "commonwealthof", "stateof",
    "islamicrepublicof", "federativerepublicof", "grandduchyof", "principalityof",
)  # fmt: skip
_STATE_TITLES = ("stateof", "commonwealthof")
_YEAR_FIRST = re.compile(r"([0-9]{4})([-/. ])([0-9]{1,2})\2([0-9]{1,2})")
_YEAR_LAST = re.compile(r"([0-9]{1,2})([-/. ])([0-9]{1,2})\2([0-9]{4})")
_DAY_MONTH_NAME = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)?[-. ]+([a-z]+)[-., ]+([0-9]{4})")
_MONTH_NAME_DAY = re.compile(r"([a-z]+)[-. ]+([0-9]{1,2})(?:st|nd|rd|th)?[-., ]+([0-9]{4})")
_TIME_OF_DAY = re.compile(r"(?<=[0-9]{4}-[0-9]{2}-[0-9]{2})[t ][0-9]{2}:.*")
_CJK_DATE = str.maketrans({"年": "-", "月": "-", "日": None})
FIRST_YEAR = 1900
_SURELY_PAST = 2025  # asking for today costs more than the rest
#: What an app may have kept of fbp and fbc: 4 segments, 5 with Meta's appendix, dotted click ids.
_BROWSER_ID = re.compile(r"fb\.[0-9]\.[0-9]{1,16}\.[A-Za-z0-9._-]{1,600}")
_LONGEST_PLAIN = 500
_LONGEST_AGENT = 1000

#: A rule for the text in lower case, one that also takes the site's region and the person's country
#: as it was given, and one for what is sent as it is.
Lower = Callable[[str], str | None]
Placed = Callable[[str, str, str | None], str | None]
Plain = Callable[[str], str | int | None]


def email(text: str) -> str | None:
    """Lower case; the domain as browsers send it, in its ASCII form (IDNA 2008, UTS 46)."""
    if _ASCII_EMAIL.fullmatch(text):
        return text if len(text) <= _LONGEST_EMAIL else None
    # Format characters come with copied text and are invisible.
    text = "".join(one for one in text if unicodedata.category(one) != "Cf")
    text = text.removeprefix("mailto:")
    local, sign, domain = text.rpartition("@")
    if not sign or not _LOCAL_PART.fullmatch(local) or ".." in local or local[0] == ".":
        return None
    if not domain.isascii():
        import idna

        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return None
    whole = f"{local}@{domain}"
    known = _ASCII_EMAIL.fullmatch(f"x@{domain}")
    return whole if known and len(whole) <= _LONGEST_EMAIL else None


def phone(text: str, region: str, country: str | None = None) -> str | None:
    """E.164 digits. `region` (ISO 3166-1 alpha-2) reads numbers without a country code."""
    if text[0] == "+":
        digits = text[1:].replace(" ", "").replace("-", "").replace(".", "")
        if digits.isdigit() and digits.isascii() and digits[0] != "0" and _is_complete(digits):
            # Parsing costs as much as all the rest of an event; here it would change nothing.
            return digits
    import phonenumbers

    text = re.sub(r"^(tel:|00)", lambda start: "+" if start[0] == "00" else "", text)
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    possible = phonenumbers.is_possible_number_with_reason(number)
    if possible != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)[1:]


def _is_complete(digits: str) -> bool:
    """Whether parsing would change nothing: a country code and as many digits as it takes."""
    for length in (1, 2, 3):
        lengths = _lengths(digits[:length])
        if lengths:
            return len(digits) in lengths and digits[length] != "0"
    return False


@cache
def _lengths(code: str) -> frozenset[int]:
    """The lengths of international numbers of a calling code; empty for what is none."""
    import phonenumbers

    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(code))
    if not regions:
        return frozenset()
    metadata = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(int(code), regions[0])
    described = metadata.general_desc if metadata is not None else None
    lengths = described.possible_length if described is not None else ()
    return frozenset(length + len(code) for length in lengths)


def letters(text: str) -> str:
    """Without punctuation, symbols, blanks and control characters; accents stay."""
    if text.isascii() and text.isalnum():
        return text
    kept = "".join(one for one in text if unicodedata.category(one)[0] not in "PSZC")
    # What stood apart may compose now.
    return unicodedata.normalize("NFC", kept)


def city(text: str) -> str | None:
    """A city without blanks; digits are no part of its name (as facebook-business has it)."""
    plain = letters(text)
    if not plain.isalpha():
        plain = letters("".join(one for one in plain if not one.isdigit()))
    return plain or None


def state(text: str, region: str, country: str | None) -> str | None:
    """Two letters in the US, elsewhere the name."""
    plain = city(text.lower())
    return us_state_code(plain) if plain and _country(region, country) == "us" else plain


def postcode(text: str, region: str, country: str | None) -> str | None:
    """Without blanks and dashes; five digits in the US."""
    plain = letters(text.lower())
    if _ZIP_PLUS_4.fullmatch(plain) and _country(region, country) == "us":
        return plain[:5]
    return plain if len(plain) > 1 else None


def _country(region: str, country: str | None) -> str | None:
    """The country of the person (alpha-2 in lower case), else that of the site."""
    return region.lower() if country is None else country_code(country.strip())


def as_given(text: str) -> str:
    """An id of the site's own: Meta's pixel hashes it in lower case, all else of it matters."""
    return text


def gender(text: str) -> str | None:
    """f or m from the usual words."""
    return _GENDERS.get(text.rstrip("."))


def birth(text: str) -> str | None:
    """YYYYMMDD from ISO or any form of which day and month cannot be mistaken."""
    digits = text
    if len(text) == 10 and text[4] == text[7] == "-":
        digits = text[:4] + text[5:7] + text[8:]
    if len(digits) == 8 and digits.isascii() and digits.isdigit():
        return _past(digits)
    text = _TIME_OF_DAY.sub("", text.translate(_CJK_DATE))
    if found := _YEAR_FIRST.fullmatch(text):
        return _born(found[1], found[3], found[4])
    if found := _YEAR_LAST.fullmatch(text):
        one, other = int(found[1]), int(found[3])
        if one == other or one > 12 >= other:
            return _born(found[4], other, one)
        return _born(found[4], one, other) if other > 12 >= one else None
    if found := _DAY_MONTH_NAME.fullmatch(text):
        return _born(found[3], _MONTHS.get(found[2], "0"), found[1])
    if found := _MONTH_NAME_DAY.fullmatch(text):
        return _born(found[3], _MONTHS.get(found[1], "0"), found[2])
    return None


def _born(year: str, month: str | int, day: str | int) -> str | None:
    return _past(f"{year}{int(month):02}{int(day):02}")


def _past(digits: str) -> str | None:
    try:
        born = date.fromisoformat(digits)
    except ValueError:
        return None
    year = born.year
    known = year >= FIRST_YEAR and (year < _SURELY_PAST or born <= date.today())
    return digits if known else None


def beginning(length: int) -> Lower:
    """The first letters of a name."""
    return lambda text: letters(text)[:length]


def number_of(digits: int, lowest: int, highest: Callable[[], int]) -> Lower:
    """A part of a date: a number of so many digits, between two bounds."""

    def rule(text: str) -> str | None:
        known = text.isascii() and text.isdigit() and len(text) <= digits
        return f"{int(text):0{digits}}" if known and lowest <= int(text) <= highest() else None

    return rule


def agent(text: str) -> str | None:
    """What a browser calls itself, as far as it can be shown."""
    return "".join(one for one in text if one.isprintable())[:_LONGEST_AGENT] or None


def address(text: str) -> str | None:
    """An IP address in its usual form."""
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def browser_id(text: str) -> str | None:
    """fbp or fbc."""
    return text if _BROWSER_ID.fullmatch(text) else None


def number(text: str) -> int | None:
    """An id that Meta wants as a number."""
    known = text.isascii() and text.isdigit() and len(text) <= 20
    return int(text) if known else None


def identifier(text: str) -> str | None:
    """Any other id. An e-mail address would leave unhashed: it is refused."""
    fine = "@" not in text and text.isprintable() and len(text) <= _LONGEST_PLAIN
    return text if fine else None


def text_of(value: Any) -> str | None:
    """The composed text (NFC) of what may be a match key: text, a whole number, a date, a UUID."""
    if isinstance(value, str):
        text = value.strip()
        return text if text.isascii() else unicodedata.normalize("NFC", text)
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    return None


def country_code(text: str) -> str | None:
    """ISO 3166-1 alpha-2 in lower case from a code of two or three letters or an English name."""
    plain = _letters_of(text)
    while plain not in _countries():
        title = next((one for one in _TITLES if plain.startswith(one)), "")
        if not title:
            return None
        plain = plain.removeprefix(title)
    return _countries()[plain]


def us_state_code(plain: str) -> str:
    """The two letters of a US state from `plain` (lower-case letters only), else `plain`."""
    for title in _STATE_TITLES:
        plain = plain.removeprefix(title)
    if len(plain) == 4 and plain.startswith("us") and plain[2:] in US_STATES.values():
        return plain[2:]  # ISO 3166-2, "US-CA"
    return US_STATES.get(plain, plain)


def _letters_of(text: str) -> str:
    """Lower-case letters without accents; "&" between words and "St." written out."""
    text = re.sub(r"(?<=\w)\s*&\s*(?=\w)", "and", text.lower()).replace("st. ", "saint ")
    return "".join(one for one in unicodedata.normalize("NFKD", text) if one.isalpha())


@cache
def _countries() -> dict[str, str]:
    """The code by code, by name, and by what precedes a comma or parenthesis where it is clear."""
    from iso3166 import countries

    known: dict[str, str] = {}
    short: dict[str, set[str]] = {}
    for one in countries:
        code = one.alpha2.lower()
        known |= {code: code, one.alpha3.lower(): code}
        for name in (one.name, one.apolitical_name):
            known[_letters_of(name)] = code
            head, comma, tail = name.partition(", ")
            if comma:
                known[_letters_of(f"{tail} {head}")] = code
            short.setdefault(_letters_of(head.partition("(")[0]), set()).add(code)
    clear = {name: codes.pop() for name, codes in short.items() if len(codes) == 1}
    return clear | known | _EVERYDAY_COUNTRIES

"""Normalizing: the clear text that is hashed for each match key, by Meta's documented rules.

Source: Meta's page "Customer Information Parameters". Where Meta's two libraries differ from it
or from one another, the page holds; tests/data/differences.jsonl lists every difference.
"""

import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_ASCII_EMAIL = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]++(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]++)*+"
    r"@[a-z0-9]++(?:-++[a-z0-9]++)*+(?:\.[a-z0-9]++(?:-++[a-z0-9]++)*+)++"
)
_LOCAL_PART = re.compile(r"[^\s@,;:<>()\[\]\\\"]{1,64}")
_LONGEST_EMAIL = 254
_ZIP_PLUS_4 = re.compile(r"[0-9]{5}(?:[0-9]{4})?")
#: A state or a country beside its codes has no more parts: each is looked up.
_BESIDE = 8
#: What is between the parts of "CA - California", "California (CA)" and "US-CA".
_BETWEEN = re.compile(r"\s[-\u2013\u2014]\s|[,;:/|()\[\]]|(?<=\A[A-Za-z]{2})-")
_CODE_BEFORE_NAME = re.compile(r"[A-Z]{2,3}\s+[-\u2013\u2014]\s+(.+)")
#: What a table of floats makes of whole numbers.
_AS_FLOAT = re.compile(r"(\+?[0-9]+)\.0+")
_NO_SEPARATOR = str.maketrans("", "", " -./()\u00a0\u2010\u2011\u2013")
#: No country's own numbers have more digits, but for a 0 at their start.
_LONGEST_NATIONAL = 11


def _words(table: str) -> dict[str, str]:
    """The code by word, from words.toml."""
    codes: dict[str, str] = _TABLES[table]
    return {word: code for code, words in codes.items() for word in words.split()}


_TABLES = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))
_GENDERS, _MONTHS = _words("genders"), _words("months")
_EVERYDAY_COUNTRIES, _US_STATES = _words("countries"), _words("us_states")
_US_STATES |= {code: code for code in _TABLES["us_states"]}
#: How many digits a postcode has, by country.
_POSTCODES = {place: int(digits) for place, digits in _words("postcodes").items()}
#: Countries of the US Postal Service.
_USPS = frozenset(_TABLES["usps"].split())
#: What a long form of a name starts with.
_TITLES = (
    "republicof", "federalrepublicof", "kingdomof", "commonwealthof", "stateof",
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
_BROWSER_ID = re.compile(r"fb\.[0-9]\.[0-9]{1,16}\.[A-Za-z0-9._-]{1,2100}")
#: What Meta's parameter builder joins to its values, by a dot: a known token or any of eight.
APPENDIX = r"(?:AQ|Ag|Aw|BA|BQ|Bg|[A-Za-z0-9_-]{8})"
_APPENDIX_OF_ADDRESS = re.compile(rf"(?<=[0-9a-fA-F])\.{APPENDIX}\Z")
_LONGEST_PLAIN = 500
_LONGEST_AGENT = 1000
#: A name with its code and all its titles.
_LONGEST_COUNTRY = 200
#: Above it floats are not exact; and so long are the longest of all ids.
_SAFE, _HUGE = 2**53, 10**38
#: With a zone, a port and an appendix.
LONGEST_IP = 80
Address = IPv4Address | IPv6Address
#: Addresses of no visitor: private, shared by a carrier, of the own host, of groups.
_NOBODY = tuple(
    ip_network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3",
        "::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip

#: The kinds of numbers that are valid, as libphonenumber's metadata has them.
_KINDS = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "voip", "personal_number",
    "pager", "uan", "voicemail",
)  # fmt: skip

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
    """E.164 digits of a number that libphonenumber calls valid.

    Without a country code it is one of the person's country, else of `region` (ISO 3166-1 alpha-2);
    one of another country only if no country has numbers of so many digits.
    """
    if text[0] == "+":
        digits = text[1:].replace(" ", "").replace("-", "").replace(".", "")
        if digits.isdigit() and digits.isascii() and digits[0] != "0" and _is_valid(digits):
            # Parsing costs as much as all the rest of an event; here it would change nothing.
            return digits
    import phonenumbers

    if found := _AS_FLOAT.fullmatch(text):
        text = found[1]
    text = re.sub(r"^(tel:|00)", lambda start: "+" if start[0] == "00" else "", text)
    place = (_country(region, country) or "").upper()
    own = _parsed(text, place)
    digits = text.translate(_NO_SEPARATOR)
    other = _parsed(f"+{digits}", "") if digits.isdigit() and digits[0] != "0" else None
    if other is not None and other != own:
        is_at_home = other.country_code == phonenumbers.country_code_for_region(place)
        is_long = len(digits) > _LONGEST_NATIONAL
        if is_long or (is_at_home and not _is_sure(own, place)):
            own = other
        elif not _is_sure(own, place):
            own = None
    return str(own.country_code) + phonenumbers.national_significant_number(own) if own else None


def _parsed(text: str, place: str) -> "PhoneNumber | None":
    import phonenumbers

    try:
        number = phonenumbers.parse(text, place)
    except phonenumbers.NumberParseException:
        return None
    return number if phonenumbers.is_valid_number(number) else None


def _is_sure(number: "PhoneNumber | None", place: str) -> bool:
    """Whether a number that was written without its 0 is one of this country: a mobile one is.

    Where all numbers begin with a 0 and their length is open, many others look as if valid.
    """
    import phonenumbers

    if number is None:
        return False
    is_mobile = phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.MOBILE
    return is_mobile or phonenumbers.ndd_prefix_for_region(place, True) != "0"


def _is_valid(digits: str) -> bool:
    """Whether parsing would find a valid number and change nothing."""
    for length in (1, 2, 3):
        if numbers := _numbers(digits[:length]):
            return numbers.fullmatch(digits, length) is not None
    return False


@cache
def _numbers(code: str) -> re.Pattern[str] | None:
    """The valid numbers after a calling code; None for what is none."""
    import phonenumbers

    found = []
    for region in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(code), ()):
        known = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(int(code), region)
        for kind in (getattr(known, name, None) for name in _KINDS):
            if kind is not None and kind.national_number_pattern:
                fits = "|".join(f".{{{n}}}" for n in kind.possible_length if n > 0)
                found.append(rf"(?=(?:{fits})\Z)(?:{kind.national_number_pattern})")
    # Behind a 0 parsing decides, which takes it away in most countries.
    return re.compile(f"(?!0)(?:{'|'.join(found)})") if found else None


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
    if plain and _country(region, country) == "us":
        parts = (part for part in _parts(text) if country_code(part) != "us")
        code = us_state_code(plain) or _agreed(us_state_code(city(one) or "") for one in parts)
        if code or _is_named(country):
            return code
    named = _CODE_BEFORE_NAME.fullmatch(text)
    return city(named[1].lower()) if named else plain


def postcode(text: str, region: str, country: str | None) -> str | None:
    """Without blanks and dashes; five digits in the US. None for one that lost a zero."""
    plain, place = letters(text.lower()), _country(region, country) or ""
    digits = _POSTCODES.get(place)
    if place in _USPS and _ZIP_PLUS_4.fullmatch(plain):
        return plain[:5]
    if digits and _is_named(country):
        plain = plain.lstrip(ascii_lowercase)  # "D-80331"
        return plain if len(plain) == digits and plain.isdigit() else None
    # "501" and "2134-1234" of the US; other lengths may be of another country.
    is_short = len(plain) < (digits or 0) or (place == "us" and len(plain) == 8)
    if is_short and plain.isascii() and plain.isdigit():
        return None
    return plain if len(plain) > 1 and not _AS_FLOAT.fullmatch(text) else None


def _is_named(country: str | None) -> bool:
    return bool(country and country.strip())


def _country(region: str, country: str | None) -> str | None:
    """The country of the person (alpha-2 in lower case), else that of the site."""
    named = country.strip() if country else ""
    return country_code(named) if named else region.lower()


def _parts(text: str) -> Iterator[str]:
    """What stands beside one another in a text such as "CA - California", in lower case."""
    return (part.lower() for part in _BETWEEN.split(text, _BESIDE) if part.strip())


def _agreed(codes: Iterator[str | None]) -> str | None:
    """The code that all of these are."""
    found = set(codes)
    return found.pop() if len(found) == 1 else None


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
    """An IP address in its usual form, of somebody in the internet, without an appendix."""
    return public(ip_of(_APPENDIX_OF_ADDRESS.sub("", text[:LONGEST_IP])))


def public(address: Address | None) -> str | None:
    """The text of an address, None for one of nobody in the internet."""
    if address is None or any(address in network for network in _NOBODY):
        return None
    return str(address)


def ip_of(text: str) -> Address | None:
    """An IP address as headers have it: in quotes and brackets, with a zone and a port."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


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
    """The composed text (NFC) of what may be a match key: text, a whole number, a date, an id.

    Databases and tables of data have whole numbers as Decimal, float and types of their own.
    """
    if isinstance(value, str):
        text = value.strip()
        return text if text.isascii() else unicodedata.normalize("NFC", text)
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID | IPv4Address | IPv6Address):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, Integral | Real | Decimal):
        return None
    number: int | float | Decimal
    if isinstance(value, Decimal):
        number = value
    else:
        number = int(value) if isinstance(value, Integral) else float(value)
    most = _SAFE if isinstance(number, float) else _HUGE
    is_whole = isfinite(number) and -most < number < most and number == int(number)
    return str(int(number)) if is_whole else None


def country_code(text: str) -> str | None:
    """ISO 3166-1 alpha-2 in lower case from a code of two or three letters or an English name."""
    if len(text) > _LONGEST_COUNTRY:
        return None
    return _country_of(text) or _agreed(map(_country_of, _parts(text)))


def _country_of(text: str) -> str | None:
    plain = _letters_of(text)
    while plain not in _countries():
        title = next((one for one in _TITLES if plain.startswith(one)), "")
        if not title:
            return None
        plain = plain.removeprefix(title)
    return _countries()[plain]


def us_state_code(plain: str) -> str | None:
    """The two letters of a US state from `plain` (lower-case letters only)."""
    for title in _STATE_TITLES:
        plain = plain.removeprefix(title)
    if len(plain) == 4 and plain.startswith("us") and plain[2:] in _TABLES["us_states"]:
        return plain[2:]  # ISO 3166-2, "US-CA"
    return _US_STATES.get(plain)


def _letters_of(text: str) -> str:
    """Lower-case letters without accents and "the"; "&" between words and "St." written out."""
    text = re.sub(r"(?<=\w)\s*&\s*(?=\w)", "and", text.lower()).replace("st. ", "saint ")
    text = re.sub(r"\bthe\b", "", text)
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

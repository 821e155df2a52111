"""Places: country and US state names as the codes that Meta's matching wants."""

import unicodedata
from functools import cache

#: Everyday names that ISO 3166-1 does not list, without blanks, accents and punctuation.
_EVERYDAY = {
    "america": "us", "unitedstates": "us", "us": "us", "uk": "gb", "unitedkingdom": "gb",
    "greatbritain": "gb", "britain": "gb", "england": "gb", "scotland": "gb", "wales": "gb",
    "northernireland": "gb", "bosnia": "ba", "britishvirginislands": "vg", "brunei": "bn",
    "burma": "mm", "capeverde": "cv", "cocosislands": "cc", "congobrazzaville": "cg",
    "congokinshasa": "cd", "czechrepublic": "cz", "democraticrepublicofcongo": "cd",
    "democraticrepublicofthecongo": "cd", "drcongo": "cd", "drc": "cd",
    "republicofcongo": "cg", "republicofthecongo": "cg", "congorepublic": "cg",
    "democraticpeoplesrepublicofkorea": "kp", "northkorea": "kp", "dprk": "kp",
    "republicofkorea": "kr", "southkorea": "kr", "korea": "kr", "easttimor": "tl",
    "falklands": "fk", "frenchpolynesia": "pf", "holland": "nl", "hongkongsar": "hk",
    "hongkongsarchina": "hk", "ivorycoast": "ci", "laos": "la", "macau": "mo",
    "macaosarchina": "mo", "macedonia": "mk", "mainlandchina": "cn",
    "peoplesrepublicofchina": "cn", "prc": "cn", "micronesia": "fm", "palestine": "ps",
    "palestinianterritories": "ps", "republicofchina": "tw", "russia": "ru",
    "sainthelena": "sh", "slovakrepublic": "sk", "swaziland": "sz", "syria": "sy",
    "trinidad": "tt", "turkey": "tr", "uae": "ae", "emirates": "ae", "usvirginislands": "vi",
    "unitedstatesvirginislands": "vi", "vatican": "va", "vaticancity": "va", "vietnam": "vn",
    "republicofireland": "ie", "republicofmoldova": "md", "unitedrepublicoftanzania": "tz",
}  # fmt: skip
#: What a long form of a name starts with.
_TITLES = (
    "the", "republicof", "federalrepublicof", "kingdomof", "commonwealthof", "stateof",
    "islamicrepublicof", "federativerepublicof", "grandduchyof", "principalityof",
)  # fmt: skip

US_STATES = {
    "alabama": "al", "alaska": "ak", "arizona": "az", "arkansas": "ar", "california": "ca",
    "colorado": "co", "connecticut": "ct", "delaware": "de", "florida": "fl", "georgia": "ga",
    "hawaii": "hi", "idaho": "id", "illinois": "il", "indiana": "in", "iowa": "ia",
    "kansas": "ks", "kentucky": "ky", "louisiana": "la", "maine": "me", "maryland": "md",
    "massachusetts": "ma", "michigan": "mi", "minnesota": "mn", "mississippi": "ms",
    "missouri": "mo", "montana": "mt", "nebraska": "ne", "nevada": "nv", "newhampshire": "nh",
    "newjersey": "nj", "newmexico": "nm", "newyork": "ny", "northcarolina": "nc",
    "northdakota": "nd", "ohio": "oh", "oklahoma": "ok", "oregon": "or", "pennsylvania": "pa",
    "rhodeisland": "ri", "southcarolina": "sc", "southdakota": "sd", "tennessee": "tn",
    "texas": "tx", "utah": "ut", "vermont": "vt", "virginia": "va", "washington": "wa",
    "westvirginia": "wv", "wisconsin": "wi", "wyoming": "wy", "districtofcolumbia": "dc",
    "washingtondc": "dc", "puertorico": "pr", "guam": "gu", "americansamoa": "as",
    "northernmarianaislands": "mp", "usvirginislands": "vi", "virginislands": "vi",
}  # fmt: skip
_STATE_TITLES = ("stateof", "commonwealthof")


def country_code(text: str) -> str | None:
    """ISO 3166-1 alpha-2 in lower case from a code of two or three letters or an English name."""
    if len(text) == 2 and text.isascii():
        code = text.lower()
        return code if code in _by_code() else _EVERYDAY.get(code)
    plain = _plain(text)
    while plain:
        code = _EVERYDAY.get(plain) or _by_code().get(plain) or _by_name().get(plain) or ""
        if code:
            return code
        title = next((one for one in _TITLES if plain.startswith(one)), "")
        if not title:
            return None
        plain = plain.removeprefix(title)
    return None


def us_state_code(plain: str) -> str:
    """The two letters of a US state from `plain` (lower-case letters only), else `plain`."""
    for title in _STATE_TITLES:
        plain = plain.removeprefix(title)
    if len(plain) == 4 and plain.startswith("us") and plain[2:] in US_STATES.values():
        return plain[2:]  # ISO 3166-2, "US-CA"
    return US_STATES.get(plain, plain)


def _plain(text: str) -> str:
    """Lower-case letters without accents; "&" and "St." written out."""
    text = text.lower().replace("&", " and ").replace("st. ", "saint ")
    return "".join(one for one in unicodedata.normalize("NFKD", text) if one.isalpha())


@cache
def _by_code() -> dict[str, str]:
    from iso3166 import countries

    codes = {one.alpha2.lower(): one.alpha2.lower() for one in countries}
    return codes | {one.alpha3.lower(): one.alpha2.lower() for one in countries}


@cache
def _by_name() -> dict[str, str]:
    """By name, also without what follows a comma or a parenthesis, where that is unambiguous."""
    from iso3166 import countries

    names: dict[str, str] = {}
    short: dict[str, set[str]] = {}
    for one in countries:
        code = one.alpha2.lower()
        for name in (one.name, one.apolitical_name):
            names[_plain(name)] = code
            head, comma, tail = name.partition(", ")
            if comma:
                names[_plain(f"{tail} {head}")] = code
            short.setdefault(_plain(head.partition("(")[0]), set()).add(code)
    return {name: codes.pop() for name, codes in short.items() if len(codes) == 1} | names

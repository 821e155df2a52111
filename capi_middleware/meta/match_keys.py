"""Match keys: what Meta knows people by, and all that differs from one key to the next.

Sources: Meta's page "Customer Information Parameters" (keys and forms), its page "Advanced
Matching", the partials from its SDK, its Help Center (article 765081237991954, stored in November
2025) for the order of priority and, for the address, its page "Best Practices - Conversions API".
A new key needs a row at the end of the table, a field in user_data.Fields, and maybe a rule.
"""

from datetime import date
from typing import Literal

from msgspec import Struct

from capi_middleware.meta import normalising as rules

Priority = Literal["high", "medium", "low"]


class MatchKey(Struct, frozen=True):
    """One key of user_data.

    One of three rules makes of its text what is sent, None of what cannot be used: `lower` and
    `placed` what is hashed, from the text in lower case, or from the text, the site's region and
    the person's country as it was given; `plain` what Meta gets as it is.

    `single`: the key takes one value, no list. `common`: a shop sees the same few values again and
    again. `free`: Meta takes any text, hashed or not. `matching`: the pixel's advanced matching
    takes it. `priority`: Meta's, None for keys that it does not rank. `word`: what the Dataset
    Quality API calls it. `what`: what the report calls it where it asks for it, and `field` how
    an app usually calls a field that holds it.
    """

    name: str
    lower: rules.Lower | None = None
    placed: rules.Placed | None = None
    plain: rules.Plain | None = None
    single: bool = False
    common: bool = False
    free: bool = False
    matching: bool = False
    priority: Priority | None = None
    word: str = ""
    what: str = ""
    field: str = ""


#: In Meta's order of priority. The place of a key is its bit in `Row.match_keys`: append only.
_TABLE = (
    MatchKey("em", lower=rules.email, matching=True, priority="high", word="email",
             what="the e-mail address", field="email"),
    # No share of fbc is too low to the report: it comes with clicks on ads only.
    MatchKey("fbc", plain=rules.browser_id, priority="high", word="fbc"),
    MatchKey("client_ip_address", plain=rules.address, priority="high", word="ip_address",
             what="the visitor's address"),
    MatchKey("ph", placed=rules.phone, matching=True, priority="medium", word="phone",
             what="the phone number", field="phone"),
    MatchKey("external_id", lower=rules.as_given, free=True, matching=True, priority="medium",
             word="external_id", what="your own id of the customer", field="customer_id"),
    MatchKey("fbp", plain=rules.browser_id, priority="medium", word="fbp",
             what="the browser's id"),
    MatchKey("country", lower=rules.country_code, common=True, matching=True, priority="medium",
             what="the country", field="country"),
    MatchKey("db", lower=rules.birth, matching=True, priority="medium",
             what="the date of birth", field="birth_date"),
    MatchKey("fb_login_id", plain=rules.number, priority="medium"),
    MatchKey("fn", lower=rules.letters, common=True, matching=True, priority="low",
             what="the first name", field="first_name"),
    MatchKey("ln", lower=rules.letters, matching=True, priority="low",
             what="the last name", field="last_name"),
    MatchKey("ct", lower=rules.city, common=True, matching=True, priority="low",
             what="the city", field="city"),
    MatchKey("zp", placed=rules.postcode, common=True, matching=True, priority="low",
             what="the postcode", field="postcode"),
    MatchKey("lead_id", plain=rules.number, priority="low"),
    MatchKey("ge", lower=rules.gender, common=True, matching=True),
    MatchKey("st", placed=rules.state, common=True, matching=True),
    MatchKey("client_user_agent", plain=rules.agent, word="user_agent"),
    MatchKey("subscription_id", plain=rules.identifier),
    MatchKey("anon_id", plain=rules.identifier),
    MatchKey("madid", plain=rules.identifier),
    MatchKey("f5first", lower=rules.beginning(5), single=True),
    MatchKey("f5last", lower=rules.beginning(5), single=True),
    MatchKey("fi", lower=rules.beginning(1), single=True),
    MatchKey("dobd", lower=rules.number_of(2, 1, lambda: 31), single=True),
    MatchKey("dobm", lower=rules.number_of(2, 1, lambda: 12), single=True),
    MatchKey("doby", single=True, lower=rules.number_of(
        4, rules.FIRST_YEAR, lambda: date.today().year)),
    MatchKey("page_id", plain=rules.identifier),
    MatchKey("page_scoped_user_id", plain=rules.identifier),
    MatchKey("ctwa_clid", plain=rules.identifier),
    MatchKey("ig_account_id", plain=rules.identifier),
    MatchKey("ig_sid", plain=rules.identifier),
    MatchKey("whatsapp_business_account_id", plain=rules.identifier),
)  # fmt: skip
MATCH_KEYS = {one.name: one for one in _TABLE}
#: Keys that the pixel's advanced matching takes.
ADVANCED_MATCHING = tuple(one.name for one in _TABLE if one.matching)
BITS = {name: 1 << place for place, name in enumerate(MATCH_KEYS)}


def match_keys_of(mask: int) -> list[str]:
    """The match keys whose bits are set in `mask`."""
    return [key for key, bit in BITS.items() if mask & bit]

"""Differential tests: Meta's own libraries beside our rules; every difference has its reason."""

import json
import re
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from capi_param_builder import ParamBuilder
from facebook_business.adobjects.serverside.normalize import Normalize
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import UserData
from capi_middleware.capture.client import Proxies, read_client
from capi_middleware.capture.identity import cookie_domain, identify
from tests.support.clear import normalize

DATA = Path(__file__).parents[1] / "data"
NOW = 1_700_000_000_123


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


VECTORS = [one for one in read("vectors.jsonl") if one["field"] != "currency"]
DIFFERENCES = {(one["lib"], one["field"], one["raw"]): one for one in read("differences.jsonl")}
BUILDER = read("param_builder_vectors.jsonl")


def ours(field: str, raw: Any) -> str | None:
    digests: Any = UserData(**{field: raw}).hashed()[0].get(field)
    first: str | None = digests[0] if isinstance(digests, list) else digests
    return first


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_our_digest_is_metas_or_the_difference_has_its_reason(vector: dict[str, Any]) -> None:
    known = DIFFERENCES.get((vector["lib"], vector["field"], vector["raw"]))
    same = ours(vector["field"], vector["raw"]) == vector.get("sha256")
    assert same is (known is None)
    if known is not None:
        clear = normalize(vector["field"], vector["raw"]) if known["ours"] is not None else None
        assert clear == known["ours"]
        assert len(known["reason"]) > 20


def test_no_difference_is_listed_that_is_none() -> None:
    vectors = {(one["lib"], one["field"], one["raw"]) for one in VECTORS}
    assert set(DIFFERENCES) <= vectors


LETTERS = st.text("abcdefghijklmnopqrstuvwxyzäöüéñ", min_size=3, max_size=20)
EMAIL = r"[a-z0-9]{1,9}(\.[a-z0-9]{1,9})?@[a-z]{1,9}\.(com|de)"
DAYS = st.dates(min_value=date(1900, 1, 1), max_value=date(2020, 1, 1))
PLAIN = {
    "em": st.from_regex(EMAIL, fullmatch=True),
    # Valid ones: the SDK hashes any digits.
    "ph": st.from_regex(r"\+1 ?(212|303|650|916) ?[2-9][0-9]{6}", fullmatch=True),
    "fn": LETTERS,
    "ln": LETTERS,
    "ct": LETTERS,
    "st": st.sampled_from(["ca", "ny", "tx", "bayern", "ontario"]),
    "zp": st.from_regex(r"[0-9]{5}", fullmatch=True),
    "country": st.sampled_from(["us", "DE", " fr ", "gb", "br", "jp"]),
    "db": DAYS.map(lambda day: day.strftime("%Y%m%d")),
}


@pytest.mark.parametrize("field", PLAIN)
@given(st.data())
def test_plain_values_hash_as_in_facebook_business(field: str, data: st.DataObject) -> None:
    value = data.draw(PLAIN[field])
    assert ours(field, value) == Normalize.normalize(field, value, True)


def without_appendix(value: str | None) -> str | None:
    return re.sub(r"\.A[QgwA-Z][A-Za-z0-9_-]{6}$", "", value) if value else value


#: Cases of Meta's parameter builders where we answer otherwise, and why.
BUILDER_DIFFERENCES = {
    "garbage 4-part cookie is accepted by Python": "Node is right: no fb, no digits, no cookie",
    "8-char suffix that is not a valid appendix is rejected by Node": "any 8 characters pass, as "
    "in Python: a newer library may have written them",
    "click id containing a dot": "a dot would make six segments, which nobody reads again",
    "no domain list: co.uk problem": "co.uk is a public suffix: browsers refuse such a cookie",
    "bad referer throws": "a header of a visitor must not raise",
}


@pytest.mark.parametrize(
    "case",
    [one for one in BUILDER if one.get("host") is not None],
    ids=lambda case: f"{case['lib'].split('-')[3].split()[0]}: {case['case']}",
)
def test_fbp_and_fbc_are_as_metas_parameter_builder_has_them(case: dict[str, Any]) -> None:
    query = "&".join(
        f"{name}={value if isinstance(value, str) else value[0]}"
        for name, value in (case["query"] or {}).items()
    )
    cookies = case["cookies"] or {}
    found = identify(
        cookie_header="; ".join(f"{name}={value}" for name, value in cookies.items()),
        query=query,
        referer=case["referer"],
        host=case["host"],
        now_ms=NOW,
    )

    def halves(fbp: str | None) -> list[str]:
        return (without_appendix(fbp) or "").split(".")[:3]

    same = (
        without_appendix(found.fbc) == without_appendix(case.get("fbc"))
        and halves(found.fbp) == halves(case.get("fbp"))
        and found.domain in (case.get("etld1"), None)
    )
    assert same is (case["case"] not in BUILDER_DIFFERENCES), found


#: Where the builder believes anybody's X-Forwarded-For, we believe it from trusted proxies only.
ADDRESS_DIFFERENCES = {
    "0.0.0.0 counts as public", "CGNAT counts as public", "xff v4-mapped v6",
    "cookie without appendix",
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [one for one in BUILDER if one.get("x_forwarded_for")],
    ids=lambda case: str(case["case"]),
)
def test_the_address_is_the_builders_where_a_proxy_is_trusted(case: dict[str, Any]) -> None:
    headers = {"x-forwarded-for": case["x_forwarded_for"]}
    trusted = Proxies.of(["10.0.0.0/8"])
    found = read_client(case["remote_address"] or "10.0.0.9", "http", headers, trusted).ip
    theirs = without_appendix(case["client_ip_address"])
    assert (found == theirs) is (case["case"] not in ADDRESS_DIFFERENCES), (found, theirs)


@given(
    st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True),
    st.sampled_from(["www.example.com", "example.org", "a.b.shop.de"]),
)
def test_a_click_becomes_the_same_fbc_as_in_metas_python_builder(click: str, host: str) -> None:
    domain = cookie_domain(host)
    builder = ParamBuilder([domain])
    builder.process_request(host, {"fbclid": [click]}, {}, None)
    theirs = str(without_appendix(builder.get_fbc())).split(".")
    made = str(identify(cookie_header="", query=f"fbclid={click}", referer=None, host=host,
                        now_ms=NOW).fbc).split(".")  # fmt: skip
    assert (made[:2], made[3]) == (theirs[:2], theirs[3])


def test_the_digest_is_that_of_the_clear_text() -> None:
    assert ours("fn", "Mary") == sha256(b"mary").hexdigest()

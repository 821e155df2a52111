"""The endpoints against anyone: no input yields a 5xx, and what is refused changes nothing."""

import gzip
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, wsgi
from capi_middleware.events import PageKey
from capi_middleware.page.tag import script, script_version
from tests.support.configs import PIXEL_ID, make_config
from tests.support.exchanges import environ_for
from tests.support.injection_cases import CASES
from tests.support.script import BEFORE, FIRST, before, made, source, whole

REPORT = {"authorization": "Bearer the-report-token"}


class Site:
    def __init__(self, **given: Any) -> None:
        self.capi = CAPI(make_config(**given))

        async def page(request: Any) -> HTMLResponse:
            return HTMLResponse("<!doctype html><title>x</title><p>hi")

        app = Starlette(routes=[Route("/{path:path}", page)])
        self.client = TestClient(CAPIMiddleware(app, self.capi))

    def event(self) -> str:
        """The event_id of a PageView that was just shown."""
        text = self.client.get("/", headers={"user-agent": "Mozilla/5.0"}).text
        return text.split('"i":"')[1].split('"')[0]

    def beacon(self, *sightings: Any, **headers: str) -> int:
        body = json.dumps({"e": sightings})
        given = {
            "content-type": "text/plain",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return self.client.post("/_capi/b", content=body, headers=given).status_code

    def browser(self) -> list[tuple[str, int]]:
        return [(row.browser, row.n) for row in self.capi.store.tallies(0, 1e12).rows]

    def refused(self) -> dict[str, int]:
        counts = self.capi.store.tallies(0, 1e12).counts
        return {one.reason: one.n for one in counts if one.kind == "beacon"}


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_beacon_of_the_pixel_script_is_recorded(site: Site) -> None:
    event_id = site.event()
    assert site.browser() == [("not_run", 1)]
    assert site.beacon([event_id, "PageView", PIXEL_ID, "script_blocked"]) == 204
    assert site.browser() == [("script_blocked", 1)]


def test_a_later_sent_overrides_and_stays(site: Site) -> None:
    event_id = site.event()
    for outcome in ("left_early", "sent", "request_blocked", "sent"):
        assert site.beacon([event_id, "PageView", PIXEL_ID, outcome]) == 204
    assert site.browser() == [("sent", 1)]


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_a_replayed_beacon_is_counted_and_changes_nothing(store: str, tmp_path: Path) -> None:
    site = Site(store="memory:" if store == "memory:" else f"sqlite:///{tmp_path / 'capi.db'}")
    event_id = site.event()
    for outcome in ("sent", "sent", "csp"):
        site.beacon([event_id, "PageView", PIXEL_ID, outcome])
    assert site.browser() == [("sent", 1)]
    assert site.refused() == {"replayed": 2}
    site.capi.close()


def test_a_beacon_as_an_image_is_recorded(site: Site) -> None:
    body = json.dumps({"e": [[site.event(), "PageView", PIXEL_ID, "sent"]]})
    assert site.client.get("/_capi/b", params={"e": body}).status_code == 204
    assert site.browser() == [("sent", 1)]


@pytest.mark.parametrize("change", ["id", "name", "pixel"])
def test_a_forged_beacon_is_counted_and_changes_nothing(site: Site, change: str) -> None:
    event_id = site.event()
    forged = {
        "id": [event_id[:-3] + "AAA", "PageView", PIXEL_ID, "sent"],
        "name": [event_id, "Purchase", PIXEL_ID, "sent"],
        "pixel": [event_id, "PageView", "99", "sent"],
    }[change]
    assert site.beacon(forged) == 204
    assert site.browser() == [("not_run", 1)]
    assert site.refused() == {"unknown_pixel" if change == "pixel" else "forged": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"e":[]}',
        b'{"e":[["a"]]}',
        b'{"e":[["a","b","c",4]]}',
        b'{"e":[["a","b","c","not_run"]]}',
        b'{"e":[["","b","c","sent"]]}',
        b'{"e":[["a\\u0000","b","c","sent"]]}',
        b'{"e":[["a","b","c","sent"]],"x":1}',
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"x":' * 10_000,
        json.dumps({"e": [["a", "b", "c", "sent"]] * 65}).encode(),
        json.dumps({"e": [["a" * 1600, "b", "c", "sent"]]}).encode(),
    ],
)
def test_a_malformed_beacon_is_refused_and_counted(site: Site, body: bytes) -> None:
    assert site.client.post("/_capi/b", content=body).status_code == 400
    assert site.refused() == {"malformed": 1}


def test_an_oversized_beacon_is_refused(site: Site) -> None:
    assert site.client.post("/_capi/b", content=b"x" * 70_000).status_code == 413
    assert site.refused() == {"too_long": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "http://testserver:8080"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"origin": "null", "sec_fetch_site": "cross-site"}, 403),
        ({"origin": "http://testserver", "sec_fetch_site": "cross-site"}, 403),
        ({"content_encoding": "gzip"}, 415),
        ({"origin": "http://testserver", "sec_fetch_site": "same-origin"}, 204),
    ],
)
def test_only_our_own_pages_may_send_beacons(
    site: Site, headers: dict[str, str], status: int
) -> None:
    assert site.beacon([site.event(), "PageView", PIXEL_ID, "sent"], **headers) == status
    assert site.browser() == [("sent" if status == 204 else "not_run", 1)]


NO_REFERRER = {"origin": "null"}
BEHIND_NGINX = {"host": "backend:8000", "origin": "https://shop.example"}
PROVEN = {"sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    "headers",
    [
        NO_REFERRER,  # Firefox and WebKit at an address without TLS send no Sec-Fetch-Site
        NO_REFERRER | PROVEN,
        {"host": "testserver:80", "origin": "http://testserver"},
        {"host": "testserver:443", "origin": "https://testserver"},
        {"host": "TESTSERVER:80", "origin": "https://testserver"},
        BEHIND_NGINX | PROVEN,
        {"host": "127.0.0.1:8000", "origin": "https://shop.example"} | PROVEN,
    ],
)
def test_a_beacon_is_heard_whatever_proxies_and_policies_make_of_its_origin(
    site: Site, headers: dict[str, str]
) -> None:
    assert site.beacon([site.event(), "PageView", PIXEL_ID, "sent"], **headers) == 204
    assert site.browser() == [("sent", 1)]


def test_a_hidden_origin_proves_nothing_of_an_event_id_that_is_not_ours(site: Site) -> None:
    forged = [site.event()[:-3] + "AAA", "PageView", PIXEL_ID, "sent"]
    assert site.beacon(forged, **NO_REFERRER) == 204
    assert site.browser() == [("not_run", 1)]
    assert site.refused() == {"forged": 1}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.sampled_from(["b", "t", "parity", "parity.json", "metrics", "s.js", "", "../b", "%00"]),
    st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS"]),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.text() | st.integers() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("eur"), inner),
    ).map(lambda value: json.dumps({"e": value, "u": value}).encode()),
    st.binary(max_size=60),
    st.sampled_from(["", "Bearer", "Bearer the-report-token", "Bearer \xff"]),
)
def test_no_input_to_an_endpoint_yields_a_5xx(
    site: Site, name: str, method: str, body: bytes, query: bytes, authorization: str
) -> None:
    headers = {b"authorization": authorization.encode("latin-1")} if authorization else {}
    answer = site.client.request(
        method,
        f"/_capi/{name}?{quote(query)}",
        content=body,
        headers=headers,
        follow_redirects=False,
    )
    assert answer.status_code < 500


def test_no_bytes_in_the_query_yield_a_5xx(site: Site) -> None:
    for query in (b"from=x", b"from=2026-13-01", b"to=1970-01-01&from=\xff", b"e=%ff%fe"):
        for name in ("parity", "parity.json", "metrics", "b"):
            url = f"/_capi/{name}?{query.decode('latin-1')}"
            assert site.client.get(url, headers=REPORT).status_code < 500


def test_the_script_is_cached_for_ever_under_its_hash_only(site: Site) -> None:
    answer = site.client.get(f"/_capi/s.js?v={script_version()}")
    assert answer.content == script()
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert site.client.get("/_capi/s.js?v=old").headers["cache-control"] == "no-cache"


# Words of the rules of EasyPrivacy and uBlock Origin's lists that name trackers by their paths.
_NAMED = re.compile(
    r"(?i)pixel|track|analy|event|beacon|collect|facebook|fbq|meta|metric|stat|tag|\bads?\b|"
    r"conver|telemetr|count|visit|log"
)


def test_no_address_of_a_page_has_a_word_that_filter_lists_name(site: Site) -> None:
    page = site.client.get("/").text
    addresses = [*re.findall(r'src="([^"]+)"', page), "/_capi/b", "/_capi/t"]
    assert addresses[0].startswith("/_capi/s.js")
    assert [one for one in addresses if _NAMED.search(one.partition("?")[0])] == []


def test_the_script_is_what_make_script_makes_of_its_source() -> None:
    assert script().decode() == whole()
    assert BEFORE.read_text() == before()


def test_what_of_the_script_runs_before_the_events_are_out_is_3_kb() -> None:
    assert len(gzip.compress(made(source(FIRST)).encode(), 9)) <= 3 * 1024


def test_the_script_of_a_plain_page_has_500_lines_of_code() -> None:
    lines = [line.strip() for line in source().splitlines()[1:-1]]
    assert len([line for line in lines if line and not line.startswith("//")]) <= 500


@pytest.mark.parametrize("name", ["parity", "parity/help", "parity.json", "metrics"])
def test_without_a_report_token_there_is_no_report(name: str) -> None:
    assert Site(report_token=None).client.get(f"/_capi/{name}").status_code == 404


@pytest.mark.parametrize("name", ["parity", "parity/help", "parity.json", "metrics"])
def test_the_report_wants_its_token(site: Site, name: str) -> None:
    wrong = {"authorization": "Bearer wrong"}
    assert site.client.get(f"/_capi/{name}").status_code == 401
    assert site.client.get(f"/_capi/{name}", headers=wrong).status_code == 401
    answer = site.client.get(f"/_capi/{name}", headers=REPORT)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-robots-tag"] == "noindex"


def test_a_bad_window_is_a_page_for_browsers_and_data_for_programs(site: Site) -> None:
    page = site.client.get("/_capi/parity?from=tomorrow", headers=REPORT)
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (400, "text/html")
    assert "found &#39;tomorrow&#39;, expected an ISO 8601 date" in page.text
    assert '<a href="/_capi/parity">' in page.text
    data = site.client.get("/_capi/parity.json?from=tomorrow", headers=REPORT)
    assert (data.status_code, list(data.json())) == (400, ["error"])


def test_debug_serves_the_report_without_a_token() -> None:
    assert Site(report_token=None, debug=True).client.get("/_capi/parity").status_code == 200


def test_a_browser_logs_in_once_and_then_sees_page_and_data(site: Site) -> None:
    assert site.client.post("/_capi/parity", data={"token": "wrong"}).status_code == 403
    answer = site.client.post(
        "/_capi/parity", data={"token": "the-report-token"}, follow_redirects=False
    )
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "report" not in cookie.split(";")[0].partition("=")[2]
    assert site.client.get("/_capi/parity").status_code == 200
    assert site.client.get("/_capi/parity.json").status_code == 200


def test_a_forged_login_opens_nothing(site: Site) -> None:
    site.client.cookies.set("capi_report", "9999999999.forged")
    assert site.client.get("/_capi/parity").status_code == 401


def test_an_unknown_endpoint_and_a_wrong_method_are_no_page_of_the_host(site: Site) -> None:
    assert site.client.get("/_capi/none").status_code == 404
    assert site.client.put("/_capi/b").status_code == 405


def test_the_wsgi_door_answers_the_same(site: Site) -> None:
    started: list[Any] = []
    door = wsgi.CAPIMiddleware(lambda environ, start: [], site.capi)
    environ = environ_for({**CASES[0]["request"], "path": "/_capi/parity.json"})
    environ["HTTP_AUTHORIZATION"] = "Bearer the-report-token"

    def start_response(status: str, headers: Any) -> Any:
        started.append(status)

    body = b"".join(door(environ, start_response))
    assert started == ["200 OK"]
    assert {"window", "events", "match_key_advice", "flags", "health"} <= set(json.loads(body))


def test_a_question_about_another_site_is_refused(site: Site) -> None:
    answer = site.client.post("/_capi/t", json={"u": "https://evil.example/"})
    assert answer.status_code == 403
    assert site.browser() == []


def open_key(site: Site) -> PageKey:
    return site.capi.issuer.new_key()


def asks(site: Site, url: str, key: PageKey | None = None, /, **headers: str) -> int:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    agent = {"user-agent": "Mozilla/5.0"}
    return site.client.post(
        "/_capi/t", json={"u": url, "k": key}, headers=agent | given
    ).status_code


def test_a_question_behind_a_proxy_that_sets_no_host_is_about_the_address_of_the_browser(
    site: Site,
) -> None:
    assert asks(site, "https://shop.example/a?b=1", open_key(site), **BEHIND_NGINX | PROVEN) == 200
    (event,) = site.capi.store.lease(PIXEL_ID, limit=9, seconds=9).events
    assert json.loads(event.payload)["event_source_url"] == "https://shop.example/a?b=1"


def test_the_usual_port_is_no_part_of_an_address(site: Site) -> None:
    assert asks(site, "http://testserver/a", open_key(site), host="testserver:80") == 200
    (event,) = site.capi.store.lease(PIXEL_ID, limit=9, seconds=9).events
    assert json.loads(event.payload)["event_source_url"] == "http://testserver/a"


@pytest.mark.parametrize(
    "headers",
    [
        BEHIND_NGINX,  # without the browser's word
        {"host": "backend", "origin": "null"} | PROVEN,
        {"host": "backend", "origin": "https://other.example"} | PROVEN,
        BEHIND_NGINX | {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
    ],
)
def test_a_question_whose_page_nothing_proves_is_refused(
    site: Site, headers: dict[str, str]
) -> None:
    assert asks(site, "https://shop.example/", **headers) == 403
    assert site.browser() == []


@pytest.mark.parametrize("url", ["http://[", "http://[x]/", "//[", "\ud800"])
def test_an_address_that_cannot_be_read_is_refused(site: Site, url: str) -> None:
    body = json.dumps({"u": url}).encode()
    assert site.client.post("/_capi/t", content=body).status_code in (400, 403)


def test_an_origin_that_cannot_be_read_is_refused(site: Site) -> None:
    assert site.beacon([site.event(), "PageView", PIXEL_ID, "sent"], origin="http://[") == 403


# -- a page that others may have got, too, asks for its events ------------------------------------

LANDING = {"u": "http://testserver/?fbclid=Click", "r": "https://www.facebook.com/"}


def landing(site: Site) -> dict[str, Any]:
    """The question of a page that a cache keeps."""
    mark = site.capi.issuer.asking.mark("/", [], site.capi.issuer.clock(), page_view=True)
    return LANDING | {"y": mark}


def test_the_answer_to_a_question_sets_the_cookies_that_the_shared_page_could_not(
    site: Site,
) -> None:
    agent = {"user-agent": "Mozilla/5.0"}
    answer = site.client.post("/_capi/t", json=landing(site), headers=agent)
    cookies = {one.split("=")[0]: one for one in answer.headers.get_list("set-cookie")}
    assert set(cookies) == {"_fbp", "_fbc"}
    assert ".Click;" in cookies["_fbc"]
    assert answer.headers["cache-control"] == "no-store"
    (event,) = site.capi.store.lease(PIXEL_ID, limit=9, seconds=9).events
    user_data = json.loads(event.payload)["user_data"]
    assert f"_fbp={user_data['fbp']};" in cookies["_fbp"]
    assert f"_fbc={user_data['fbc']};" in cookies["_fbc"]


@pytest.mark.parametrize(
    ("given", "headers"),
    [
        ({"consent": lambda request: False}, {}),
        ({}, {"sec-gpc": "1"}),
        ({}, {"user-agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"}),
    ],
)
def test_where_nothing_may_leave_the_answer_says_so_and_sets_no_cookie(
    given: dict[str, Any], headers: dict[str, str]
) -> None:
    site = Site(**given)
    answer = site.client.post("/_capi/t", json=landing(site), headers=headers)
    assert answer.json() == {"e": [], "x": "denied"}
    assert "set-cookie" not in answer.headers


def test_advanced_matching_comes_with_the_answer_and_not_with_the_shared_page() -> None:
    site = Site(user_data={"external_id": "{cookie.id}"}, advanced_matching=True)
    answer = site.client.post("/_capi/t", json=landing(site), headers={"cookie": "id=77"})
    assert list(answer.json()["p"][0]["am"]) == ["external_id"]


def test_behind_a_trusted_proxy_our_own_pages_are_those_of_the_public_host() -> None:
    site = Site(trusted_proxies=["unix", "127.0.0.0/8"])
    site.client = TestClient(site.client.app, client=("127.0.0.1", 9))
    forwarded = {"x-forwarded-host": "shop.example", "x-forwarded-proto": "https"}
    page = {"u": "https://shop.example/", "r": ""}
    own = {**forwarded, "origin": "https://shop.example"}
    assert site.client.post("/_capi/t", json=page, headers=own).status_code == 200
    foreign = {**forwarded, "origin": "http://testserver"}
    assert site.client.post("/_capi/t", json=page, headers=foreign).status_code == 403


def page_key(site: Site, path: str = "/") -> list[str]:
    text = site.client.get(path, headers={"user-agent": "Mozilla/5.0"}).text
    key: list[str] = json.loads(text.split("data-c>")[1].split("</script>")[0])["k"]
    return key


def tell(site: Site, key: list[str], *calls: dict[str, Any], url: str = "/shop/7") -> int:
    given = {"u": f"http://testserver{url}", "k": key, "m": list(calls)}
    headers = {"user-agent": "Mozilla/5.0"}
    return site.client.post("/_capi/t", json=given, headers=headers).status_code


def call(key: list[str], name: str = "Lead", number: int = 1, **more: Any) -> dict[str, Any]:
    return {"n": name, "i": f"m{key[1][1:20]}-{number}", "p": [PIXEL_ID], **more}


def rows(site: Site, name: str) -> list[tuple[str, str, int]]:
    found = site.capi.store.tallies(0, 1e12).rows
    return [(row.server, row.browser, row.n) for row in found if row.event_name == name]


def test_a_call_of_an_open_page_is_mirrored() -> None:
    site = Site(mirror=True)
    key = page_key(site)
    assert tell(site, key, call(key)) == 204
    assert tell(site, key, call(key)) == 204  # again: the same event
    assert rows(site, "Lead") == [("pending", "not_run", 1)]


def test_a_call_of_a_page_that_hides_its_origin_is_mirrored() -> None:
    site = Site(mirror=True)
    key = page_key(site)
    given = {"u": "http://testserver/", "k": key, "m": [call(key)]}
    agent = {"user-agent": "Mozilla/5.0"}
    for one, status in ((key, 204), (["Lead", key[1]], 403)):
        answer = site.client.post("/_capi/t", json=given | {"k": one}, headers=agent | NO_REFERRER)
        assert answer.status_code == status
    assert rows(site, "Lead") == [("pending", "not_run", 1)]


def test_a_call_that_comes_as_browsers_send_beacons_is_no_prefetch() -> None:
    site = Site(mirror=True)
    key = page_key(site)
    given = {"u": "http://testserver/shop/7", "k": key, "m": [call(key)]}
    headers = {
        "user-agent": "Mozilla/5.0", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "empty",
        "sec-fetch-site": "same-origin", "origin": "http://testserver",
    }  # fmt: skip
    assert site.client.post("/_capi/t", json=given, headers=headers).status_code == 204
    assert rows(site, "Lead") == [("pending", "not_run", 1)]


def test_a_call_without_a_page_of_ours_is_refused() -> None:
    site = Site(mirror=True)
    key = page_key(site)
    assert tell(site, ["PageView", key[1][:30] + "A" * 34], call(key)) == 403
    assert tell(site, ["Lead", key[1]], call(key)) == 403
    assert rows(site, "Lead") == []


def test_a_page_cannot_tell_of_the_events_of_another_page() -> None:
    site = Site(mirror=True)
    mine, other = page_key(site), page_key(site)
    assert tell(site, mine, call(other)) == 204
    assert tell(site, mine, {"n": "PageView", "i": other[1], "p": [PIXEL_ID]}) == 204
    assert rows(site, "Lead") == []
    assert rows(site, "PageView") == [("pending", "not_run", 2)]


def test_only_pixels_of_the_config_are_told_of() -> None:
    site = Site(mirror=True)
    key = page_key(site)
    assert tell(site, key, call(key) | {"p": ["999"]}) == 204
    assert rows(site, "Lead") == []


def test_the_report_names_the_page_that_fires_what_no_rule_makes(site: Site) -> None:
    key = page_key(site, "/u/jane@example.com/7")
    assert tell(site, key, call(key, "Contact"), url="/u/jane@example.com/7") == 204
    body = {"e": [[f"m{key[1][1:20]}-1", "Contact", PIXEL_ID, "sent"]], "k": key}
    assert site.client.post("/_capi/b", content=json.dumps(body)).status_code == 204
    report = site.client.get("/_capi/parity.json", headers=REPORT).json()
    (event,) = [one for one in report["events"] if one["event_name"] == "Contact"]
    assert (event["browser_only"], event["missing_server"]) == (1, {"unmapped": 1})
    assert event["unmapped_pages"] == {"/u/{id}/{id2}": 1}
    (flag,) = [one for one in report["flags"] if one["code"] == "server_missing"]
    assert 'EventRoute("GET /u/{id}/{id2}", "Contact")' in flag["fix"]


def test_a_beacon_for_a_pages_own_event_wants_its_key(site: Site) -> None:
    key = page_key(site)
    body = {"e": [[f"m{key[1][1:20]}-1", "Contact", PIXEL_ID, "sent"]]}
    site.client.post("/_capi/b", content=json.dumps(body))
    assert site.refused() == {"forged": 1}


def test_a_value_that_is_no_number_refuses_no_beacon(site: Site) -> None:
    key = page_key(site)
    for value in ("", "1\u00a0234,50", "x" * 999):
        body = {"e": [[key[1], key[0], PIXEL_ID, "sent", value, "EUR"]], "k": key}
        assert site.client.post("/_capi/b", content=json.dumps(body)).status_code == 204
    assert site.browser() == [("sent", 1)]


def own_events(site: Site, key: list[str], names: Sequence[str], mark: str = "") -> int:
    """A page tells of events with the site's own ids."""
    events = [[f"site-{mark}{name}", name, PIXEL_ID, "sent"] for name in names]
    body = json.dumps({"e": events, "k": key})
    return site.client.post("/_capi/b", content=body).status_code


def reported(site: Site) -> set[str]:
    answer = site.client.get("/_capi/parity.json", headers=REPORT)
    return {one["event_name"] for one in answer.json()["events"]}


def test_a_page_brings_five_made_up_names_into_the_report_and_all_a_hundred(site: Site) -> None:
    now = time.time()
    site.capi.issuer.clock = lambda: now  # a machine under load takes its time
    for page in range(25):
        own_events(site, page_key(site), [f"{page}-{n}" for n in range(60)])
        if page == 0:
            assert len(reported(site) - {"PageView"}) == 5
    assert len(reported(site) - {"PageView"}) == 100
    assert site.refused()["unknown_name"] == 25 * 60 - 100


@pytest.mark.parametrize(
    "name", ["jane.doe@example.com", "+49 30 1234567", "4f9c8a7b6d5e4f3a2b1c0d9e"]
)
def test_a_name_that_is_somebody_s_is_not_heard(name: str) -> None:
    site = Site()
    own_events(site, page_key(site), [name, "Newsletter 2026"])
    assert reported(site) == {"PageView", "Newsletter 2026"}
    site = Site(mirror=[name])  # the site's own word
    own_events(site, page_key(site), [name])
    assert name in reported(site)


def test_names_that_nobody_uses_any_more_make_room_for_others(site: Site) -> None:
    now = time.time()
    site.capi.issuer.clock = lambda: now
    for page in range(20):
        own_events(site, page_key(site), [f"{page}-{n}" for n in range(5)])
    key = page_key(site)
    assert own_events(site, key, ["real"]) == 204
    assert "real" not in reported(site)
    now += 60
    own_events(site, page_key(site), ["real"], "later")
    assert "real" in reported(site)


def apart(site: Site, name: str) -> int:
    """How many events of this name only beacons told of, under ids that are not ours."""
    counts = site.capi.store.tallies(0, time.time() + 60).counts
    return sum(one.n for one in counts if (one.kind, one.event_name) == ("unsigned", name))


def test_ids_that_are_not_ours_are_in_no_coverage(site: Site) -> None:
    key = page_key(site)
    told = [[f"strange-{n}", "Purchase", PIXEL_ID, "sent"] for n in range(9)]
    assert site.client.post("/_capi/b", json={"e": told, "k": key}).status_code == 204
    assert rows(site, "Purchase") == []
    assert apart(site, "Purchase") == 9


def test_an_id_of_the_site_s_own_counts_when_the_page_told_of_the_call(site: Site) -> None:
    key = page_key(site, "/thanks")
    told = [["order-4711", "Lead", PIXEL_ID, "sent"]]
    assert site.client.post("/_capi/b", json={"e": told, "k": key}).status_code == 204
    assert tell(site, key, {"n": "Lead", "i": "order-4711", "p": [PIXEL_ID]}, url="/thanks") == 204
    assert [browser for _, browser, _ in rows(site, "Lead")] == ["sent"]
    assert apart(site, "Lead") == 0


def test_a_page_has_a_budget_of_sightings_that_no_signature_proves(site: Site) -> None:
    key, other = page_key(site), page_key(site)
    for part in range(9):
        told = [[f"{part}-{n}", "Lead", PIXEL_ID, "sent"] for n in range(64)]
        site.client.post("/_capi/b", content=json.dumps({"e": told, "k": key}))
    assert apart(site, "Lead") == 500
    assert site.refused()["page_budget"] == 9 * 64 - 500
    assert own_events(site, other, ["Lead"], "other") == 204
    assert site.beacon([key[1], key[0], PIXEL_ID, "sent"]) == 204  # what is signed always counts


def test_a_page_has_a_budget_of_events(site: Site) -> None:
    now = time.time()
    site.capi.issuer.clock = lambda: now
    key = page_key(site)
    answers = [tell(site, key, *[call(key, number=n)] * 16) for n in range(40)]
    assert answers.count(204) == 500 // 16
    assert set(answers) == {204, 429}
    assert tell(site, page_key(site), call(key)) == 204


def test_made_up_pages_keep_no_real_page_out_of_the_report(site: Site) -> None:
    key = page_key(site, "/contact")
    for n in range(250):
        site.capi.issuer.page_of(f"/made-up/{chr(97 + n % 26) * (n // 26 + 1)}", None)
    assert tell(site, key, call(key, "Contact"), url="/contact") == 204
    counts = site.capi.store.tallies(0, 1e12).counts
    assert [one.reason for one in counts if one.kind == "unmapped"] == ["/contact"]


def test_one_address_fills_less_than_fifty_megabytes_of_the_disk_in_a_day() -> None:
    site = Site(mirror=True)
    issuer, now = site.capi.issuer, time.time()
    issuer.clock = lambda: now
    one = TestClient(site.client.app, client=("8.8.8.8", 1))
    page_text, size, answers = "x" * 60_000, 0, set()
    for _ in range(900):
        now += 86400 / 900
        key = list(issuer.new_key())
        told = call(key, d={"content_name": page_text})
        body = json.dumps({"u": "http://testserver/", "k": key, "m": [told]})
        status = one.post("/_capi/t", content=body).status_code
        answers.add(status)
        size += len(body) if status == 204 else 0
    assert answers == {204, 429}
    assert size < 50e6


def test_too_many_questions_of_one_visitor_are_refused_and_counted(site: Site) -> None:
    now = time.time()
    site.capi.issuer.clock = lambda: now  # however slow the machine is
    one = TestClient(site.client.app, client=("8.8.8.8", 1))
    given = {"u": "http://testserver/"}
    answers = {one.post("/_capi/t", json=given).status_code for _ in range(700)}
    assert answers == {200, 429}
    assert site.refused()["too_many"] > 0


@pytest.mark.parametrize(
    ("policy", "fix"),
    [
        ("script-src 'self'", "Add https://connect.facebook.net to script-src"),
        ("img-src 'self'", "Add https://www.facebook.com to img-src"),
        ("connect-src 'none'", "Add 'self' to connect-src"),
        ("connect-src 'self'", "Add https://www.facebook.com to connect-src"),
        ("script-src 'none'", "Add 'self' to script-src"),
    ],
)
def test_a_policy_that_blocks_something_is_reported_with_the_directive_to_add(
    policy: str, fix: str
) -> None:
    async def page(request: Any) -> HTMLResponse:
        headers = {"content-security-policy": policy}
        return HTMLResponse("<!doctype html><title>x</title><p>hi", headers=headers)

    capi = CAPI(make_config())
    app = CAPIMiddleware(Starlette(routes=[Route("/", page)]), capi)
    client = TestClient(app)
    assert client.get("/").headers["content-security-policy"] == policy
    flags = client.get("/_capi/parity.json", headers=REPORT).json()["flags"]
    (flag,) = [one for one in flags if one["code"] == "csp_blocks"]
    assert flag["value"] == 1
    assert flag["fix"].startswith(fix)


def test_a_policy_that_lets_everything_through_raises_no_flag(site: Site) -> None:
    site.client.get("/")
    flags = site.client.get("/_capi/parity.json", headers=REPORT).json()["flags"]
    assert [one for one in flags if one["code"] == "csp_blocks"] == []

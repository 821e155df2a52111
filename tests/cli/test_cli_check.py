"""check: every fault of a setup is a finding with its fix, and a good one has none."""

import asyncio
import gzip
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

import capi_middleware
from capi_middleware import CAPIMiddleware, Config
from capi_middleware.capture.banners import READY_RULES
from capi_middleware.cli.check import _banner
from capi_middleware.config.notices import filesystem_of
from capi_middleware.meta.http import STEP_SECONDS
from capi_middleware.testing import FakeMeta
from tests.support.commands import Site, site
from tests.support.configs import PIXEL_ID, SECRET, make_config
from tests.support.servers import closed_port, serve

#: The module: the package has the command by this name.
check: Any = import_module("capi_middleware.cli.check")
CLI = Path(capi_middleware.__file__).parent / "cli"
Findings = dict[str, list[tuple[str, str, str]]]
TAGGED = b'<html><head><script src="/_capi/s.js?v=1"></script></head></html>'
HEAD = "<!doctype html><html><head><title>x</title>{}</head><body></body></html>"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path, monkeypatch, FakeMeta()) as made:
        yield made


def findings(shop: Site, *arguments: str) -> Findings:
    """(level, text, fix) by part."""
    found: Findings = {}
    for one in shop.told("check", *arguments)["findings"]:
        assert one["fix"] or one["level"] == "ok", one
        found.setdefault(one["part"], []).append((one["level"], one["text"], one["fix"]))
    return found


def test_a_good_setup_has_no_error(shop: Site) -> None:
    shop.configure(
        '[[routes]]\nmatch = "GET /orders/{n}"\nevent_name = "Purchase"\ndedupe_key = "{path.n}"'
    )
    done = shop.run("check")
    assert done.exit_code == 0
    assert "ok       route: GET /orders/{n} → Purchase" in done.stdout
    found = findings(shop)
    assert found["store"][0][1] == f"sqlite {shop.folder}/capi.db: opens and takes writes, 0 events"
    assert found["secret_key"][0][0] == "ok"
    assert SECRET not in str(found)
    assert "sending" not in found
    assert shop.fake.received.server == []


def test_a_configuration_that_does_not_load_is_an_error(shop: Site) -> None:
    shop.configure('[[routes]]\nmatch = "GET /_capi/x"\nevent_name = "Lead"')
    done = shop.run("check")
    assert done.exit_code == 4
    assert "this route can never match" in done.stdout


def test_routes_that_never_count_are_errors(shop: Site) -> None:
    shop.configure(
        '[[routes]]\nmatch = "GET /admin/x"\nevent_name = "Lead"\n'
        '[[routes]]\nmatch = "HEAD /x"\nevent_name = "Lead"\n'
        '[[routes]]\nmatch = "GET /thanks"\nevent_name = "Purchase"\n'
        'custom_data = { value = "{query.total}", currency = "EUR" }\n'
        '[[routes]]\nmatch = "GET /orders/{n}"\nevent_name = "Donate"\ndedupe_key = "x"\n',
        exclude=["/admin/"],
    )
    assert [(level, text) for level, text, _ in findings(shop)["route"]] == [
        ("error", "GET /admin/x → Lead can never match: exclude has '/admin/'"),
        ("error", "HEAD /x → Lead never counts: HEAD shows no page"),
        ("warning", "GET /thanks → Purchase has no dedupe_key: a refreshed page counts twice"),
        (
            "error",
            "GET /orders/{n} → Donate has the same dedupe_key for all: Meta counts them as one",
        ),
    ]


def test_a_purchase_without_value_and_a_value_without_currency_are_warnings(shop: Site) -> None:
    shop.configure(
        '[[routes]]\nmatch = "GET /thanks/{n}"\nevent_name = "Purchase"\ndedupe_key = "{path.n}"\n'
        '[[routes]]\nmatch = "POST /cart"\nevent_name = "AddToCart"\ncustom_data = { value = 5 }\n'
        '[[routes]]\nmatch = "POST /lead"\nevent_name = "Lead"\n'
        '[[routes]]\nmatch = "GET /done/{n}"\nevent_name = "Purchase"\ndedupe_key = "{path.n}"\n'
        'custom_data = { value = "dear", currency = "EURO" }\n'
    )
    said = [text.partition(":")[0] for level, text, _ in findings(shop)["route"] if level != "ok"]
    assert said == [
        "GET /thanks/{n} → Purchase says no value and no currency",
        "POST /cart → AddToCart says no currency",
        "GET /done/{n} → Purchase says no usable value and no usable currency",
    ]


def test_secrets_that_differ_or_stand_in_the_file_are_warnings(
    shop: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.configure(secret_key=SECRET + "-2", report_token="the-report-token")
    found = findings(shop)
    assert [level for level, _, _ in found["secret_key"]] == ["ok", "warning"]
    assert "another one than this environment's" in found["secret_key"][1][1]
    assert found["report"][0][0] == "ok"
    assert [text.split(" stands")[0] for _, text, _ in found["secrets"]] == [
        "secret_key", "report_token", "pixels.access_token",
    ]  # fmt: skip
    monkeypatch.delenv("CAPI_SECRET_KEY")
    assert len(findings(shop)["secret_key"]) == 1


def test_a_store_that_cannot_be_opened_is_an_error(shop: Site) -> None:
    (shop.folder / "capi.db").write_bytes(b"")
    shop.configure(store=f"sqlite:///{shop.folder / 'missing' / 'capi.db'}")
    assert findings(shop)["store"][0][0] == "error"
    assert shop.run("check").exit_code == 1
    shop.configure(store="memory:")
    assert "forgets all events" in findings(shop)["store"][1][1]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/srv/data/capi.db", "nfs4"), ("/srv/capi.db", "ext4"), ("/run/a b/x.db", "tmpfs"),
     ("/srv/database.db", "ext4")],
)  # fmt: skip
def test_the_file_system_is_that_of_the_deepest_mount(path: str, kind: str) -> None:
    mounts = "/dev/sda1 / ext4 rw\nhost:/x /srv/data nfs4 rw\n\ntmpfs /run/a\\040b tmpfs rw\n"
    assert filesystem_of(Path(path), mounts) == kind


def test_delivery_that_stands_still_is_found(shop: Site) -> None:
    with shop.capi() as capi:
        token = capi.config.mark_of(capi.config.fixed_pixels[0])
        capi.store.pause(PIXEL_ID, seconds=600, reason="code 190", token=token)
    assert findings(shop)["delivery"][0][0] == "error"


def test_a_test_event_shows_meta_s_answer(shop: Site) -> None:
    shop.configure(pixel='test_event_code = "TEST9"')
    found = findings(shop)
    ((level, text, _),) = found["sending"]
    assert level == "ok"
    assert "events_received 1, fbtrace_id AFakeMetaTrace" in text
    (received,) = shop.fake.received.server
    assert (received.event["event_name"], received.test_event_code) == (
        "CapiMiddlewareCheck", "TEST9",
    )  # fmt: skip
    assert found["test_event_code"][0][0] == "warning"


@pytest.mark.parametrize(
    ("fault", "level", "text"),
    [
        ({"status": 401}, "error", "the access token was refused (code 190"),
        ({"status": 429}, "error", "Meta throttles this app or account (code 17"),
        ({"status": 502, "body": "<html>"}, "error", "passing fault (http 502"),
        ({"drop": "before"}, "error", "no answer ("),
        (
            {"status": 200, "body": {"events_received": 1, "messages": ["look"],
                                     "fbtrace_id": "A\n\x1b[31m"}},
            "warning", "messages: look",
        ),
    ],
)  # fmt: skip
def test_an_answer_of_meta_s_is_explained(
    shop: Site, fault: dict[str, Any], level: str, text: str
) -> None:
    shop.fake.fail_next(**fault)
    ((found, shown, _),) = findings(shop, "--send")["sending"]
    assert found == level
    assert text in shown
    assert "\x1b" not in shown


def test_the_age_of_the_version_of_meta_s_api_is_told(shop: Site) -> None:
    ((level, shown, _),) = findings(shop)["graph_version"]
    assert level == "ok"
    assert re.match(r"v27\.0, \d+ days old, works until 2028-11-03; the newest known is", shown)


def test_the_code_of_the_command_line_is_sent(shop: Site) -> None:
    shop.run("check", "--test-event-code", "TEST1")
    assert shop.fake.received.server[0].test_event_code == "TEST1"


def pages(**routes: Response) -> Starlette:
    def answer(made: Response) -> Any:
        async def endpoint(request: Request) -> Response:
            return made

        return endpoint

    return Starlette(routes=[Route(f"/{name}", answer(made)) for name, made in routes.items()])


def page_findings(shop: Site, made: Response, *, wrapped: bool = True) -> Findings:
    app: Any = pages(page=made, moved=RedirectResponse("/page"))
    if wrapped:
        app = CAPIMiddleware(app, Config.load(shop.path))
    with serve(app) as url:
        return findings(shop, "--url", f"{url}/moved")


def test_a_page_with_our_tag_is_good(shop: Site) -> None:
    found = page_findings(shop, HTMLResponse(HEAD.format("")))
    assert found["page"][0][1].endswith("/page: http 200, text/html; charset=utf-8")
    assert [found[part][0][0] for part in ("tag", "script", "cache", "csp")] == ["ok"] * 4
    assert "carries its event_ids" in found["cache"][0][1]
    assert "pixel" in found


def test_a_page_without_our_tag_is_an_error(shop: Site) -> None:
    found = page_findings(shop, HTMLResponse(HEAD.format("")), wrapped=False)
    assert found["tag"][0][0] == "error"
    assert "outermost" in found["tag"][0][2]


def test_pixels_and_tag_managers_on_the_page_are_found(shop: Site) -> None:
    snippet = (
        f"<script>fbq('init', '{PIXEL_ID}');fbq( \"init\",\"777\")</script>"
        "<script src='https://www.googletagmanager.com/gtm.js?id=GTM-ABC123'></script>"
    )
    found = page_findings(shop, HTMLResponse(HEAD.format(snippet)))["pixel"]
    assert [(level, text) for level, text, _ in found[1:]] == [
        ("warning", f"the page initialises our pixel {PIXEL_ID} itself"),
        ("ok", "the page initialises another pixel 777 itself"),
        ("warning", "a tag manager, GTM-ABC123, may fire the pixel too"),
    ]


def test_a_policy_that_blocks_the_pixel_is_an_error_with_the_directive(shop: Site) -> None:
    policy = {"content-security-policy": "default-src 'self'; img-src 'self'"}
    found = page_findings(shop, HTMLResponse(HEAD.format(""), headers=policy))["csp"]
    assert [level for level, _, _ in found] == ["error", "error", "warning"]
    fixes = " ".join(fix for _, _, fix in found)
    assert "Add https://connect.facebook.net to script-src" in fixes
    assert "https://www.facebook.com" in found[2][2]
    assert "connect-src" in found[2][2]
    assert "Add https://www.facebook.com to img-src" in fixes
    policy = {"content-security-policy": "script-src 'none'"}
    found_ = page_findings(shop, HTMLResponse(HEAD.format(""), headers=policy))
    assert found_["tag"][0][0] == "error"
    assert "Add 'self' to script-src" in found_["csp"][-1][2]


def test_an_integrity_policy_that_blocks_the_pixel_is_an_error(shop: Site) -> None:
    policy = {"integrity-policy": "blocked-destinations=(script)"}
    (found,) = page_findings(shop, HTMLResponse(HEAD.format(""), headers=policy))["csp"]
    assert found[0] == "error"
    assert "blocked-destinations" in found[2]


def test_a_policy_within_the_page_is_read(shop: Site) -> None:
    meta = """<meta content="img-src 'self'" http-equiv=Content-Security-Policy>"""
    (found,) = page_findings(shop, HTMLResponse(HEAD.format(meta)))["csp"]
    assert "Add https://www.facebook.com to img-src" in found[2]


def test_event_ids_in_a_shared_cache_are_an_error(shop: Site) -> None:
    public = {"cache-control": "public, max-age=60"}
    asked = page_findings(shop, HTMLResponse(HEAD.format(""), headers=public))["cache"][0]
    assert asked[:2] == (
        "ok", "the page asks for its event_ids when shown (cache-control public, max-age=60)",
    )  # fmt: skip
    tag = (
        '<script type="application/json" data-c>{"e":[{"n":"PageView","i":"tABC"}]}</script>'
        '<script src="/_capi/s.js?v=1" async></script>'
    )
    page = HTMLResponse(HEAD.format(tag), headers={"age": "7"})
    found = page_findings(shop, page, wrapped=False)
    assert found["cache"][0][0] == "error"
    assert found["script"][0][0] == "error", "nothing serves it"


@pytest.mark.parametrize("url", ["ftp://x/", "http://[", "nobody listens"])
def test_an_address_without_a_page_is_an_error(shop: Site, url: str) -> None:
    found = findings(shop, "--url", closed_port() if url == "nobody listens" else url)
    assert found["page"][0][0] == "error"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/", "http://evil.example/", "//[", "ftp://x/"]
)
def test_a_redirect_to_another_site_is_not_followed(shop: Site, address: str) -> None:
    asked: list[str] = []

    def page(request: Request) -> Response:
        asked.append(request.url.path)
        return HTMLResponse(HEAD.format(""))

    with serve(Starlette(routes=[Route("/elsewhere", page)])) as other:
        moved = Response(status_code=302, headers={"location": address})
        with serve(pages(moved=moved, there=RedirectResponse(f"{other}/elsewhere"))) as url:
            for name in ("moved", "there"):
                assert findings(shop, "--url", f"{url}/{name}")["page"][0][0] == "error"
    assert asked == []


def test_a_script_of_another_site_is_not_asked_for(shop: Site) -> None:
    tag = '<script src="{}/_capi/s.js?v=1"></script>'
    with serve(pages()) as other:
        page = HTMLResponse(HEAD.format(tag.format(other)))
        found = page_findings(shop, page, wrapped=False)["script"]
    assert found[0][:2] == ("error", "s.js: another site's address")


def test_a_page_that_drips_is_waited_for_20_seconds(
    shop: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drips(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(600):
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await asyncio.sleep(0.05)

    assert check._SECONDS + STEP_SECONDS == 20.0
    monkeypatch.setattr(check, "_SECONDS", 0.5)
    with serve(drips) as url:
        assert findings(shop, "--url", f"{url}/slow")["page"][0][1] == "no answer (timeout)"


def test_two_megabytes_of_a_page_are_read(shop: Site) -> None:
    tag = '<script src="/_capi/s.js?v=1"></script>'
    long = page_findings(shop, HTMLResponse("a" * 2_097_152 + tag), wrapped=False)
    assert long["tag"][0][0] == "error"
    whole = page_findings(shop, HTMLResponse("a" * 2_097_000 + tag), wrapped=False)
    assert whole["tag"][0][0] == "ok"


def test_nothing_of_a_page_is_a_control_character_on_the_terminal(shop: Site) -> None:
    page = Response(b"x", 404)
    page.raw_headers.append((b"content-type", b"text/\x9b31mhtml"))
    with serve(pages(page=page)) as url:
        for way in ([], ["--json"]):
            told = shop.run("check", "--url", f"http://user:pass@{url[7:]}/page", *way).stdout
            assert all(one.isprintable() for one in told.replace("\n", ""))
            assert "31mhtml" in told
            assert "pass" not in told


# Quadratic work on 2 MB ends in this test's time limit.
@pytest.mark.parametrize("piece", ["<meta ", "<meta http-equiv ", check._OPENING, "GTM-", "fbq( "])
def test_looking_at_a_page_takes_time_in_proportion_to_its_length(shop: Site, piece: str) -> None:
    page = HTMLResponse(piece * (2_000_000 // len(piece)))
    assert page_findings(shop, page, wrapped=False)["tag"][0][0] == "error"


@pytest.mark.parametrize(
    ("encoding", "inside", "level", "says"),
    [
        ("gzip", gzip.compress(b"<html><head></head>"), "error", "as gzip, without our script"),
        ("gzip", gzip.compress(TAGGED), "ok", "as gzip, with our script"),
        ("br", b"\xff\xfe", "warning", "as br, which cannot be opened here"),
        ("", TAGGED, "", ""),
    ],
)
def test_the_page_is_looked_at_as_a_browser_gets_it_too(
    shop: Site, encoding: str, inside: bytes, level: str, says: str
) -> None:
    async def page(request: Request) -> Response:
        if "br" in request.headers["accept-encoding"]:
            return Response(inside, headers={"content-encoding": encoding}, media_type="text/html")
        return HTMLResponse(TAGGED)

    with serve(Starlette(routes=[Route("/page", page)])) as url:
        found = findings(shop, "--url", f"{url}/page").get("compressor", [])
    assert [(one[0], says in one[1]) for one in found] == ([(level, True)] if level else [])


def test_an_answer_that_is_no_page_is_an_error(shop: Site) -> None:
    found = page_findings(shop, Response("no", 404, media_type="text/plain"))
    assert found["page"][0][0] == "error"
    assert "tag" not in found


def test_each_finding_of_the_table_is_said_somewhere_and_names_its_fix() -> None:
    code = (CLI / "check.py").read_text("utf-8")
    table = tomllib.loads((CLI / "findings.toml").read_text("utf-8"))
    assert [name for name in table if f'"{name}"' not in code] == []
    assert set(re.findall(r'(?:_found\(|name =)\s*"(\w+)"', code)) <= set(table)
    assert [name for name, one in table.items() if one["level"] != "ok" and not one["fix"]] == []


BANNER = HTMLResponse("<script src=https://consent.cookiebot.com/uc.js></script>")


@pytest.mark.parametrize("name", READY_RULES)
def test_each_banner_fits_its_own_rule_and_the_tables_google_and_no_other(name: str) -> None:
    html = READY_RULES[name].marks[0]
    for rule in READY_RULES:
        (found,) = _banner(make_config(consent=rule), html)
        fits = rule in (name, "google")
        assert (found.level, name in found.text) == ("ok" if fits else "warning", True)


@pytest.mark.parametrize(
    ("rule", "level", "says"),
    [
        ("", "warning", "nobody asks"),
        ('rule = "cookiebot"', "ok", 'the rule is "cookiebot"'),
        ('rule = "google"', "ok", 'the rule is "google"'),
        ('rule = "onetrust"', "warning", "another banner's cookie"),
        ('value = "{cookie.c}"\ngranted = ["1"]', "ok", "your own"),
    ],
)
def test_the_banner_of_a_page_is_named_and_whether_the_rule_fits(
    shop: Site, rule: str, level: str, says: str
) -> None:
    shop.configure(f"[consent]\n{rule}" if rule else "")
    found = page_findings(shop, BANNER, wrapped=False)["consent"]
    assert [one[0] for one in found if says in one[1]] == [level]


def test_a_page_without_a_banner_says_so(shop: Site) -> None:
    found = page_findings(shop, HTMLResponse("<p>hi"), wrapped=False)["consent"]
    assert any("no consent banner" in one[1] for one in found)

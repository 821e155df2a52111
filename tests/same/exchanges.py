"""The exchanges: sites, and what browsers ask of them and their apps answer, from a seed."""

import base64
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Pairs = list[list[str]]
Exchange = dict[str, Any]

_SECRET = "a-secret-for-the-same-of-more-than-32-characters"
_CASES = Path(__file__).parents[1] / "data" / "injection_cases.jsonl"

_ROUTES: list[dict[str, Any]] = [
    {"match": "GET /products/{sku}", "event_name": "ViewContent",
     "custom_data": {"content_ids": ["{path.sku}"], "content_type": "product", "x": "{query.x}"}},
    {"match": "GET /n/{n:int}/{rest:path}", "event_name": "Numbered",
     "custom_data": {"num_items": "{path.n}", "content_name": "{path.rest} of {query.q}"}},
    {"match": "POST /cart", "event_name": "AddToCart", "dedupe_key": "{form.cart}",
     "custom_data": {"value": "{form.price}", "currency": "EUR", "content_ids": ["{form.sku}"]},
     "user_data": {"em": "{form.mail}", "ph": "{form.phone}"}},
    {"match": "POST /api/order", "event_name": "Purchase", "dedupe_key": "{json.order.id}",
     "custom_data": {"value": "{json.order.total}", "currency": "{json.order.currency}",
                     "contents": "{json.order.lines}"},
     "user_data": {"em": "{json.mail}", "country": "{header.x-country}"}},
    {"match": "GET /orders/{id}/thanks", "event_name": "Purchase", "dedupe_key": "{path.id}",
     "custom_data": {"value": 12.5, "currency": "USD"}, "status": "200"},
    {"match": "* /search", "event_name": "Search", "custom_data": {"search_string": "{query.q}"}},
    {"match": "GET /go/{where}", "event_name": "Lead",
     "custom_data": {"content_name": "{cookie.c}"}},
    {"match": "GET /lonely", "event_name": "Contact", "send": "server"},
    {"match": "GET /shown", "event_name": "Schedule", "send": "browser"},
    {"match": "GET /called", "event_name": "Donate",
     "custom_data": {"content_name": {"call": "query_x"}}, "user_data": {"call": "person"}},
    {"match": "GET /broken", "event_name": "Subscribe", "dedupe_key": {"call": "fails"},
     "user_data": {"call": "fails"}},
    {"match": "* /errors/{n}", "event_name": "StartTrial", "status": "2xx,4xx,5xx"},
]  # fmt: skip


def _site(**settings: Any) -> dict[str, Any]:
    return {
        "secret_key": _SECRET, "pixels": [{"id": "1234567890", "access_token": "token"}],
        "routes": _ROUTES, "report_token": "the-report-token", "delivery": False, **settings,
    }  # fmt: skip


_PIXELS = [
    {"id": "111", "access_token": "a", "events": ["PageView", "Purchase", "Lead"]},
    {"id": "222", "access_token": "b", "name": "second"},
    {"id": "333", "access_token": "c", "events": ["Lead"], "test_event_code": "TEST1"},
]
_FEW_PIXELS = [{**_ROUTES[0], "pixels": ["222"]}, *_ROUTES[1:]]
SITES: dict[str, dict[str, Any]] = {
    "plain": _site(),
    "no_page_view": _site(page_view=False, durability="none"),
    "pixels": _site(pixels=_PIXELS, routes=_FEW_PIXELS, durability="all"),
    "mirror": _site(mirror=True, pixels=_PIXELS),
    "mirror_list": _site(mirror=["Lead", "Purchase"], secret_key=[_SECRET, _SECRET + "older"]),
    "matching": _site(advanced_matching=True, user_data={
        "em": "{cookie.mail}", "external_id": "{cookie.id}", "ph": "{query.phone}"}),
    "person": _site(user_data={"call": "person"}, default_region="DE"),
    "person_later": _site(user_data={"call": "person_later"}, advanced_matching=True),
    "person_map": _site(user_data={"call": "mapping"}),
    "person_fails": _site(user_data={"call": "fails"}, consent={"call": "agreed"}),
    "consent": _site(consent={"call": "agreed"}, privacy="ignore-gpc"),
    "consent_later": _site(consent={"call": "agreed_later"}),
    "consent_fails": _site(consent={"call": "fails"}),
    "consent_map": _site(consent={
        "value": "{cookie.agreed}", "granted": ["yes"], "limited": "limited-US-CA", "state": "CA"}),
    "tcf": _site(consent="tcf"),
    "onetrust": _site(consent="onetrust"),
    "cookiebot": _site(consent="cookiebot"),
    "cookieyes": _site(consent={"rule": "cookieyes", "requires": ["advertisement"]}),
    "google": _site(consent={"rule": "google", "cookie": "agreed"}, mirror=True),
    "proxied": _site(trusted_proxies=["203.0.113.0/24"], drop_parameters=["voucher"]),
    "excluded": _site(exclude=["/products/", "/orders"], prefix="/x/c"),
    "debug": _site(debug=True, report_token=None, test_event_code="TEST7"),
    "delivering": _site(delivery=True, pixels=_PIXELS[:2]),
}  # fmt: skip

_BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537"
)
_AGENTS = [_BROWSER] * 12 + [
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    "Googlebot/2.1 (+http://www.google.com/bot.html)", "kube-probe/1.30", "python-requests/2.32",
    "",
]  # fmt: skip
_FBP = [
    "_fbp=fb.1.1700000000000.123456789", "_fbp=fb.2.1700000000000.987.AQ",
    '_fbp="fb.1.1700000000000.5"', "_fbp=nonsense", "_fbp=fb.1.17.9",
    "not_fbp=fb.1.1700000000000.1", "_fbp=@FBP@", "",
]  # fmt: skip
_FBC = ["", "", "", "_fbc=fb.1.1700000000000.AbC", "_fbc=fb.1.1700000000000.IwAR1.Bg", "_fbc=x"]
_AGREED = [
    "agreed=yes", "agreed=no", "agreed=limited", "agreed=limited-US-TX", "agreed=denied", "",
    "agreed=G111", "agreed=G100", "euconsent-v2=CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA",
    "OptanonConsent=groups=C0001:1%2CC0004:1", "OptanonConsent=groups=C0001:1%2CC0004:0",
    "CookieConsent={marketing:true}", "CookieConsent=-1", "cookieyes-consent=advertisement:yes",
]  # fmt: skip
_QUERIES = [
    "", "", "", "x=1", "x=a&q=tea%20pot", "fbclid=IwAR0AbC.d-e", "fbclid=IwAR9&x=2&token=secret",
    "q=%C3%A9&email=a%40b.example", "fbclid=", "voucher=V1&utm_source=x", "phone=%2B4930123456",
    "q=%ff&fbclid=bad%20one", "x=" + "y" * 300,
]  # fmt: skip
_REFERERS = [
    "", "", "https://shop.example/before?x=1", "https://www.facebook.com/?fbclid=IwRefer",
    "https://other.example/p?email=a@b.example&fbclid=AbC", "about:blank", "http://[bad",
]  # fmt: skip
_PATHS = [
    "/", "/about", "/products/s-1", "/products/été", "/n/7/a/b", "/orders/17/thanks", "/search",
    "/go/there", "/lonely", "/shown", "/called", "/broken", "/errors/1", "/healthz", "/admin/x",
    "/products/a%20b", "/user/1234567/mail@x.example",
]  # fmt: skip
_POLICIES: list[Pairs] = [
    [], [], [],
    [["content-security-policy", "default-src 'self'"]],
    [["content-security-policy", "script-src 'nonce-abcDEF12'"]],
    [["content-security-policy", "script-src 'none'"]],
    [["content-security-policy", "script-src 'self'; connect-src 'none'"]],
    [["content-security-policy-report-only", "script-src 'none'"]],
    [["Content-Security-Policy", "script-src https://shop.example 'strict-dynamic' 'nonce-x1'"]],
    [["content-security-policy", "script-src 'nonce-<bad>'"]],
    [["content-security-policy", "default-src 'self' https://connect.facebook.net; img-src *"],
     ["content-security-policy", "script-src 'unsafe-inline' shop.example"]],
]  # fmt: skip
_CACHES: list[Pairs] = [
    [], [], [], [],
    [["cache-control", "public, max-age=60"]],
    [["cache-control", "private"], ["etag", '"abc"']],
    [["cache-control", "no-store"]],
    [["cache-control", "no-transform"]],
    [["cache-control", "max-age=0"], ["last-modified", "Mon, 21 Sep 2026 10:00:00 GMT"]],
    [["surrogate-control", "max-age=9"], ["vary", "accept"]],
    [["x-accel-expires", "30"], ["accept-ranges", "bytes"]],
    [["etag", 'W/"1"'], ["content-md5", "Q2hlY2s="], ["digest", "sha-256=X"]],
]  # fmt: skip
_TYPES = ["text/html; charset=utf-8"] * 8 + [
    "text/html", "TEXT/HTML", "text/html; charset=utf-16", "application/xhtml+xml", "text/plain",
    "application/json", "text/html, text/plain", "image/png", "",
]  # fmt: skip
_HEADS = [
    "<!doctype html><html><head><title>A</title></head>", "<!DOCTYPE HTML><title>no head</title>",
    "<html><head><!-- </head> --><script>'</head>'</script></head>", "<html lang=de><body>",
    "<head><meta http-equiv='Content-Security-Policy' content=\"script-src 'self'\"></head>",
    "<!doctype html><html><head><script>fbq('init','1');fbq('track','PageView')</script></head>",
]  # fmt: skip
_FRAGMENTS = ["<p>part", "hello", "", "<div id=x></div>", "<tr><td>", "  \n<!-- only -->"]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Generator:
    """Makes exchanges from a seed. A scenario is one exchange, or a few that follow each other."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def make(self, count: int) -> list[Exchange]:
        """`count` exchanges, of both doors."""
        scenarios: list[Callable[[], list[Exchange]]] = [
            *[self.page] * 8, *[self.stream] * 4, *[self.fragment] * 2, *[self.redirected] * 4,
            *[self.script] * 3, *[self.tracked] * 6, *[self.body] * 5, *[self.failing] * 4,
            *[self.beacons] * 5, *[self.question] * 4, *[self.mirrored] * 3, *[self.bad] * 4,
            *[self.reports] * 2, *[self.files] * 2, *[self.nothing] * 4, *[self.repeated] * 2,
            *[self.case] * 6,
        ]  # fmt: skip
        cases = [json.loads(line) for line in _CASES.read_text().splitlines()]
        self._cases = [
            one
            for one in cases
            if one["executable"] and "response" in one and len(json.dumps(one)) < 20_000
        ]
        made: list[Exchange] = []
        while len(made) < count:
            site, door = self.random.choice([*SITES]), self.random.choice(["asgi", "wsgi"])
            for exchange in self.random.choice(scenarios)():
                made.append({"n": len(made), "site": site, "door": door, **exchange})
        return made[:count]

    # -- what a browser asks -------------------------------------------------------------------

    def request(self, path: str | None = None, **more: Any) -> dict[str, Any]:
        """A request as browsers make it, with whatever they carry."""
        pick = self.random.choice
        cookies = [one for one in (
            "session=abc", pick(_FBP), pick(_FBC), pick(_AGREED), pick(["", "mail=A@B.example"]),
            pick(["", "id=77", "c=tea"]), pick(["", "", "capi_next=@NEXT@"]),
        ) if one]  # fmt: skip
        self.random.shuffle(cookies)
        headers: Pairs = [["host", pick(["shop.example", "shop.example", "www.shop.co.uk:8443"])]]
        headers += [["user-agent", pick(_AGENTS)], ["cookie", "; ".join(cookies)]]
        headers += [["accept", pick(["text/html,*/*;q=0.8", "*/*", "application/json"])]]
        extras: list[Pairs] = [
            [["sec-fetch-dest", "document"], ["sec-fetch-mode", "navigate"]], [],
            [["sec-fetch-dest", "empty"]], [["sec-fetch-dest", "image"]], [["sec-gpc", "1"]],
            [["sec-purpose", "prefetch"]], [["x-requested-with", "XMLHttpRequest"]],
            [["hx-request", "true"]], [["hx-request", "true"], ["hx-boosted", "true"]],
            [["x-forwarded-for", "198.51.100.7, 203.0.113.4"], ["x-forwarded-proto", "http"],
             ["x-forwarded-host", "front.example"]],
            [["turbo-frame", "f"]], [["x-country", "DE"]], [["if-none-match", '"abc"']],
        ]  # fmt: skip
        if self.random.random() < 0.6:
            headers += pick(extras)
        if referer := pick(_REFERERS):
            headers.append(["referer", referer])
        return {
            "method": "GET", "path": path or pick(_PATHS), "query": pick(_QUERIES),
            "headers": headers, "root": pick(["", "", "", "", "/shop"]),
            "scheme": pick(["https", "https", "http"]),
            "ip": pick(["203.0.113.9", "198.51.100.1", "2001:db8::1"]), **more,
        }  # fmt: skip

    # -- what an app answers -------------------------------------------------------------------

    def page_bytes(self) -> bytes:
        """A page, or what a site takes for one."""
        pick = self.random.choice
        text = pick(_HEADS) + "<body>" + "<p>text é</p>" * pick([0, 3, 40, 900]) + "</body></html>"
        return text.encode()

    def answer(
        self, body: bytes, *, status: int = 200, more: Pairs | None = None, pieces: int = 1,
        kind: str | None = None, length: bool | None = None, between: list[Any] | None = None,
    ) -> list[list[Any]]:  # fmt: skip
        """The steps of a response with this body."""
        pick = self.random.choice
        headers: Pairs = [["content-type", one] for one in [kind or pick(_TYPES)] if one]
        headers += [*pick(_POLICIES), *pick(_CACHES), *(more or [])]
        if self.random.random() < 0.15:
            body, pieces = gzip.compress(body, mtime=0), max(pieces, pick([1, 2, 5]))
            headers += [["content-encoding", "gzip"]]
        if pick([True, True, False]) if length is None else length:
            headers += [["content-length", str(len(body))]]
        if self.random.random() < 0.1:
            headers += [["set-cookie", "a=b; Path=/"], ["set-cookie", "c=d"]]
        self.random.shuffle(headers)
        size = max(1, len(body) // pieces + 1)
        chunks = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        steps: list[list[Any]] = [["start", status, headers]]
        for place, chunk in enumerate(chunks):
            steps.append(["body", _text(chunk), place < len(chunks) - 1])
            if place == 0 and len(chunks) > 1:
                steps += between or []
        return steps

    def track(self, **given: Any) -> list[Any]:
        """A call of track() as views make it."""
        pick = self.random.choice
        call: dict[str, Any] = {"event_name": pick(
            ["Lead", "Purchase", "ViewContent", "Custom thing", "Search", "PageView", "Donate"]
        )}  # fmt: skip
        call |= pick([
            {}, {"value": 9.5, "currency": "EUR"},
            {"value": {"decimal": "19.99"}, "currency": "usd"},
            {"value": "12", "currency": "GBP", "contents": [{"id": "a", "quantity": 2}]},
            {"value": {"float": "nan"}, "currency": "EUR"}, {"value": 3}, {"currency": "XXX"},
            {"content_ids": ["a", "b"], "content_type": "product", "num_items": 2},
            {"content_name": "mail@x.example"}, {"contents": [{"quantity": 1}]},
        ])  # fmt: skip
        call |= pick([{}, {}, {"dedupe_key": "17"}, {"dedupe_key": 17}, {"dedupe_key": "ä\ud800"}])
        call |= pick([{}, {"user_data": {"em": " Jo@X.example", "ph": "+49 30 123", "fn": "Jo"}},
            {"user_data": {"em": "nonsense", "country": "Germany", "db": "1997-02-16"}},
            {"user_data": {"external_id": "77", "madid": "x"}}])  # fmt: skip
        return ["track", call | given]

    # -- scenarios -----------------------------------------------------------------------------

    def page(self) -> list[Exchange]:
        pieces = self.random.choice([1, 1, 1, 3])
        steps = self.answer(self.page_bytes(), pieces=pieces, status=self.random.choice(
            [200, 200, 200, 200, 201, 404, 500, 304, 204, 206, 301]))  # fmt: skip
        method = self.random.choice(["GET", "GET", "GET", "GET", "HEAD", "POST"])
        return [{"request": self.request(method=method), "app": steps, "mode": self.mode()}]

    def mode(self) -> str:
        return self.random.choice(["list", "list", "tuple", "generator", "early", "early"])

    def stream(self) -> list[Exchange]:
        between = self.random.choice([[["sleep", 0.2]], [self.track()], [["visitor"]], []])
        steps = self.answer(self.page_bytes(), kind="text/html", pieces=self.random.choice([2, 7]),
                            length=self.random.choice([True, False]), between=between)  # fmt: skip
        if self.random.random() < 0.3:
            steps.insert(1, ["sleep", 0.2])
        if self.random.random() < 0.2:
            steps.insert(1, ["body", "", True])
        mode = self.random.choice(["generator", "early"])
        return [{"request": self.request(), "app": steps, "mode": mode}]

    def fragment(self) -> list[Exchange]:
        body = self.random.choice(_FRAGMENTS).encode()
        steps = self.answer(body, kind="text/html; charset=utf-8")
        return [{"request": self.request(), "app": steps, "mode": self.mode()}]

    def redirected(self) -> list[Exchange]:
        status = self.random.choice([302, 303, 307])
        steps = self.answer(b"", status=status, kind="text/html", more=[["location", "/thanks"]])
        before = [self.track() for _ in range(self.random.choice([0, 1, 3]))]
        if self.random.random() < 0.2:
            before.append(self.track(content_name="long " * 300, content_ids=["x" * 60] * 20))
        first = {"request": self.request(self.random.choice(["/go/there", "/products/s-1", "/x"])),
                 "app": [*before, *steps], "mode": self.mode()}  # fmt: skip
        second = self.request("/after")
        second["headers"].append(["cookie", "capi_next=@NEXT@"])
        page = self.answer(self.page_bytes(), kind="text/html; charset=utf-8")
        return [first, {"request": second, "app": page, "mode": self.mode()}]

    def script(self) -> list[Exchange]:
        request = self.request()
        request["headers"].append(["sec-fetch-dest", "empty"])
        kind = self.random.choice(["application/json", "text/html", "text/vnd.turbo-stream.html"])
        steps = self.answer(b'{"ok": true}', kind=kind)
        return [{"request": request, "app": [self.track(), *steps], "mode": self.mode()}]

    def tracked(self) -> list[Exchange]:
        pick = self.random.choice
        body = pick([self.page_bytes(), b'{"a": 1}'])
        kind = "application/json" if body.startswith(b"{") else "text/html; charset=utf-8"
        answer = self.answer(
            body, kind=kind, pieces=pick([1, 2]), status=pick([200, 200, 403, 500])
        )
        job = self.track()
        job = [
            "job",
            job[1] | {"visitor": pick([True, False])} | pick([{}, {"ago": 90}, {"ago": -999}]),
        ]
        call = pick([self.track(), ["thread", self.track()], ["visitor"], job])
        place = pick([0, 0, 0, 1, len(answer)])
        again = [self.track()] if pick([True, False]) else []
        steps = [*again, *answer[:place], call, *answer[place:]]
        return [{"request": self.request(), "app": steps, "mode": self.mode()}]

    def body(self) -> list[Exchange]:
        """What expressions read: forms and JSON, good and bad."""
        pick = self.random.choice
        form = pick(["cart=9&price=12.50&sku=s-1&mail=a%40b.example&phone=%2B49301", "price=x", "",
                     "cart=1&price=9", "x=" + "y" * 70_000 + "&price=1"])  # fmt: skip
        order = pick([
            {"order": {"id": 7, "total": 12.5, "currency": "EUR",
                       "lines": [{"id": "a", "quantity": 1}]}, "mail": "a@b.example"},
            {"order": {"id": "8", "total": "9", "currency": "usd", "lines": "nonsense"}},
            {"order": [1]}, [], {"order": {"total": 1e308 * 10}}, "text",
        ])  # fmt: skip
        told = json.dumps(order) if pick([True, True, False]) else '{"order": {"id": '
        path, content, kind = pick([
            ("/cart", form, "application/x-www-form-urlencoded"), ("/cart", form, "text/plain"),
            ("/api/order", told, "application/json"), ("/api/order", told, "application/json"),
        ])  # fmt: skip
        request = self.request(path, method="POST", body=content)
        request["headers"].append(["content-type", kind])
        steps: list[list[Any]] = [["read"]] if pick([True, True, True, False]) else []
        if pick([True, False]):
            answer = self.answer(self.page_bytes(), kind="text/html")
        else:
            answer = self.answer(b"", status=303, more=[["location", "/orders/7/thanks"]])
        return [{"request": request, "app": [*steps, *answer], "mode": self.mode()}]

    def failing(self) -> list[Exchange]:
        pick = self.random.choice
        steps = self.answer(self.page_bytes(), pieces=3, kind="text/html")
        error = ["raise", pick(["value", "value", "exit", "os"])]
        steps.insert(pick([0, 1, 2, len(steps)]), error)
        if pick([True, False]):
            steps.insert(0, self.track())
        found: Exchange = {"request": self.request(), "app": steps, "mode": self.mode()}
        if pick([True, False]):
            found |= {"app": self.answer(self.page_bytes(), pieces=3), "gone": pick([0, 1, 2])}
        elif pick([True, False]):
            told = self.answer(self.page_bytes(), kind="text/html")
            late = [*self.answer(b"<h1>Error</h1>", status=500, kind="text/html")]
            late[0].append("exc_info")
            if pick([True, False]):
                found |= {"app": [*told[:1], *late]}
        return [found]

    def beacons(self) -> list[Exchange]:
        pick = self.random.choice
        page = {"request": self.request(), "app": self.answer(
            self.page_bytes(), kind="text/html; charset=utf-8"), "mode": "list"}  # fmt: skip
        outcomes = ["sent", "sent", "script_blocked", "csp", "request_blocked", "left_early", "odd"]
        said: list[Any] = ["@ID0@", "@NAME0@", "@PIXEL0@", pick(outcomes)]
        if pick([True, False, False]):
            said += [pick(["9.5", "x", ""]), pick(["EUR", ""])]
        more = [["@ID1@", "@NAME1@", "@PIXEL1@", pick(outcomes)]] if pick([True, False]) else []
        told = {"e": [said, *more], "k": ["@KEYNAME@", "@KEYID@"]}
        if pick([True, False]):
            del told["k"]
        request = self.own("b", json.dumps(told))
        return [page, request, *([request] if pick([True, False, False]) else [])]

    def own(self, name: str, body: str = "", method: str = "POST", **more: Any) -> Exchange:
        """A request to an endpoint of ours."""
        request = self.request(f"@PREFIX@/{name}", method=method, body=body, **more)
        request["headers"].append(["content-type", "text/plain"])
        if self.random.random() < 0.3:
            request["headers"].append(self.random.choice([
                ["origin", "https://shop.example"], ["origin", "https://evil.example"],
                ["sec-fetch-site", "cross-site"], ["content-encoding", "gzip"], ["origin", "null"],
            ]))  # fmt: skip
        return {"request": request, "app": self.answer(b"unreached", status=404, kind="text/plain")}

    def question(self) -> list[Exchange]:
        pick = self.random.choice
        page = {"request": self.request(), "app": self.answer(self.page_bytes(), kind="text/html",
                more=[["cache-control", "public, max-age=9"]]), "mode": "list"}  # fmt: skip
        told = {"u": pick(["https://shop.example/products/s-9?fbclid=IwQ", "/orders/7/thanks", "/",
                           "https://evil.example/", "http://[bad", "nonsense"]),
                "r": pick(["", "https://shop.example/?fbclid=AbR", "x" * 5000])}  # fmt: skip
        return [page, self.own("t", json.dumps(told))]

    def mirrored(self) -> list[Exchange]:
        pick = self.random.choice
        page = {"request": self.request("/about"), "mode": "list", "app": self.answer(
            self.page_bytes(), kind="text/html; charset=utf-8")}  # fmt: skip
        calls = [
            {"n": pick(["Lead", "Purchase", "Contact", "Own"]),
             "i": pick(["site-1", "@ID0@", "m-1"]),
             "p": [pick(["1234567890", "111", "999", "@PIXEL0@"])], "b": pick([True, False]),
             "d": {"value": 5, "currency": "EUR", "content_name": "x", "contents": [{"id": 1}]}}
            for _ in range(pick([1, 2, 17]))
        ]  # fmt: skip
        told = {"u": "/about", "m": calls, "k": ["@KEYNAME@", "@KEYID@"]}
        return [page, self.own("t", json.dumps(told))]

    def bad(self) -> list[Exchange]:
        """Our endpoints, asked for what they do not give."""
        pick = self.random.choice
        bodies = ["", "{", "null", "[]", '{"e": []}', '{"e": [["a"]]}', "\xff\xfe", "[" * 3000,
                  '{"e": [["id", "Lead", "1234567890", "sent"]]}', "x" * 70_000, '{"u": 1}',
                  json.dumps({"e": [["i", "Lead", "1", "sent"]] * 65}), '{"u": "/", "m": [{}]}',
                  '{"e": [["t' + "-" * 19 + "." + "A" * 43 + '", "Lead", "1234567890", "sent"]]}',
        ]  # fmt: skip
        name = pick(["b", "t", "b", "t", "s.js", "parity", "nothing", "", "../b", "b/"])
        method = pick(["POST", "POST", "POST", "GET", "HEAD", "PUT", "OPTIONS"])
        query = pick(["", "e=%7B%22e%22%3A%5B%5D%7D", "v=wrong", "e=@ID0@"])
        return [self.own(name, pick(bodies), method, query=query)]

    def reports(self) -> list[Exchange]:
        pick = self.random.choice
        name = pick(["parity", "parity.json", "parity.csv", "metrics", "s.js"])
        found = self.own(name, "", pick(["GET", "GET", "HEAD", "POST"]), query=pick([
            "", "event=Lead", "pixel=111", "from=nonsense", "from=2026-09-21&to=2026-09-20",
        ]))  # fmt: skip
        token = pick(["the-report-token", "the-report-token", "wrong", None])
        if token:
            found["request"]["headers"].append(["authorization", f"Bearer {token}"])
        return [found]

    def files(self) -> list[Exchange]:
        pick = self.random.choice
        body = pick([self.page_bytes(), b"\x00\x01" * 9000])
        kind = pick(["text/html", "application/pdf", "text/html; charset=utf-8"])
        headers = [["content-type", kind], *pick([[], [["content-disposition", "attachment"]],
                   [["x-sendfile", "/f"]], [["x-accel-redirect", "/f"]]])]  # fmt: skip
        steps = [["start", 200, headers], ["body", _text(body), False]]
        found: Exchange = {"request": self.request(), "app": steps, "mode": "file"}
        if pick([True, False]):
            sent = {"type": "http.response.pathsend", "path": "/files/page.html"}
            found["app"] = [["start", 200, headers], ["send", sent]]
        elif pick([True, False]):
            hint = {"type": "http.response.early_hint", "links": []}
            found["app"] = [["send", hint], *steps]
        return [found]

    def nothing(self) -> list[Exchange]:
        """Answers that are no page, of requests that are no event."""
        pick = self.random.choice
        kind = pick(["application/json", "text/css", "image/png", ""])
        path = pick(["/api/x", "/static/a.css", "/a//b", "/products", "/%00", "/é"])
        method = pick(["GET", "GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
        steps = self.answer(b'{"ok": 1}', kind=kind, status=pick([200, 201, 204, 304, 404, 500]))
        return [{"request": self.request(path, method=method), "app": steps, "mode": self.mode()}]

    def repeated(self) -> list[Exchange]:
        """The same order twice: with its key one event, without it counted as repeated."""
        call = self.track(event_name="Purchase", value=20, currency="EUR")
        request = self.request("/bought")
        page = self.answer(self.page_bytes(), kind="text/html")
        return [{"request": request, "app": [call, *page], "mode": "list"}] * 2

    def case(self) -> list[Exchange]:
        """One of the cases of injection, as tests/data has them."""
        case = self.random.choice(self._cases)
        given, told = case["request"], case["response"]
        encoding = told.get("encoding", "utf-8")
        chunks = [_chunk(one, encoding) for one in told["chunks"]] or [b""]
        steps: list[list[Any]] = [["start", told["status"], [list(one) for one in told["headers"]]]]
        steps += [
            ["body", _text(chunk), place < len(chunks) - 1] for place, chunk in enumerate(chunks)
        ]
        request = {"method": given["method"], "path": given["path"], "scheme": given["scheme"],
                   "query": given.get("query_string", ""),
                   "headers": [list(one) for one in given["headers"]]}  # fmt: skip
        return [{"request": request, "app": steps, "mode": self.random.choice(["list", "early"])}]


def _chunk(chunk: Any, encoding: str) -> bytes:
    if isinstance(chunk, str):
        return chunk.encode(encoding)
    if "b64" in chunk:
        return base64.b64decode(chunk["b64"])
    return bytes(chunk["repeat"].encode(encoding)) * int(chunk["times"])

"""No personal data leaves but hashed: 40 planted values, looked for wherever anything is kept."""

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from capi_middleware import (
    CAPI,
    CAPIMiddleware,
    Config,
    EventRoute,
    Pixel,
    UserData,
    Visitor,
    current_visitor,
    track,
)
from capi_middleware.testing import FakeMeta
from tests.support.servers import serve

EMAILS = [f"canary{n:02}.Zwölfer@birds-{n}.example".replace("ö", "o") for n in range(16)]
PHONES = [f"+4930555{n:02}4711" for n in range(12)]
NAMES = [f"Zilpzalp{chr(97 + n)}" for n in range(12)]
SECRETS = {
    "token": "graph-token-canary",
    "key": "secret-key-canary-of-more-than-32-characters",
    "report": "report-token-canary",
}
AGENT = "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0"
PAGE = "<!doctype html><html><head><title>Shop</title></head><body>Hi</body></html>"


def forms_of(value: str) -> Iterator[bytes]:
    """A planted value as it may turn up."""
    for text in (value, value.lower(), value.lstrip("+")):
        yield from {text.encode(), quote(text).encode(), quote_plus(text).encode()}


class Records(logging.Handler):
    """All log records, with tracebacks that show local variables."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{record.getMessage()} {record.args!r}\n"
        if record.exc_info and record.exc_info[1]:
            self.text += shown(record.exc_info[1])


def shown(error: BaseException) -> str:
    """The frames of ours in a traceback, with their local variables."""
    frames = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [one for one in frames.stack if "capi_middleware/" in one.filename]
    return f"{error!r}\n" + "".join(f"{one.filename} {one.locals}\n" for one in ours)


@pytest.fixture
def records() -> Iterator[Records]:
    handler = Records()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    # The client of this test logs the addresses it asks for; ours is httpcore's log below.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


class Shop:
    """A shop that hands personal data to us in every way there is, and some wrong ones."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.capi: CAPI | None = None
        self.app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/u/{who}/thanks", self.thanks),
                Route("/lead", self.lead, methods=["POST"]),
                Route("/wrong", self.wrong),
                Route("/webhook", self.webhook, methods=["POST"]),
            ]
        )

    async def page(self, request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def thanks(self, request: Request) -> Response:
        buyer = UserData(em=EMAILS[:3], ph=PHONES[:3], fn=NAMES[0], ln=NAMES[1])
        track("Purchase", value=9, currency="EUR", dedupe_key="1", user_data=buyer)
        self.texts.append(current_visitor().dumps())
        return HTMLResponse(PAGE)

    async def lead(self, request: Request) -> Response:
        await request.body()
        return HTMLResponse(PAGE)

    def wrong(self, request: Request) -> Response:
        track("Search", search_string=f"mail to {EMAILS[3]}", note=[EMAILS[4], {"a": EMAILS[5]}])
        for call in (
            lambda: UserData(em=EMAILS[6], ph=PHONES[3], nickname=NAMES[2]),  # type: ignore[call-arg]
            lambda: track("not a name!" * 9, user_data=UserData(em=EMAILS[6], fn=NAMES[3])),
            lambda: UserData(em=EMAILS[7]).__reduce__(),
            lambda: Visitor.loads(EMAILS[8]),
        ):
            try:
                call()
            except Exception:
                logging.getLogger("shop").exception("wrong")
        track("Contact", user_data=UserData(
            em=[NAMES[4], object(), EMAILS[9] + "@@"], ph=[PHONES[4] + "999999999"],
            db=NAMES[5], country=NAMES[6], subscription_id=EMAILS[9], madid=EMAILS[9],
            fbp=EMAILS[9], lead_id=PHONES[4]))  # fmt: skip
        return HTMLResponse(PAGE)

    def webhook(self, request: Request) -> Response:
        assert self.capi is not None
        self.capi.track("Subscribe", visitor=Visitor.loads(self.texts[0]), dedupe_key=EMAILS[10],
                        user_data=UserData(em=EMAILS[10], external_id=PHONES[5]))  # fmt: skip
        return JSONResponse({})


def known_customer(request: Request) -> Any:
    """What the site knows of everybody, with a key that UserData does not have."""
    return {"em": EMAILS[11], "fn": NAMES[7], "ph": PHONES[6], "nickname": NAMES[7]}


def visit(client: httpx.Client) -> list[httpx.Response]:
    """Requests that carry planted values in addresses, forms, headers and cookies."""
    url = f"?email={quote(EMAILS[12])}&q={quote(EMAILS[12])}&phone={quote(PHONES[7])}"
    url += f"&first_name={NAMES[8]}&next=/reset%3Femail%3D{quote(quote(EMAILS[13]))}"
    referer = f"https://news.example/{EMAILS[14]}/x?e={EMAILS[14]}&tel={PHONES[8]}"
    form = {"email": EMAILS[15], "phone": PHONES[9], "name": NAMES[9], "city": NAMES[10]}
    return [
        client.get(f"/{url}", headers={"referer": referer}),
        client.get(f"/u/{quote(EMAILS[12])}/thanks{url}"),
        client.post("/lead", data=form, headers={"cookie": f"phone={quote(PHONES[10])}"}),
        client.get("/wrong"),
        client.post("/webhook"),
        client.get("/", headers={"cookie": f"_fbp={EMAILS[0]}; _fbc={NAMES[11]}"}),
        client.get(f"/?fbclid={quote(EMAILS[1])}&ph={quote(PHONES[11])}"),
    ]


def test_no_planted_value_is_found_anywhere(
    tmp_path: Path, records: Records, swallowed: list[BaseException]
) -> None:
    shop, meta = Shop(), FakeMeta()
    with serve(meta.app) as graph:
        config = Config(
            secret_key=SECRETS["key"],
            pixels=[Pixel("1234567890", access_token=SECRETS["token"])],
            routes=[
                EventRoute("POST /lead", "Lead", status="2xx", user_data={
                    "em": "{form.email}", "ph": "{form.phone}", "fn": "{form.name}",
                    "ct": "{form.city}", "external_id": "{cookie.phone}"}),
            ],
            store=f"sqlite:///{tmp_path / 'capi.db'}",
            report_token=SECRETS["report"],
            user_data=known_customer,
            advanced_matching=True,
            graph_url=graph,
            pixel_script_url=f"{graph}/en_US/fbevents.js",
        )  # fmt: skip
        shop.capi = CAPI(config)
        agent = {"user-agent": AGENT}
        with (
            serve(CAPIMiddleware(shop.app, shop.capi)) as site,
            httpx.Client(base_url=site, headers=agent, trust_env=False) as client,
        ):
            answers = visit(client)
            assert [one.status_code for one in answers] == [200] * len(answers)
            assert shop.capi.flush(20)
            token = {"authorization": f"Bearer {SECRETS['report']}"}
            for name in ("parity", "parity.json", "metrics"):
                answers.append(client.get(f"/_capi/{name}", headers=token))
            files = b"".join(one.read_bytes() for one in tmp_path.iterdir())
        received = [one.event for one in meta.received.server]
    kept = {
        "the database and its WAL": files,
        "the log and its tracebacks": (records.text + "".join(map(shown, swallowed))).encode(),
        "what Meta got": repr(received).encode(),
        "visitor texts": " ".join(shop.texts).encode(),
        "answers": b"".join(one.content + repr(one.headers.raw).encode() for one in answers),
    }
    assert b"Purchase" in files
    assert {one["event_name"] for one in received} >= {
        "PageView", "Purchase", "Lead", "Contact", "Search", "Subscribe"}  # fmt: skip
    assert records.text.count("wrong") >= 4
    assert "send_request_headers" in records.text
    planted = [*EMAILS, *PHONES, *NAMES]
    assert len(planted) == 40
    found = [
        (value, where)
        for where, data in kept.items()
        for value in (*planted, *SECRETS.values())
        for form in forms_of(value)
        if form in data
    ]
    assert found == []
    swallowed.clear()

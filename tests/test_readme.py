"""Every code block of the manual does what it says, in the order in which it stands there.

The sites of its first page are driven by acceptance/test_install.py.
"""

import inspect
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from importlib.metadata import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, Config, wsgi
from capi_middleware.cli import main
from capi_middleware.config.routes import check_event_name
from capi_middleware.meta.custom_data import lacking
from capi_middleware.report.read import read_report
from capi_middleware.report.window import last_day
from capi_middleware.request.exchange import current
from capi_middleware.signing import sign_alert
from capi_middleware.testing import Captured, FakeMeta
from tests.support.configs import SECRET, make_config
from tests.support.exchanges import scope_for
from tests.support.manual import BLOCKS, PAGES, Block, blocks, prose, where
from tests.support.processes import ROOT
from tests.support.servers import serve


@pytest.fixture(autouse=True)
def clean_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPI_SECRET_KEY", SECRET)
    monkeypatch.setenv("CAPI_ACCESS_TOKEN", "an-access-token")


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {block.language for block in BLOCKS} == {"python", "sh", "html", ""}
    # Without a language: pictures.
    assert all(re.search(r"[│▶·]", block.text) for block in blocks(""))


class Stage:
    """What the manual takes for granted: an app, an order, a user, a test client."""

    def __init__(self) -> None:
        self.config: Config | None = None
        user = SimpleNamespace(
            email="jane@example.com", phone="+1 650 555 1212", id=7, is_authenticated=True
        )
        self.names: dict[str, Any] = {
            "__name__": "shop",
            "app": Starlette(),
            "application": lambda environ, start_response: [],
            "user": user,
            "key": "acme",
            "order": SimpleNamespace(id=1001, total=Decimal("19.90"), visitor=""),
            "request": SimpleNamespace(user=user, headers={"host": "acme.shops.example"}),
            "client": self,
            "page_somebody": print,
            "secret_key": SECRET,
            "body": b"{}",
            "headers": {"X-Capi-Signature": sign_alert(SECRET, b"{}", time.time())},
        }

    def continued(self, first: Any, **settings: Any) -> Config:
        """Config, where `...` stands for the settings of the first block."""
        assert first is ...
        assert self.config is not None
        return replace(self.config, **settings)

    def run(self, block: Block, capi: Captured) -> None:
        """Execute a block, and then call the functions that it defines."""
        self.names["Config"] = self.continued
        before = dict(self.names)
        source = "\n" * block.line + block.text
        exec(compile(source, str(ROOT / block.page), "exec"), self.names)
        self.config = self.config or self.names.get("config")
        for name, thing in list(self.names.items()):
            is_new = inspect.isfunction(thing) and before.get(name) is not thing
            if is_new and thing.__module__ == "shop":
                stage = {**self.names, "capi": capi}
                thing(*(stage[one] for one in inspect.signature(thing).parameters))

    def get(self, path: str) -> None:
        """What a test client does: the manual's `thanks` view, wrapped."""

        async def view(request: Any) -> HTMLResponse:
            self.names["thanks"](request)
            return HTMLResponse("<!doctype html><html><head></head></html>")

        assert self.config is not None
        site = Starlette(routes=[Route("/orders/{order_id}/thanks", view)])
        browser = {"user-agent": "Mozilla/5.0"}
        TestClient(CAPIMiddleware(site, self.config), headers=browser).get(path)


@pytest.fixture
def stage(capi: Captured) -> Iterator[Stage]:
    """A stage inside of a request."""
    request = {"headers": [], "method": "GET", "scheme": "https", "path": "/checkout"}
    capi_ = CAPI(make_config(secret_key=SECRET))
    token = current.set(wsgi.Response(capi_, lambda *_: print, capi_.open(scope_for(request))))
    yield Stage()
    current.reset(token)


def run_all(stage: Stage, capi: Captured) -> list[Config]:
    """Execute the python blocks; the configurations that they make."""
    made: list[Config] = []
    for block in blocks("python"):
        capi.clear()
        try:
            stage.run(block, capi)
        except Exception as error:
            raise AssertionError(f"{where(block)}: {error}") from error
        assert capi.refused == [], where(block)
        made.append(stage.names["config"])
    return made


def test_the_python_blocks_run_one_after_the_other(stage: Stage, capi: Captured) -> None:
    assert run_all(stage, capi)


def test_every_purchase_of_a_route_names_its_order_its_value_and_its_currency(
    stage: Stage, capi: Captured
) -> None:
    run_all(stage, capi)
    assert stage.config is not None
    found = stage.config.routes
    assert [route for route in found if lacking(route.event_name, route.custom_data or {})] == []
    sold = [route.dedupe_key for route in found if route.event_name == "Purchase"]
    assert sold == ["{path.number}"]


def test_the_user_data_sample_serves_anonymous_visitors(stage: Stage, capi: Captured) -> None:
    rule = next(one.user_data for one in run_all(stage, capi) if callable(one.user_data))
    assert rule(stage.names["request"]).hashed()[0].keys() == {"em", "external_id"}
    assert rule(SimpleNamespace(user=SimpleNamespace(is_authenticated=False))) is None


PRODUCT = """<!doctype html><html><head><title>kettle</title></head><body>
<form method="post" action="/cart"><input name="price" value="19.90"><button>Buy</button></form>"""
THANKS = "<!doctype html><html><head><title>thanks</title></head><body>Thank you.</body></html>"


def shop(policy: str) -> Starlette:
    """The app that the first sample wraps: it sells a kettle, under the recommended policy."""
    headers = {"content-security-policy": policy}

    async def product(request: Request) -> HTMLResponse:
        return HTMLResponse(PRODUCT, headers=headers)

    async def cart(request: Request) -> RedirectResponse:
        await request.form()
        return RedirectResponse("/orders/1001/thanks", 303)

    async def thanks(request: Request) -> HTMLResponse:
        request.state.order = SimpleNamespace(total=Decimal("19.90"))
        return HTMLResponse(THANKS, headers=headers)

    return Starlette(
        routes=[
            Route("/products/{sku}", product),
            Route("/cart", cart, methods=["POST"]),
            Route("/orders/{order_id}/thanks", thanks),
        ]
    )


def test_the_first_sample_under_the_recommended_policy_matches_both_copies_of_all_its_events(
    browser: Browser,
) -> None:
    (policy,) = re.findall(r"\*\*Policy\.\*\* (.*), or a nonce", PAGES["demo/README.md"], re.DOTALL)
    policy = " ".join(policy.split())
    meta = FakeMeta()
    with serve(meta.app) as meta_url:
        # What Meta's hosts may do here, the fake one may.
        policy = "; ".join(f"{one} {meta_url}" for one in re.findall(r"`([^`]+)`", policy))
        names: dict[str, Any] = {"app": shop(policy)}
        exec(blocks("python")[0].text, names)
        config = replace(
            names["config"], graph_url=meta_url, pixel_script_url=f"{meta_url}/en_US/fbevents.js"
        )
        capi = CAPI(config)

        def numbers() -> dict[str, tuple[int, int, int]]:
            report = read_report(capi.store, config, last_day(capi.issuer.clock()))
            return {one.event_name: (one.server, one.browser, one.matched) for one in report.events}

        with serve(CAPIMiddleware(shop(policy), capi)) as url:
            context = browser.new_context()
            page = context.new_page()

            def matched(**wanted: int) -> None:
                for _ in range(1200):
                    if numbers() == {name: (n, n, n) for name, n in wanted.items()}:
                        return
                    page.wait_for_timeout(25)
                raise AssertionError(f"found {numbers()}, expected {wanted} of each")

            page.goto(f"{url}/products/kettle")
            matched(PageView=1, ViewContent=1)
            page.get_by_role("button").click()
            matched(PageView=2, ViewContent=1, AddToCart=1, Purchase=1)
            context.close()
        capi.close()
    sent = [one.event for one in meta.received.server]
    (sold,) = [event for event in sent if event["event_name"] == "Purchase"]
    assert sold["custom_data"] == {"value": 19.9, "currency": "EUR"}
    (hit,) = [one for one in meta.received.browser if one.ev == "Purchase"]
    assert (hit.cd["value"], hit.cd["currency"]) == ("19.9", "EUR")
    assert hit.eid == sold["event_id"]


def commands() -> Iterator[str]:
    """Every command of the sh blocks, and those that the text names."""
    for block in blocks("sh"):
        yield from (line.partition("#")[0].strip() for line in block.text.splitlines())
    for page in PAGES:
        yield from re.findall(r"`((?:make|pip install|capi-middleware) [^`]+)`", prose(page))


@pytest.mark.parametrize("command", sorted({one for one in commands() if one}))
def test_the_commands_exist(command: str) -> None:
    program, *words = command.split()
    check = {"make": check_make, "pip": check_pip, "capi-middleware": check_ours}[program]
    check(words)


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
        assert re.search(pattern, makefile, re.MULTILINE), word


def check_pip(words: list[str]) -> None:
    found = re.fullmatch(r'"?capi-middleware(?:\[(.+)\])?"?', words[-1])
    assert found is not None
    extras = metadata("capi-middleware").get_all("Provides-Extra") or []
    assert set((found[1] or extras[0]).split(",")) <= set(extras)


def check_ours(words: list[str]) -> None:
    """Its help is asked for, and must name the options that the manual gives."""
    plain = [word for word in words if word.islower() and word.replace("-", "").isalpha()]
    path: list[str] = []
    group: Any = main
    for word in plain:
        if word in getattr(group, "commands", {}):
            path.append(word)
            group = group.commands[word]
    assert path, words
    told = CliRunner().invoke(main, ["--help"]).output
    told += CliRunner().invoke(main, [*path, "--help"]).output
    for option in (word for word in words if word.startswith("--")):
        assert option in told, option


class Elements(HTMLParser):
    """The events that elements of a page name, by the rule of s.js."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "data-capi-event" in given:
            data = json.loads(given.get("data-capi-data", "{}"))
            self.events.append((given["data-capi-event"], data))
        for call in re.findall(r"push\(\['track', '(\w+)', \{.*\}\]\)$", given.get("onclick", "")):
            self.events.append((call, {}))


@pytest.mark.parametrize("block", blocks("html"), ids=where)
def test_every_element_of_the_html_blocks_names_an_event(block: Block) -> None:
    elements = Elements()
    elements.feed(block.text)
    assert len(elements.events) == len(block.text.splitlines())
    for name, data in elements.events:
        check_event_name(name, "the manual")
        assert isinstance(data, dict)

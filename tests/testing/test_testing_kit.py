"""The testing kit, as a user of the product writes tests with it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, Config, EventRoute, Pixel, UserData, track
from capi_middleware.testing import Captured, FakeMeta, FrozenClock, MemoryStore, capture
from tests.support.configs import SECRET, make_config
from tests.support.stores import NOON, PIXEL, row, store_rows


async def thanks(request: Request) -> HTMLResponse:
    track("Purchase", value=25, currency="EUR", user_data=UserData(em="Jane@Example.com"))
    return HTMLResponse("<!doctype html><html><head></head></html>")


async def broken(request: Request) -> HTMLResponse:
    track("Purchase", value=25)
    return HTMLResponse("<!doctype html><html><head></head></html>")


def wrap(store: str = "sqlite:////nowhere/to/be/found.db", **settings: object) -> CAPIMiddleware:
    """A user's wrapped app, whose store must not be touched by a test."""
    routes = [Route("/thanks/{order}", thanks), Route("/broken", broken)]
    return CAPIMiddleware(
        Starlette(routes=routes),
        make_config(
            store=store,
            delivery=True,
            routes=[EventRoute("GET /thanks/{order}", "Purchase", dedupe_key="{path.order}")],
            **settings,
        ),
    )


def visit(app: CAPIMiddleware, path: str = "/thanks/7", **headers: str) -> None:
    browser = {"user-agent": "Mozilla/5.0", **headers}
    TestClient(app, headers=browser).get(path)


@pytest.fixture
def app(tmp_path: Path) -> CAPIMiddleware:
    """Wrapped before the fixture `capi` begins, as an app that is imported."""
    return wrap(f"sqlite:///{tmp_path / 'capi.db'}")


def test_what_an_app_tracks_is_captured_and_nothing_is_opened(
    app: CAPIMiddleware, capi: Captured, tmp_path: Path
) -> None:
    visit(app)
    assert [event.event_name for event in capi.events] == ["PageView", "Purchase"]
    assert list(tmp_path.iterdir()) == []


def test_an_app_that_is_made_during_the_test_is_captured_too(
    capi: Captured, tmp_path: Path
) -> None:
    visit(wrap(f"sqlite:///{tmp_path / 'capi.db'}"))
    capi.assert_tracked("Purchase", times=1)
    assert list(tmp_path.iterdir()) == []


def test_an_assertion_compares_as_the_app_cleans_and_hashes(
    app: CAPIMiddleware, capi: Captured
) -> None:
    visit(app)
    (event,) = capi.assert_tracked(
        "Purchase",
        value="25.00",
        currency="eur",
        user_data=UserData(em=" jane@example.com"),
        dedupe_key=7,
        times=1,
    )
    assert event is capi.events[1]
    capi.assert_tracked("Purchase", value=26, times=0)
    capi.assert_tracked("Lead", times=0)


def test_a_failure_shows_the_nearest_event_and_what_differs(
    app: CAPIMiddleware, capi: Captured
) -> None:
    visit(app)
    with pytest.raises(AssertionError) as failure:
        capi.assert_tracked("Purchase", value=19.9, currency="EUR", user_data=UserData(ph="1"))
    assert str(failure.value) == (
        "Purchase(value=19.9, currency='EUR', UserData(ph)): found it 0 times, expected it at "
        "least once\n"
        "nearest:\n"
        "  Purchase(value=25, currency='EUR') with user_data of em, client_user_agent, "
        "fbp\n"
        "    value: expected 19.9, found 25\n"
        "    user_data.ph: found a value that nobody can normalise\n"
        "tracked:\n"
        "  PageView() with user_data of client_user_agent, fbp\n"
        "  Purchase(value=25, currency='EUR') with user_data of em, client_user_agent, "
        "fbp"
    )


def test_a_failure_shows_no_personal_data(app: CAPIMiddleware, capi: Captured) -> None:
    visit(app)
    with pytest.raises(AssertionError) as failure:
        capi.assert_tracked("Purchase", user_data=UserData(em="john@example.com"))
    assert "user_data.em: expected ['" in str(failure.value)
    assert "john@" not in str(failure.value)
    assert "jane@" not in str(failure.value).lower()


def test_the_number_of_times_is_exact(app: CAPIMiddleware, capi: Captured) -> None:
    visit(app)
    visit(app)
    capi.assert_tracked("Purchase", times=2)
    with pytest.raises(AssertionError, match="found it 2 times, expected it 1 times"):
        capi.assert_tracked("Purchase", times=1)


def test_what_consent_holds_back_is_said(capi: Captured) -> None:
    visit(wrap(consent=lambda request: False))
    assert capi.events == []
    assert capi.suppressed == [("Purchase", "consent"), ("PageView", "consent")]
    with pytest.raises(AssertionError, match=r"suppressed: Purchase \(consent\)"):
        capi.assert_tracked("Purchase")


@pytest.mark.parametrize(
    ("settings", "headers", "said"),
    [
        ({}, {"sec-gpc": "1"}, ("Purchase (consent)", "consent denied by: gpc")),
        (
            {"consent": "cookiebot"},
            {"cookie": "CookieConsent=0"},
            ("Purchase (consent)", "consent denied by: cookiebot"),
        ),
        ({"consent": "onetrust"}, {}, ("consent held by: onetrust",)),
        ({}, {"user-agent": "Googlebot/2.1"}, ("Purchase (bot)",)),
        ({"internal": lambda request: True}, {}, ("Purchase (internal)",)),
    ],
)
def test_a_failure_says_why_an_event_was_suppressed(
    capi: Captured, settings: dict[str, Any], headers: dict[str, str], said: tuple[str, ...]
) -> None:
    visit(wrap(**settings), **headers)
    with pytest.raises(AssertionError) as failure:
        capi.assert_tracked("Purchase")
    assert all(one in str(failure.value) for one in said), str(failure.value)


@pytest.mark.parametrize("times", [None, 0])
def test_a_name_that_is_almost_a_standard_event_s_is_asked_about(
    app: CAPIMiddleware, capi: Captured, times: int | None
) -> None:
    visit(app)
    with pytest.raises(AssertionError, match="did you mean 'Purchase'"):
        capi.assert_tracked("Purchse", times=times)


TRACKS = """
from capi_middleware import CAPI, Config, Pixel, UserData

def make(url):
    return CAPI(Config(secret_key="a-secret-of-more-than-thirty-two-characters", graph_url=url,
        pixels=[Pixel("1", access_token="t")], store="memory:", action_source="other"))

def test_elsewhere(caplog):
    capi = make("https://elsewhere.invalid")
    said = [one for one in caplog.messages if "nothing is delivered" in one]
    assert (bool(capi.config.delivery), len(said)) == (DELIVERS, 1 - DELIVERS)

def test_here(fake_meta):
    capi = make(fake_meta.url)
    capi.track("Lead", user_data=UserData(em="a@b.example"))
    assert capi.flush(10)
    capi.close()
    assert len(fake_meta.received.server) == 1
"""


@pytest.mark.parametrize("asks", [False, True])
def test_tests_deliver_to_a_fake_meta_alone_unless_the_project_asks_for_more(
    tmp_path: Path, asks: bool
) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\ncapi_delivery = {asks}\n")
    (tmp_path / "test_it.py").write_text(TRACKS.replace("DELIVERS", str(asks)))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    clean = {name: value for name, value in os.environ.items() if name != "CAPI_DELIVERY"}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=clean)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = f"tests {'may' if asks else 'never'} post to Meta"
    assert ended.stdout.count(said) == 1


def test_what_meta_would_refuse_is_not_tracked(app: CAPIMiddleware, capi: Captured) -> None:
    visit(app, "/broken")
    assert [event.event_name for event in capi.refused] == ["Purchase"]
    with pytest.raises(AssertionError, match="needs value and currency"):
        capi.assert_tracked("Purchase")


def test_what_was_left_out_is_said(capi: Captured) -> None:
    config = make_config(
        routes=[EventRoute("GET /thanks/{order}", "Lead", custom_data={"value": "{query.price}"})]
    )
    visit(CAPIMiddleware(Starlette(routes=[Route("/thanks/{order}", thanks)]), config))
    with pytest.raises(AssertionError, match=r"left out: Lead\.value, missing or unusable"):
        capi.assert_tracked("Lead", value=5)


def test_clear_forgets_what_was_before(app: CAPIMiddleware, capi: Captured) -> None:
    visit(app)
    capi.clear()
    assert capi.events == []
    visit(app)
    capi.assert_tracked("Purchase", times=1)


def test_jobs_are_captured_as_well(capi: Captured) -> None:
    job = CAPI(make_config(delivery=True))
    job.track("Lead")
    assert not job.flush(5)
    capi.assert_tracked("Lead", times=1)


def test_a_field_of_the_event_object_is_compared(capi: Captured) -> None:
    CAPI(make_config()).track("Lead", action_source="phone_call", opt_out=True, plan="gold")
    capi.assert_tracked("Lead", action_source="phone_call", opt_out=True, plan="gold")
    with pytest.raises(AssertionError, match="action_source: expected 'chat', found 'phone_call'"):
        capi.assert_tracked("Lead", action_source="chat")


def test_an_app_goes_on_with_its_own_store_after_the_test(tmp_path: Path) -> None:
    app = wrap(f"sqlite:///{tmp_path / 'capi.db'}")
    own = app.capi.store
    with capture():
        visit(app)
        assert app.capi.store is not own
    assert app.capi.store is app.capi.issuer.store is own
    app.capi.start()
    app.capi.track("Lead")
    assert sum(own.depth().values()) == 1  # its courier may have it already
    app.capi.close(0.1)


def test_the_fake_meta_answers_in_process() -> None:
    clock = FrozenClock(1_800_000_000)
    meta = FakeMeta(clock=clock)
    event = {
        "event_name": "Lead",
        "event_time": 1_800_000_000,
        "action_source": "chat",
        "user_data": {"external_id": "1"},
    }
    asked = {"data": [event], "access_token": "t"}

    async def post() -> int:
        transport = httpx.ASGITransport(app=meta.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://meta") as client:
            return (await client.post("/v26.0/123/events", json=asked)).status_code

    assert asyncio.run(post()) == 200
    clock.advance(8 * 86_400)
    assert asyncio.run(post()) == 400
    assert meta.received.server[0].arrived == 1_800_000_000


def test_the_memory_store_takes_a_clock() -> None:
    clock = FrozenClock(NOON)
    store = MemoryStore(clock=clock)
    store_rows(store, row())
    lease = store.lease(PIXEL, limit=1, seconds=20)
    clock.advance(19)
    assert store.lease(PIXEL, limit=1, seconds=20).events == []
    clock.advance(2)
    assert store.lease(PIXEL, limit=1, seconds=20).events[0].key == lease.events[0].key


def test_the_plugin_imports_nothing_heavy_before_a_test_asks(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n"
        "def test_it():\n"
        "    assert 'capi_middleware.pytest_plugin' in sys.modules\n"
        "    assert not {'capi_middleware.capi', 'httpx', 'jinja2'} & set(sys.modules)\n\n"
        "def test_asking(capi):\n"
        "    capi.assert_tracked('Lead', times=0)\n"
    )
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_fake_meta_of_the_plugin_takes_events_on_a_port(fake_meta: FakeMeta) -> None:
    config = Config(
        secret_key=SECRET,
        pixels=[Pixel("123", access_token="t")],
        store="memory:",
        graph_url=fake_meta.url,
    )
    capi = CAPI(config)
    capi.track("Lead", user_data=UserData(em="a@b.example"), action_source="other")
    assert capi.flush(10)
    capi.close()
    assert [one.event["event_name"] for one in fake_meta.received.server] == ["Lead"]


def test_events_go_into_another_store_until_the_context_ends(tmp_path: Path) -> None:
    capi = CAPI(make_config(store=f"sqlite:///{tmp_path / 'capi.db'}", delivery=True))
    store = MemoryStore()
    with capi.into(store):
        capi.track("Lead")
        assert not capi.flush(5)
        capi.close()
        capi.track("Contact")
    assert [one.event_name for one in store.recent(9)] == ["Lead", "Contact"]
    assert list(tmp_path.iterdir()) == []
    assert not capi.started

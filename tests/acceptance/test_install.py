"""The sites of the README, as a newcomer copies them: each sells, and both copies match."""

import re
import shlex
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext

from capi_middleware.testing import FakeMeta
from tests.acceptance.conftest import report
from tests.support.configs import SECRET
from tests.support.manual import BLOCKS
from tests.support.processes import free_port, running, until

SITES = dict(
    zip(
        ("Starlette", "FastAPI", "Django", "Flask", "Litestar", "Quart", "ASGI", "WSGI"),
        (block.text for block in BLOCKS if block.is_site),
        strict=True,
    )
)
(TRACKING,) = (one.text for one in BLOCKS if one.text.startswith("# tracking.py"))
PAGE = "<!doctype html><head><title>Thanks</title></head>"
#: What the last tabs and the views of Django take for granted.
HOST = {
    "ASGI": f"""
async def app(scope, receive, send):
    assert scope["type"] == "http"
    user = {{"email": "jane@example.com", "id": 7}}
    scope.setdefault("state", {{}}).update(order={{"total": 19.9}}, user=user)
    headers = [(b"content-type", b"text/html")]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": b"{PAGE}"}})
""",
    "WSGI": f"""
def application(environ, start_response):
    environ.update(order={{"total": 19.9}}, user={{"email": "jane@example.com", "id": 7}})
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"{PAGE}"]
""",
    "Django": f"""
from types import SimpleNamespace
from django.http import HttpResponse

def log_in(answer):
    def middleware(request):
        request.user = SimpleNamespace(email="jane@example.com", id=7)
        return answer(request)
    return middleware

class Order:
    objects = SimpleNamespace(get=lambda pk: SimpleNamespace(total=19.9))

def render(request, name):
    return HttpResponse("{PAGE}")

ALLOWED_HOSTS, ROOT_URLCONF, SECRET_KEY = ["*"], "urls", "a-secret-of-a-test"
MIDDLEWARE = ["settings.log_in"]
""",
}
URLS = """
from django.urls import path
from settings import thanks
urlpatterns = [path("orders/<number>/thanks", thanks)]
"""


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


def written(site: str, folder: Path, meta: str) -> list[str]:
    """A site in files as its tab says; the program that its first line starts."""
    local = f'graph_url="{meta}", pixel_script_url="{meta}/en_US/fbevents.js", report_token='
    (folder / "tracking.py").write_text(TRACKING.replace("report_token=", local))
    text = SITES[site]
    name, command = re.findall(r"\A# (\w+\.py)(?:, (.+))?", text)[0]
    (folder / name).write_text(HOST.get(site, "") + text)
    (folder / "urls.py").write_text(URLS)
    return shlex.split(command or "waitress-serve django.core.wsgi:get_wsgi_application")


@pytest.mark.parametrize("site", SITES)
def test_a_copied_site_matches_the_purchase_of_who_is_logged_in(
    site: str, fake: FakeMeta, meta: str, context: BrowserContext, tmp_path: Path
) -> None:
    program, app = written(site, tmp_path, meta)
    port = free_port()
    address = {
        "uvicorn": ["--port", str(port), "--log-level", "warning"],
        "hypercorn": ["--bind", f"127.0.0.1:{port}", "--log-level", "warning"],
        "waitress-serve": ["--listen", f"127.0.0.1:{port}"],
    }[program]
    if site == "Django":
        address.append("--call")
    environment = {
        "CAPI_SECRET_KEY": SECRET,
        "CAPI_ACCESS_TOKEN": "an-access-token",
        "CAPI_REPORT_TOKEN": "the-demo-report-token",
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONPATH": str(tmp_path),
    }
    with running(
        [*address, app],
        port,
        environment=environment,
        path="/_capi/s.js",
        program=[str(Path(sys.executable).with_name(program))],
        folder=tmp_path,
    ) as server:
        page = context.new_page()
        page.goto(f"{server.url}/orders/1001/thanks")

        def matched() -> bool:
            told = {name: event["matched"] for name, event in report(server).items()}
            return told == {"PageView": 1, "Purchase": 1}

        until("a matched Purchase and PageView", matched, 60)
        page.close()
    (sold,) = (one.event for one in fake.received.server if one.key[1] == "Purchase")
    assert sold["custom_data"] == {"value": 19.9, "currency": "EUR"}
    assert sold["user_data"]["em"] == [sha256(b"jane@example.com").hexdigest()]

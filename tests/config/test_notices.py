"""What looks wrong with an installation is said once, in the log, with what to do."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, wsgi
from capi_middleware.config.notices import Notices, filesystem_of
from capi_middleware.signing import fingerprint
from capi_middleware.testing import MemoryStore
from tests.support.configs import SECRET, make_config
from tests.support.exchanges import environ_for, through_wsgi
from tests.support.processes import until

ANOTHER = "another-secret-for-tests-of-more-than-32-characters"

BROWSER = {"user-agent": "Mozilla/5.0"}
MOUNTS = """\
overlay / overlay rw 0 0
proc /proc proc rw 0 0
server:/srv /srv/my\\040shop nfs4 rw 0 0
/dev/sda /srv/my\\040shop/local ext4 rw 0 0
none
tmpfs /srvs tmpfs rw 0 0
"""


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the log "capi_middleware" got as warnings since the last call."""
    caplog.set_level(logging.WARNING, "capi_middleware")

    def messages() -> list[str]:
        found = [one.getMessage() for one in caplog.records if one.name == "capi_middleware"]
        caplog.clear()
        return found

    return messages


def site(headers: dict[str, str]) -> Starlette:
    def page(request: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><html><head></head></html>", headers=headers)

    return Starlette(routes=[Route("/", page)])


def visit(app: Any, *, lifespan: bool = True) -> None:
    """Two visits of a page."""
    client = TestClient(app, headers=BROWSER)
    if lifespan:
        with client:
            client.get("/")
            client.get("/")
    else:
        client.get("/")
        client.get("/")


def test_a_sound_installation_is_no_reason_to_say_anything(
    said: Callable[[], list[str]], tmp_path: Path
) -> None:
    visit(CAPIMiddleware(site({}), make_config(debug=True)))
    assert said() == []


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate"])
def test_a_compressor_inside_is_told_where_it_belongs(
    encoding: str, said: Callable[[], list[str]]
) -> None:
    app = CAPIMiddleware(site({"content-encoding": encoding}), make_config())
    client = TestClient(app, headers=BROWSER)
    for _ in range(2):
        with client.stream("GET", "/"):
            pass
    (message,) = said()
    assert "install the compressor outside of CAPIMiddleware" in message


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({"cache-control": "no-transform"}, "no-transform"),
        ({"content-security-policy": "script-src 'none'"}, "Content-Security-Policy"),
    ],
)
def test_a_page_that_forbids_the_tag_is_explained_in_debug(
    headers: dict[str, str], word: str, said: Callable[[], list[str]]
) -> None:
    visit(CAPIMiddleware(site(headers), make_config()))
    assert said() == []
    visit(CAPIMiddleware(site(headers), make_config(debug=True)))
    (message,) = said()
    assert word in message


def test_a_browser_without_anybody_is_explained_in_debug(said: Callable[[], list[str]]) -> None:
    driven = {
        "user-agent": "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/142.0.0.0 Safari/537.36"
    }
    for config in (make_config(), make_config(debug=True)):
        client = TestClient(CAPIMiddleware(site({}), config), headers=driven)
        with client:
            client.get("/")
            client.get("/")
    (message,) = said()
    assert "HeadlessChrome" in message


def test_a_server_without_lifespan_is_explained_in_debug(said: Callable[[], list[str]]) -> None:
    visit(CAPIMiddleware(site({}), make_config()), lifespan=False)
    assert said() == []
    visit(CAPIMiddleware(site({}), make_config(debug=True)), lifespan=False)
    (message,) = said()
    assert "delivered at the exit" in message


def test_two_middlewares_around_one_asgi_app_are_one_too_many(
    said: Callable[[], list[str]],
) -> None:
    inner = CAPIMiddleware(site({}), make_config())
    visit(CAPIMiddleware(inner, make_config()))
    (message,) = said()
    assert "take one of them away" in message


def test_two_middlewares_around_one_wsgi_app_are_one_too_many(
    said: Callable[[], list[str]],
) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<!doctype html><html><head></head></html>"]

    inner = wsgi.CAPIMiddleware(app, make_config())
    request = {"method": "GET", "path": "/", "scheme": "https", "headers": BROWSER.items()}
    capi = CAPI(make_config())
    for _ in range(2):
        through_wsgi(capi, environ_for(request), inner)
    (message,) = said()
    assert "take one of them away" in message


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/my shop/capi.db", "nfs4"),
        ("/srv/my shop/local/capi.db", "ext4"),
        ("/srvs/capi.db", "tmpfs"),
        ("/srv/capi.db", "overlay"),
        ("/procession/capi.db", "overlay"),
    ],
)
def test_the_nearest_mount_says_what_a_file_is_on(path: str, kind: str) -> None:
    assert filesystem_of(Path(path), MOUNTS) == kind
    assert filesystem_of(Path(path), "") == ""


def test_a_store_on_a_network_file_system_is_warned_of(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.config.notices.mounts", lambda: MOUNTS)
    notices = Notices(debug=False)
    for path in ("/srv/my shop/capi.db", "/srv/my shop/capi.db", "/srv/my shop/local/capi.db"):
        notices.about_store(f"sqlite:///{path}")
    (message,) = said()
    assert "found the store capi.db on nfs4" in message
    Notices(debug=False).about_store("postgresql://user:secret@host/db")
    assert said() == []


@pytest.mark.parametrize("kind", ["fuse.sshfs", "fuse.a-file-system-of-tomorrow"])
def test_whatever_a_process_mounts_is_a_network_file_system(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("capi_middleware.config.notices.mounts", lambda: f"it / {kind} rw\n")
    Notices(debug=False).about_store("sqlite:////srv/capi.db")
    (message,) = said()
    assert f"found the store capi.db on {kind}, a network file system" in message


def test_processes_with_different_secrets_on_one_store_are_told(
    said: Callable[[], list[str]], tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'capi.db'}"
    first = CAPI(make_config(store=store, delivery=True))
    first.start()
    until("the first key", lambda: first.store.kept("secret_key"))
    assert SECRET.encode() not in (first.store.kept("secret_key") or b"")
    second = CAPI(make_config(store=store, delivery=True, secret_key=ANOTHER))
    second.start()
    until("the notice", lambda: second.store.kept("secret_key") == fingerprint(ANOTHER).encode())
    (message,) = said()
    assert "give all the same key" in message
    second.close()
    first.close()


def test_a_key_that_is_being_changed_is_known(said: Callable[[], list[str]]) -> None:
    store = MemoryStore()
    for secrets in (["old"], ["new", "old"], ["new"]):
        Notices(debug=False).about_secrets(secrets, store)
    assert said() == []
    Notices(debug=False).about_secrets(["old"], store)
    assert len(said()) == 1


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    """A folder of the tmpfs that every Linux has."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_a_store_in_shared_memory_is_warned_of(
    said: Callable[[], list[str]], shared_memory: Path
) -> None:
    CAPI(make_config(store=f"sqlite:///{shared_memory / 'capi.db'}"))
    (message,) = said()
    assert "found the store capi.db on tmpfs" in message


@pytest.fixture
def on_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop")


@pytest.mark.usefixtures("on_lambda")
@pytest.mark.parametrize(
    ("store", "delivery", "topics"),
    [
        ("memory:", "before_answer", ["found the store memory:"]),
        ("sqlite:////tmp/capi.db", False, ["found the store sqlite:"]),
        ("memory:", True, ["found the store memory:", "found delivery on a thread"]),
        ("postgresql://db.example/capi", "before_answer", []),
        ("postgresql://db.example/capi", True, ["found delivery on a thread"]),
    ],
)
def test_a_serverless_process_is_told_what_it_loses(
    store: str, delivery: Any, topics: list[str], said: Callable[[], list[str]]
) -> None:
    capi = CAPI(make_config(store=store, delivery=delivery))
    found = said()
    assert [one[: len(topic)] for one, topic in zip(found, topics, strict=True)] == topics
    assert all("AWS_LAMBDA_FUNCTION_NAME" in one for one in found)
    capi.close()


def test_any_other_process_is_told_nothing_of_it(said: Callable[[], list[str]]) -> None:
    CAPI(make_config(delivery=True)).close()
    assert said() == []

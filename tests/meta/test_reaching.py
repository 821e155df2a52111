"""How the way to Meta fails is told apart, and what the environment says of it is honoured."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from capi_middleware.meta.codes import meaning_of
from capi_middleware.meta.graph import GraphClient
from capi_middleware.meta.http import Answer, HTTPClient, NoAnswer
from tests.delivery.test_delivery import EVENT, RECEIPT, answer, answering
from tests.support.servers import closed_port
from tests.support.stores import NOON, PIXEL

trustme: Any = pytest.importorskip("trustme", reason="see the group dev of pyproject.toml")

ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE",
               "SSL_CERT_DIR")  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Names and the addresses that they resolve to, beside the real ones."""
    found: dict[str, str] = {}
    honest = socket.getaddrinfo

    def resolve(host: str, *more: Any, **given: Any) -> Any:
        if host.endswith(".example") and host not in found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return honest(found.get(host, host), *more, **given)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found


def got(url: str) -> Answer:
    with closing(HTTPClient(1000)) as client:
        return client.send("POST", url, seconds=5, headers={}, content=b"x" * 10)


def failure(url: str) -> tuple[str, bool]:
    """How it failed, and whether the request may have arrived."""
    with pytest.raises(NoAnswer) as failed:
        got(url)
    assert failed.value.__suppress_context__
    return str(failed.value), failed.value.sent


@contextmanager
def listening(host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that answers "200 OK" to each request of each connection, behind TLS if wanted."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)

    def talk(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            stream = context.wrap_socket(connection, server_side=True) if context else connection
            with stream:
                while stream.recv(65536):
                    stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]


class Proxy:
    """An HTTP proxy that connects to 127.0.0.1, whatever the name; `asked` for what."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.asked: list[str] = []
        self._refusal = refusal
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(
                    target=self._talk, args=self._listener.accept(), daemon=True
                ).start()

    def _talk(self, client: socket.socket, _: object) -> None:
        with suppress(OSError), client:
            words = client.recv(65536).decode().split()
            self.asked.append(" ".join(words[:2]))
            if self._refusal:
                client.sendall(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % self._refusal)
                return
            with socket.create_connection(
                ("127.0.0.1", int(words[1].rpartition(":")[2]))
            ) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pipe, args=(server, client), daemon=True)
                back.start()
                _pipe(client, server)


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(65536):
            sink.sendall(some)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture
def trusted(authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The environment names the authority."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return authority


def tls(authority: Any, name: str = "graph.example") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


# -- told apart ----------------------------------------------------------------------------------


def test_a_name_that_does_not_resolve_is_told_as_dns(names: dict[str, str]) -> None:
    assert failure("https://graph.example/v27.0") == ("dns", False)


def test_a_refused_connection_is_told_as_refused() -> None:
    assert failure(closed_port()) == ("refused", False)


def test_a_certificate_of_an_unknown_authority_is_told_as_one(
    names: dict[str, str], authority: Any
) -> None:
    names["graph.example"] = "127.0.0.1"
    with listening(context=tls(authority)) as port:
        assert failure(f"https://graph.example:{port}") == ("certificate", False)


def test_a_certificate_of_another_name_is_told_as_one(names: dict[str, str], trusted: Any) -> None:
    names["graph.example"] = "127.0.0.1"
    with listening(context=tls(trusted, "other.example")) as port:
        assert failure(f"https://graph.example:{port}") == ("certificate", False)


def test_a_server_that_speaks_no_tls_is_told_as_tls() -> None:
    with listening() as port:
        assert failure(f"https://127.0.0.1:{port}") == ("tls", False)


@pytest.mark.parametrize("setting", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_certificate_file_that_is_not_there_is_told_and_not_raised(
    setting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: Any
) -> None:
    monkeypatch.setenv(setting, str(tmp_path / "missing.pem"))
    with listening(context=tls(authority, "127.0.0.1")) as port:
        assert failure(f"https://127.0.0.1:{port}") == ("certificate", False)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_that_is_not_there_is_told_as_the_proxy(
    scheme: str, monkeypatch: pytest.MonkeyPatch, names: dict[str, str]
) -> None:
    monkeypatch.setenv("ALL_PROXY", closed_port())
    names["graph.example"] = "127.0.0.1"
    assert failure(f"{scheme}://graph.example") == ("proxy", False)


def test_a_proxy_whose_name_does_not_resolve_is_told_as_the_proxy(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert failure("https://graph.example") == ("proxy", False)


@pytest.mark.parametrize("refusal", [b"403 Forbidden", b"407 Proxy Authentication Required"])
def test_a_proxy_that_refuses_is_told_as_the_proxy(
    refusal: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Proxy(refusal)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert failure("https://graph.example") == ("proxy", False)


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1", "nonsense://proxy", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_told_and_not_raised(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", url)
    assert failure("https://graph.example") == ("proxy", False)


def test_a_silent_server_is_told_as_late_and_a_broken_connection_as_broken() -> None:
    with answering(answer("200 OK", b"x" * 50), drip=0.2) as url, closing(HTTPClient(99)) as client:
        with pytest.raises(NoAnswer) as failed:
            client.send("POST", url, seconds=0.3, headers={}, content=b"x")
        assert (str(failed.value), failed.value.sent) == ("timeout", True)
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx") as url:
        assert failure(url) == ("broken", True)


def test_what_could_not_be_sent_whole_surely_did_not_arrive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(HTTPClient(99)) as client:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"  # nobody ever reads
        with pytest.raises(NoAnswer) as failed:
            client.send("POST", url, seconds=0.5, headers={}, content=b"x" * 20_000_000)
        assert (str(failed.value), failed.value.sent) == ("timeout", False)


def test_a_server_that_is_found_too_late_gets_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    found = threading.Event()
    honest = socket.getaddrinfo

    def slow(*given: Any, **more: Any) -> Any:
        found.wait(0.3)
        return honest(*given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with listening() as port, closing(HTTPClient(99)) as client:
        with pytest.raises(NoAnswer) as failed:
            client.send("POST", f"http://localhost:{port}", seconds=0.1, headers={}, content=b"x")
        assert (str(failed.value), failed.value.sent) == ("timeout", False)


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("dns", "(DNS)"), ("refused", "refused"), ("certificate", "certificate"), ("tls", "TLS"),
        ("proxy", "proxy"), ("timeout", "in time"), ("broken", "ended"), ("unreachable", "route"),
    ],
)  # fmt: skip
def test_each_failure_has_a_meaning_and_a_fix_of_its_own(reason: str, word: str) -> None:
    meaning, fix = meaning_of(reason)
    assert word in meaning
    assert fix


# -- what the environment says -------------------------------------------------------------------


def test_an_authority_that_the_environment_names_is_trusted(
    names: dict[str, str], trusted: Any
) -> None:
    names["graph.example"] = "127.0.0.1"
    with listening(context=tls(trusted)) as port:
        assert got(f"https://graph.example:{port}").body == b"hello"


def test_a_proxy_that_the_environment_names_is_asked(
    trusted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(context=tls(trusted)) as port, closing(Proxy()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert got(f"https://graph.example:{port}").body == b"hello"
        assert proxy.asked == [f"CONNECT graph.example:{port}"]


def test_a_host_of_no_proxy_is_reached_without_it(
    names: dict[str, str], trusted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["graph.example"] = "127.0.0.1"
    monkeypatch.setenv("HTTPS_PROXY", closed_port())
    monkeypatch.setenv("NO_PROXY", "localhost,.example")
    with listening(context=tls(trusted)) as port:
        assert got(f"https://graph.example:{port}").body == b"hello"


@pytest.mark.parametrize(
    "others", ["[::1]", "fd00::/8", "10.0.0.0/8,.svc,*.local,::1/128", "host:80, ,foo bar", "*."]
)
def test_what_no_proxy_names_beside_never_stops_delivery(
    others: str, names: dict[str, str], trusted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["graph.example"] = "127.0.0.1"
    monkeypatch.setenv("NO_PROXY", others)
    with listening(context=tls(trusted)) as port:
        assert got(f"https://graph.example:{port}").body == b"hello"
        with closing(Proxy()) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url.removeprefix("http://"))
            assert got(f"https://graph.example:{port}").body == b"hello"
            assert proxy.asked == [f"CONNECT graph.example:{port}"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_is_asked_for_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", closed_port())
    with listening() as port:
        assert got(f"http://{host}:{port}").status == 200


def test_a_host_with_an_ipv6_address_alone_is_reached(names: dict[str, str]) -> None:
    names["graph.example"] = "::1"
    with listening("::1") as port:
        assert got(f"http://graph.example:{port}").status == 200
        assert got(f"http://[::1]:{port}").status == 200


def test_one_connection_carries_many_requests() -> None:
    with listening() as port, closing(HTTPClient(99)) as client:
        used: set[int] = set()
        for _ in range(5):
            found = client.send("POST", f"http://127.0.0.1:{port}", seconds=5, headers={})
            assert found.status == 200
            assert client._client is not None
            used |= {id(one) for one in client._client._transport._pool.connections}  # type: ignore[attr-defined]
        assert len(used) == 1


def test_a_name_that_resolves_later_is_found_without_a_restart(names: dict[str, str]) -> None:
    raw = answer("200 OK", RECEIPT)
    with answering(raw) as url:
        client = GraphClient(url.replace("127.0.0.1", "graph.example"), "v27.0", PIXEL, "t")
        with closing(client):
            assert client.send([EVENT % NOON]).reason == "dns"
            names["graph.example"] = "127.0.0.1"
            assert client.send([EVENT % NOON]).kind == "delivered"

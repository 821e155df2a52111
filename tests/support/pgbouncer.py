"""A real pgbouncer in transaction mode in front of a PostgreSQL server: one connection for all."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.processes import free_port, until

#: Where Debian puts it; root's PATH may lack it.
_SBIN = "/usr/sbin"


def program() -> str | None:
    """The path of pgbouncer; `make test` installs it."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:{_SBIN}")


class Bouncer:
    """A pgbouncer with `settings`, on one port whenever it runs; `url` is a database through it."""

    def __init__(self, settings: Path, runner: list[str], port: int, user: str, name: str) -> None:
        self._settings, self._runner, self._port = settings, runner, port
        self.url: str = f"postgresql://{user}:x@127.0.0.1:{port}/{name}"
        self._console = f"postgresql://{user}:x@127.0.0.1:{port}/pgbouncer"

    def start(self) -> None:
        found = program()
        assert found is not None, "found no pgbouncer, expected it: make test installs it"
        self._process = subprocess.Popen(
            [found, "-q", *self._runner, str(self._settings)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        until("pgbouncer", lambda: _listens(self._port, self._process))

    def end(self, number: int = signal.SIGTERM) -> None:
        """Its clients are cut off, whatever they do."""
        self._process.send_signal(number)
        _, said = self._process.communicate(timeout=10)
        assert b"FATAL" not in said, said

    def tell(self, command: bytes) -> None:
        """A command of its console; PAUSE returns when all transactions have ended."""
        with psycopg.connect(self._console, autocommit=True) as console:
            console.execute(command)


@contextmanager
def pool(url: str, *, size: int = 1) -> Iterator[Bouncer]:
    """A pool of `size` server connections to a database."""
    direct, port = conninfo_to_dict(url), free_port()
    server = {"host", "port", "user", "password", "dbname"} & {*direct}
    line = " ".join(f"{one}={direct[one]}" for one in sorted(server))
    with tempfile.TemporaryDirectory(prefix="capi-bouncer-") as folder:
        Path(folder).chmod(0o755)
        settings = Path(folder) / "pgbouncer.ini"
        settings.write_text(
            f"""[databases]
{direct["dbname"]} = {line}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
admin_users = {direct["user"]}
pool_mode = transaction
default_pool_size = {size}
server_login_retry = 1
"""
        )
        # Not as root, and as somebody who reaches the server's socket.
        sockets = Path(str(direct["host"])).glob(".s.PGSQL.*")
        owner = next((one.owner() for one in sockets), "nobody")
        runner = ["-u", owner] if getpass.getuser() == "root" else []
        bouncer = Bouncer(settings, runner, port, str(direct["user"]), str(direct["dbname"]))
        bouncer.start()
        try:
            yield bouncer
        finally:
            bouncer.end()


@contextmanager
def pooled(url: str, *, size: int = 1) -> Iterator[str]:
    """The URL of the same database through such a pool."""
    with pool(url, size=size) as bouncer:
        yield bouncer.url


def _listens(port: int, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "pgbouncer ended"
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

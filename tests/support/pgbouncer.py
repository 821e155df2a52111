"""A real pgbouncer in transaction mode in front of a PostgreSQL server: one connection for all."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.support.processes import free_port, until

#: Where Debian puts it; root's PATH may lack it.
_SBIN = "/usr/sbin"


def program() -> str | None:
    """The path of pgbouncer; `make test` installs it."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:{_SBIN}")


@contextmanager
def pooled(url: str, *, size: int = 1) -> Iterator[str]:
    """The URL of the same database through a pool of `size` server connections."""
    found = program()
    assert found is not None, "found no pgbouncer, expected it on the PATH: make test installs it"
    direct, port = conninfo_to_dict(url), free_port()
    with tempfile.TemporaryDirectory(prefix="capi-bouncer-") as folder:
        Path(folder).chmod(0o755)
        settings = Path(folder) / "pgbouncer.ini"
        settings.write_text(
            f"""[databases]
{direct["dbname"]} = host={direct["host"]} user={direct["user"]} dbname={direct["dbname"]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
"""
        )
        # Not as root, and as somebody who reaches the server's socket.
        owner = next(Path(str(direct["host"])).glob(".s.PGSQL.*")).owner()
        root = ["-u", owner] if getpass.getuser() == "root" else []
        process = subprocess.Popen(
            [found, "-q", *root, str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            until("pgbouncer", lambda: _listens(port, process))
            yield f"postgresql://{direct['user']}:x@127.0.0.1:{port}/{direct['dbname']}"
        finally:
            process.terminate()
            _, said = process.communicate(timeout=10)
        assert b"FATAL" not in said, said


def _listens(port: int, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "pgbouncer ended"
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

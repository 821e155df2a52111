"""Certificates for tests: an authority of our own and what it says of a server."""

import ssl
import subprocess
from pathlib import Path


def certified(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """The file of an authority, and what a server needs to speak TLS as `host`."""
    root, ca_key = folder / f"{host}-root.crt", folder / f"{host}-root.key"
    key, request, crt = (folder / f"{host}.{kind}" for kind in ("key", "csr", "crt"))
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests",
             "-keyout", str(ca_key), "-out", str(root))  # fmt: skip
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}",
             "-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key),
             "-out", str(request))  # fmt: skip
    _openssl("x509", "-req", "-days", "2", "-in", str(request), "-CA", str(root),
             "-CAkey", str(ca_key), "-CAcreateserial", "-copy_extensions", "copy",
             "-out", str(crt))  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    return root, context


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout.decode()

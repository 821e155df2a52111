"""Running: a front end is installed and built beside the virtualenv, and served on 127.0.0.1."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from os import environ
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from capi_middleware.testing.fake_meta import serve
from tests.support.processes import running

#: The hosts of the pages; browsers find all below localhost on this machine.
SITES = {"www.shop.localhost": "the API's site", "127.0.0.1": "another site"}
_SOURCES = Path(__file__).parent
_KEPT = Path(sys.prefix) / "npm"


def built(name: str, api: str) -> Path:
    """The folder of a front end that asks `api`, with what npm brought and built."""
    npm = shutil.which("npm")
    if npm is None:
        raise AssertionError(f"found no npm, which builds {name}; install it: apt install npm")
    folder = _KEPT / f"shop-{name}"
    shutil.copytree(_SOURCES / name, folder, dirs_exist_ok=True)
    lock, installed = folder / "package-lock.json", folder / "node_modules" / "installed.json"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        _run([npm, "ci", "--no-audit", "--no-fund", "--silent"], folder)
        shutil.copyfile(lock, installed)
    _run([npm, "run", "build", "--silent"], folder, api)
    return folder


def environment(api: str) -> dict[str, str]:
    """Where React's build and Next.js read the address of the API."""
    return {**environ, "VITE_API": api, "API": api, "NEXT_TELEMETRY_DISABLED": "1"}


def _run(command: list[str], folder: Path, api: str = "") -> None:
    done = subprocess.run(command, cwd=folder, env=environment(api), capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}"
                             f"{done.stderr}")  # fmt: skip


@contextmanager
def react(api: str, port: int) -> Iterator[None]:
    """React's build, as any server of files has it: each address is its one page."""
    pages = built("react", api) / "dist"

    async def page(request: Request) -> Response:
        return FileResponse(pages / "index.html", headers={"cache-control": "no-cache"})

    app = Starlette(
        routes=[
            Mount("/assets", StaticFiles(directory=pages / "assets")),
            Route("/{path:path}", page),
        ]
    )
    with serve(app, port):
        yield


@contextmanager
def next_js(api: str, port: int) -> Iterator[None]:
    """Next.js in a process of its own."""
    folder = built("next", api)
    command = ["node_modules/next/dist/bin/next", "start", "--hostname", "127.0.0.1", "--port"]
    with running(
        [*command, str(port)], port, program=["node"], folder=folder, environment=environment(api)
    ):
        yield


#: They run while their context lasts, at the API's address and the port that they are given.
FRONT_ENDS: dict[str, Callable[[str, int], AbstractContextManager[None]]] = {
    "react": react,
    "next": next_js,
}

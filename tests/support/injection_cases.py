"""The cases of tests/data/injection_cases.jsonl as bytes, and pages to try splits on."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from capi_middleware.page.gzip import GzipInjector
from capi_middleware.page.injector import Injector, Piece

TAG = b"<script src=/capi.js async></script>"

_PATH = Path(__file__).parents[1] / "data" / "injection_cases.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in _PATH.read_text().splitlines()]
_WHOLE_SPLITS = 2048


class Case(NamedTuple):
    """One line of the case file."""

    id: str
    title: str
    method: str
    host: str
    scheme: str
    status: int
    headers: list[tuple[bytes, bytes]]
    chunks: list[bytes]
    expect: dict[str, Any]
    config: dict[str, Any]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def output(self) -> bytes:
        """The body that must come out."""
        if not self.expect["injected"]:
            return self.body
        place = self.expect["insert_at"]
        return self.body[:place] + TAG + self.body[place:]


class Streams(Protocol):
    """What Injector and GzipInjector have in common."""

    def feed(self, chunk: bytes, last: bool = False) -> Sequence[Piece]:
        """The pieces to send now."""


def decode_chunk(chunk: str | dict[str, Any], encoding: str = "utf-8") -> bytes:
    """The bytes of a chunk: a string, {"b64": …} or {"repeat": …, "times": n}."""
    if isinstance(chunk, str):
        return chunk.encode(encoding)
    if "b64" in chunk:
        return base64.b64decode(chunk["b64"])
    return bytes(chunk["repeat"].encode(encoding)) * int(chunk["times"])


def load_cases(*groups: str) -> list[Case]:
    """All executable cases of these groups."""
    return [_load(line) for line in CASES if line["group"] in groups and line["executable"]]


def _load(line: dict[str, Any]) -> Case:
    request, response = line["request"], line["response"]
    encoding = response.get("encoding", "utf-8")
    return Case(
        line["id"],
        line["title"],
        request["method"],
        dict(request["headers"]).get("host", ""),
        request["scheme"],
        response["status"],
        [(name.encode("latin-1"), text.encode("latin-1")) for name, text in response["headers"]],
        [decode_chunk(chunk, encoding) for chunk in response["chunks"]],
        line["expect"],
        line.get("config", {}),
    )


def case_name(case: Case) -> str:
    return f"{case.id} {case.title}"


class Tagged:
    """An injector as a response drives it: the tag goes in where feed() finds the place."""

    def __init__(
        self, injector: Injector | GzipInjector, make_tag: Callable[[], bytes] = lambda: TAG
    ) -> None:
        self._injector = injector
        self._make_tag = make_tag

    def feed(self, chunk: Piece, last: bool = False) -> list[Piece]:
        pieces, at_place = self._injector.feed(chunk, last)
        return self._injector.insert(self._make_tag()) if at_place else pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(self._injector, name)


def run(make: Callable[[], Streams], chunks: Sequence[bytes]) -> bytes:
    """What comes out of a new injector that is fed these chunks and then told the end."""
    injector = make()
    out = [bytes(piece) for chunk in chunks for piece in injector.feed(chunk)]
    return b"".join(out + [bytes(piece) for piece in injector.feed(b"", last=True)])


def two_way_splits(body: bytes) -> Iterator[list[bytes]]:
    """Every split in two; of a long body those near its ends and some in between."""
    size = len(body)
    points = set(range(1, min(size, _WHOLE_SPLITS)))
    if size > _WHOLE_SPLITS:
        points |= set(range(size - 64, size)) | set(range(1, size, size // 16))
    for point in sorted(points):
        yield [body[:point], body[point:]]


def pieces_of(body: bytes, size: int) -> list[bytes]:
    """The body in chunks of `size` bytes."""
    return [body[start : start + size] for start in range(0, len(body), size)]

"""The comparison of revisions itself: it finds what differs, and nothing else."""

import shutil
from pathlib import Path

from tests.same.__main__ import compare
from tests.same.comparing import shown
from tests.support.trees import ROOT

# A response of the ASGI door in which one byte is another: public names only.
_PLANTED = """

class _Louder(CAPIMiddleware):
    async def __call__(self, scope, receive, send):
        async def louder(message):
            if message.get("status") == 303:
                message = {**message, "headers": [*message.get("headers", ()), (b"x-louder", b"1")]}
            await send(message)
        await super().__call__(scope, receive, louder)

CAPIMiddleware = _Louder
"""


def test_a_revision_is_the_same_as_itself() -> None:
    exchanges, found = compare(ROOT, ROOT, count=60, seed=3)
    assert len(exchanges) == 60
    assert not found, "\n".join(shown(one, exchanges) for one in found)


def test_a_planted_difference_is_found_and_shown_with_its_exchange(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "capi_middleware", tmp_path / "capi_middleware")
    with (tmp_path / "capi_middleware" / "asgi.py").open("a") as door:
        door.write(_PLANTED)
    exchanges, found = compare(ROOT, tmp_path, count=60, seed=3)
    redirects = {
        one["n"]
        for one in exchanges
        if one["door"] == "asgi" and any(step[:2] == ["start", 303] for step in one["app"])
    }
    assert redirects
    assert {one.n for one in found} == redirects
    assert "x-louder" in shown(found[0], exchanges)

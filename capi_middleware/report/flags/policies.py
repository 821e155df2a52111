"""Flags about policies: what the pages' own CSP blocks, and the directive to add."""

from collections.abc import Iterable

from capi_middleware.events import Count
from capi_middleware.report.model import Flag

#: By the directive that blocks something: what it blocks, and what to add to it.
_FIXES = {
    "script-src": (
        "Meta's library does not load: no browser copy leaves",
        "Add https://connect.facebook.net to script-src (to script-src-elem or default-src where "
        "the policy has no script-src).",
    ),
    "img-src": (
        "the pixel's requests are refused: no browser copy leaves",
        "Add https://www.facebook.com to img-src (to default-src where the policy has no img-src).",
    ),
    "connect-src": (
        "the page cannot say what became of its events by the usual way, and not ask for them",
        "Add 'self' to connect-src (to default-src where the policy has no connect-src).",
    ),
    "tag": (
        "our script may not run, so these pages get no tag and have server copies alone",
        "Add 'self' to script-src, or give each response a nonce: the tag takes the one it finds.",
    ),
}


def flags_of_policies(counts: Iterable[Count]) -> list[Flag]:
    """One flag for each directive that blocked something in the pages of the window."""
    blocked: dict[str, int] = {}
    for count in counts:
        if count.kind == "csp" and count.reason in _FIXES:
            blocked[count.reason] = blocked.get(count.reason, 0) + count.n
        elif (count.kind, count.reason) == ("skipped", "csp"):
            blocked["tag"] = blocked.get("tag", 0) + count.n
    return [
        Flag(
            code="csp_blocks",
            severity="info" if directive == "connect-src" else "critical",
            event_name="",
            pixel_id="",
            value=n,
            target=0,
            explanation=f"The policy (CSP) of {n:,} pages stops something: {_FIXES[directive][0]}.",
            fix=_FIXES[directive][1],
        )
        for directive, n in blocked.items()
    ]

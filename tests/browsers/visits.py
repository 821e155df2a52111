"""Scenes of leaving, coming back, clicks and forms."""

import asyncio
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from tests.browser.shop import Shop
from tests.browsers.drivers import Browser
from tests.browsers.scene import (
    CACHES,
    LIBRARY,
    RAN,
    SAME,
    STUB,
    Act,
    Expects,
    Scene,
    back,
    click,
    enter,
    fault,
    go,
    honest,
    run,
    told,
    viewed,
    when,
)

SEND = "<button id=go>send</button></form>"
#: The event of a page that was left is fired by the next one; a PageView is of its own page alone.
#: What is on its way then may arrive or not, and our script may not have run: no page can know.
LEFT: Expects = {
    "PageView": ["1+? left_early|sent|not_run", "1+1 sent"],
    "ViewContent": ["1+? left_early|sent|not_run"],
}  # fmt: skip
#: Where our script has run, and the library came too late for all of it.
LATE: Expects = {"PageView": ["1+0 left_early", "1+1 sent"], "ViewContent": ["1+1 sent"]}
LEAVE = "location.href = '/other'"
LEAVING = {
    "at once": LEAVE,
    "when it is parsed": f"addEventListener('DOMContentLoaded', () => {{ {LEAVE} }})",
    "when it is loaded": f"addEventListener('load', () => {{ {LEAVE} }})",
    "after a moment": f"setTimeout(() => {{ {LEAVE} }}, 50)",
    "as the library is there": f"{LIBRARY}.then(() => {{ {LEAVE} }})",
    "by replace": "location.replace('/other')",
    "by a link": "addEventListener('DOMContentLoaded', () => document.querySelector('a').click())",
    "by a form": "addEventListener('DOMContentLoaded', () => document.forms[0].submit())",
}
NEXT = "<a href=/other>go</a><form action=/other></form>"


def mend_on_next(browser: Browser, shop: Shop) -> None:
    shop.does = lambda path: shop.meta.clear_faults() if path == "/other" else None


def slow_next(browser: Browser, shop: Shop) -> None:
    """The next page takes longer than what it cancels is waited for."""

    async def answer(request: Request) -> Response:
        if request.url.path == "/other":
            await asyncio.sleep(2)
            shop.meta.clear_faults()
        return await shop.page(request)

    shop.answer = answer


def leaving() -> Iterator[Scene]:
    for name, script in LEAVING.items():
        for late, meta in {"": honest, " without the library": fault("fbevents", delay=1)}.items():
            if late and "library" in name:
                continue
            yield Scene(
                name=f"left {name}{late}", expects=LEFT, meta=meta,
                bodies={"/products/7": f"{NEXT}<script>{script}</script>"},
            )  # fmt: skip
    leave = f"{RAN}.then(() => {{ {LEAVE} }})"
    yield Scene(
        name="left when our script has run", expects=LATE, meta=fault("fbevents", delay=600),
        bodies={"/products/7": f"<script>{leave}</script>"}, acts=[mend_on_next, go("/products/7")],
    )  # fmt: skip
    yield Scene(
        name="left for a slow page", expects=LATE, meta=fault("fbevents", delay=600),
        bodies={"/products/7": f"<script>{leave}</script>"}, acts=[slow_next, go("/products/7")],
    )  # fmt: skip
    yield Scene(
        name="stopped while it loads", meta=fault("fbevents", delay=1),
        body="<script>addEventListener('DOMContentLoaded', () => stop())</script>",
        expects=viewed("1+0 left_early|not_run"),  # our own script may be stopped, too
    )  # fmt: skip
    yield Scene(
        name="reloaded", acts=[go("/products/7"), told(1), go("/products/7")],
        expects={"PageView": ["1+1 sent"] * 2, "ViewContent": ["1+1 sent"] * 2},
    )  # fmt: skip
    for kind, headers in CACHES.items():
        yield Scene(
            name=f"there and back{kind}", headers=headers,
            acts=[go("/products/7"), told(1), go("/other"), told(2), back],
            # From a browser's memory, its cache or the site.
            expects={
                "PageView": ["1+1 sent"] * 2 + ["0+? sent|-"],
                "ViewContent": ["1+1 sent", "0+? sent|-"],
            },
        )  # fmt: skip
        yield Scene(
            name=f"page after page{kind}", headers=headers,
            acts=[go("/products/7"), told(1), go("/products/8"), told(2), go("/")],
            expects={"PageView": ["1+1 sent"] * 3, "ViewContent": ["1+1 sent"] * 2},
        )  # fmt: skip
        yield Scene(
            name=f"a form with a redirect{kind}", headers=headers,
            bodies={"/": f"<form method=post action='/checkout?order=9'>{SEND}"},
            acts=[go("/"), told(1), click("#go")],
            expects={"PageView": ["1+1 sent"] * 2, "Purchase": ["1+1 sent"]},
        )  # fmt: skip
        yield Scene(
            name=f"a form with two redirects{kind}", headers=headers,
            bodies={"/": f"<form method=post action=/cart>{SEND}"},
            acts=[go("/"), told(1), click("#go")],
            expects={"PageView": ["1+1 sent"] * 2, "AddToCart": ["1+1 sent"]},
        )  # fmt: skip


CALL = "data-capi-event=Contact"
CONTACT: Expects = {"PageView": ["1+1 sent"], "Contact": ["1+1 sent"]}
#: What leaves with the page may arrive or not: no page can know.
GONE: Expects = {"PageView": ["1+1 sent"] * 2, "Contact": ["1+? sent|left_early"]}
SHADOW = (
    "<div id=host style='width:fit-content'></div><script>host.attachShadow({mode: 'open'})"
    ".innerHTML ="
    " '<button data-capi-event=Contact style=\"width:200px;height:80px\">call</button>'</script>"
)
LATER = (
    "<script>addEventListener('load', () => setTimeout(() => document.body.insertAdjacentHTML("
    "'beforeend', '<button id=go data-capi-event=Contact>call</button>'), 50))</script>"
)
THERE = when("document.querySelector('#go')")
CLICKS: dict[str, tuple[str, list[Act], Expects]] = {
    "a button": ("<button id=go data-capi-event=Contact>call</button>", [click("#go")], CONTACT),
    "what is in a button": (
        "<button data-capi-event=Contact><b id=go>call</b></button>", [click("#go")], CONTACT,
    ),
    "a link in the page": (f"<a id=go href='#x' {CALL}>call</a>", [click("#go")], CONTACT),
    "a link that leaves": (f"<a id=go href=/other {CALL}>call</a>", [click("#go")], GONE),
    "a button by the keyboard": (
        "<button id=go data-capi-event=Contact>call</button>", [enter("#go")], CONTACT,
    ),
    "a link by the keyboard": (
        "<a id=go href='#x' data-capi-event=Contact>call</a>", [enter("#go")], CONTACT,
    ),
    "a shadow root": (SHADOW, [click("#host")], CONTACT),
    "an element that came later": (LATER, [run(THERE), click("#go")], CONTACT),
    "a button whose click goes no further": (
        "<button id=go data-capi-event=Contact onclick='event.stopPropagation()'>call</button>",
        [click("#go")], CONTACT,
    ),
    "a form": (
        f"<form action=/other {CALL}>{SEND}",
        [click("#go")], GONE,
    ),
    "a form by the keyboard": (
        f"<form action=/other {CALL}><input id=go name=q><button>send</button></form>",
        [enter("#go")], GONE,
    ),
    "a form that is not valid": (
        f"<form action=/other {CALL}><input required>{SEND}",
        [click("#go")], SAME,
    ),
    "a form that a check stops": (
        f"<form action=/other {CALL} onsubmit='return false'>{SEND}",
        [click("#go")], SAME,
    ),
    "a form that a script sends": (
        f"<form action=/about {CALL} onsubmit=\"fetch('/about', {{method: 'POST'}});"
        f' return false">{SEND}', [click("#go")], CONTACT,
    ),
    "capi.track": (
        "<button id=go onclick=\"capi.track('Contact')\">call</button>", [click("#go")], CONTACT,
    ),
    "a call of the page's own and a link": (
        "<a id=go href=/other onclick=\"fbq('track', 'Contact')\">call</a>", [click("#go")], GONE,
    ),
}  # fmt: skip


def clicks() -> Iterator[Scene]:
    for kind, headers in CACHES.items():
        for name, (body, acts, expects) in CLICKS.items():
            yield Scene(
                name=f"{name}{kind}", bodies={"/": body}, headers=headers, expects=expects,
                config={"mirror": True}, acts=[go("/"), told(1), *acts],
            )  # fmt: skip
    yield Scene(
        name="a click before the library is there", config={"mirror": True},
        meta=fault("fbevents", delay=1), acts=[go("/"), run(STUB), click("#go")],
        bodies={"/": "<button id=go data-capi-event=Contact>call</button>"}, expects=CONTACT,
    )  # fmt: skip

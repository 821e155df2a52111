"""Scenes of Meta's hosts, of blockers, policies and consent."""

from collections.abc import Iterator

from capi_middleware import Pixel
from tests.browser.site import own_snippet
from tests.browsers.front import Refuses
from tests.browsers.scene import (
    CACHES,
    NO_ANSWER,
    Expects,
    Given,
    Scene,
    asks,
    fault,
    first,
    go,
    honest,
    picture,
    plugin,
    run,
    told,
    viewed,
)
from tests.support.configs import PIXEL_ID, TOKEN

#: What the hosts do, and the state of a copy.
HOSTS: dict[str, tuple[Given, str]] = {
    "answers emptily": (honest, "1+1 sent"),
    "answers with a picture": (picture, "1+1 sent"),
    "has no library": (fault("fbevents", 404, ""), "1+0 script_blocked"),
    "fails for the library": (fault("fbevents", 500, ""), "1+0 script_blocked"),
    "gives an empty library": (fault("fbevents", 200, ""), "1+0 script_replaced"),
    "gives a library of nothing": (fault("fbevents", 200, "(() => {})()"), "1+0 script_replaced"),
    "gives no library in time": (fault("fbevents", delay=600), "1+0 script_blocked"),
    "gives the library late": (fault("fbevents", delay=1.5), "1+1 sent"),
    "has no config": (fault("config", 404, ""), "1+0 config_blocked"),
    "fails for the config": (fault("config", 500, ""), "1+0 config_blocked"),
    "gives an empty config": (fault("config", 200, ""), "1+0 config_blocked"),
    "gives no config in time": (fault("config", delay=600), "1+0 config_blocked"),
    "gives the config late": (fault("config", delay=1.5), "1+1 sent"),
    "says 204": (fault("tr", 204, ""), "1+1 sent"),
    "says 403": (fault("tr", 403, "no"), "1+1 sent"),
    "says 500": (fault("tr", 500, "no"), "1+1 sent"),
    "answers late": (fault("tr", delay=1.5), "1+1 sent"),
    "never answers": (fault("tr", delay=600), "1+1 unknown"),
}  # fmt: skip
BLOCKERS: dict[str, tuple[Refuses, str]] = {
    "the library": (asks("/fbevents.js"), "1+0 script_blocked"),
    "the config": (asks("/signals/config/"), "1+0 config_blocked"),
    "the host of tr": (asks("/tr/"), "1+0 request_blocked"),
    "pictures alone": (asks("/tr/", "sec-fetch-dest: image"), f"1+? {NO_ANSWER}|sent"),
    "what has an event": (asks("&ev="), f"1+0 {NO_ANSWER}"),
    "what has an event_id": (asks("&eid="), f"1+0 {NO_ANSWER}"),
}


def hosts() -> Iterator[Scene]:
    for kind, headers in CACHES.items():
        for name, (meta, state) in HOSTS.items():
            yield Scene(
                name=f"Meta {name}{kind}", meta=meta, headers=headers,
                expects=viewed(state),
            )  # fmt: skip
        for name, (refuses, state) in BLOCKERS.items():
            yield Scene(
                name=f"a blocker refuses {name}{kind}", refuses=refuses, headers=headers,
                expects=viewed(state),
            )  # fmt: skip
    # Firefox asks once more for what was reset.
    yield Scene(
        name="the first request is reset, the next is not", refuses=first("&ev="),
        acts=[go("/")], expects={"PageView": [f"1+? {NO_ANSWER}|sent"]},
    )  # fmt: skip
    yield Scene(
        name="the library is reset once, and there on the next page",
        refuses=first("/fbevents.js"), acts=[go("/"), told(1), go("/products/7")],
        expects={
            "PageView": ["1+? script_blocked|sent", "1+1 sent"], "ViewContent": ["1+1 sent"],
        },
    )  # fmt: skip
    yield Scene(
        name="a bot", meta=plugin("botblocking"),
        head="<script>Object.defineProperty(navigator, 'userAgent', {value: 'Testbot/1'})</script>",
        expects=viewed("1+0 bot"),
    )  # fmt: skip
    yield Scene(
        name="two pixels",
        config={"pixels": [Pixel(one, access_token=TOKEN) for one in (PIXEL_ID, "222")]},
        expects={name: ["1+1 sent"] * 2 for name in ("PageView", "ViewContent")},
    )  # fmt: skip


#: The tag is left out: a page without it has no PageView, and no cookie: of a visitor of 127.0.0.1
#: nothing is left that Meta takes.
NO_TAG: Expects = {"ViewContent": ["0+0 csp"]}
POLICIES: dict[str, tuple[str, str]] = {
    "of the manual": (
        "script-src 'self' {meta}; img-src {meta}; connect-src 'self' {meta}", "1+1 sent",
    ),
    "of the manual with a default": (
        "default-src 'self'; script-src 'self' {meta}; img-src 'self' {meta};"
        " connect-src 'self' {meta}",
        "1+1 sent",
    ),
    "with a nonce": (
        "script-src 'nonce-r4nd0m' 'strict-dynamic'; img-src {meta}; connect-src 'self' {meta}",
        "1+1 sent",
    ),
    "with a nonce and hosts": (
        "script-src 'nonce-r4nd0m' {meta}; img-src {meta}; connect-src 'self' {meta}", "1+1 sent",
    ),
    "that keeps us from asking Meta": (
        "script-src 'self' {meta}; img-src {meta}; connect-src 'self'", "1+1 sent|unknown",
    ),
    "that lets us ask Meta": ("script-src 'self' {meta}; connect-src 'self' {meta}", "1+1 sent"),
    "that lets nobody ask": ("connect-src 'none'", "1+1 sent|unknown"),
    "without Meta's scripts": ("script-src 'self'", "1+0 csp"),
    "without Meta's configs": ("script-src 'self' {meta}/en_US/", "1+0 csp"),
    "without Meta's pictures": ("img-src 'self'", "1+0 csp"),
    "without anybody's pictures": ("img-src 'none'", "1+0 csp"),
    "of this site alone": ("default-src 'self'", "1+0 csp"),
    "that refuses everything": ("default-src 'none'", ""),
    "without scripts": ("script-src 'none'", ""),
    "without frames and forms": ("frame-src 'none'; form-action 'self'", "1+1 sent"),
    "with Trusted Types": ("require-trusted-types-for 'script'", "1+0 csp"),
    "with Trusted Types of its own": (
        "require-trusted-types-for 'script'; trusted-types shop", "1+0 csp",
    ),
    "with Trusted Types and a default": (
        "require-trusted-types-for 'script'; trusted-types default", "1+1 sent",
    ),
    "of a sandbox": ("sandbox allow-scripts allow-forms", ""),
    "of a sandbox of this origin": ("sandbox allow-scripts allow-same-origin", "1+1 sent"),
}  # fmt: skip
TRUSTED = (
    "<script>window.trustedTypes && trustedTypes.createPolicy('default',"
    " {createScriptURL: url => url})</script>"
)
HEADERS: dict[str, dict[str, str]] = {
    "a policy that only reports": {"content-security-policy-report-only": "img-src 'self'"},
    "no-referrer": {"referrer-policy": "no-referrer"},
    "same-origin referrers": {"referrer-policy": "same-origin"},
    "whole referrers": {"referrer-policy": "unsafe-url"},
    "an opener of its own": {"cross-origin-opener-policy": "same-origin"},
    "no permissions": {"permissions-policy": "geolocation=(), attribution-reporting=()"},
    "an unload policy": {"permissions-policy": "unload=()"},
    "an integrity that is reported": {
        "integrity-policy-report-only": "blocked-destinations=(script)"
    },
    "nosniff": {"x-content-type-options": "nosniff", "x-frame-options": "DENY"},
}


def policies() -> Iterator[Scene]:
    for answer in ("", " and a picture"):
        for name, (policy, state) in POLICIES.items():
            yield Scene(
                name=f"a policy {name}{answer}",
                policy=policy,
                head=TRUSTED if "default" in policy and "types" in policy else "",
                expects=viewed(state) if state else NO_TAG,
                meta=picture if answer else honest,
            )
    for name, headers in HEADERS.items():
        yield Scene(name=f"headers: {name}", headers=headers)
    for name, policy, expects in (
        ("scripts", "script-src 'none'", NO_TAG),
        ("pictures", "img-src 'none'", viewed("1+0 csp")),
    ):
        yield Scene(
            name=f"a policy in the page without {name}", expects=expects,
            head=f'<meta http-equiv=Content-Security-Policy content="{policy}">',
        )  # fmt: skip
    # Not every browser knows it; nowhere is our own script refused.
    yield Scene(
        name="headers: an integrity of scripts",
        headers={"integrity-policy": "blocked-destinations=(script)"},
        expects=viewed("1+? csp|sent"),
    )  # fmt: skip
    yield Scene(
        name="two policies", policy="script-src 'self' {meta}, img-src 'self'",
        expects=viewed("1+0 csp"),
    )  # fmt: skip


def consent() -> Iterator[Scene]:
    revoked = own_snippet("fbq('consent', 'revoke')", "{meta}")
    for kind, headers in CACHES.items():
        yield Scene(
            name=f"consent revoked in the page{kind}", head=revoked, headers=headers,
            expects=viewed("1+0 consent"),
        )  # fmt: skip
        yield Scene(
            name=f"consent granted later in the page{kind}", head=revoked, headers=headers,
            acts=[go("/products/7"), told(1), run("fbq('consent', 'grant'), 1")],
        )  # fmt: skip

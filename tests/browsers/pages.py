"""Scenes of pages that are not as others, tag managers, routers and service workers."""

from collections.abc import Iterator, Mapping

from capi_middleware import Pixel
from tests.browser.site import own_snippet
from tests.browsers.drivers import Name
from tests.browsers.scene import (
    CACHED,
    CACHES,
    LIBRARY,
    NO_ANSWER,
    RAN,
    READY,
    SAME,
    SECOND,
    STUB,
    Expects,
    Scene,
    click,
    go,
    plugin,
    run,
    told,
    viewed,
    when,
)
from tests.support.configs import PIXEL_ID, TOKEN

ODDITIES: dict[str, tuple[str, str]] = {
    "Prototype.js's toJSON": (
        "Array.prototype.toJSON = Object.prototype.toJSON = function () { return 'x' }", "sent",
    ),
    "frozen pictures": ("Object.freeze(HTMLImageElement.prototype)", "sent|unknown"),
    "a frozen array": ("Object.freeze(Array.prototype)", "sent"),
    "a frozen XMLHttpRequest": ("Object.freeze(XMLHttpRequest.prototype)", "sent"),
    "frozen prototypes": (
        "for (const one of [Object, Array, Function, String, RegExp, Promise, Map, WeakMap, Event,"
        " EventTarget, Node, Element, Document, Storage, XMLHttpRequest, HTMLImageElement,"
        " HTMLScriptElement, HTMLFormElement]) Object.freeze(one.prototype)", "sent|unknown",
    ),
    "a frozen navigator": ("Object.freeze(navigator)", "sent"),
    "a placeholder function": ("window.fbq = function () {}", "sent"),
    "a placeholder object": ("window.fbq = {}", "sent"),
    "a placeholder null": ("window.fbq = window._fbq = null", "sent"),
    "no sendBeacon": ("delete Navigator.prototype.sendBeacon", "sent"),
    "a sendBeacon that is null": ("navigator.sendBeacon = null", "sent"),
    "a sendBeacon that throws": ("navigator.sendBeacon = () => { throw Error('no') }", "sent"),
    "a sendBeacon that refuses": ("navigator.sendBeacon = () => false", "sent"),
    "no storage": (
        "for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name,"
        " { get() { throw new DOMException('no') } })", "sent",
    ),
    "a full storage": ("Storage.prototype.setItem = () => { throw Error('full') }", "sent"),
    "names in every object": ("Object.prototype.extra = Array.prototype.extra = 1", "sent"),
    "timings that are cleared": (
        "setInterval(() => performance.clearResourceTimings(), 1);"
        "performance.setResourceTimingBufferSize(0)", "sent",
    ),
    "a wrapped setTimeout": (
        "const real = setTimeout;"
        " window.setTimeout = (f, ms, ...more) => real(() => f(...more), ms)", "sent",
    ),
    "a wrapped fetch": ("const real = fetch; window.fetch = (...a) => real(...a)", "sent"),
    "a wrapped Image": ("const R = Image; window.Image = function () { return new R() }", "sent"),
    "a silent console": ("console.error = console.warn = console.log = () => {}", "sent"),
    "a name of ours": ("window.site = window.own = window.copies = window.data = 1", "sent"),
    "a page that writes itself": ("document.write('<p>written</p>')", "sent"),
}  # fmt: skip


def oddities() -> Iterator[Scene]:
    for name, (script, state) in ODDITIES.items():
        yield Scene(
            name=f"a page with {name}", head=f"<script>{script}</script>",
            expects=viewed(f"1+1 {state}"),
        )  # fmt: skip
    yield Scene(name="a base elsewhere", head="<base href='http://127.0.0.1:1/elsewhere/'>")
    yield Scene(
        name="a second library", head="<script async src={meta}/en_US/fbevents.js></script>"
    )
    yield Scene(name="our script by hand", head="<script src=/_capi/s.js></script>")
    yield Scene(name="our script by hand at the end", body="<script src=/_capi/s.js></script>")
    match = Pixel(PIXEL_ID, access_token=TOKEN)
    fields = ", ".join(
        f"{key}: '{key}@b.example'" for key in ("em", "ph", "external_id", "fn", "ln")
    )
    yield Scene(
        name="five keys of the site's own advanced matching",
        head=own_snippet(f"fbq('init', '{match.id}', {{{fields}}})", "{meta}"),
    )
    automatic: dict[str, Expects] = {
        "inferredevents": {"SubscribedButtonClick": ["0+1 -"]}, "openbridge": {},
    }  # fmt: skip
    for name, more in automatic.items():
        yield Scene(
            name=f"{name} of the site's own pixel", meta=plugin(name),
            expects={"PageView": ["1+1 sent"], "Lead": ["0+1 sent"], **more},
            head=own_snippet(f"fbq('init', '{PIXEL_ID}');", "{meta}"),
            body="<button id=go onclick=\"fbq('track', 'Lead')\">go</button>",
            acts=[go("/"), told(1), run(READY), click("#go")],
        )  # fmt: skip
    yield Scene(
        name="an event too long for an address",
        config={"mirror": True},
        acts=[go("/"), told(1), run("fbq('track', 'Contact', {text: 'x'.repeat(2100)}), 1")],
        expects={"PageView": ["1+1 sent"], "Contact": ["1+1 sent|unknown"]},
    )  # fmt: skip


INIT = f"fbq('init', '{PIXEL_ID}');"
VIEW = "fbq('track', 'PageView');"
OWN_ID = "fbq('track', 'PageView', {}, {eventID: 'x1'});"
#: Meta's library comes after the load: what it sent before our script ran can be given no id.
HELD = (
    "<script async src=",
    "<script>addEventListener('load', () => document.head.append(Object.assign("
    "document.createElement('script'), {src: document.querySelector('[data-src]').dataset.src})))"
    "</script><script type=text/plain data-src=",
)
#: What the head has before our tag (a snippet of its own), and what runs after the load.
PLACES = {
    "before": (INIT + VIEW, ""),
    "before, with an id of its own": (INIT + OWN_ID, ""),
    "before, by two plugins": (INIT + VIEW + INIT + VIEW, ""),
    "before, into one pixel": (f"{INIT}fbq('trackSingle', '{PIXEL_ID}', 'PageView');", ""),
    "before, and the event of the page": (f"{INIT}{VIEW}fbq('track', 'ViewContent');", ""),
    "late": ("", INIT + VIEW),
    "late, with an id of its own": ("", INIT + OWN_ID),
    "late, into one pixel": ("", f"{INIT}fbq('trackSingle', '{PIXEL_ID}', 'PageView');"),
    "late, by push": ("", f"{INIT}fbq.push('track', 'PageView');"),
    "late, by _fbq": ("", f"{INIT}_fbq('track', 'PageView');"),
    "before and late": (INIT + VIEW, INIT + VIEW),
}


#: /t never answers, or not at all, or refuses: by the promise that the page's script is given.
NO_TOLD = {
    "without an answer": "new Promise(() => {})",
    "with a network error": "Promise.reject(TypeError())",
    "with a refusal": "Promise.resolve(new Response('{}', {status: 429}))",
}


def managers() -> Iterator[Scene]:
    for name, answer in NO_TOLD.items():
        for left in (False, True):
            # The page's own call has no id, and Meta gets it whatever becomes of ours.
            yield Scene(
                name=f"base code on a cached page {name}{', left' * left}", headers=CACHED,
                head="<script>const real = fetch; window.fetch = (to, ...more) =>"
                f" /_capi.t$/.test(to) ? {answer} : real(to, ...more)</script>"
                + own_snippet(INIT + VIEW, "{meta}"),
                acts=[go("/"), *([run(READY), go("/sw.js")] if left else [])],
                expects={"PageView": ["0+1 -"]},
            )  # fmt: skip
    for kind, headers in CACHES.items():
        for name, (before, late) in PLACES.items():
            yield Scene(
                name=f"base code {name}{kind}", headers=headers,
                head=own_snippet(before, "{meta}").replace(*HELD) if before else "",
                body="<script>addEventListener('load', () => setTimeout(() => {"
                f"{late}}}, 300))</script>",
            )  # fmt: skip
    for name, call in {
        "fbq": "fbq('track', 'Lead')",
        "_fbq": "_fbq('track', 'Lead')",
        "push": "fbq.push('track', 'Lead')",
        "trackSingle": f"fbq('trackSingle', '{PIXEL_ID}', 'Lead')",
        "an id of its own": "fbq('track', 'Lead', {}, {eventID: 'order-7'})",
    }.items():
        yield Scene(
            name=f"a call of the page's own by {name}", config={"mirror": True},
            acts=[go("/"), run(STUB), run(f"{call}, 1")],
            expects={"PageView": ["1+1 sent"], "Lead": ["1+1 sent"]},
        )  # fmt: skip
    for name, call in {
        "a kept reference": "mine('track', 'Lead')",
        "callMethod": "fbq.callMethod('track', 'Lead')",
    }.items():
        yield Scene(
            name=f"a call past us by {name}",
            head=own_snippet(f"{INIT} window.mine = fbq;", "{meta}"),
            acts=[go("/"), told(1), run(f"{LIBRARY}.then(() => {{ {call} }})")],
            expects={"PageView": ["1+1 sent"], "Lead": ["0+1 sent"]},
        )


GET = "fetch('/products/8').then(r => r.text())"
BY_REQUEST = (
    "new Promise(done => { const r = new XMLHttpRequest(); r.open('GET', '/products/8');"
    " r.onloadend = done; r.send() })"
)
PUSH = "history.pushState({}, '', '/products/8')"
TWO: Expects = {"PageView": ["1+1 sent"] * 2}
ROUTERS: dict[str, tuple[str, Expects]] = {
    "pushState": (PUSH, SECOND),
    "replaceState": (PUSH.replace("push", "replace"), SECOND),
    "a kept pushState": ("kept({}, '', '/products/8')", SECOND),
    "fetch, then pushState": (f"{GET}.then(() => {PUSH})", SECOND),
    "pushState, then fetch": (f"({PUSH}, {GET})", SECOND),
    "XMLHttpRequest, then pushState": (f"{BY_REQUEST}.then(() => {PUSH})", SECOND),
    "pushState, then XMLHttpRequest": (f"({PUSH}, {BY_REQUEST})", SECOND),
    "fetch, then a kept pushState": (f"{GET}.then(() => kept({{}}, '', '/products/8'))", SECOND),
    "pushState and replaceState": (f"({PUSH}, {PUSH.replace('push', 'replace')})", SECOND),
    "pushState to where it is": ("history.pushState({}, '', location.href)", SAME),
    "a fragment": ("location.hash = 'part'", SAME),
    "pushState to a fragment": ("history.pushState({}, '', '#part')", SAME),
    "a question": ("history.pushState({}, '', '?page=2')", TWO),
    "a page fetched, with its event": (GET, {**SAME, "ViewContent": ["1+1 sent"]}),
    "a page without events": ("history.pushState({}, '', '/about')", TWO),
}  # fmt: skip
NAVIGATION: dict[str, str] = {
    "navigate()": "navigation.navigate('/products/8')",
    "navigate() with a fetch": "navigation.navigate('/products/8')",
    "a link": "document.querySelector('a').click()",
}
OLD_WEBKIT: Mapping[Name, str] = {"webkit": "WebKitGTK 2.50 has no Navigation API"}


def routers() -> Iterator[Scene]:
    head = "<script>window.kept = history.pushState.bind(history)</script>"
    for kind, headers in CACHES.items():
        for name, (script, expects) in ROUTERS.items():
            if kind and script == GET:
                expects = SAME  # any cache may have answered: it counts where it is shown
            yield Scene(
                name=f"a router: {name}{kind}", head=head, headers=headers, expects=expects,
                acts=[go("/"), told(1), run(f"{LIBRARY}.then(() => {script}).then(() => 1)")],
            )  # fmt: skip
    for name, script in NAVIGATION.items():
        handler = f"() => {GET}" if "fetch" in name else "() => Promise.resolve()"
        yield Scene(
            name=f"intercept() and {name}", expects=SECOND, cannot=OLD_WEBKIT,
            head=f"<script>window.navigation && navigation.addEventListener('navigate', e =>"
            f" e.intercept({{ handler: {handler} }}))</script>",
            body="<a href=/products/8>go</a>",
            acts=[go("/"), told(1), run(f"{LIBRARY}.then(() => {{ {script} }})")],
        )  # fmt: skip
    yield Scene(
        name="a router and the way back",
        acts=[go("/"), told(1),
              run(f"{LIBRARY}.then(() => {PUSH}).then(() => new Promise(done => {{"
                           " addEventListener('popstate', () => done(1));"
                           " setTimeout(() => history.back(), 500) }))")],
        expects={"PageView": ["1+1 sent"] * 3, "ViewContent": ["1+1 sent"]},
    )  # fmt: skip
    yield Scene(
        name="an answer with an event",
        acts=[go("/"), run(f"{RAN}.then(() => fetch('/api/lead')).then(() => 1)")],
        expects={"PageView": ["1+1 sent"], "Lead": ["1+1 sent"]},
    )  # fmt: skip


WORKERS = {
    "the request itself": "fetch(event.request)",
    "a copy first": "caches.match(event.request).then(r => r || fetch(event.request))",
    "the address alone": "fetch(event.request.url, {credentials: 'include'})",
    "a request of its own": "fetch(new Request(event.request, {mode: 'cors'}))",
    "the network first": (
        "fetch(event.request).then(r => { const copy = r.clone(); caches.open('v').then(c =>"
        " c.put(event.request, copy)); return r })"
    ),
    "an old copy meanwhile": (
        "caches.open('v').then(c => c.match(event.request).then(old => {"
        " const fresh = fetch(event.request).then("
        "r => { c.put(event.request, r.clone()); return r });"
        " return old || fresh }))"
    ),
}
#: Cloudflare's Rocket Loader: scripts have another type, and are put in anew in the end.
ROCKET = (
    "fetch(event.request).then(r => r.text().then(text => new Response(text.replace("
    "/<script(?! type)/g, '<script type=\"r0cket-text/javascript\"').replace('</body>',"
    "() => '<script>(async () => { for (const old of document.querySelectorAll("
    '"script[type^=r0cket]")) { const made = document.createElement("script");'
    ' for (const { name, value } of old.attributes) if (name !== "type")'
    " made.setAttribute(name, value); made.async = false; made.text = old.text;"
    " const done = new Promise(done => { made.onload = made.onerror = done });"
    " old.replaceWith(made); if (made.src) await done } })()</' + 'script></body>'"
    "), {headers: {'content-type': 'text/html'}})))"
)
REGISTER = (
    "navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready)"
    ".then(() => 1)"
)


#: Shows that scripts of the page ran late.
SEEN = "<script>window.rocket = document.currentScript.onload && 1</script>"


def _worker(answer: str) -> str:
    """What answers for pages."""
    return (
        "addEventListener('install', () => skipWaiting());"
        "addEventListener('activate', event => event.waitUntil(clients.claim()));"
        "addEventListener('fetch', event => event.request.mode === 'navigate'"
        f" && event.respondWith({answer}));"
    )


def workers() -> Iterator[Scene]:
    yield Scene(
        name="Rocket Loader", expects=SECOND, worker=_worker(ROCKET), body=f"{SEEN}<p>shop</p>",
        acts=[go("/"), told(1), run(REGISTER), go("/products/7"), run(when("window.rocket"))],
    )  # fmt: skip
    for name, answer in WORKERS.items():
        worker = _worker(answer)
        # What was fetched meanwhile is shown at the next visit, and has its browser copy then.
        ahead = ["1+0 not_run"] * ("old copy" in name)
        start = [go("/"), told(1), run(REGISTER), go("/products/7")]
        yield Scene(
            name=f"a worker that asks for {name}", worker=worker, acts=start, expects=SECOND
        )
        yield Scene(
            name=f"a worker that asks for {name}, twice", worker=worker,
            acts=[*start, told(2), go("/about"), told(3), go("/products/7")],
            expects={
                "PageView": ["1+1 sent"] * 4 + ahead, "ViewContent": ["1+1 sent"] * 2 + ahead,
            },
        )  # fmt: skip
    for name, match in {"every request": "/tr/", "what has an event": "&ev="}.items():
        # Firefox asks no worker for what is to outlive the page: there it arrives.
        yield Scene(
            name=f"a worker that refuses {name} to Meta", expects={
                "PageView": ["1+1 sent", f"1+? {NO_ANSWER}|sent"],
                "ViewContent": [f"1+? {NO_ANSWER}|sent"],
            },
            worker="addEventListener('install', () => skipWaiting());"
            "addEventListener('activate', event => event.waitUntil(clients.claim()));"
            f"addEventListener('fetch', event => event.request.url.includes('{match}')"
            " && event.respondWith(Response.error()));",
            acts=[go("/"), told(1), run(REGISTER), go("/products/7")],
        )  # fmt: skip

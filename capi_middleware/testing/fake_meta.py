"""A fake Meta: a strict Graph API and the pixel's hosts, in process or on a port."""

import hashlib
import hmac
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from capi_middleware.meta import codes
from capi_middleware.meta.versions import version_at
from capi_middleware.testing.fake_insights import ASKED, FakeInsights
from capi_middleware.testing.faults import Drop, Endpoint, Fault, graph_error
from capi_middleware.testing.graph_rules import Refusal, check_event, fields_of, need
from capi_middleware.testing.received import Received, ServerEvent

MAX_EVENTS = 1000
_GIF = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_NO_OBJECT = "Object does not exist or cannot be loaded due to missing permissions"
_PIXEL_ID = re.compile(r"[1-9][0-9]{0,25}")
_VERSION = re.compile(r"v\d+\.\d+")


class FakeMeta:
    """Stands in for graph.facebook.com, connect.facebook.net and www.facebook.com/tr/.

    `tokens` maps pixel ids to access tokens; None accepts any pixel and any token that is not
    empty. With `app_secret` each request must carry its appsecret_proof. `clock` returns Unix
    time in seconds. `tr_answer` is how /tr/ answers; `pixel_plugins` are what each pixel's config
    switches on ("cookie", "botblocking", "inferredevents", "openbridge"). `insights` is what Meta
    says about what it received. Access tokens are never kept. `app` is an ASGI app, for
    `httpx.ASGITransport` or any server; `serve()` runs it on a port.
    """

    def __init__(
        self,
        *,
        tokens: Mapping[str, str] | None = None,
        app_secret: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.received: Received = Received()
        self.tr_answer: Literal["empty", "gif"] = "empty"
        self.pixel_plugins: tuple[str, ...] = ("cookie",)
        self._tokens = tokens
        self._app_secret = app_secret
        self._clock = clock
        #: Scripted answers: first in, first out for an endpoint and pixel.
        self._faults: list[Fault] = []
        self.insights: FakeInsights = FakeInsights()
        self.app: Starlette = Starlette(
            routes=[
                Route("/received", self._received, methods=["GET", "DELETE"]),
                Route("/faults", self._script, methods=["POST", "DELETE"]),
                *(Route(path, self._tr, methods=["GET", "POST"]) for path in ("/tr", "/tr/")),
                Route("/signals/config/{pixel_id}", self._config, methods=["GET"]),
                Route("/events", _gateway, methods=["POST"]),
                Route("/{locale}/fbevents.js", self._fbevents, methods=["GET"]),
                Route("/{version}/{pixel_id}/dataset_quality", _unknown_path),
                *(
                    Route("/{version}/" + path, partial(self._insight, endpoint))
                    for endpoint, (path, _) in ASKED.items()
                ),
                Route("/{version}/{pixel_id}/events", self._events, methods=_METHODS),
            ]
        )
        self.app.state.fake = self
        #: Where `serve()` runs it: for Config(graph_url=…).
        self.url: str = ""

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Run it on 127.0.0.1 while the context lasts; yields `url`. A `port` of 0 is a free one.

        The pixel's library is at `{url}/en_US/fbevents.js`. Raises ImportError without uvicorn.
        """
        with serve(self.app, port) as self.url:
            yield self.url

    def fail_next(
        self,
        status: int = 500,
        body: Any = None,
        *,
        times: int | None = 1,
        delay: float = 0.0,
        pixel_id: str | None = None,
        drop: Drop | None = None,
        headers: Mapping[str, str] | None = None,
        endpoint: Endpoint = "events",
    ) -> None:
        """Script the next `times` answers (None: all) of an `endpoint`, for `pixel_id` or any.

        Each has these `headers` and comes `delay` seconds after the request. `body` is text,
        bytes, or a value sent as JSON; without one an error of the Graph API that fits `status`.
        A `status` of 200 without body only delays. `drop` cuts the connection "before" the request
        counts or "after". Raises ValueError for an endpoint or drop that does not exist.
        """
        self._faults.append(Fault(
            status=status, body=body, times=times, delay=delay, pixel_id=pixel_id, drop=drop,
            headers=headers or {}, endpoint=endpoint,
        ))  # fmt: skip

    @property
    def faults_left(self) -> int:
        """How many scripted faults have not been used up."""
        return len(self._faults)

    def clear_faults(self) -> None:
        """Answer truly again."""
        self._faults.clear()

    def _fault(self, endpoint: Endpoint, pixel_id: str | None) -> Fault:
        """The fault for this request; one that does nothing if it is to be answered truly."""
        for fault in self._faults:
            if fault.endpoint == endpoint and fault.pixel_id in (None, pixel_id):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return Fault(status=200)

    async def _events(self, request: Request) -> Response:
        pixel_id = request.path_params["pixel_id"]
        fault = self._fault("events", pixel_id)
        if not (fault.only_delays or fault.drop == "after"):
            return await fault.answer(Response())
        try:
            n = self._accept(request, pixel_id, await request.body())
            receipt = {"events_received": n, "messages": [], "fbtrace_id": "AFakeMetaTrace"}
            return await fault.answer(JSONResponse(receipt))
        except Refusal as why:
            return await fault.answer(_refused(why))

    def _accept(self, request: Request, pixel_id: str, body: bytes) -> int:
        """Keep the events of a request, and return how many they are. Raises Refusal."""
        version = request.path_params["version"]
        need(_VERSION.fullmatch(version), "Unknown path components", code=codes.UNKNOWN_PATH)
        left = version_at(version, self._clock()).days_left
        need(left is None or left >= 0, "This version is deprecated", code=codes.RETIRED)
        need(request.method == "POST", "Unsupported request", code=codes.NO_SUCH_OBJECT)
        fields = fields_of(request.headers.get("content-type", ""), body)
        token = self._known_token(request, pixel_id, fields)
        mine = self._tokens is None or self._tokens.get(pixel_id) == token
        need(mine, _NO_OBJECT, code=codes.NO_SUCH_OBJECT)
        events = fields.get("data")
        if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENTS:
            raise Refusal(f"A list of 1 to {MAX_EVENTS} events is required", "data")
        now = self._clock()
        for event in events:  # one bad event refuses them all
            check_event(event, now)
        code = fields.get("test_event_code")
        self.received.server += [ServerEvent(pixel_id, event, now, code) for event in events]
        return len(events)

    async def _insight(self, endpoint: Endpoint, request: Request) -> Response:
        self.insights.requests.append((str(request.url), dict(request.headers)))
        given = request.path_params.get("pixel_id") or request.query_params.get("dataset_id")
        pixel_id = given if endpoint in ("dataset_quality", "stats") else None
        try:
            token = self._known_token(request, pixel_id, {}, self.insights.scopes)
            self.insights.check(endpoint, token, knows_tokens=self._tokens is not None)
            found = self.insights.answer(endpoint, request, self.received, self._clock())
            truth: Response = JSONResponse(found)
        except Refusal as why:
            truth = _refused(why)
        return await self._fault(endpoint, pixel_id).answer(truth)

    def _known_token(
        self, request: Request, pixel_id: str | None, fields: Mapping[str, Any],
        readers: Collection[str] = (),
    ) -> str:  # fmt: skip
        """The access token of a request, one that posts or one of the `readers`. Raises Refusal."""
        given = {**request.query_params, **{key: one for key, one in fields.items() if one}}
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        token = bearer if scheme.lower() == "bearer" else str(given.get("access_token", ""))
        posts = bool(token) if self._tokens is None else token in self._tokens.values()
        if not posts and token not in readers:
            raise Refusal("Invalid OAuth access token", code=codes.TOKEN_REFUSED, status=401)
        if self._app_secret is not None:
            proof = hmac.new(self._app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()
            right = given.get("appsecret_proof") == proof
            need(right, "Invalid appsecret_proof", code=codes.WRONG_PROOF)
        known_id = pixel_id is None or _PIXEL_ID.fullmatch(pixel_id)
        need(known_id, _NO_OBJECT, code=codes.NO_SUCH_OBJECT)
        return token

    async def _fbevents(self, request: Request) -> Response:
        source = files("capi_middleware.testing").joinpath("fbevents.js").read_bytes()
        truth = Response(source, media_type="application/x-javascript")
        return await self._fault("fbevents", None).answer(truth)

    async def _config(self, request: Request) -> Response:
        pixel_id = request.path_params["pixel_id"]
        self.received.configs.append(pixel_id)
        if not _PIXEL_ID.fullmatch(pixel_id):
            return Response(status_code=404)
        opted = "".join(f'instance.optIn("{pixel_id}","{one}",true);' for one in self.pixel_plugins)
        source = (
            f'fbq.registerPlugin("{pixel_id}",{{__fbEventsPlugin:1,plugin:function'
            f'(fbq,instance,config){{{opted}instance.configLoaded("{pixel_id}");}}}});'
        )
        truth = Response(source, media_type="application/x-javascript")
        return await self._fault("config", pixel_id).answer(truth)

    async def _tr(self, request: Request) -> Response:
        params = dict(request.query_params)
        if request.method == "POST":
            params |= fields_of(request.headers.get("content-type", ""), await request.body())
        fault = self._fault("tr", params.get("id"))
        if fault.drop != "before":  # whatever the answer, it has reached Meta
            self.received.add_hit(request, params, self._clock())
        gif = Response(_GIF, media_type="image/gif")
        truth = gif if self.tr_answer == "gif" else Response(b"", media_type="text/plain")
        return await fault.answer(truth)

    async def _received(self, request: Request) -> Response:
        if request.method != "DELETE":
            return JSONResponse(self.received.as_json())
        self.received = Received()
        return Response(status_code=204)

    async def _script(self, request: Request) -> Response:
        try:
            if request.method == "DELETE":
                self.clear_faults()
            else:
                self.fail_next(**await request.json())
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return Response(status_code=204)


async def _gateway(request: Request) -> Response:
    """The owner's own: OpenBridge's copies."""
    return Response(status_code=204)


async def _unknown_path(request: Request) -> Response:
    path = request.path_params["pixel_id"] + "/dataset_quality"
    return _refused(Refusal(f"Unknown path components: /{path}", code=codes.UNKNOWN_PATH))


def _refused(why: Refusal) -> Response:
    return JSONResponse(graph_error(why.message, why.code, blame=why.field), why.status)


def create_app() -> Starlette:
    """A new fake Meta as an app: `uvicorn --factory capi_middleware.testing:create_app`."""
    return FakeMeta().app


@contextmanager
def serve(app: Any, port: int = 0) -> Iterator[str]:
    """Serve an ASGI app while the context lasts; yields its base URL without a slash at the end.

    A `port` of 0 takes a free one. Raises ImportError where uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ImportError(
            f"found no uvicorn ({error}), expected it: pip install 'capi-middleware[testing]'"
        ) from None
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True  # answers that hang on purpose are not waited for
        thread.join(30)
        listener.close()

"""Django's MIDDLEWARE entry, in front of real Django views, sync and async."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings

from capi_middleware import UserData, current_visitor, track
from capi_middleware.django import CAPIMiddleware, get_capi
from capi_middleware.errors import ConfigError
from tests.support.configs import make_config

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["testserver"])
    django.setup()

PAGE = "<!doctype html><html><head><title>x</title></head><body>é</body></html>"
TAG = "<script type=\"application/json\" data-c>"
View = Callable[[Any], Any]
"""A view; its request is Django's own."""


@pytest.fixture(params=["sync", "async"])
def visit(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Sends a request through the entry to a view, as Django's handlers do."""

    def run(view: View, method: str = "GET", path: str = "/", **given: Any) -> Any:
        if request.param == "sync":
            return CAPIMiddleware(view)(RequestFactory().generic(method, path, **given))

        async def aview(one: Any) -> Any:
            return view(one)

        factory: Any = AsyncRequestFactory()
        return asyncio.run(CAPIMiddleware(aview)(factory.generic(method, path, **given)))

    return run

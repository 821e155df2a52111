"""Django in one file: `gunicorn demo.django_app:application`, `uvicorn demo.django_app:asgi`.

The visitor is request.user, from a real user table.
"""

import itertools
import os
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path

from capi_middleware import UserData, track
from demo.recipe import HOME, PRODUCT, THANKS, environment


def visitor(request: Any) -> UserData | None:
    user = request.user
    return UserData(em=user.email, external_id=user.pk) if user.is_authenticated else None


settings.configure(
    SECRET_KEY=os.environ["CAPI_SECRET_KEY"],
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "capi_middleware.django.CAPIMiddleware",
        "django.middleware.gzip.GZipMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["CAPI_STORE"].removeprefix("sqlite:///") + ".users",
        }
    },
    CAPI={
        "routes": [
            {
                "match": "GET /products/{sku}",
                "event_name": "ViewContent",
                "custom_data": {"content_ids": "{path.sku}"},
            },
            {
                "match": "GET /orders/{number:int}/thanks",
                "event_name": "Purchase",
                "dedupe_key": "{path.number}",
            },
        ],
        "user_data": visitor,
        "consent": {"value": "{cookie.consent}", "granted": ["granted"]},
        **environment(),
    },
)
django.setup()

from django.contrib.auth import get_user_model, login  # noqa: E402 - after the settings
from django.core.management import call_command  # noqa: E402

call_command("migrate", verbosity=0)
orders = itertools.count(1)


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse(HOME)


def consent(request: HttpRequest) -> HttpResponse:
    response = redirect("/")
    response.set_cookie("consent", request.POST["answer"], samesite="Lax")
    return response


def log_in(request: HttpRequest) -> HttpResponse:
    email = request.POST["email"]
    user, _ = get_user_model().objects.get_or_create(username=email, defaults={"email": email})
    login(request, user)
    return redirect("/")


def product(request: HttpRequest, sku: str) -> HttpResponse:
    return HttpResponse(PRODUCT)


async def buy(request: HttpRequest) -> HttpResponse:
    return redirect(f"/orders/{next(orders)}/thanks")


async def thanks(request: HttpRequest, number: int) -> HttpResponse:
    track("Purchase", value=39.0, currency="EUR")
    return HttpResponse(THANKS)


def redirect(url: str) -> HttpResponse:
    return HttpResponseRedirect(url, status=303)


urlpatterns = [
    path("", home),
    path("consent", consent),
    path("login", log_in),
    path("products/<sku>", product),
    path("buy", buy),
    path("orders/<int:number>/thanks", thanks),
]
application = get_wsgi_application()
asgi = get_asgi_application()

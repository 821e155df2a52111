"""The page of shop.py in Django, whose view posts the Purchase with django-facebook-capi."""

import os

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["LOG"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django_facebook_capi"],
    MIGRATION_MODULES={"django_facebook_capi": None},  # it has none for its model
    ROOT_URLCONF=__name__,
    SECRET_KEY="benchmark",
)
django.setup()

from django.core.management import call_command  # noqa: E402 - after the settings
from django_facebook_capi import capi_utils  # noqa: E402

capi_utils.CAPI_URL = f"{os.environ['GRAPH_URL']}/v26.0/1/events"
call_command("migrate", run_syncdb=True, verbosity=0)


def _thanks(request: HttpRequest) -> HttpResponse:
    capi_utils.fb_purchase(request, ["kettle"], 9.5, "EUR", "1001")
    return _other(request)


def _other(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<!doctype html><title>t</title>" + "<p>text</p>" * 900)


urlpatterns = [path("thanks", _thanks), path("other", _other)]
application = WSGIHandler()

"""A Django project without a settings module: importing this is what makes it."""

import django
from django.conf import settings

from tests.support.configs import SECRET

ENTRY = "capi_middleware.django.CAPIMiddleware"

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY=SECRET)
    django.setup()

"""Celery: `celery --app demo.celery_app worker`. A task tracks what only a payment webhook knows.

The broker is the folder CAPI_JOBS, so that this runs without a server; Redis is the same.
"""

import os
from pathlib import Path

from celery import Celery

from capi_middleware import CAPI, Config, UserData, Visitor
from demo.recipe import environment

folder = Path(os.environ["CAPI_JOBS"])
app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(folder),
    "data_folder_out": str(folder),
    "control_folder": str(folder / "control"),
}
# Made before the worker forks: each of its processes opens the store and delivers for itself.
capi = CAPI(Config(**environment()))


@app.task  # type: ignore[untyped-decorator] # Celery has no types
def paid(order: int, visitor: str, email: str) -> None:
    """`visitor` is current_visitor().dumps() of the checkout, kept with the order."""
    capi.track(
        "Purchase",
        visitor=Visitor.loads(visitor),
        dedupe_key=order,
        value=39.0,
        currency="EUR",
        user_data=UserData(em=email),
    )

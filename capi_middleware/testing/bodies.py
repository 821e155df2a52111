"""The three forms in which the Graph API takes a body: JSON, a form, multipart."""

import json
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl


class BodyError(ValueError):
    """A body that is not what its content type says."""


def fields_of(content_type: str, body: bytes) -> dict[str, Any]:
    """The fields of a body; `data` with its elements decoded. Raises BodyError."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            fields = json.loads(body)
        elif kind == "multipart/form-data":
            fields = _multipart(content_type, body)
        else:
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
        if not isinstance(fields, dict):
            raise BodyError("The body must be an object")
        if "data" in fields:
            fields["data"] = _decoded(fields["data"])
    except (ValueError, RecursionError) as error:
        raise BodyError(f"The body cannot be read ({type(error).__name__})") from error
    return fields


def _decoded(data: Any) -> Any:
    # Meta's own SDK posts a JSON list of JSON texts in a form field.
    if isinstance(data, str):
        data = json.loads(data)
    if isinstance(data, list):
        return [json.loads(event) if isinstance(event, str) else event for event in data]
    return data


def _multipart(content_type: str, body: bytes) -> dict[str, str]:
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    fields = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode()
    return fields

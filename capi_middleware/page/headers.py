"""The header lines of a response whose body gets a tag: what no longer holds is taken away."""

from collections.abc import Sequence

Header = tuple[bytes, bytes]

# Each of them describes the bytes or the byte ranges of the body the app made.
_BROKEN = frozenset(
    [b"accept-ranges", b"content-digest", b"content-md5", b"digest", b"repr-digest"]
)


def rewrite(headers: Sequence[Header], *, event_ids: bool, length: int | None) -> list[Header]:
    """The headers of an injected page: a new list, with order and duplicates kept.

    `length` in bytes replaces Content-Length where the app sent one; None removes it.

    A page with `event_ids` loses ETag and Last-Modified: a revalidated copy would show the same
    ids for another view, and Meta drops the second event of an id. Without them a strong ETag
    becomes weak (RFC 9110, section 8.8.1: the bytes differ from those the app tagged).
    """
    rewritten: list[Header] = []
    for header in headers:
        name = header[0].lower()
        if name in _BROKEN:
            continue
        if name == b"content-length":
            if length is not None:
                rewritten.append((header[0], b"%d" % length))
        elif name == b"etag":
            etag = header[1].strip()
            if event_ids:
                continue
            if etag.startswith(b"W/"):
                rewritten.append(header)
            elif etag.startswith(b'"'):
                rewritten.append((header[0], b"W/" + etag))
        elif name != b"last-modified" or not event_ids:
            rewritten.append(header)
    return rewritten


def rewrite_head(headers: Sequence[Header]) -> list[Header]:
    """The headers of the HEAD answer of a page that GET would inject.

    The length of what GET would send is unknown, and the validator has to look like GET's.
    """
    return rewrite(headers, event_ids=False, length=None)

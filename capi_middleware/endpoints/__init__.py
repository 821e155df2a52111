"""What lives under the prefix: for browsers, and for those who read the report."""

#: The longest body of a request to our endpoints, in bytes: the limit of sendBeacon.
BODY_LIMIT = 64 * 1024
#: How long such a body may take, in seconds.
BODY_SECONDS = 5.0
#: How long while another one of the same address is waited for: threads are few, see Patience.
SECOND_BODY_SECONDS = 0.5
#: What pages send events to: it has to come from a page of this site.
EVENTS = frozenset({"b", "t"})
#: What pages ask for, wherever they come from.
PAGES = EVENTS | {"s.js", "s.mjs"}

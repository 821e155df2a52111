"""Every statement that PostgresStore executes on the tables of schema/postgres.sql."""

from typing import Final

from capi_middleware.events import VAGUE_BROWSER_CAUSES

_VAGUE = ", ".join(f"'{cause}'" for cause in VAGUE_BROWSER_CAUSES)

#: The first statement of each transaction: its time and its number, and a limit for all others.
BEGIN: Final = """
SELECT extract(epoch FROM clock_timestamp())::float8, pg_current_xact_id()::text,
       set_config('statement_timeout', '30s', true)
"""
#: The same where nothing is written: a number would cost one.
BEGIN_READING: Final = """
SELECT extract(epoch FROM clock_timestamp())::float8, '',
       set_config('statement_timeout', '30s', true)
"""
#: Right after the start of a transaction that reads in more than one statement.
SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
HAS_SCHEMA: Final = """
SELECT 1 FROM pg_class WHERE relname = 'capi_schema' AND pg_table_is_visible(oid)
"""
XACT_STATUS: Final = "SELECT pg_xact_status(%s::xid8)"

#: Columns as arrays: one statement for a group costs a third of a statement for each row. No
#: (event_id, event_name, pixel_id) may be in it twice.
APPEND: Final = """
INSERT INTO capi_events AS events (event_id, event_name, pixel_id, event_time, created_at, payload,
                                   server, due_at, browser, match_keys, route, page, agent, digest)
SELECT event_id, event_name, pixel_id, event_time, %s, payload, server, %s, browser, match_keys,
       route, page, agent, digest
FROM unnest(%b::text[], %b::text[], %b::text[], %b::float8[], %b::bytea[], %b::text[], %b::text[],
            %b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[])
    AS new (event_id, event_name, pixel_id, event_time, payload, server, browser, match_keys,
            route, page, agent, digest)
ON CONFLICT (event_id, event_name, pixel_id) DO UPDATE SET
    event_time = CASE events.server WHEN 'unknown' THEN excluded.event_time
                 ELSE events.event_time END,
    payload = CASE events.server WHEN 'unknown' THEN excluded.payload ELSE events.payload END,
    due_at = CASE events.server WHEN 'unknown' THEN excluded.due_at ELSE events.due_at END,
    match_keys = CASE events.server WHEN 'unknown' THEN excluded.match_keys
                 ELSE events.match_keys END,
    route = CASE events.server WHEN 'unknown' THEN excluded.route ELSE events.route END,
    page = CASE events.server WHEN 'unknown' THEN excluded.page ELSE events.page END,
    agent = CASE events.server WHEN 'unknown' THEN excluded.agent ELSE events.agent END,
    digest = CASE events.server WHEN 'unknown' THEN excluded.digest ELSE events.digest END,
    server = CASE events.server WHEN 'unknown' THEN excluded.server ELSE events.server END,
    browser = CASE events.browser WHEN 'not_rendered' THEN excluded.browser
              ELSE events.browser END
WHERE events.server = 'unknown' OR events.browser = 'not_rendered'
"""

SIGHT: Final = f"""
INSERT INTO capi_events AS events (event_id, event_name, pixel_id, event_time, created_at, server,
                                   due_at, browser, browser_at, browser_digest, match_keys)
SELECT event_id, event_name, pixel_id, %s, %s, 'unknown', %s, outcome, %s, digest, 0
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
    AS new (event_id, event_name, pixel_id, outcome, digest)
ON CONFLICT (event_id, event_name, pixel_id) DO UPDATE SET
    browser = excluded.browser, browser_at = excluded.browser_at,
    browser_digest = excluded.browser_digest
WHERE events.browser <> excluded.browser
  AND (excluded.browser = 'sent' OR events.browser IN ({_VAGUE}))
  AND events.browser <> 'sent'
"""  # noqa: S608 - our own constants

COUNT: Final = """
INSERT INTO capi_counts AS counts (hour, kind, reason, event_name, pixel_id, n)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (hour, kind, reason, event_name, pixel_id) DO UPDATE SET n = counts.n + excluded.n
"""

#: Ends leases that ran out, those of versions before schema 3 as well. A lease that ends too far in
#: the future was taken before the clock went back, as was a due time set that is too far.
RELEASE: Final = """
WITH ended AS (
    DELETE FROM capi_leases WHERE key IN (
        SELECT key FROM capi_leases
        WHERE until <= %(now)s OR until > %(now)s + %(longest)s FOR UPDATE SKIP LOCKED
    )
), ended_old AS (
    UPDATE capi_events SET server = 'pending', lease_id = NULL, lease_until = NULL
    WHERE key IN (
        SELECT key FROM capi_events
        WHERE pixel_id = %(pixel_id)s AND server = 'leased'
          AND (lease_until <= %(now)s OR lease_until > %(now)s + %(longest)s)
        FOR UPDATE SKIP LOCKED
    )
)
UPDATE capi_events SET due_at = %(now)s
WHERE key IN (
    SELECT key FROM capi_events
    WHERE pixel_id = %(pixel_id)s AND server = 'pending' AND due_at > %(now)s + %(wait)s
    FOR UPDATE SKIP LOCKED
)
"""

DUE: Final = """
SELECT key, event_id, event_name, event_time, payload, attempts,
       event_time < CASE WHEN uncertain OR browser = 'sent' THEN %(dedupe)s::float8
                    ELSE %(oldest)s::float8 END
FROM capi_events AS events
WHERE pixel_id = %(pixel_id)s AND server = 'pending' AND due_at <= %(now)s
  AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = events.key)
ORDER BY due_at, key LIMIT %(limit)s
FOR UPDATE OF events SKIP LOCKED
"""

#: What another courier leased since DUE began is not among them.
LEASE: Final = """
INSERT INTO capi_leases (key, pixel_id, lease_id, until) SELECT unnest(%b::bigint[]), %s, %s, %s
ON CONFLICT DO NOTHING RETURNING key
"""

EXPIRE: Final = "UPDATE capi_events SET server = 'expired', payload = NULL WHERE key = ANY(%s)"

#: Which of some events the lease held.
END_LEASE: Final = "DELETE FROM capi_leases WHERE lease_id = %s AND key = ANY(%b) RETURNING key"

#: One per outcome, with the same parameters. An older version that leased the same has no say.
_SETTLED = "attempts = attempts + attempted, lease_id = NULL"
_SETTLEMENTS = """
FROM unnest(%(keys)b::bigint[], %(reasons)b::text[], %(delays)b::float8[], %(attempted)b::int[],
            %(uncertain)b::boolean[])
    AS new (settled, reason, delay, attempted, uncertain)
WHERE key = settled AND server IN ('pending', 'leased')
"""
SETTLE: Final = {
    "delivered": f"""
UPDATE capi_events AS events SET server = 'delivered', payload = NULL, delivered_at = %(now)s,
    reason = new.reason, {_SETTLED}
{_SETTLEMENTS}""",  # noqa: S608 - our own constants
    "dead": f"""
UPDATE capi_events AS events SET server = 'dead', reason = new.reason, {_SETTLED}
{_SETTLEMENTS}""",  # noqa: S608 - our own constants
    "pending": f"""
UPDATE capi_events AS events SET due_at = %(now)s + delay,
    uncertain = events.uncertain OR new.uncertain, reason = new.reason, {_SETTLED}
{_SETTLEMENTS}""",  # noqa: S608 - our own constants
}

PAUSE: Final = """
INSERT INTO capi_pauses (pixel_id, until, reason, token) VALUES (%s, %s, %s, %s)
ON CONFLICT (pixel_id) DO UPDATE SET
    until = excluded.until, reason = excluded.reason, token = excluded.token
"""

RESUME: Final = "DELETE FROM capi_pauses WHERE pixel_id = %s"

PAUSES: Final = """
SELECT pixel_id, until, reason, token FROM capi_pauses
WHERE until > %(now)s AND until <= %(now)s + %(wait)s
"""

BACKLOG: Final = """
SELECT pixel_id, COUNT(*), MIN(event_time) FROM capi_events
WHERE server IN ('pending', 'leased') GROUP BY pixel_id
"""

DEAD: Final = """
SELECT key, event_id, event_name, pixel_id, event_time, reason, attempts, payload FROM capi_events
WHERE server = 'dead' AND key > %s ORDER BY key LIMIT %s
"""

REQUEUE: Final = """
UPDATE capi_events SET server = 'pending', due_at = %s, attempts = 0, uncertain = false
WHERE server = 'dead' AND payload IS NOT NULL AND key = ANY(%s)
"""

DROP: Final = """
UPDATE capi_events SET server = 'dropped', payload = NULL WHERE server = 'dead' AND key = ANY(%s)
RETURNING event_name, pixel_id
"""

NEXT_DUE: Final = """
SELECT
    (SELECT due_at FROM capi_events AS events WHERE pixel_id = %(pixel_id)s AND server = 'pending'
       AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = events.key)
     ORDER BY due_at LIMIT 1),
    (SELECT MIN(CASE WHEN until > %(now)s + %(longest)s THEN %(now)s ELSE until END)
     FROM capi_leases WHERE pixel_id = %(pixel_id)s),
    (SELECT MIN(CASE WHEN lease_until > %(now)s + %(longest)s THEN %(now)s ELSE lease_until END)
     FROM capi_events WHERE pixel_id = %(pixel_id)s AND server = 'leased')
"""

_KNOWN = """
SELECT key, event_id, event_name, pixel_id, event_time,
       CASE WHEN server = 'pending' AND EXISTS (
           SELECT FROM capi_leases AS leases WHERE leases.key = events.key
       ) THEN 'leased' ELSE server END AS server,
       browser, reason, attempts
FROM capi_events AS events
"""

FIND: Final = f"{_KNOWN} WHERE event_id = ANY(%s) ORDER BY key"

RECENT: Final = f"{_KNOWN} WHERE key > %s ORDER BY key LIMIT %s"

NEWEST: Final = f"""
SELECT * FROM ({_KNOWN} ORDER BY key DESC LIMIT %s) AS newest ORDER BY key
"""  # noqa: S608 - our own constants

KEEP: Final = "INSERT INTO capi_kept (name, body) VALUES (%s, %s) ON CONFLICT DO NOTHING"

KEEP_INSTEAD: Final = "UPDATE capi_kept SET body = %s WHERE name = %s AND body = %s"

KEPT: Final = "SELECT body FROM capi_kept WHERE name = %s"

PRUNE: Final = """
DELETE FROM capi_events WHERE key IN (
    SELECT key FROM capi_events
    WHERE event_time < %s AND server NOT IN ('pending', 'leased') LIMIT %s FOR UPDATE SKIP LOCKED
)
"""

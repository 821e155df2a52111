"""Every statement that SqliteStore executes on the tables of schema/sqlite.sql."""

from typing import Final

from capi_middleware.events import VAGUE_BROWSER_CAUSES
from capi_middleware.store.sqlite_many import for_many

_VAGUE = ", ".join(f"'{cause}'" for cause in VAGUE_BROWSER_CAUSES)

_APPEND = """
INSERT INTO events (event_id, event_name, pixel_id, event_time, payload, server, browser,
                    match_keys, route, page, agent, digest, created_at, due_at)
VALUES {rows}
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

_SIGHT = f"""
INSERT INTO events (event_id, event_name, pixel_id, browser, browser_digest, event_time,
                    created_at, due_at, browser_at, server, match_keys)
VALUES {{rows}}
ON CONFLICT (event_id, event_name, pixel_id) DO UPDATE SET
    browser = excluded.browser, browser_at = excluded.browser_at,
    browser_digest = excluded.browser_digest
WHERE events.browser <> excluded.browser
  AND (excluded.browser = 'sent' OR events.browser IN ({_VAGUE}))
  AND events.browser <> 'sent'
"""  # noqa: S608 - our own constants

#: The fields of a Row and of a Sighting, in their order; the shared parameter is now.
APPEND: Final = for_many(_APPEND, 12, shared=1, more=", ?1, ?1")
SIGHT: Final = for_many(_SIGHT, 5, shared=1, more=", ?1, ?1, ?1, ?1, 'unknown', 0")

COUNT: Final = """
INSERT INTO counts (hour, kind, reason, event_name, pixel_id, n) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (hour, kind, reason, event_name, pixel_id) DO UPDATE SET n = n + excluded.n
"""

#: A lease that ends too far in the future was taken before the clock went back.
RELEASE: Final = "DELETE FROM leases WHERE until <= :now OR until > :now + :longest"

#: The same for those of versions before schema 4.
RELEASE_OLD: Final = """
UPDATE events SET server = 'pending', lease_id = NULL, lease_until = NULL
WHERE pixel_id = :pixel_id AND server = 'leased' AND server IN ('pending', 'leased')
  AND (lease_until <= :now OR lease_until > :now + :longest)
"""

#: A due time too far in the future was set before the clock went back.
HURRY: Final = """
UPDATE events SET due_at = :now
WHERE pixel_id = :pixel_id AND server = 'pending' AND server IN ('pending', 'leased')
  AND due_at > :now + :wait
"""

#: The keys that are due, in order, and those of them that are too old: two lists in JSON.
DUE: Final = """
SELECT json_group_array(key), json_group_array(key) FILTER (WHERE too_old) FROM (
    SELECT key, event_time < CASE WHEN uncertain OR browser = 'sent' THEN :dedupe ELSE :oldest END
           AS too_old
    FROM events
    WHERE pixel_id = :pixel_id AND server = 'pending' AND server IN ('pending', 'leased')
      AND due_at <= :now AND key NOT IN (SELECT key FROM leases)
    ORDER BY due_at, key LIMIT :limit
)
"""

EXPIRE: Final = """
UPDATE events SET server = 'expired', payload = NULL
WHERE key IN (SELECT value FROM json_each(?))
"""

LEASE: Final = """
INSERT INTO leases (key, pixel_id, lease_id, until)
SELECT key, pixel_id, :lease_id, :until FROM events
WHERE server = 'pending' AND key IN (SELECT value FROM json_each(:due))
"""

#: What was leased, in the order of the keys; read after the commit, without the write lock.
LEASED: Final = """
SELECT events.key, event_id, event_name, event_time, payload, attempts
FROM json_each(:due) AS due CROSS JOIN events ON events.key = due.value
WHERE events.key IN (SELECT key FROM leases WHERE lease_id = :lease_id) ORDER BY due.key
"""

#: Those of `keys` that a lease holds, and that no older version beside us settled.
HELD: Final = """
server IN ('pending', 'leased') AND key IN (
    SELECT key FROM leases
    WHERE lease_id = :lease_id AND key IN (SELECT value FROM json_each(:keys))
)
"""

#: One per outcome, with the same parameters. An older version that leased the same has no say.
SETTLE: Final = {
    "delivered": f"""
UPDATE events SET server = 'delivered', payload = NULL, delivered_at = :now, reason = :reason,
    attempts = attempts + :attempted, lease_id = NULL
WHERE {HELD}
""",  # noqa: S608 - our own constants
    "dead": f"""
UPDATE events SET server = 'dead', reason = :reason,
    attempts = attempts + :attempted, lease_id = NULL
WHERE {HELD}
""",  # noqa: S608 - our own constants
    "pending": f"""
UPDATE events SET due_at = :now + :delay, reason = :reason, attempts = attempts + :attempted,
    uncertain = MAX(uncertain, :uncertain), lease_id = NULL
WHERE {HELD}
""",  # noqa: S608 - our own constants
}

END_LEASE: Final = """
DELETE FROM leases WHERE key IN (SELECT value FROM json_each(:keys)) AND lease_id = :lease_id
"""

PAUSE: Final = """
INSERT INTO pauses (pixel_id, until, reason, token) VALUES (?, ?, ?, ?)
ON CONFLICT (pixel_id) DO UPDATE SET
    until = excluded.until, reason = excluded.reason, token = excluded.token
"""

RESUME: Final = "DELETE FROM pauses WHERE pixel_id = ?"

PAUSES: Final = """
SELECT pixel_id, until, reason, token FROM pauses WHERE until > :now AND until <= :now + :wait
"""

BACKLOG: Final = """
SELECT pixel_id, COUNT(*), MIN(event_time) FROM events
WHERE server IN ('pending', 'leased') GROUP BY pixel_id
"""

DEAD: Final = """
SELECT key, event_id, event_name, pixel_id, event_time, reason, attempts, payload FROM events
WHERE server = 'dead' AND key > ? ORDER BY key LIMIT ?
"""

REQUEUE: Final = """
UPDATE events SET server = 'pending', due_at = :now, attempts = 0, uncertain = 0
WHERE server = 'dead' AND payload IS NOT NULL AND key = :key
"""

DROP_COUNT: Final = """
INSERT INTO counts (hour, kind, reason, event_name, pixel_id, n)
SELECT :hour, 'dropped', 'dead_letter', event_name, pixel_id, 1 FROM events
WHERE server = 'dead' AND key = :key
ON CONFLICT (hour, kind, reason, event_name, pixel_id) DO UPDATE SET n = n + excluded.n
"""

DROP: Final = (
    "UPDATE events SET server = 'dropped', payload = NULL WHERE server = 'dead' AND key = :key"
)

NEXT_DUE: Final = """
SELECT
    (SELECT MIN(due_at) FROM events
     WHERE pixel_id = :pixel_id AND server = 'pending' AND server IN ('pending', 'leased')
       AND key NOT IN (SELECT key FROM leases)),
    (SELECT MIN(CASE WHEN until > :now + :longest THEN :now ELSE until END)
     FROM leases WHERE pixel_id = :pixel_id),
    (SELECT MIN(CASE WHEN lease_until > :now + :longest THEN :now ELSE lease_until END)
     FROM events
     WHERE pixel_id = :pixel_id AND server = 'leased' AND server IN ('pending', 'leased'))
"""

_KNOWN = """
SELECT key, event_id, event_name, pixel_id, event_time,
    CASE WHEN server = 'pending' AND key IN (SELECT key FROM leases) THEN 'leased' ELSE server END,
    browser, reason, attempts
FROM events
"""

#: One for each event_id.
FIND: Final = f"{_KNOWN} WHERE event_id = ?"

RECENT: Final = f"{_KNOWN} WHERE key > ? ORDER BY key LIMIT ?"

NEWEST: Final = f"SELECT * FROM ({_KNOWN} ORDER BY key DESC LIMIT ?) ORDER BY key"  # noqa: S608

KEEP: Final = "INSERT INTO kept (name, body) VALUES (?, ?) ON CONFLICT DO NOTHING"

KEEP_INSTEAD: Final = "UPDATE kept SET body = ? WHERE name = ? AND body = ?"

KEPT: Final = "SELECT body FROM kept WHERE name = ?"

PRUNE: Final = """
DELETE FROM events WHERE key IN (
    SELECT key FROM events
    WHERE event_time < ? AND server NOT IN ('pending', 'leased') LIMIT ?
)
"""

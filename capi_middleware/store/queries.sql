-- What every engine runs. A line "-- name: x" begins a query; ":x" is a parameter, "= ANY(:x)" wants
-- a list, what stands in braces is in store.py. "WITH new MANY (column type, …)" takes many rows
-- at once. SQLite knows no prefix capi_ and needs no FOR UPDATE.

-- name: append
-- One row may be in it only once. The columns are fields of events.Row.
INSERT INTO capi_events AS events (event_id, event_name, pixel_id, event_time, server,
    browser, match_keys, route, page, segment, digest, uses, currency, amount, created_at, due_at)
WITH new MANY (event_id text, event_name text, pixel_id text, event_time float8,
    server text, browser text, match_keys bigint, route text, page text, segment text, digest text,
    uses text, currency text, amount bigint)
SELECT event_id, event_name, pixel_id, event_time, server, browser, match_keys, route,
    page, segment, digest, uses, currency, amount, :now, :now
FROM new WHERE true
ON CONFLICT (event_id, event_name, pixel_id) DO UPDATE SET
    event_time = CASE WHEN events.server IN ({browser_only})
        THEN excluded.event_time ELSE events.event_time END,
    due_at = CASE WHEN events.server IN ({browser_only})
        THEN excluded.due_at ELSE events.due_at END,
    match_keys = CASE WHEN events.server IN ({browser_only})
        THEN excluded.match_keys ELSE events.match_keys END,
    route = CASE WHEN events.server IN ({browser_only})
        THEN excluded.route ELSE events.route END,
    page = CASE WHEN events.server IN ({browser_only})
        THEN excluded.page ELSE events.page END,
    segment = CASE WHEN events.server IN ({browser_only})
        THEN excluded.segment ELSE events.segment END,
    digest = CASE WHEN events.server IN ({browser_only})
        THEN excluded.digest ELSE events.digest END,
    currency = CASE WHEN events.server IN ({browser_only})
        THEN excluded.currency ELSE events.currency END,
    amount = CASE WHEN events.server IN ({browser_only})
        THEN excluded.amount ELSE events.amount END,
    uses = CASE excluded.uses WHEN '' THEN events.uses ELSE excluded.uses END,
    server = CASE WHEN events.server IN ({browser_only})
        THEN excluded.server ELSE events.server END,
    browser = CASE WHEN events.browser IN ('not_rendered', 'unpaired')
        OR (events.browser IN ({unseen}) AND excluded.browser <> 'not_rendered')
        THEN excluded.browser ELSE events.browser END
WHERE events.server IN ({browser_only}) OR events.browser IN ({unseen})
   OR (excluded.uses <> '' AND excluded.uses <> events.uses)

-- name: used
-- What is known of these event_ids, under all names.
SELECT event_id, event_name, pixel_id, uses, digest, CASE route WHEN '' THEN page ELSE route END,
    server, key
FROM capi_events WHERE event_id = ANY(:event_ids)

-- name: set_aside
-- Of one that Meta took both copies are kept, each as an event of its own.
UPDATE capi_events SET event_id = event_id || '~' || CAST(key AS text),
    server = CASE server WHEN 'delivered' THEN server ELSE 'unsigned' END
WHERE key = ANY(:keys)

-- name: unsend
DELETE FROM capi_payloads WHERE key = ANY(:keys)

-- name: unlease
DELETE FROM capi_leases WHERE key = ANY(:keys)

-- name: append_payloads
-- Of the rows that `append` made, or took over, in this transaction: nobody else settles these.
INSERT INTO capi_payloads (key, payload)
WITH new MANY (event_id text, event_name text, pixel_id text, payload bytea)
SELECT key, payload FROM new JOIN capi_events USING (event_id, event_name, pixel_id)
WHERE server = 'pending' AND due_at = :now
ON CONFLICT (key) DO NOTHING

-- name: sight
-- One event may be in it only once. The columns are fields of events.Sighting. What another browser
-- (the first part of `uses`) could not send tells of a stored copy of the page. Of an id that is not
-- ours only who told of it first is heard: the same browser, or the same address.
INSERT INTO capi_events AS events (event_id, event_name, pixel_id, browser, browser_digest, uses,
    event_time, created_at, due_at, browser_at, server, match_keys)
WITH new MANY (event_id text, event_name text, pixel_id text, outcome text, digest text, uses text,
    server text)
SELECT event_id, event_name, pixel_id, outcome, digest, uses, :now, :now, :now, :now, server, 0
FROM new WHERE true
ON CONFLICT (event_id, event_name, pixel_id) DO UPDATE SET
    browser = CASE WHEN excluded.browser <> 'sent' AND length(events.uses) IN (16, 24)
        AND length(excluded.uses) = 16 AND substr(events.uses, 1, 1) <> '-'
        AND substr(excluded.uses, 1, 1) <> '-'
        AND substr(events.uses, 1, 8) <> substr(excluded.uses, 1, 8)
        THEN 'replay' ELSE excluded.browser END,
    browser_at = excluded.browser_at,
    browser_digest = excluded.browser_digest
WHERE events.browser <> excluded.browser
  AND (excluded.browser = 'sent' OR events.browser IN ({vague}))
  AND events.browser <> 'sent'
  AND (excluded.server <> 'unsigned' OR events.uses = ''
       OR (substr(excluded.uses, 1, 8) <> '--------'
           AND substr(events.uses, 1, 8) = substr(excluded.uses, 1, 8))
       OR substr(events.uses, 9, 8) = substr(excluded.uses, 9, 8))

-- name: count
INSERT INTO capi_counts AS counts (hour, kind, reason, event_name, pixel_id, n)
WITH new MANY (hour bigint, kind text, reason text, event_name text, pixel_id text, n bigint)
SELECT hour, kind, reason, event_name, pixel_id, n FROM new WHERE true
ON CONFLICT (hour, kind, reason, event_name, pixel_id) DO UPDATE SET n = counts.n + excluded.n

-- name: expire
UPDATE capi_events SET server = 'expired' WHERE key = ANY(:keys)

-- name: settle_delivered
UPDATE capi_events SET server = 'delivered', delivered_at = :now,
    reason = :reason, attempts = attempts + :attempted, trace = :trace
WHERE key IN (SELECT key FROM capi_leases WHERE lease_id = :lease_id AND key = ANY(:keys))

-- name: settle_dead
UPDATE capi_events SET server = 'dead', reason = :reason, attempts = attempts + :attempted,
    trace = :trace
WHERE key IN (SELECT key FROM capi_leases WHERE lease_id = :lease_id AND key = ANY(:keys))

-- name: settle_stopped
UPDATE capi_events SET server = 'stopped', reason = :reason
WHERE key IN (SELECT key FROM capi_leases WHERE lease_id = :lease_id AND key = ANY(:keys))

-- name: settle_pending
UPDATE capi_events SET due_at = :now + :delay, reason = :reason,
    attempts = attempts + :attempted, trace = :trace,
    uncertain = CASE WHEN :uncertain > 0 THEN 1 ELSE uncertain END
WHERE key IN (SELECT key FROM capi_leases WHERE lease_id = :lease_id AND key = ANY(:keys))

-- name: settle_refused
UPDATE capi_events SET suspect = :suspect, reason = :reason, trace = :trace
WHERE key IN (SELECT key FROM capi_leases WHERE lease_id = :lease_id AND key = ANY(:keys))

-- name: forget_payloads
-- Nobody sends these any more.
DELETE FROM capi_payloads WHERE key IN (
    SELECT key FROM capi_events WHERE server NOT IN ('pending', 'dead') AND key = ANY(:keys)
)

-- name: end_lease
DELETE FROM capi_leases WHERE key = ANY(:keys) AND lease_id = :lease_id

-- name: next_due
-- What is too far in the future was set before the clock went back.
SELECT MIN(CASE WHEN due_at > :now AND due_at <= :now + {wait} THEN due_at - :now ELSE 0.0 END)
FROM (
    SELECT * FROM (
        SELECT due_at FROM capi_events AS events
        WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 0
          AND NOT EXISTS (SELECT 1 FROM capi_leases AS leases WHERE leases.key = events.key)
        ORDER BY due_at LIMIT 1
    ) AS conversion
    UNION ALL SELECT * FROM (
        SELECT due_at FROM capi_events AS events
        WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 1
          AND NOT EXISTS (SELECT 1 FROM capi_leases AS leases WHERE leases.key = events.key)
        ORDER BY due_at LIMIT 1
    ) AS suspect
    UNION ALL SELECT * FROM (
        SELECT due_at FROM capi_events AS events
        WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 2
          AND NOT EXISTS (SELECT 1 FROM capi_leases AS leases WHERE leases.key = events.key)
        ORDER BY due_at LIMIT 1
    ) AS view
    UNION ALL SELECT CASE WHEN until > :now + {longest} THEN :now ELSE until END
    FROM capi_leases WHERE pixel_id = :pixel_id
) AS times

-- name: conversion_waits
-- Of conversions, which are all events but page views, one that is due.
SELECT EXISTS (
    SELECT 1 FROM capi_events AS events WHERE pixel_id = :pixel_id AND server = 'pending'
      AND rank IN (0, 1) AND due_at <= :now AND event_name <> 'PageView'
      AND NOT EXISTS (SELECT 1 FROM capi_leases AS leases WHERE leases.key = events.key)
)

-- name: pixels_waiting
-- One step of the index for each pixel, however many events wait.
WITH RECURSIVE waiting (pixel_id) AS (
    SELECT MIN(pixel_id) FROM capi_events WHERE server = 'pending'
    UNION ALL
    SELECT (
        SELECT MIN(pixel_id) FROM capi_events AS events
        WHERE server = 'pending' AND events.pixel_id > waiting.pixel_id
    ) FROM waiting WHERE waiting.pixel_id IS NOT NULL
)
SELECT pixel_id FROM waiting WHERE pixel_id IS NOT NULL

-- name: pause
-- Who was told to wait for longer still does, unless the clock went back since. Several that failed
-- at once are one failure.
INSERT INTO capi_pauses AS pauses (pixel_id, token, since, until, reason)
VALUES (:pixel_id, :token, :now, :now + :seconds, :reason)
ON CONFLICT (pixel_id, token) DO UPDATE SET
    since = excluded.since, trying = 0,
    failures = pauses.failures + CASE WHEN pauses.until > excluded.since
               AND pauses.since <= excluded.since + {slack} THEN 0 ELSE 1 END,
    until = CASE WHEN pauses.until > excluded.until AND pauses.since <= excluded.since + {slack}
            THEN pauses.until ELSE excluded.until END,
    reason = CASE WHEN pauses.until > excluded.until AND pauses.since <= excluded.since + {slack}
             THEN pauses.reason ELSE excluded.reason END

-- name: resume
DELETE FROM capi_pauses WHERE pixel_id = :pixel_id AND token IN ('', :token)

-- name: pauses
-- One that began in the future did so before the clock went back.
SELECT pixel_id, until, reason, token FROM capi_pauses
WHERE until > :now AND since <= :now + {slack} ORDER BY pixel_id, token

-- name: rest
SELECT COUNT(*), COALESCE(MAX(failures), 0), COALESCE(MAX(CASE
    WHEN until > :now AND since <= :now + {slack} THEN until - :now
    WHEN trying > :now AND trying <= :now + {longest} THEN trying - :now ELSE 0.0 END), 0.0)
FROM capi_pauses WHERE pixel_id = :pixel_id AND token IN ('', :token)

-- name: try
UPDATE capi_pauses SET trying = :now + :seconds
WHERE pixel_id = :pixel_id AND token IN ('', :token)
  AND NOT (until > :now AND since <= :now + {slack})
  AND NOT (trying > :now AND trying <= :now + {longest})

-- name: backlog
SELECT pixel_id, COUNT(*), MAX(CASE WHEN event_time < :now THEN :now - event_time ELSE 0.0 END)
FROM capi_events WHERE server = 'pending' GROUP BY pixel_id

-- name: dead
SELECT key, event_id, event_name, pixel_id, event_time, reason, attempts, payload
FROM capi_events JOIN capi_payloads USING (key) WHERE server = 'dead' AND key > :after ORDER BY key LIMIT :limit

-- name: requeue
UPDATE capi_events SET server = 'pending', due_at = :now, attempts = 0, uncertain = 0,
    suspect = 0
WHERE server = 'dead' AND key = ANY(:keys)

-- name: count_given_up
INSERT INTO capi_counts AS counts (hour, kind, reason, event_name, pixel_id, n)
SELECT :hour, CAST(:kind AS text), CAST(:reason AS text), event_name, pixel_id, COUNT(*) FROM (
    SELECT event_name, pixel_id FROM capi_events
    WHERE server = ANY(:servers) AND key = ANY(:keys) ORDER BY key FOR UPDATE
) AS given_up WHERE true GROUP BY event_name, pixel_id ORDER BY event_name, pixel_id
ON CONFLICT (hour, kind, reason, event_name, pixel_id) DO UPDATE SET n = counts.n + excluded.n

-- name: drop
UPDATE capi_events SET server = 'dropped' WHERE server = 'dead' AND key = ANY(:keys)

-- name: payloads
SELECT key, payload FROM capi_payloads WHERE key > :after ORDER BY key LIMIT :limit

-- name: lock_waiting
-- Before `unleased`: nobody leases these until the end of the transaction.
SELECT key FROM capi_events WHERE server IN ('pending', 'dead') AND key = ANY(:keys)
FOR UPDATE SKIP LOCKED

-- name: unleased
SELECT key, server FROM capi_events AS events WHERE key = ANY(:keys)
  AND NOT EXISTS (SELECT 1 FROM capi_leases AS leases WHERE leases.key = events.key)

-- name: forget_event
UPDATE capi_events SET server = 'stopped', reason = 'forgotten', uses = '' WHERE key = ANY(:keys)

-- name: find
SELECT * FROM capi_known WHERE event_id = ANY(:event_ids) ORDER BY key

-- name: recent
SELECT * FROM capi_known WHERE key > :after ORDER BY key LIMIT :limit

-- name: newest
SELECT * FROM (SELECT * FROM capi_known ORDER BY key DESC LIMIT :limit) AS newest ORDER BY key

-- name: newest_of
-- "" is each name and each pixel; a pixel's id ends with `owner`, see config.pixels.own_id.
SELECT * FROM (
    SELECT * FROM capi_known
    WHERE key > (SELECT MAX(key) FROM capi_events) - {among}
      AND CAST(:name AS text) IN ('', event_name)
      AND substr(pixel_id, length(pixel_id) - length(CAST(:owner AS text)) + 1) = :owner
    ORDER BY key DESC LIMIT :limit
) AS newest ORDER BY key

-- name: keep
INSERT INTO capi_kept (name, body) VALUES (:name, :body) ON CONFLICT DO NOTHING

-- name: keep_instead
UPDATE capi_kept SET body = :body WHERE name = :name AND body = :instead_of

-- name: forget
DELETE FROM capi_kept WHERE name = :name

-- name: kept
SELECT body FROM capi_kept WHERE name = :name

-- name: prune
DELETE FROM capi_events WHERE key IN (
    SELECT key FROM capi_events WHERE event_time < :before AND server <> 'pending' LIMIT :limit
    FOR UPDATE SKIP LOCKED
)

-- name: add_keys
INSERT INTO capi_rollup_keys (facet, value, pixel_id, event_name, server, browser)
WITH new MANY (facet text, value text, pixel_id text, event_name text, server text, browser text)
SELECT facet, value, pixel_id, event_name, server, browser FROM new WHERE true
ON CONFLICT DO NOTHING

-- name: find_keys
WITH new MANY (facet text, value text, pixel_id text, event_name text, server text, browser text)
SELECT facet, value, pixel_id, event_name, server, browser, key
FROM new JOIN capi_rollup_keys USING (facet, value, pixel_id, event_name, server, browser)

-- name: add
INSERT INTO capi_rollups AS rollups (facet, span, start, key, n)
WITH new MANY (facet text, span smallint, start bigint, key bigint, n bigint)
SELECT facet, span, start, key, n FROM new WHERE true
ON CONFLICT (facet, span, start, key) DO UPDATE SET n = rollups.n + excluded.n

-- name: forget_empty
-- What went on to another state leaves no empty sum behind.
DELETE FROM capi_rollups WHERE (facet, span, start, key) IN (
    WITH new MANY (facet text, span smallint, start bigint, key bigint)
    SELECT facet, span, start, key FROM new
) AND n = 0

-- name: sums
-- See rollups.Window: ranges of the primary key for each facet.
SELECT k.facet, k.value, k.pixel_id, k.event_name, k.server, k.browser, s.n FROM (
    SELECT key, CAST(SUM(n) AS bigint) AS n FROM (
        SELECT key, n FROM capi_rollups
        WHERE facet = ANY(:facets) AND span = 1 AND start >= :start AND start < :first_quarter
        UNION ALL SELECT key, n FROM capi_rollups
        WHERE facet = ANY(:facets) AND span = 6 AND start >= :first_quarter AND start < :first_day
        UNION ALL SELECT key, n FROM capi_rollups
        WHERE facet = ANY(:facets) AND span = 24 AND start >= :first_day AND start < :last_day
        UNION ALL SELECT key, n FROM capi_rollups
        WHERE facet = ANY(:facets) AND span = 6 AND start >= :last_day AND start < :last_quarter
        UNION ALL SELECT key, n FROM capi_rollups
        WHERE facet = ANY(:facets) AND span = 1 AND start >= :last_quarter AND start < :end
    ) AS parts GROUP BY key
) AS s JOIN capi_rollup_keys AS k ON k.key = s.key

-- name: hours
SELECT 'hour', CAST(r.start * 3600 AS TEXT), k.pixel_id, k.event_name, k.server, k.browser, r.n
FROM capi_rollups AS r JOIN capi_rollup_keys AS k ON k.key = r.key
WHERE r.facet = 'hour' AND r.span = 1 AND r.start >= :start AND r.start < :end

-- name: changes_of_window
SELECT {state}, CAST(SUM(n) AS bigint), 0, CAST(SUM(amount) AS bigint) FROM capi_unsummed
WHERE hour >= :start AND hour < :end GROUP BY {state}

-- name: counts
SELECT kind, reason, event_name, pixel_id, CAST(SUM(n) AS bigint) FROM capi_counts
WHERE hour >= :start AND hour < :end
GROUP BY kind, reason, event_name, pixel_id

-- name: depth
SELECT k.server, r.n FROM capi_rollups AS r JOIN capi_rollup_keys AS k ON k.key = r.key
WHERE r.facet = 'depth' AND r.span = 0
UNION ALL SELECT server, CAST(SUM(rows) AS bigint) FROM capi_unsummed GROUP BY server

-- name: held
SELECT COUNT(*) FROM capi_leases

-- name: keep_totals
-- What is older than all windows lives on in hour 0: the counters of /metrics never go back.
INSERT INTO capi_rollups AS rollups (facet, span, start, key, n)
SELECT facet, span, 0, key, CAST(SUM(n) AS bigint) FROM capi_rollups
WHERE facet = 'match_keys' AND span = 24 AND start > 0 AND start < :oldest
GROUP BY facet, span, key
ON CONFLICT (facet, span, start, key) DO UPDATE SET n = rollups.n + excluded.n

-- name: keep_counts
INSERT INTO capi_counts AS counts (hour, kind, reason, event_name, pixel_id, n)
SELECT 0, kind, reason, event_name, pixel_id, CAST(SUM(n) AS bigint) FROM capi_counts
WHERE hour > 0 AND hour < :oldest GROUP BY kind, reason, event_name, pixel_id
ON CONFLICT (hour, kind, reason, event_name, pixel_id) DO UPDATE SET n = counts.n + excluded.n

-- name: facets
SELECT DISTINCT facet FROM capi_rollup_keys WHERE facet <> 'depth'

-- name: prune_rollups
DELETE FROM capi_rollups WHERE facet = :facet AND span = :span AND start > 0 AND start < :oldest

-- name: prune_keys
-- Of keys that no sum of `span` has any more.
DELETE FROM capi_rollup_keys WHERE key IN (
    SELECT key FROM capi_rollup_keys WHERE facet = :facet
    EXCEPT SELECT key FROM capi_rollups WHERE facet = :facet AND span = :span
)

-- name: prune_counts
DELETE FROM capi_counts WHERE hour > 0 AND hour < :oldest

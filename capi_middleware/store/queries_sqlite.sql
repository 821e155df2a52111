-- What SQLite does in its own way. Each step of a statement lets go of the interpreter's lock: lists
-- of keys are one value in JSON, and what is leased is read after the commit.

-- name: release
-- A lease that ends too far in the future was taken before the clock went back.
DELETE FROM leases WHERE until <= :now OR until > :now + {longest}

-- name: hurry
-- A due time too far in the future was set before the clock went back.
UPDATE events SET due_at = :now
WHERE pixel_id = :pixel_id AND server = 'pending' AND rank IN (0, 1, 2) AND due_at > :now + :wait

-- name: due
-- The keys that are due, in order, and those of them that are too old. See Store.lease. Nobody tried
-- to send an event before it was stored, whenever it happened.
WITH suspects AS (
    SELECT key, event_time, created_at, due_at, uncertain, browser, suspect FROM events
    WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 1 AND due_at <= :now
      AND key NOT IN (SELECT key FROM leases)
), together AS (
    SELECT key, event_time, created_at, due_at, uncertain, browser FROM suspects
    WHERE suspect = (SELECT MIN(suspect) FROM suspects)
)
SELECT json_group_array(key), json_group_array(key) FILTER (
    WHERE event_time < :surely - CASE WHEN browser = 'sent' THEN {dedupe} ELSE {oldest} END
       OR (uncertain AND MAX(event_time, created_at) < :surely - {dedupe})
) FROM (
    SELECT * FROM (SELECT * FROM (
        SELECT key, event_time, created_at, due_at, uncertain, browser FROM events
        WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 0
          AND due_at > :now - {fresh} AND due_at <= :now
          AND key NOT IN (SELECT key FROM leases)
        ORDER BY due_at DESC, key LIMIT :limit
    ) ORDER BY due_at, key)
    UNION ALL SELECT * FROM together
    UNION ALL SELECT * FROM (
        SELECT key, event_time, created_at, due_at, uncertain, browser FROM events
        WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 0
          AND due_at <= :now - {fresh}
          AND key NOT IN (SELECT key FROM leases)
        ORDER BY due_at, key LIMIT :limit
    )
    UNION ALL SELECT * FROM (
        SELECT key, event_time, created_at, due_at, uncertain, browser FROM events
        WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 2 AND due_at <= :now
          AND key NOT IN (SELECT key FROM leases)
        ORDER BY due_at, key LIMIT :limit
    )
    LIMIT :limit + (SELECT COUNT(*) FROM together)
)

-- name: look
-- A due time too far in the future was set before the clock went back, as was the end of a lease.
SELECT value FROM json_each(:pixel_ids) AS pixels
WHERE EXISTS (
    SELECT 1 FROM events WHERE pixel_id = pixels.value AND server = 'pending' AND rank IN (0, 1, 2) AND due_at <= :now
      AND key NOT IN (SELECT key FROM leases)
) OR EXISTS (
    SELECT 1 FROM events
    WHERE pixel_id = pixels.value AND server = 'pending' AND rank IN (0, 1, 2) AND due_at > :now + {wait}
) OR value IN (SELECT pixel_id FROM leases WHERE until <= :now OR until > :now + {longest})

-- name: lease
INSERT INTO leases (key, pixel_id, lease_id, until)
SELECT key, pixel_id, :lease_id, :until FROM events
WHERE server = 'pending' AND key = ANY(:due)

-- name: leased
SELECT events.key, event_id, event_name, event_time, payload, attempts, suspect,
    rank = 0 AND due_at > :now - {fresh}
FROM json_each(:due) AS due CROSS JOIN events ON events.key = due.value
CROSS JOIN payloads ON payloads.key = due.value
WHERE events.key IN (SELECT key FROM leases WHERE lease_id = :lease_id) ORDER BY due.key

-- name: note
-- What a settlement changed, for all its rows together: before, they were {waiting}. See trigger.
INSERT INTO changes ({state}, n, rows, amount)
WITH settled AS (
    SELECT {state}, COUNT(*) AS n, SUM(amount) AS amount FROM events
    WHERE key IN (SELECT key FROM leases WHERE lease_id = :lease_id AND key = ANY(:keys))
      AND key <= (SELECT key FROM summed)
    GROUP BY {state}
)
SELECT {state}, n, n, amount FROM settled
UNION ALL SELECT {waiting}, -n, -n, -amount FROM settled

-- name: trigger
-- Off and on: the triggers fire for nothing that is not summed.
UPDATE summed SET key = -1 - key

-- name: folded
-- Up to which change and which row a step of `limit` goes, each with the last that there is.
SELECT MIN(first_change + :limit, last_change), last_change,
    MIN(summed + :limit, last_row), last_row
FROM (SELECT (SELECT COALESCE(MIN(key), 0) FROM changes) AS first_change,
    (SELECT COALESCE(MAX(key), 0) FROM changes) AS last_change,
    (SELECT key FROM summed) AS summed,
    (SELECT COALESCE(MAX(key), 0) FROM events) AS last_row)

-- name: changes
-- Apart from the fresh ones, as SQLite sorts what comes from one table for less.
SELECT {state}, SUM(n), SUM(rows), SUM(amount) FROM changes WHERE key <= :to GROUP BY {state}

-- name: fresh
SELECT {state}, COUNT(*), COUNT(*), SUM(amount) FROM fresh WHERE key <= :to GROUP BY {state}

-- name: forget_changes
DELETE FROM changes WHERE key <= :to

-- name: summed
UPDATE summed SET key = :to

-- name: forget_empty
-- Of these facets all that are empty: SQLite would look for the others among all sums of a facet.
DELETE FROM rollups INDEXED BY rollups_empty WHERE n = 0 AND facet IN (
    WITH new MANY (facet text, span smallint, start bigint, key bigint) SELECT facet FROM new
)

-- name: rescue
-- Rows of a damaged file; a browser may have told of one again before it came, see sight.
INSERT INTO events (event_id, event_name, pixel_id, event_time, created_at, server, reason,
    attempts, due_at, delivered_at, browser, browser_at, match_keys, uncertain, route, page, segment,
    digest, browser_digest, uses, currency, amount, trace)
WITH new MANY (event_id text, event_name text, pixel_id text, event_time float8,
    created_at float8, server text, reason text, attempts bigint, due_at float8,
    delivered_at float8, browser text, browser_at float8, match_keys bigint, uncertain bigint,
    route text, page text, segment text, digest text, browser_digest text,
    uses text, currency text, amount bigint, trace text)
SELECT * FROM new WHERE true
ON CONFLICT (event_id, event_name, pixel_id) DO UPDATE SET
    event_time = excluded.event_time, created_at = excluded.created_at, server = excluded.server,
    reason = excluded.reason, attempts = excluded.attempts, due_at = excluded.due_at,
    delivered_at = excluded.delivered_at, match_keys = excluded.match_keys,
    uncertain = excluded.uncertain, route = excluded.route, page = excluded.page,
    segment = excluded.segment, digest = excluded.digest, uses = excluded.uses,
    currency = excluded.currency, amount = excluded.amount, trace = excluded.trace,
    browser = CASE excluded.browser WHEN 'sent' THEN 'sent' ELSE browser END
WHERE server IN ({browser_only})

-- name: rescue_payloads
INSERT INTO payloads (key, payload)
WITH new MANY (event_id text, event_name text, pixel_id text, payload bytea)
SELECT key, payload FROM new JOIN events USING (event_id, event_name, pixel_id)
WHERE server IN ('pending', 'dead')
ON CONFLICT (key) DO NOTHING

-- name: rescue_changes
INSERT INTO changes ({state}, n, rows, amount)
WITH new MANY (page text, route text, match_keys bigint, segment text, event_name text, server text,
    browser text, tenths bigint, differs bigint, hour bigint, pixel_id text, currency text, n bigint,
    rows bigint, amount bigint)
SELECT * FROM new

-- name: remember
INSERT INTO orders (key, at) WITH new MANY (key bigint, at integer)
SELECT key, at FROM new WHERE true
ON CONFLICT (key) DO UPDATE SET at = excluded.at WHERE excluded.at < at

-- name: recall
-- Each range of keys begins with one of `first`.
SELECT orders.key, at FROM json_each(:first) AS wanted CROSS JOIN orders
WHERE orders.key >= wanted.value AND orders.key <= wanted.value + {signed}

-- name: old_orders
SELECT key FROM orders WHERE at < :before LIMIT :limit

-- name: forget_orders
DELETE FROM orders WHERE key = ANY(:keys) AND at < :before

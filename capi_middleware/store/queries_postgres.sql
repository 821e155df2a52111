-- What PostgreSQL does in its own way.

-- name: begin
-- The first query of each transaction: its time, a limit for all others, and the promise that what
-- was committed is on disk, also where the database's own setting is off.
SELECT extract(epoch FROM clock_timestamp())::float8, set_config('statement_timeout', '30s', true),
    CASE current_setting('synchronous_commit') WHEN 'off'
        THEN set_config('synchronous_commit', 'local', true) END

-- name: begin_reading
SELECT extract(epoch FROM clock_timestamp())::float8, set_config('statement_timeout', '30s', true)

-- name: marked
-- Waits for whoever is about to set it. Refused by a standby, which need not know yet.
SELECT number FROM capi_marks WHERE writer = :writer AND number = :number FOR UPDATE

-- name: mark
INSERT INTO capi_marks AS marks (writer, number, at) VALUES (:writer, :number, :now)
ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at = excluded.at
WHERE marks.number < excluded.number

-- name: forget_marks
DELETE FROM capi_marks WHERE writer IN (
    SELECT writer FROM capi_marks WHERE at < :before FOR UPDATE SKIP LOCKED
)

-- name: release
-- A lease that ends too far in the future was taken before the clock went back, as was a due time
-- set that is too far.
WITH ended AS (
    DELETE FROM capi_leases WHERE key IN (
        SELECT key FROM capi_leases WHERE until <= :now OR until > :now + {longest}
        FOR UPDATE SKIP LOCKED
    )
)
UPDATE capi_events SET due_at = :now
WHERE key IN (
    SELECT key FROM capi_events
    WHERE pixel_id = :pixel_id AND server = 'pending' AND rank IN (0, 1, 2)
      AND due_at > :now + :wait
    FOR UPDATE SKIP LOCKED
)

-- name: due
-- See Store.lease. Payloads are looked up one by one, however many the planner expects.
WITH fresh AS (
    SELECT * FROM capi_events AS events
    WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 0
      AND due_at > :now - {fresh} AND due_at <= :now
      AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = events.key)
    ORDER BY due_at DESC, key LIMIT :limit
    FOR UPDATE OF events SKIP LOCKED
), suspects AS (
    SELECT * FROM capi_events AS events
    WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 1 AND due_at <= :now
      AND suspect = (
          SELECT MIN(suspect) FROM capi_events AS others
          WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 1 AND due_at <= :now
            AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = others.key)
      )
      AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = events.key)
    ORDER BY due_at, key
    FOR UPDATE OF events SKIP LOCKED
), old AS (
    SELECT * FROM capi_events AS events
    WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 0 AND due_at <= :now - {fresh}
      AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = events.key)
    ORDER BY due_at, key LIMIT :limit - (SELECT COUNT(*) FROM fresh)
    FOR UPDATE OF events SKIP LOCKED
), views AS (
    SELECT * FROM capi_events AS events
    WHERE pixel_id = :pixel_id AND server = 'pending' AND rank = 2 AND due_at <= :now
      AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = events.key)
    ORDER BY due_at, key
    LIMIT :limit - (SELECT COUNT(*) FROM fresh) - (SELECT COUNT(*) FROM old)
    FOR UPDATE OF events SKIP LOCKED
)
SELECT key, event_id, event_name, event_time, payload, attempts, suspect, part = 0,
       event_time < :surely - CASE WHEN browser = 'sent' THEN {dedupe} ELSE {oldest} END
           OR (uncertain > 0 AND GREATEST(event_time, created_at) < :surely - {dedupe})
FROM (
    SELECT 0 AS part, * FROM fresh UNION ALL SELECT 1, * FROM suspects
    UNION ALL SELECT 2, * FROM old UNION ALL SELECT 3, * FROM views
) AS parts CROSS JOIN LATERAL (
    SELECT payload FROM capi_payloads AS payloads WHERE payloads.key = parts.key LIMIT 1
) AS payload
ORDER BY part, due_at, key

-- name: look
-- Whoever looks takes the turn after those who have one already. A due time too far in the future
-- was set before the clock went back, as was the end of a lease.
WITH clock AS (
    SELECT COALESCE(CAST(:now AS float8), extract(epoch FROM clock_timestamp())::float8) AS now
), turn AS (
    INSERT INTO capi_turns AS turns (pixels, at, duty_at, on_duty)
    SELECT :pixels, now + :every, now + {duty}, :look FROM clock
    ON CONFLICT (pixels) DO UPDATE SET
        at = LEAST(GREATEST(turns.at + :every, excluded.at), excluded.at - :every + {turn}),
        (duty_at, on_duty) = (
            SELECT excluded.duty_at, excluded.on_duty
            WHERE turns.duty_at <= excluded.duty_at - {duty} OR turns.duty_at > excluded.duty_at
            UNION ALL SELECT turns.duty_at, turns.on_duty LIMIT 1
        )
    RETURNING at, on_duty
)
SELECT ARRAY(
    SELECT pixel_id FROM unnest(CAST(:pixel_ids AS text[])) AS pixels (pixel_id)
    WHERE EXISTS (
        SELECT FROM capi_events AS events
        WHERE events.pixel_id = pixels.pixel_id AND server = 'pending'
          AND rank IN (0, 1, 2) AND due_at <= now
          AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = events.key)
    ) OR EXISTS (
        SELECT FROM capi_events AS events
        WHERE events.pixel_id = pixels.pixel_id AND server = 'pending'
          AND rank IN (0, 1, 2) AND due_at > now + {wait}
    ) OR pixel_id IN (SELECT pixel_id FROM capi_leases WHERE until <= now OR until > now + {longest})
), now, at - now, on_duty = :look FROM turn, clock

-- name: lease
-- What another courier leased since `due` began is not among them.
INSERT INTO capi_leases (key, pixel_id, lease_id, until)
SELECT unnest(CAST(:keys AS bigint[])), :pixel_id, :lease_id, :until
ON CONFLICT DO NOTHING RETURNING key

-- name: lock
-- Events before leases, as a claim does, and in the order of `sight`: nobody waits in a circle.
SELECT COUNT(*) FROM (
    SELECT FROM capi_events WHERE key = ANY(:keys)
    ORDER BY event_id COLLATE "C", event_name COLLATE "C", pixel_id COLLATE "C" FOR UPDATE
) AS locked

-- name: try_lock
-- One process folds at a time; the others have nothing to wait for.
SELECT pg_try_advisory_xact_lock(:number)

-- name: take_changes
WITH taken AS (
    DELETE FROM capi_changes
    WHERE key IN (SELECT key FROM capi_changes ORDER BY key LIMIT :limit) RETURNING *
)
SELECT {state}, SUM(n)::bigint, SUM(rows)::bigint, SUM(amount)::bigint, COUNT(*) FROM taken GROUP BY {state}

-- name: remember
-- One bucket may be in it only once.
INSERT INTO capi_orders AS orders (bucket, keys, ats)
WITH new MANY (key bigint, at integer)
SELECT key >> 49, ARRAY[key], ARRAY[at] FROM new
ON CONFLICT (bucket) DO UPDATE SET keys = orders.keys || excluded.keys,
    ats = orders.ats || excluded.ats
WHERE NOT excluded.keys[1] = ANY(orders.keys)

-- name: recall
SELECT key, at FROM unnest(CAST(:first AS bigint[])) AS wanted (first)
JOIN capi_orders AS orders ON bucket = first >> 49
CROSS JOIN LATERAL unnest(keys, ats) AS known (key, at)
WHERE key >= first AND key <= first + {signed}

-- name: old_orders
SELECT bucket FROM capi_orders WHERE :before > ANY(ats) LIMIT :limit

-- name: forget_orders
UPDATE capi_orders SET (keys, ats) = (
    SELECT COALESCE(array_agg(key), '{}'), COALESCE(array_agg(at), '{}')
    FROM unnest(keys, ats) AS known (key, at) WHERE at >= :before
) WHERE bucket = ANY(:keys)

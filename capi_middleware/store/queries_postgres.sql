-- What PostgreSQL does in its own way.

-- name: begin
-- The first query of each transaction: its time and its number, and a limit for all others.
SELECT extract(epoch FROM clock_timestamp())::float8, pg_current_xact_id()::text,
       set_config('statement_timeout', '30s', true)

-- name: begin_reading
-- The same where nothing is written: a number would cost one.
SELECT extract(epoch FROM clock_timestamp())::float8, '',
       set_config('statement_timeout', '30s', true)

-- name: has_schema
-- Read from the catalog: to_regclass() may answer from a cache that a waiting start keeps.
SELECT 1 FROM pg_class WHERE relname = 'capi_schema' AND pg_table_is_visible(oid)

-- name: xact_status
SELECT pg_xact_status(CAST(:xact AS xid8))

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
    WHERE pixel_id = :pixel_id AND server = 'pending' AND due_at > :now + :wait
    FOR UPDATE SKIP LOCKED
)

-- name: due
SELECT events.key, event_id, event_name, event_time, payload, attempts,
       event_time < :surely - CASE WHEN uncertain > 0 OR browser = 'sent' THEN {dedupe}
                    ELSE {oldest} END
FROM capi_events AS events JOIN capi_payloads AS payloads ON payloads.key = events.key
WHERE pixel_id = :pixel_id AND server = 'pending' AND due_at <= :now
  AND NOT EXISTS (SELECT FROM capi_leases AS leases WHERE leases.key = events.key)
ORDER BY due_at, events.key LIMIT :limit
FOR UPDATE OF events SKIP LOCKED

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
SELECT {state}, SUM(n)::bigint, SUM(rows)::bigint, COUNT(*) FROM taken GROUP BY {state}

-- Schema 1. Statements end with a semicolon at the end of a line, where no other semicolon is.

-- One event for one pixel, from mint to report. Times are Unix seconds.
-- Room for updates in the page: every row is updated twice and then rarely again.
CREATE TABLE capi_events (
    key bigint GENERATED ALWAYS AS IDENTITY (START WITH {first} INCREMENT BY {step}) PRIMARY KEY,
    event_id text NOT NULL,
    event_name text NOT NULL,
    pixel_id text NOT NULL,
    event_time double precision NOT NULL,
    created_at double precision NOT NULL,
    server text NOT NULL,
    reason text NOT NULL DEFAULT '',
    attempts integer NOT NULL DEFAULT 0,
    due_at double precision NOT NULL,
    delivered_at double precision,
    browser text NOT NULL,
    browser_at double precision,
    match_keys bigint NOT NULL,
    uncertain integer NOT NULL DEFAULT 0,
    suspect bigint NOT NULL DEFAULT 0,
    route text NOT NULL DEFAULT '',
    page text NOT NULL DEFAULT '',
    segment text NOT NULL DEFAULT '',
    digest text NOT NULL DEFAULT '',
    -- Who used the event_id: see Use in records.py.
    uses text NOT NULL DEFAULT '',
    browser_digest text NOT NULL DEFAULT '',
    currency text NOT NULL DEFAULT '',
    amount bigint NOT NULL DEFAULT 0,
    -- Meta's id of the last request with it that Meta answered.
    trace text NOT NULL DEFAULT '',
    -- What the sums know of a row, see rollups.State.
    hour bigint GENERATED ALWAYS AS (floor(event_time / 3600)) STORED,
    tenths bigint GENERATED ALWAYS AS (CASE server WHEN 'delivered'
        THEN floor(greatest(0, coalesce(delivered_at - event_time, 0)) * 10 + 0.5)
        ELSE -1 END) STORED,
    differs integer GENERATED ALWAYS AS ((server = 'delivered' AND browser = 'sent' AND digest <> ''
        AND browser_digest <> '' AND digest <> browser_digest)::int) STORED,
    rank smallint GENERATED ALWAYS AS (CASE WHEN suspect > 0 THEN 1
        WHEN event_name = 'PageView' THEN 2 ELSE 0 END) STORED,
    UNIQUE (event_id, event_name, pixel_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

-- Claims: due events of one pixel in order, and the age of what waits.
CREATE INDEX capi_events_waiting ON capi_events (pixel_id, rank, due_at, key)
    INCLUDE (event_time) WHERE server = 'pending';

CREATE INDEX capi_events_dead ON capi_events (key) WHERE server = 'dead';

-- Pruning.
CREATE INDEX capi_events_time ON capi_events (event_time);

-- Events that couriers hold, apart: a claim writes no row of capi_events anew.
CREATE TABLE capi_leases (
    key bigint PRIMARY KEY,
    pixel_id text NOT NULL,
    lease_id text NOT NULL,
    until double precision NOT NULL
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

-- The server copies of what waits and of dead letters.
CREATE TABLE capi_payloads (
    key bigint PRIMARY KEY,
    payload bytea NOT NULL
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

-- What is known of each event.
CREATE VIEW capi_known AS SELECT key, event_id, event_name, pixel_id, event_time,
    CASE WHEN server = 'pending' AND EXISTS (
        SELECT FROM capi_leases AS leases WHERE leases.key = events.key
    ) THEN 'leased' ELSE server END AS server,
    browser, reason, attempts, due_at, delivered_at, browser_at, match_keys, route, page, trace
FROM capi_events AS events;

CREATE TABLE capi_counts (
    hour bigint NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    event_name text NOT NULL,
    pixel_id text NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (hour, kind, reason, event_name, pixel_id)
);

-- Pixels that rest, for all processes with a token or (token '') for all, and after that until one
-- of them got through: `trying` is until when the others leave that to the one who tries.
CREATE TABLE capi_pauses (
    pixel_id text NOT NULL,
    token text NOT NULL,
    since double precision NOT NULL,
    until double precision NOT NULL,
    reason text NOT NULL,
    failures integer NOT NULL DEFAULT 1,
    trying double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (pixel_id, token)
);

-- The values of the sums in capi_rollups.
CREATE TABLE capi_rollup_keys (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    facet text NOT NULL,
    value text NOT NULL,
    pixel_id text NOT NULL,
    event_name text NOT NULL,
    server text NOT NULL,
    browser text NOT NULL,
    UNIQUE (facet, value, pixel_id, event_name, server, browser)
);

-- How many rows, or what they are worth (facet 'money'): of `span` hours from hour `start` (Unix time // 3600), or all that are stored now
-- (span 0).
CREATE TABLE capi_rollups (
    facet text NOT NULL,
    span smallint NOT NULL,
    start bigint NOT NULL,
    key bigint NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (facet, span, start, key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- What is not in capi_rollups yet: see rollups.State. Only added to, so that no web process ever
-- waits for another's sums.
CREATE TABLE capi_changes (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hour bigint NOT NULL,
    pixel_id text NOT NULL,
    event_name text NOT NULL,
    server text NOT NULL,
    browser text NOT NULL,
    match_keys bigint NOT NULL,
    tenths bigint NOT NULL,
    route text NOT NULL,
    page text NOT NULL,
    segment text NOT NULL,
    differs integer NOT NULL,
    currency text NOT NULL,
    n bigint NOT NULL,
    rows bigint NOT NULL,
    amount bigint NOT NULL
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

CREATE VIEW capi_unsummed AS SELECT * FROM capi_changes;

CREATE FUNCTION capi_added() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO capi_changes (hour, pixel_id, event_name, server, browser, match_keys, tenths, route,
    page, segment, differs, currency, n, rows, amount)
SELECT hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, segment, differs,
    currency, COUNT(*), COUNT(*), SUM(amount)
FROM new_rows
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12; RETURN NULL; END $$;

-- What an update leaves as it was cancels out.
CREATE FUNCTION capi_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO capi_changes (hour, pixel_id, event_name, server, browser, match_keys, tenths, route,
    page, segment, differs, currency, n, rows, amount)
SELECT hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, segment, differs,
    currency, SUM(n), SUM(n), SUM(n * amount)
FROM (SELECT *, -1 AS n FROM old_rows UNION ALL SELECT *, 1 FROM new_rows) AS states
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 HAVING SUM(n) <> 0 OR SUM(n * amount) <> 0; RETURN NULL; END $$;

-- What is pruned is still counted, it is only not stored any more.
CREATE FUNCTION capi_removed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO capi_changes (hour, pixel_id, event_name, server, browser, match_keys, tenths, route,
    page, segment, differs, currency, n, rows, amount)
SELECT hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, segment, differs,
    currency, 0, -COUNT(*), 0
FROM old_rows
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12; DELETE FROM capi_payloads USING old_rows
WHERE capi_payloads.key = old_rows.key; RETURN NULL; END $$;

CREATE TRIGGER capi_added AFTER INSERT ON capi_events
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION capi_added();

CREATE TRIGGER capi_changed AFTER UPDATE ON capi_events
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION capi_changed();

CREATE TRIGGER capi_removed AFTER DELETE ON capi_events
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION capi_removed();

-- Orders, which outlive their events: see Store.recall. `keys` are of signing.order_of(), `ats` of
-- orders.moment(). A row for each would take 80 bytes, most of them for the row itself: so those
-- with the same first 14 bits share one. Its page has room for what it becomes.
CREATE TABLE capi_orders (
    bucket integer PRIMARY KEY,
    keys bigint[] NOT NULL,
    ats integer[] NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- What all processes keep in common, see Store.keep.
CREATE TABLE capi_kept (
    name text PRIMARY KEY,
    body bytea NOT NULL
);

-- The last group with counters that each writer committed, see PostgresEngine.group.
CREATE TABLE capi_marks (
    writer text PRIMARY KEY,
    number bigint NOT NULL,
    at double precision NOT NULL
) WITH (fillfactor = 50);

-- When the next process that delivers these pixels (a hash of their ids) looks for what is due, and
-- when the next of them is on duty and which look put the last one there: see Store.look.
CREATE TABLE capi_turns (
    pixels text PRIMARY KEY,
    at double precision NOT NULL,
    duty_at double precision NOT NULL,
    on_duty text NOT NULL
) WITH (fillfactor = 50);

-- What made these tables: which one of how many databases this is, see Shards.
CREATE TABLE capi_schema (version integer NOT NULL, place integer NOT NULL, number integer NOT NULL);

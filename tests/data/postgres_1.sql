-- Schema 1. Statements end with a semicolon at the end of a line and hold no other semicolon.

-- One event for one pixel, from mint to report. Times are Unix seconds.
-- Room for updates in the page: every row is updated three times and then rarely again.
CREATE TABLE capi_events (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id text NOT NULL,
    event_name text NOT NULL,
    pixel_id text NOT NULL,
    event_time double precision NOT NULL,
    created_at double precision NOT NULL,
    payload bytea,
    server text NOT NULL,
    reason text NOT NULL DEFAULT '',
    attempts integer NOT NULL DEFAULT 0,
    due_at double precision NOT NULL,
    lease_id text,
    lease_until double precision,
    delivered_at double precision,
    browser text NOT NULL,
    browser_at double precision,
    match_keys bigint NOT NULL,
    uncertain boolean NOT NULL DEFAULT false,
    UNIQUE (event_id, event_name, pixel_id),
    CHECK (server NOT IN ('pending', 'leased') OR payload IS NOT NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

-- Claims: due events of one pixel in order, and its living leases.
CREATE INDEX capi_events_waiting ON capi_events (pixel_id, server, due_at, key)
    WHERE server IN ('pending', 'leased');

CREATE INDEX capi_events_dead ON capi_events (key) WHERE server = 'dead';

-- Reports and pruning.
CREATE INDEX capi_events_time ON capi_events (event_time);

CREATE TABLE capi_counts (
    hour bigint NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    event_name text NOT NULL,
    pixel_id text NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (hour, kind, reason, event_name, pixel_id)
);

CREATE TABLE capi_pauses (
    pixel_id text PRIMARY KEY,
    until double precision NOT NULL,
    reason text NOT NULL,
    token text NOT NULL
);

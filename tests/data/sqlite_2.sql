-- Schema 2. Statements end with a semicolon at the end of a line and hold no other semicolon.

-- One event for one pixel, from mint to report. Times are Unix seconds.
CREATE TABLE events (
    key INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    event_name TEXT NOT NULL,
    pixel_id TEXT NOT NULL,
    event_time REAL NOT NULL,
    created_at REAL NOT NULL,
    payload BLOB,
    server TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL,
    lease_id TEXT,
    lease_until REAL,
    delivered_at REAL,
    browser TEXT NOT NULL,
    browser_at REAL,
    match_keys INTEGER NOT NULL,
    -- 1 when nobody knows whether Meta took an earlier attempt.
    uncertain INTEGER NOT NULL DEFAULT 0,
    UNIQUE (event_id, event_name, pixel_id),
    -- A server copy without a body could never be delivered.
    CHECK (server NOT IN ('pending', 'leased') OR payload IS NOT NULL)
);

-- Claims: due events of one pixel in order, and its living leases.
CREATE INDEX events_waiting ON events (pixel_id, server, due_at)
    WHERE server IN ('pending', 'leased');

-- What somebody has to look at.
CREATE INDEX events_dead ON events (key) WHERE server = 'dead';

-- Reports and pruning.
CREATE INDEX events_time ON events (event_time);

-- What leaves no row; hour is Unix time // 3600.
CREATE TABLE counts (
    hour INTEGER NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    event_name TEXT NOT NULL,
    pixel_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (hour, kind, reason, event_name, pixel_id)
) WITHOUT ROWID;

-- Pixels that rest, for all processes.
CREATE TABLE pauses (
    pixel_id TEXT PRIMARY KEY,
    until REAL NOT NULL,
    reason TEXT NOT NULL,
    token TEXT NOT NULL
) WITHOUT ROWID;

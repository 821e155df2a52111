-- Schema 1. Statements end with a semicolon at the end of a line, where no other semicolon is.

-- One event for one pixel, from mint to report. Times are Unix seconds.
CREATE TABLE events (
    key INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    event_name TEXT NOT NULL,
    pixel_id TEXT NOT NULL,
    event_time REAL NOT NULL,
    created_at REAL NOT NULL,
    server TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL,
    delivered_at REAL,
    browser TEXT NOT NULL,
    browser_at REAL,
    match_keys INTEGER NOT NULL,
    -- 1 when nobody knows whether Meta took an earlier attempt.
    uncertain INTEGER NOT NULL DEFAULT 0,
    -- The number of those that Meta refused together, see records.LeasedEvent.
    suspect INTEGER NOT NULL DEFAULT 0,
    route TEXT NOT NULL DEFAULT '',
    page TEXT NOT NULL DEFAULT '',
    segment TEXT NOT NULL DEFAULT '',
    digest TEXT NOT NULL DEFAULT '',
    -- Who used the event_id: see Use in records.py.
    uses TEXT NOT NULL DEFAULT '',
    browser_digest TEXT NOT NULL DEFAULT '',
    -- What it is worth, in the smallest unit of the currency; '' and 0 where that is not known.
    currency TEXT NOT NULL DEFAULT '',
    amount INTEGER NOT NULL DEFAULT 0,
    -- Meta's id of the last request with it that Meta answered.
    trace TEXT NOT NULL DEFAULT '',
    -- What the sums know of a row, see rollups.State.
    hour INTEGER AS (CAST(event_time / 3600 AS INTEGER)),
    tenths INTEGER AS (CASE server WHEN 'delivered'
        THEN CAST(MAX(0.0, COALESCE(delivered_at - event_time, 0.0)) * 10 + 0.5 AS INTEGER)
        ELSE -1 END),
    differs INTEGER AS (server = 'delivered' AND browser = 'sent' AND digest <> ''
        AND browser_digest <> '' AND digest <> browser_digest),
    -- Who goes first: conversions, suspects, page views.
    rank INTEGER AS (CASE WHEN suspect > 0 THEN 1 WHEN event_name = 'PageView' THEN 2 ELSE 0 END),
    UNIQUE (event_id, event_name, pixel_id)
);

-- The server copies of what waits and of dead letters, apart: their pages are used again, while a
-- row of events that shrinks leaves a hole.
CREATE TABLE payloads (
    key INTEGER PRIMARY KEY,
    payload BLOB NOT NULL
);

-- Claims: due events of one pixel in order, and the age of what waits.
CREATE INDEX events_waiting ON events (pixel_id, rank, due_at, key, event_time, server)
    WHERE server = 'pending';

-- What somebody has to look at.
CREATE INDEX events_dead ON events (key) WHERE server = 'dead';

-- Pruning.
CREATE INDEX events_time ON events (event_time);

-- Events that couriers hold, apart: a claim writes no row of events anew.
CREATE TABLE leases (
    key INTEGER PRIMARY KEY,
    pixel_id TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    until REAL NOT NULL
);

-- What is known of each event.
CREATE VIEW known AS SELECT key, event_id, event_name, pixel_id, event_time,
    CASE WHEN server = 'pending' AND key IN (SELECT key FROM leases) THEN 'leased' ELSE server END
        AS server,
    browser, reason, attempts, due_at, delivered_at, browser_at, match_keys, route, page, trace
FROM events;

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

-- Pixels that rest, for all processes with a token or (token '') for all, and after that until one
-- of them got through: `trying` is until when the others leave that to the one who tries.
CREATE TABLE pauses (
    pixel_id TEXT NOT NULL,
    token TEXT NOT NULL,
    since REAL NOT NULL,
    until REAL NOT NULL,
    reason TEXT NOT NULL,
    failures INTEGER NOT NULL DEFAULT 1,
    trying REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (pixel_id, token)
) WITHOUT ROWID;

-- The values of the sums in rollups.
CREATE TABLE rollup_keys (
    key INTEGER PRIMARY KEY,
    facet TEXT NOT NULL,
    value TEXT NOT NULL,
    pixel_id TEXT NOT NULL,
    event_name TEXT NOT NULL,
    server TEXT NOT NULL,
    browser TEXT NOT NULL,
    UNIQUE (facet, value, pixel_id, event_name, server, browser)
);

-- How many rows, or what they are worth (facet 'money'): of `span` hours from hour `start` (Unix time // 3600), or all that are stored now
-- (span 0).
CREATE TABLE rollups (
    facet TEXT NOT NULL,
    span INTEGER NOT NULL,
    start INTEGER NOT NULL,
    key INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (facet, span, start, key)
) WITHOUT ROWID;

-- Sums to forget, see forget_empty.
CREATE INDEX rollups_empty ON rollups (facet) WHERE n = 0;

-- What became of rows that are in rollups and is not there yet: see rollups.State.
CREATE TABLE changes (
    key INTEGER PRIMARY KEY,
    hour INTEGER NOT NULL,
    pixel_id TEXT NOT NULL,
    event_name TEXT NOT NULL,
    server TEXT NOT NULL,
    browser TEXT NOT NULL,
    match_keys INTEGER NOT NULL,
    tenths INTEGER NOT NULL,
    route TEXT NOT NULL,
    page TEXT NOT NULL,
    segment TEXT NOT NULL,
    differs INTEGER NOT NULL,
    currency TEXT NOT NULL,
    n INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    amount INTEGER NOT NULL
);

-- New rows need no change: those with a greater key than this are not in rollups at all.
CREATE TABLE summed (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    key INTEGER NOT NULL
);

INSERT INTO summed VALUES (1, 0);

-- The state of each.
CREATE VIEW fresh AS SELECT key, hour, pixel_id, event_name, server, browser, match_keys, tenths, route,
    page, segment, differs, currency, 1 AS n, 1 AS rows, amount
FROM events WHERE key > (SELECT key FROM summed);

-- All that is not in rollups yet.
CREATE VIEW unsummed AS SELECT hour, pixel_id, event_name, server, browser, match_keys, tenths,
    route, page, segment, differs, currency, n, rows, amount FROM changes
UNION ALL SELECT hour, pixel_id, event_name, server, browser, match_keys, tenths,
    route, page, segment, differs, currency, n, rows, amount FROM fresh;

CREATE TRIGGER events_changed
AFTER UPDATE OF event_time, server, browser ON events
WHEN (OLD.browser <> NEW.browser OR OLD.event_time <> NEW.event_time OR OLD.server <> NEW.server)
    AND OLD.key <= (SELECT key FROM summed)
BEGIN INSERT INTO changes (hour, pixel_id, event_name, server, browser, match_keys, tenths, route,
    page, segment, differs, currency, n, rows, amount)
VALUES (OLD.hour, OLD.pixel_id, OLD.event_name, OLD.server, OLD.browser, OLD.match_keys, OLD.tenths,
    OLD.route, OLD.page, OLD.segment, OLD.differs, OLD.currency, -1, -1, -OLD.amount
), (NEW.hour, NEW.pixel_id, NEW.event_name, NEW.server, NEW.browser, NEW.match_keys, NEW.tenths,
    NEW.route, NEW.page, NEW.segment, NEW.differs, NEW.currency, 1, 1, NEW.amount
); END;

-- What is pruned is still counted, it is only not stored any more. And a new row may get the key of
-- the last one.
CREATE TRIGGER events_removed AFTER DELETE ON events BEGIN INSERT INTO changes
    (hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, segment, differs,
    currency, n, rows, amount)
VALUES (OLD.hour, OLD.pixel_id, OLD.event_name, OLD.server, OLD.browser, OLD.match_keys, OLD.tenths,
    OLD.route, OLD.page, OLD.segment, OLD.differs, OLD.currency,
    OLD.key > (SELECT key FROM summed), -(OLD.key <= (SELECT key FROM summed)),
    OLD.amount * (OLD.key > (SELECT key FROM summed))
); DELETE FROM payloads WHERE key = OLD.key; UPDATE summed
SET key = (SELECT COALESCE(MAX(key), 0) FROM events)
WHERE key > (SELECT COALESCE(MAX(key), 0) FROM events); END;

-- Orders, which outlive their events: see Store.recall. `key` is of signing.order_of(), `at` of
-- orders.moment().
CREATE TABLE orders (
    key INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
);

-- What all processes keep in common, see Store.keep.
CREATE TABLE kept (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) WITHOUT ROWID;

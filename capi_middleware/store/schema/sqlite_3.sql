-- From schema 2 to schema 3. Additive: what an older version has open goes on working.
ALTER TABLE events ADD COLUMN route TEXT NOT NULL DEFAULT '';

ALTER TABLE events ADD COLUMN page TEXT NOT NULL DEFAULT '';

ALTER TABLE events ADD COLUMN agent TEXT NOT NULL DEFAULT '';

ALTER TABLE events ADD COLUMN digest TEXT NOT NULL DEFAULT '';

ALTER TABLE events ADD COLUMN browser_digest TEXT NOT NULL DEFAULT '';

DROP INDEX events_waiting;

CREATE INDEX events_waiting ON events (pixel_id, server, due_at, key, event_time)
    WHERE server IN ('pending', 'leased');

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

-- How many rows: of `span` hours from hour `start` (Unix time // 3600), or all that are stored now
-- (span 0).
CREATE TABLE rollups (
    facet TEXT NOT NULL,
    span INTEGER NOT NULL,
    start INTEGER NOT NULL,
    key INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (facet, span, start, key)
) WITHOUT ROWID;

-- What is not in rollups yet: see rollups.State.
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
    agent TEXT NOT NULL,
    differs INTEGER NOT NULL,
    n INTEGER NOT NULL,
    rows INTEGER NOT NULL
);

-- Triggers, so that an older version that has the file open keeps the sums right as well.
CREATE TRIGGER events_added AFTER INSERT ON events BEGIN INSERT INTO changes
    (hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent,
    differs, n, rows)
VALUES (
    CAST(NEW.event_time / 3600 AS INTEGER), NEW.pixel_id, NEW.event_name,
    CASE NEW.server WHEN 'leased' THEN 'pending' ELSE NEW.server END, NEW.browser, NEW.match_keys,
    CASE NEW.server WHEN 'delivered'
        THEN CAST(MAX(0.0, COALESCE(NEW.delivered_at - NEW.event_time, 0.0)) * 10 + 0.5 AS INTEGER) ELSE -1 END,
    NEW.route, NEW.page, NEW.agent,
    NEW.server = 'delivered' AND NEW.browser = 'sent' AND NEW.digest <> ''
        AND NEW.browser_digest <> '' AND NEW.digest <> NEW.browser_digest,
    1, 1
); END;

CREATE TRIGGER events_changed
AFTER UPDATE OF event_time, server, browser, match_keys, delivered_at, route, page, agent, digest,
    browser_digest ON events
WHEN OLD.browser <> NEW.browser OR OLD.event_time <> NEW.event_time
    OR OLD.server <> NEW.server AND NOT (
        OLD.server IN ('pending', 'leased') AND NEW.server IN ('pending', 'leased'))
BEGIN INSERT INTO changes
    (hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent,
    differs, n, rows)
VALUES (
    CAST(OLD.event_time / 3600 AS INTEGER), OLD.pixel_id, OLD.event_name,
    CASE OLD.server WHEN 'leased' THEN 'pending' ELSE OLD.server END, OLD.browser, OLD.match_keys,
    CASE OLD.server WHEN 'delivered'
        THEN CAST(MAX(0.0, COALESCE(OLD.delivered_at - OLD.event_time, 0.0)) * 10 + 0.5 AS INTEGER) ELSE -1 END,
    OLD.route, OLD.page, OLD.agent,
    OLD.server = 'delivered' AND OLD.browser = 'sent' AND OLD.digest <> ''
        AND OLD.browser_digest <> '' AND OLD.digest <> OLD.browser_digest,
    -1, -1
), (
    CAST(NEW.event_time / 3600 AS INTEGER), NEW.pixel_id, NEW.event_name,
    CASE NEW.server WHEN 'leased' THEN 'pending' ELSE NEW.server END, NEW.browser, NEW.match_keys,
    CASE NEW.server WHEN 'delivered'
        THEN CAST(MAX(0.0, COALESCE(NEW.delivered_at - NEW.event_time, 0.0)) * 10 + 0.5 AS INTEGER) ELSE -1 END,
    NEW.route, NEW.page, NEW.agent,
    NEW.server = 'delivered' AND NEW.browser = 'sent' AND NEW.digest <> ''
        AND NEW.browser_digest <> '' AND NEW.digest <> NEW.browser_digest,
    1, 1
); END;

-- What is pruned is still counted, it is only not stored any more.
CREATE TRIGGER events_removed AFTER DELETE ON events BEGIN INSERT INTO changes
    (hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent,
    differs, n, rows)
VALUES (
    CAST(OLD.event_time / 3600 AS INTEGER), OLD.pixel_id, OLD.event_name,
    CASE OLD.server WHEN 'leased' THEN 'pending' ELSE OLD.server END, OLD.browser, OLD.match_keys,
    CASE OLD.server WHEN 'delivered'
        THEN CAST(MAX(0.0, COALESCE(OLD.delivered_at - OLD.event_time, 0.0)) * 10 + 0.5 AS INTEGER) ELSE -1 END,
    OLD.route, OLD.page, OLD.agent,
    OLD.server = 'delivered' AND OLD.browser = 'sent' AND OLD.digest <> ''
        AND OLD.browser_digest <> '' AND OLD.digest <> OLD.browser_digest,
    0, -1
); END;

-- What all processes keep in common, see Store.keep.
CREATE TABLE kept (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) WITHOUT ROWID;

-- The rows that are there. Freshness apart: together they would be almost as many as the rows.
INSERT INTO changes
    (hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent,
    differs, n, rows)
SELECT
    CAST(event_time / 3600 AS INTEGER), pixel_id, event_name,
    CASE server WHEN 'leased' THEN 'pending' ELSE server END, browser, match_keys,
    -1, '', '', '', 0, COUNT(*), COUNT(*)
FROM events GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO changes
    (hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent,
    differs, n, rows)
SELECT
    CAST(event_time / 3600 AS INTEGER), pixel_id, event_name, server, '', -1,
    CAST(MAX(0.0, COALESCE(delivered_at - event_time, 0.0)) * 10 + 0.5 AS INTEGER),
    '', '', '', 0, COUNT(*), 0
FROM events WHERE server = 'delivered' GROUP BY 1, 2, 3, 4, 7;

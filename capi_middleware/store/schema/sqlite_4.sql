-- From schema 3 to schema 4. What an older version has open goes on working, but may deliver what a
-- newer one holds: twice the same event, which Meta counts once.
-- Events that couriers hold, apart: a claim writes no row of events anew.
CREATE TABLE leases (
    key INTEGER PRIMARY KEY,
    pixel_id TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    until REAL NOT NULL
);

DROP TRIGGER events_added;

DROP TRIGGER events_changed;

DROP TRIGGER events_removed;

-- New rows need no change: those with a greater key than this are not in rollups at all.
CREATE TABLE summed (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    key INTEGER NOT NULL
);

INSERT INTO summed SELECT 1, COALESCE(MAX(key), 0) FROM events;

-- The state of each.
CREATE VIEW fresh AS SELECT
    CAST(event_time / 3600 AS INTEGER) AS hour, pixel_id, event_name,
    CASE server WHEN 'leased' THEN 'pending' ELSE server END AS server, browser, match_keys,
    CASE server WHEN 'delivered'
        THEN CAST(MAX(0.0, COALESCE(delivered_at - event_time, 0.0)) * 10 + 0.5 AS INTEGER)
        ELSE -1 END AS tenths,
    route, page, agent,
    server = 'delivered' AND browser = 'sent' AND digest <> ''
        AND browser_digest <> '' AND digest <> browser_digest AS differs,
    1 AS n, 1 AS rows
FROM events WHERE key > (SELECT key FROM summed);

-- All that is not in rollups yet.
CREATE VIEW unsummed AS
SELECT hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent, differs,
    n, rows FROM changes
UNION ALL SELECT * FROM fresh;

-- Triggers, so that an older version that has the file open keeps the sums right as well.
CREATE TRIGGER events_changed
AFTER UPDATE OF event_time, server, browser, match_keys, delivered_at, route, page, agent, digest,
    browser_digest ON events
WHEN (OLD.browser <> NEW.browser OR OLD.event_time <> NEW.event_time
    OR OLD.server <> NEW.server AND NOT (
        OLD.server IN ('pending', 'leased') AND NEW.server IN ('pending', 'leased')))
    AND OLD.key <= (SELECT key FROM summed)
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

-- What is pruned is still counted, it is only not stored any more. And a new row may get the key of
-- the last one.
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
    OLD.key > (SELECT key FROM summed), -(OLD.key <= (SELECT key FROM summed))
); UPDATE summed SET key = (SELECT COALESCE(MAX(key), 0) FROM events)
WHERE key > (SELECT COALESCE(MAX(key), 0) FROM events); END;

-- From schema 1 to schema 2. Additive: what an older version has open goes on working.
ALTER TABLE events ADD COLUMN uncertain INTEGER NOT NULL DEFAULT 0;

CREATE INDEX events_dead ON events (key) WHERE server = 'dead';

CREATE TABLE pauses (
    pixel_id TEXT PRIMARY KEY,
    until REAL NOT NULL,
    reason TEXT NOT NULL,
    token TEXT NOT NULL
) WITHOUT ROWID;

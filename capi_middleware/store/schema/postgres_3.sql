-- From schema 2 to schema 3. What an older version has open goes on working, but may deliver what a
-- newer one holds: twice the same event, which Meta counts once.
-- Events that couriers hold, apart: a claim writes no row of capi_events anew.
CREATE TABLE capi_leases (
    key bigint PRIMARY KEY,
    pixel_id text NOT NULL,
    lease_id text NOT NULL,
    until double precision NOT NULL
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

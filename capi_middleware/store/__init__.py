"""Where events live from mint to report: one record is outbox entry and ledger line."""

"""From the outbox to the Graph API."""

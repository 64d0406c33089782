"""The event log and the outbox."""

"""Usage: GPU-hours by cause, derived from what attempts and heartbeats have left in Postgres."""

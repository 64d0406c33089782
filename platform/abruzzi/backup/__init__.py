"""Backups: Postgres and the object store as they were at one moment, in one folder, restored to the same state (docs/how-to/back-up.md)."""

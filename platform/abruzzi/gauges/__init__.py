"""The platform's state as Prometheus sees it, read from Postgres."""

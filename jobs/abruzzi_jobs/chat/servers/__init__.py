"""Endpoints that the platform brings itself: each listens on loopback, on a port and with a key that are drawn at its start, and ends with the
stage."""

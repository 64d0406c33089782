"""Suites whose items ship nowhere: each is a row of table.toml, read from a file that somebody mounts."""

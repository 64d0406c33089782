"""Tool servers as they are shipped: what they are (servers.toml) and their hash-pinned locks."""

from abruzzi_jobs.synthesis.servers.catalogue import LOCKS, Server, shipped

__all__ = ["LOCKS", "Server", "shipped"]

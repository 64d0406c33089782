"""Software engineering in small: a real git repository, an issue, tools to look and edit, hidden tests (paper 3.2.1)."""

from abruzzi_jobs.rl.environments.gyms.software.software import Software

__all__ = ["Software"]

"""For the server that services are forked from: they begin with what takes a second to make."""

from abruzzi_jobs.rl.environments.adapters import openenv_server
from abruzzi_jobs.rl.environments.gyms.tools import applications

READY = openenv_server.OpenEnvServer
applications()

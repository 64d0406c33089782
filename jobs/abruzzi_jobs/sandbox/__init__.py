"""Boxes for programs that nobody has read: no network, few files, bounded time, memory, processes and output.

`run(Box(workspace=folder), ["python3", "x.py"], wall_seconds=10)` for a program that ends;
`start(Box(…), argv)` gives the command line of one that stays (a tool server), for any way of starting processes.
"""

from abruzzi_jobs.sandbox.box import Box, Isolator, Limits, isolators, python_files, start
from abruzzi_jobs.sandbox.processes import Finished, run
from abruzzi_jobs.sandbox.scratch import scratch_folder

__all__ = ["Box", "Finished", "Isolator", "Limits", "isolators", "python_files", "run", "scratch_folder", "start"]

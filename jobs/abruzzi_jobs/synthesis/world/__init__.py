"""The tool simulator: a seeded, transactional world in which synthetic tools run, with faults by a schedule."""

from abruzzi_jobs.synthesis.world.faults import Fault, Schedule
from abruzzi_jobs.synthesis.world.sampling import sample_call
from abruzzi_jobs.synthesis.world.tables import Snapshot, difference, digest_of
from abruzzi_jobs.synthesis.world.world import BrokenTool, Outcome, World

__all__ = ["BrokenTool", "Fault", "Outcome", "Schedule", "Snapshot", "World", "difference", "digest_of", "sample_call"]

"""Simulated users: by a script that knows the task, or by a model that plays a persona and is held to the task's facts."""

from abruzzi_jobs.synthesis.user.script import STOP, missing_facts, scripted_reply, was_told
from abruzzi_jobs.synthesis.user.simulator import UserSimulator

__all__ = ["STOP", "UserSimulator", "missing_facts", "scripted_reply", "was_told"]

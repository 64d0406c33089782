"""Rule programs in the agent's place: they know the task's plan. For tests, for benches without latency, and as the marked stand-in."""

from abruzzi_jobs.synthesis.players.mistakes import MISTAKES, mistaken
from abruzzi_jobs.synthesis.players.scripted import ScriptedAgent
from abruzzi_jobs.synthesis.players.speaker import StandinSpeaker

__all__ = ["MISTAKES", "ScriptedAgent", "StandinSpeaker", "mistaken"]

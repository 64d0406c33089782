"""Judges what an agent did: by checks, by the difference of states, and, where no program can tell, by a model that never decides alone."""

from abruzzi_jobs.synthesis.judge.checks import checks
from abruzzi_jobs.synthesis.judge.episode import Episode, Played
from abruzzi_jobs.synthesis.judge.judgement import KEPT, Judgement, judged
from abruzzi_jobs.synthesis.judge.questions import questions, read_judgement

__all__ = ["KEPT", "Episode", "Judgement", "Played", "checks", "judged", "questions", "read_judgement"]

"""The optimizer: MuonClip, from a plan of parameter names."""

from abruzzi_jobs.optim.config import OptimizerConfig
from abruzzi_jobs.optim.muonclip import MuonClip, OptimizerStatistics, build_optimizer
from abruzzi_jobs.optim.newton_schulz import newton_schulz
from abruzzi_jobs.optim.plan import ParameterPlan, plan_parameters
from abruzzi_jobs.optim.qk_clip import ClipStatistics
from abruzzi_jobs.optim.spectrum import Spectrum

__all__ = [
    "ClipStatistics",
    "MuonClip",
    "OptimizerConfig",
    "OptimizerStatistics",
    "ParameterPlan",
    "Spectrum",
    "build_optimizer",
    "newton_schulz",
    "plan_parameters",
]

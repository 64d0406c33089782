"""The model: Kimi K2's architecture in plain torch, from the laptop's sizes to the paper's."""

from abruzzi_jobs.models.attention import attention, max_logit_per_head
from abruzzi_jobs.models.config import ModelConfig, YarnConfig
from abruzzi_jobs.models.generate import generate
from abruzzi_jobs.models.loss import IGNORE
from abruzzi_jobs.models.model import ForwardOutput, KimiK2

__all__ = [
    "IGNORE",
    "ForwardOutput",
    "KimiK2",
    "ModelConfig",
    "YarnConfig",
    "attention",
    "generate",
    "max_logit_per_head",
]

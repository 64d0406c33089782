"""Models in plain torch: Kimi K2's architecture from the laptop's sizes to the paper's, and Llama's for weights of others."""

from abruzzi_jobs.models.attention import attention, max_logit_per_head
from abruzzi_jobs.models.config import DecoderConfig, LlamaConfig, ModelConfig, YarnConfig, config_from_table
from abruzzi_jobs.models.decoder import Decoder, ForwardOutput
from abruzzi_jobs.models.generate import generate
from abruzzi_jobs.models.llama import Llama, model_from_table
from abruzzi_jobs.models.loss import IGNORE
from abruzzi_jobs.models.model import KimiK2

__all__ = [
    "IGNORE",
    "Decoder",
    "DecoderConfig",
    "ForwardOutput",
    "KimiK2",
    "Llama",
    "LlamaConfig",
    "ModelConfig",
    "YarnConfig",
    "attention",
    "config_from_table",
    "generate",
    "max_logit_per_head",
    "model_from_table",
]

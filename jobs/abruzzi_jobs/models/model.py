"""Kimi K2's architecture: dense layers, then mixture-of-experts layers, all with latent attention."""

from __future__ import annotations

from abruzzi_jobs.models.decoder import Decoder, ForwardOutput
from abruzzi_jobs.models.mla import LatentAttention

__all__ = ["ForwardOutput", "KimiK2"]


class KimiK2(Decoder):
    attention = LatentAttention

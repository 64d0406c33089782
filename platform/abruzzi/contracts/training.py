"""The tables of a training stage: model, optimizer, schedule, batch, parallel, memory, checkpoint.

Field names follow the published K2 configuration and PyTorch. Sources: paper section 2.1, 2.3, 2.5; reference formulas in docs/maths.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, model_validator

from abruzzi.contracts.quantity import ByteCount, Count, Seconds


class Strict(BaseModel):
    """Unknown keys and wrong types are errors (numbers, truth values: never converted); a resolved recipe never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class YarnConfig(Strict):
    """YaRN as in DeepSeek's code (softmax scale carries mscale squared; cos and sin are not scaled)."""

    factor: StrictFloat = Field(ge=1)
    """1: positions turn as without it."""
    original_max_position: Count = 4096
    beta_fast: StrictFloat = 1.0
    beta_slow: StrictFloat = 1.0
    mscale_all_dim: StrictFloat = 1.0

    @property
    def said(self) -> str:
        """In short, as the command line takes it: `4x1024`, factor and positions."""
        return f"{self.factor:g}x{self.original_max_position}"


MODEL_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 4096,
        "hidden_size": 192,
        "num_layers": 6,
        "num_heads": 6,
        "q_lora_rank": 96,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "intermediate_size": 512,
        "moe_intermediate_size": 96,
        "num_experts": 16,
        "num_experts_per_token": 2,
        "num_shared_experts": 1,
        "num_dense_layers": 1,
        "max_position": 512,
    },
    "nano": {
        "vocab_size": 512,
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 2,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "intermediate_size": 128,
        "moe_intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_token": 2,
        "num_shared_experts": 1,
        "num_dense_layers": 1,
        "max_position": 256,
    },
    "k2": {
        "vocab_size": 163840,
        "hidden_size": 7168,
        "num_layers": 61,
        "num_heads": 64,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_experts": 384,
        "num_experts_per_token": 8,
        "num_shared_experts": 1,
        "num_dense_layers": 1,
        "max_position": 4096,
        "rope_theta": 50000.0,
        "routed_scaling_factor": 2.827,
    },
}


class ModelConfig(Strict):
    """MLA attention and a sparse mixture of experts (paper section 2.3). `preset` fills what is not given."""

    preset: str | None = None
    vocab_size: Count = Field(gt=0)
    hidden_size: Count = Field(gt=0)
    num_layers: StrictInt = Field(gt=0)
    num_heads: StrictInt = Field(gt=0)
    q_lora_rank: StrictInt = Field(gt=0)
    kv_lora_rank: StrictInt = Field(gt=0)
    qk_nope_head_dim: StrictInt = Field(gt=0)
    qk_rope_head_dim: StrictInt = Field(gt=0, multiple_of=2)
    v_head_dim: StrictInt = Field(gt=0)
    intermediate_size: Count = Field(gt=0)
    """Width of the dense layers' SwiGLU."""
    moe_intermediate_size: Count = Field(gt=0)
    """Width of one expert."""
    num_experts: StrictInt = Field(gt=0)
    num_experts_per_token: StrictInt = Field(gt=0)
    num_shared_experts: StrictInt = Field(default=1, ge=0)
    num_dense_layers: StrictInt = Field(default=1, ge=0)
    """The first layers are dense."""
    routed_scaling_factor: StrictFloat = 2.827
    norm_topk_prob: StrictBool = True
    rope_theta: StrictFloat = Field(default=50000.0, gt=0)
    yarn: YarnConfig | None = None
    rms_norm_eps: StrictFloat = 1e-6
    max_position: Count = 4096
    tie_embeddings: StrictBool = False
    init_std: StrictFloat = Field(default=0.02, gt=0)
    router_bias_update_rate: StrictFloat = Field(default=1e-3, ge=0)
    """u of the aux-loss-free balancing: b += u * sign(mean(c) - c)."""
    sequence_aux_loss: StrictFloat = Field(default=1e-4, ge=0)
    """alpha; the K2 configuration says 1e-3, its training value is not published."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("preset") is not None:
            preset = MODEL_PRESETS.get(data["preset"])
            if preset is None:
                raise ValueError(
                    f"preset: no preset is called {data['preset']!r}; there are {', '.join(MODEL_PRESETS)}"
                )
            return {**preset, **data}
        return data

    @model_validator(mode="after")
    def _sizes_agree(self) -> ModelConfig:
        if self.num_experts_per_token > self.num_experts:
            raise ValueError(
                f"num_experts_per_token: {self.num_experts_per_token} experts a token, but num_experts is {self.num_experts}"
            )
        if self.num_dense_layers > self.num_layers:
            raise ValueError(
                f"num_dense_layers: {self.num_dense_layers} of {self.num_layers} layers; at most num_layers"
            )
        return self


class OptimizerConfig(Strict):
    """MuonClip (paper section 2.1): Muon for 2D hidden matrices and single experts, AdamW for embeddings, head and norms, QK-Clip per head."""

    kind: Literal["muonclip", "muon", "adamw"] = "muonclip"
    """`muon` is MuonClip without the clip; `adamw` is AdamW for everything."""
    peak_lr: StrictFloat = Field(default=2e-3, gt=0)
    adamw_lr: StrictFloat | None = Field(default=None, gt=0)
    """Peak rate of the AdamW group; the same as peak_lr when absent."""
    weight_decay: StrictFloat = Field(default=0.1, ge=0)
    momentum: StrictFloat = Field(default=0.95, ge=0, lt=1)
    nesterov: StrictBool = False
    """Algorithm 1 of the paper is plain momentum."""
    newton_schulz_steps: StrictInt = Field(default=5, ge=1, le=12)
    newton_schulz_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the machine multiplies it faster (GPU, AVX512-BF16, AMX), else float32."""
    muon_split: Literal["matrix", "head"] = "matrix"
    qk_clip_threshold: StrictFloat = Field(default=100.0, gt=0)
    qk_clip_alpha: StrictFloat = Field(default=0.5, ge=0, le=1)
    adam_betas: tuple[StrictFloat, StrictFloat] = (0.9, 0.95)
    adam_eps: StrictFloat = 1e-8
    max_grad_norm: StrictFloat | None = Field(default=1.0, gt=0)


class AnnealConfig(Strict):
    """One phase after the cosine, at the same or a longer context (paper section 2.5). Weights, moments and count of steps go on from the phase before."""

    tokens: Count = Field(gt=0)
    end_lr_ratio: StrictFloat = Field(default=0.035, ge=0, le=1)
    """Of peak_lr; the paper's 7e-6 / 2e-4."""
    sequence_length: Count | None = Field(default=None, gt=1)
    sequences: StrictInt | None = Field(default=None, gt=0)
    """Sequences a step, over all ranks; absent: as many as leave the tokens of a step about the same."""
    yarn: YarnConfig | None = None
    """From this phase on, and what its checkpoints are served with; absent: as in the phase before."""


class ScheduleConfig(Strict):
    """WSD: warm-up, stable, decay, then annealing. Rates are shares of peak_lr."""

    tokens: Count = Field(gt=0)
    """All tokens of warm-up, stable and decay."""
    warmup_steps: StrictInt = Field(default=20, ge=0)
    decay_fraction: StrictFloat = Field(default=0.35, ge=0, le=1)
    """Share of `tokens` at the end under cosine decay; the paper's 5.5T of 15.5T."""
    decay_lr_ratio: StrictFloat = Field(default=0.1, ge=0, le=1)
    anneal: tuple[AnnealConfig, ...] = ()
    """One after the other: the paper's 4k at a falling rate, then 32k, then YaRN to 128k."""


class BatchConfig(Strict):
    sequences: StrictInt = Field(gt=0)
    """Sequences a step, over all ranks."""
    micro_sequences: StrictInt | None = Field(default=None, gt=0)
    """Sequences of one forward pass on a rank; absent: all of its share."""
    sequence_length: Count = Field(gt=1)


class ParallelConfig(Strict):
    pp: StrictInt = Field(default=1, ge=1)
    """Pipeline ranks."""
    vpp: StrictInt = Field(default=1, ge=1)
    """Chunks of layers a pipeline rank."""
    ep: StrictInt = Field(default=1, ge=1)
    """Ranks that share the experts of a layer: a part of the data-parallel ones."""
    dp: StrictInt | Literal["auto"] = "auto"
    """Data-parallel ranks of a pipeline stage; `auto` is what the resources leave."""

    def check(self, ranks: int) -> None:
        """Raises ValueError where so many ranks cannot be laid out so."""
        if ranks % self.pp:
            raise ValueError(f"parallel.pp: {self.pp} does not divide resources.ranks {ranks}")
        if self.dp != "auto" and self.pp * self.dp != ranks:
            raise ValueError(f"parallel.dp: pp x dp is {self.pp * self.dp}, but resources.ranks is {ranks}")
        if ranks // self.pp % self.ep:
            raise ValueError(f"parallel.ep: {self.ep} does not divide the {ranks // self.pp} ranks of a pipeline stage")
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"parallel.vpp: {self.vpp} chunks a rank need a pipeline; set parallel.pp to 2 or more")

    def too_many_stages(self, num_layers: int) -> str | None:
        """Why so many layers cannot be shared out over pp x vpp chunks, with the remedy: each pipeline rank has a layer to compute, and no round of
        chunks is empty. In the last round, chunks may be (plan/layout.py: `layers_by_chunk`)."""
        if self.pp > num_layers:
            take = f"pp {num_layers} at most"
        elif self.pp * (self.vpp - 1) >= num_layers:
            take = f"vpp {-(-num_layers // self.pp)} at most, or a smaller pp"
        else:
            return None
        return f"PP {self.pp} x {self.vpp} chunks are {self.pp * self.vpp} stages for {num_layers} layers: take {take}."


class MemoryConfig(Strict):
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of compute; master weights are float32."""
    recompute: tuple[Literal["layernorm", "swiglu", "mla_up_projection", "moe_down_projection"], ...] = ()
    fp8_activations: StrictBool = False
    offload_activations: StrictBool = False


class CheckpointConfig(Strict):
    every_steps: StrictInt | None = Field(default=None, gt=0)
    every: Seconds | None = Field(default=60.0, gt=0)
    """Wall time between checkpoints; whichever of the two comes first."""
    keep_last: StrictInt = Field(default=2, ge=2)
    """Retention: the newest two are never removed."""
    keep_every_steps: StrictInt | None = Field(default=None, gt=0)
    min_free_bytes: ByteCount = Field(default=1 << 30, ge=0)
    """The stage stops with a clear sentence before the disk has less than this."""


class ResourcesConfig(Strict):
    pool: str = "local"
    ranks: StrictInt = Field(default=1, ge=1, le=4096)
    """Processes of the stage."""
    threads: StrictInt | None = Field(default=None, gt=0)
    """CPU threads a rank; absent: the machine's cores over the ranks."""


class DataResourcesConfig(ResourcesConfig):
    """Of a stage whose work falls into parts that need not know of each other."""

    framework: Literal["ray"] | None = None
    """`ray`: on a cluster, its parts are tasks of a Ray cluster of as many nodes as its ranks fill. What it makes is the same."""


class CorpusResourcesConfig(ResourcesConfig):
    """As DataResourcesConfig, with one way more."""

    framework: Literal["ray", "indexed-job"] | None = None
    """`indexed-job`: each rank makes every `ranks`-th shard; on a cluster they are the pods of an Indexed Job. What it makes is the same."""


class EvaluateResourcesConfig(ResourcesConfig):
    framework: Literal["indexed-job"] | None = None
    """`indexed-job`: each rank asks every `ranks`-th item of each suite; on a cluster they are the pods of an Indexed Job. The scores are the same. A limit
    of an endpoint, such as its concurrency, holds for each rank."""


class RlResourcesConfig(ResourcesConfig):
    framework: Literal["ray"] | None = None
    """`ray`: trainer, inference replicas and workers are actors, and `ranks` says how many replicas there are, on a cluster one a pod; the trainer is beside
    the first. Absent: all in one process."""


class ElasticConfig(Strict):
    """The number of ranks follows what the pool can place, in whole data-parallel replicas (pp x ep ranks). The batch of a step stays: fewer ranks
    compute more micro-batches each."""

    min_ranks: StrictInt = Field(ge=1)
    """It waits rather than to go on with fewer; `resources.ranks` is the most."""
    narrow_after: Seconds = Field(default=300.0, gt=0)
    """So long an attempt waits for a place before it is tried with as many ranks as have one."""
    widen_after: Seconds = Field(default=600.0, gt=0)
    """So long it trains at least before it saves and goes on with more, where there is room again. Doubled each time in a row that the room was taken
    by others meanwhile."""


def with_ranks(table: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """A resolved training stage's table for another number of data-parallel replicas: the same batch, and no more rows a forward pass than before."""
    parallel, batch = table["parallel"], table["batch"]
    before = table["resources"]["ranks"] // parallel["pp"]
    if parallel["dp"] != "auto":
        parallel = {**parallel, "dp": ranks // parallel["pp"]}
    if batch["micro_sequences"] is None:
        phases = [
            batch["sequences"],
            *(p["sequences"] or batch["sequences"] for p in table["schedule"].get("anneal", ())),
        ]
        most, share = min(phases) // before, batch["sequences"] // (ranks // parallel["pp"])
        rows = next(rows for rows in range(max(1, min(most, share)), 0, -1) if share % rows == 0)
        batch = {**batch, "micro_sequences": rows}
    return {**table, "parallel": parallel, "batch": batch, "resources": {**table["resources"], "ranks": ranks}}


class RetryConfig(Strict):
    max_attempts: StrictInt = Field(default=3, ge=1, le=100)
    """Attempts that count; interruptions and infrastructure faults are free."""
    hang: Seconds | None = Field(default=None, gt=0)
    """A fixed hang deadline instead of the fitted one."""


Seed = Annotated[StrictInt, Field(ge=0, lt=2**31)]

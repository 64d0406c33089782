"""Recipes: a versioned DAG of stages, in strict TOML (design section 2). Pure: no file is read here; abruzzi.contracts.toml finds the line of a mistake."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictFloat, StrictInt, StringConstraints, ValidationError, model_validator

from abruzzi.contracts.critic import CriticForm
from abruzzi.contracts.curation import CurationTables, DecontaminationConfig
from abruzzi.contracts.endpoint import ChatRole, Endpoint, EndpointName, RoleConfig, endpoints_of
from abruzzi.contracts.evaluation import SuiteConfig, SuiteReference
from abruzzi.contracts.instruct import InstructConfig, candidate_role
from abruzzi.contracts.quantity import ByteCount, Count
from abruzzi.contracts.redteam import RedteamConfig, leaves_deployment
from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi.contracts.rl import RlConfig, TaughtGym
from abruzzi.contracts.rubric import RubricSetName
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.contracts.synthesis import SynthesisConfig
from abruzzi.contracts.training import (
    BatchConfig,
    CheckpointConfig,
    CorpusResourcesConfig,
    DataResourcesConfig,
    ElasticConfig,
    EvaluateResourcesConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    ResourcesConfig,
    RetryConfig,
    RlResourcesConfig,
    ScheduleConfig,
    Seed,
    Strict,
    YarnConfig,
    with_ranks,
)

StageId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$")]
RecipeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]


class StageBase(Strict):
    id: StageId
    kind: StageKind
    needs: tuple[StageId, ...] = ()
    inputs: dict[str, str] = Field(default_factory=dict)
    """{input name: "<stage>.<output>"}, such as { dataset = "tokenize.dataset" }, or "artifact:ID" of another run. Inputs of needed stages that fit
    by kind are bound by themselves."""
    gate: str | None = None
    """`<stage>.<fact> <= <number>`, several joined by `and`: must hold before this stage starts. A maintainer may override it."""
    resources: ResourcesConfig = ResourcesConfig()
    retry: RetryConfig = RetryConfig()
    seed: Seed = 0


class AskingStage(StageBase):
    """A stage that asks language models."""

    roles: dict[ChatRole, RoleConfig] = Field(default_factory=dict)
    endpoint: dict[EndpointName, Endpoint] = Field(default_factory=dict)
    """Of this stage alone; in a resolved recipe also those of the recipe's that its roles name."""

    def asked(self) -> dict[str, tuple[tuple[str | int, ...], RoleConfig]]:
        """{name: (where it stands in the stage's table, who plays it)} of everybody that the stage asks."""
        return {role.value: (("roles", role.value), config) for role, config in self.roles.items()}

    def asked_roles(self) -> dict[str, RoleConfig]:
        return {name: config for name, (_, config) in self.asked().items()}


class CorpusData(CurationTables):
    sources: tuple[str, ...] = Field(min_length=1)
    """Names of shipped sources, or globs of own files: txt, md, jsonl, jsonl.zst, parquet; a directory or s3://bucket/prefix/."""
    text_field: str = "text"
    max_bytes: ByteCount | None = None
    """Cut over all sources, in proportion, by document."""
    held_out_fraction: StrictFloat = Field(default=0.03, gt=0, lt=0.5)
    min_document_bytes: StrictInt = Field(default=64, ge=0)
    dedup: Literal["exact", "none"] = "exact"


class CorpusStage(StageBase):
    kind: Literal[StageKind.CORPUS]
    data: CorpusData
    resources: CorpusResourcesConfig = CorpusResourcesConfig()


class RephraseStage(AskingStage):
    """Roles: rephraser; embedder, whose vectors tell how like source and rewrite are; verifier, which judges what has passed all that; translator, where `translate_from` is set."""

    kind: Literal[StageKind.REPHRASE]
    rephrase: RephraseConfig = RephraseConfig()

    @model_validator(mode="after")
    def _roles_are_given(self) -> RephraseStage:
        if ChatRole.REPHRASER not in self.roles:
            raise ValueError('roles: nobody plays the rephraser; add rephraser = "<endpoint>"')
        if self.rephrase.translate_from and ChatRole.TRANSLATOR not in self.roles:
            raise ValueError('roles: rephrase.translate_from needs a translator; add translator = "<endpoint>"')
        return self


class InstructStage(AskingStage):
    """Role: judge, which scores what has passed the rules. Who answers stands in `instruct.candidates`."""

    kind: Literal[StageKind.INSTRUCT]
    instruct: InstructConfig

    def asked(self) -> dict[str, tuple[tuple[str | int, ...], RoleConfig]]:
        places = {
            candidate_role(config.endpoint): (("instruct", "candidates", number), config)
            for number, config in enumerate(self.instruct.candidates)
        }
        return {**places, **super().asked()}


class TokenizerConfig(Strict):
    """A stage that is given a tokenizer (needs another tokenize stage, or names it as the input `tokenizer`) encodes with that one, of at most
    vocab_size tokens."""

    vocab_size: Count = Field(default=4096, ge=257, le=1_000_000)
    """Byte-level BPE trained on the corpus: 256 bytes, special tokens, merges."""
    train_bytes: ByteCount = Field(default=16 << 20, gt=0)
    shard_tokens: Count = Field(default=4_000_000, gt=0)


class TokenizeStage(StageBase):
    kind: Literal[StageKind.TOKENIZE]
    tokenizer: TokenizerConfig = TokenizerConfig()
    resources: DataResourcesConfig = DataResourcesConfig()


class TelemetryConfig(Strict):
    spectral_every_steps: StrictInt = Field(default=100, ge=0)
    """Spectral norms and singular-value entropy of W_q and W_k (paper appendix E); 0: never."""
    held_out_every_steps: StrictInt | None = Field(default=None, ge=0)
    """Loss on held-out text; absent: twelve times in the run; 0: never."""
    held_out_sequences: StrictInt = Field(default=16, ge=1)
    """Of one look; always the same ones."""
    replay_every_steps: StrictInt = Field(default=0, ge=0)
    """A step's gradients are computed twice and compared: a machine on which they differ corrupts silently, and the run goes on elsewhere. Costs a
    forward and a backward pass each time. Between all updates, sums of the bits of weights and optimizer state are compared, too, and so is what a
    checkpoint would hold. 0: never, neither."""


class TrainingStage(StageBase):
    """A stage that trains a model on data-parallel ranks."""

    optimizer: OptimizerConfig = OptimizerConfig()
    batch: BatchConfig
    parallel: ParallelConfig = ParallelConfig()
    memory: MemoryConfig = MemoryConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    elastic: ElasticConfig | None = None
    """Absent: it runs with all of its ranks, or waits for them."""

    @model_validator(mode="after")
    def _ranks_agree(self) -> TrainingStage:
        self.parallel.check(self.resources.ranks)
        data_ranks = self.resources.ranks // self.parallel.pp
        if data_ranks < 1 or self.batch.sequences % data_ranks:
            raise ValueError(
                f"batch.sequences: {self.batch.sequences} sequences cannot be split evenly over {data_ranks} data-parallel ranks"
            )
        share = self.batch.sequences // data_ranks
        if self.batch.micro_sequences is not None and share % self.batch.micro_sequences:
            raise ValueError(
                f"batch.micro_sequences: {self.batch.micro_sequences} does not divide the {share} sequences of a rank"
            )
        micro_batches = share // (self.batch.micro_sequences or share)
        if self.parallel.vpp > 1 and micro_batches % max(1, micro_batches // self.parallel.pp):
            raise ValueError(
                f"batch.micro_sequences: {micro_batches} micro-batches of a rank do not fill rounds of {self.parallel.pp} pipeline ranks; take a multiple of {self.parallel.pp}"
            )
        self._width_is_possible()
        return self

    def _width_is_possible(self) -> None:
        """Raises ValueError for an `elastic.min_ranks` that the stage cannot run with."""
        if self.elastic is None:
            return
        fewest = self.elastic.min_ranks
        if fewest > self.resources.ranks:
            raise ValueError(f"elastic.min_ranks: {fewest} is more than resources.ranks {self.resources.ranks}")
        if fewest < self.resources.ranks and (refused := self._refused(fewest)) is not None:
            raise ValueError(f"elastic.min_ranks: with {fewest} ranks, {refused}")

    def widths(self) -> tuple[int, ...]:
        """Numbers of ranks that it can run with, the most first."""
        most = self.resources.ranks
        if self.elastic is None:
            return (most,)
        replica = self.parallel.pp * self.parallel.ep
        fewer = range(most - replica, self.elastic.min_ranks - 1, -replica)
        shared = (n for n in fewer if self.batch.sequences % (n // self.parallel.pp) == 0)
        return (most, *(ranks for ranks in shared if self._refused(ranks) is None))

    def _refused(self, ranks: int) -> str | None:
        """Why it cannot run with so many ranks, if it can't."""
        table = with_ranks(self.model_dump(mode="json"), ranks)
        try:
            type(self).model_validate({**table, "elastic": None})
        except ValidationError as error:
            return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        return None


class PretrainStage(TrainingStage):
    kind: Literal[StageKind.PRETRAIN]
    model: ModelConfig
    schedule: ScheduleConfig

    @model_validator(mode="after")
    def _sizes_agree(self) -> PretrainStage:
        if self.model.num_experts % self.parallel.ep:
            raise ValueError(f"parallel.ep: {self.parallel.ep} does not divide the {self.model.num_experts} experts")
        if refused := self.parallel.too_many_stages(self.model.num_layers):
            key = "pp" if self.parallel.pp > self.model.num_layers else "vpp"
            raise ValueError(f"parallel.{key}: {refused.removesuffix('.')}")
        if self.model.tie_embeddings and self.parallel.pp > 1:
            raise ValueError(
                "parallel.pp: the first and the last stage cannot share tied embeddings; set model.tie_embeddings = false"
            )
        self._phases_fit()
        tokens_step = self.batch.sequences * self.batch.sequence_length
        if self.schedule.tokens < tokens_step:
            raise ValueError(
                f"schedule.tokens: {self.schedule.tokens} tokens are less than one step, which takes {tokens_step}"
            )
        return self

    def _phases_fit(self) -> None:
        """Raises ValueError for a length beyond the model's positions, and for sequences that data ranks cannot share."""
        yarn, data_ranks = self.model.yarn, self.resources.ranks // self.parallel.pp
        phases: list[tuple[str, int, int | None, YarnConfig | None]] = [
            ("batch", self.batch.sequence_length, None, None)
        ]
        for index, anneal in enumerate(self.schedule.anneal):
            length = anneal.sequence_length or self.batch.sequence_length
            phases.append((f"schedule.anneal.{index}", length, anneal.sequences, anneal.yarn))
        for key, length, sequences, turned in phases:
            yarn = turned or yarn
            if length > self.model.max_position and yarn is None:
                raise ValueError(
                    f"{key}.sequence_length: {length} is longer than model.max_position {self.model.max_position}; set model.yarn, or max_position itself"
                )
            if sequences is not None and sequences % data_ranks:
                raise ValueError(
                    f"{key}.sequences: {sequences} sequences cannot be split evenly over {data_ranks} data-parallel ranks"
                )


class PreferenceConfig(Strict):
    """How preferences are put, as the critic of the later `rl` stage is asked: same form, same rubrics."""

    form: CriticForm = "full"
    rubrics: RubricSetName = "general"


class SftData(Strict):
    sources: tuple[str, ...] = ()
    """Own conversations: globs of jsonl or jsonl.zst files, a JSON object with OpenAI's `messages` (and `tools`) a line; a directory or
    s3://bucket/prefix/. Beside the stage's inputs, or instead of them."""
    gyms: tuple[TaughtGym, ...] = ()
    """Environments' tasks with right answers, so that a later `rl` stage has something to reward."""
    preferences: tuple[str, ...] = ()
    """Own preference data, files as in `sources`: {"prompt" or "messages", "chosen", "rejected"} a line. A pair is two lessons of a critic, one in each order."""
    critic: PreferenceConfig = PreferenceConfig()
    held_out_fraction: StrictFloat = Field(default=0.03, ge=0, lt=0.5)
    """Of conversations, for the loss on what was not trained on."""
    decontamination: DecontaminationConfig = DecontaminationConfig()


class TemplateConfig(Strict):
    """How conversations become tokens (docs/chat-template.md)."""

    markers: Literal["shipped", "report"] = "shipped"
    """Names of the markers around tool calls: those of the published model, or those that the report prints."""
    json_fraction: StrictFloat = Field(default=0.25, ge=0, le=1)
    """Of conversations whose tools are declared as JSON rather than as TypeScript."""


class SftScheduleConfig(Strict):
    """Warm-up, stable, cosine decay, as in pre-training. Rates are shares of peak_lr."""

    epochs: StrictFloat = Field(default=2.0, gt=0)
    warmup_steps: StrictInt = Field(default=10, ge=0)
    decay_fraction: StrictFloat = Field(default=0.8, ge=0, le=1)
    """Share of the steps at the end under cosine decay."""
    decay_lr_ratio: StrictFloat = Field(default=0.1, ge=0, le=1)


class SftStage(TrainingStage):
    """Full fine-tuning of a checkpoint; the loss is on the assistant's turns."""

    kind: Literal[StageKind.SFT]
    base: Literal["smollm2"] | None = None
    """Begin from these weights of others and their tokenizer, instead of a checkpoint of ours."""
    data: SftData = SftData()
    template: TemplateConfig = TemplateConfig()
    schedule: SftScheduleConfig = SftScheduleConfig()


ASKED_IN_SESSIONS = (ChatRole.JUDGE, ChatRole.ATTACKER, ChatRole.USER)
"""By environments of an rl stage."""


class RlStage(AskingStage):
    """The trainer and the engines take turns on the same memory (paper 3.3.1), in one process or on actors of Ray.

    Roles, each of which may be absent: `critic` compares answers in place of the policy; `judge`, `attacker` and `user` are asked by environments that say so.
    """

    kind: Literal[StageKind.RL]
    rl: RlConfig
    resources: RlResourcesConfig = RlResourcesConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    memory: MemoryConfig = MemoryConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _ranks_are_replicas(self) -> RlStage:
        if self.resources.ranks != 1 and self.resources.framework is None:
            raise ValueError(
                f'resources.ranks: {self.resources.ranks} engines are actors of Ray; set resources.framework = "ray", or leave it at 1'
            )
        if self.rl.enforce_calls and self.resources.framework is not None:
            raise ValueError(
                "rl.enforce_calls: a call's schema is enforced in the process of the engine, which is another one here; take resources.framework out"
            )
        return self

    @model_validator(mode="after")
    def _roles_have_work(self) -> RlStage:
        for role in self.roles:
            if role is not ChatRole.CRITIC and role not in ASKED_IN_SESSIONS:
                raise ValueError(
                    f"roles.{role}: nobody in an rl stage asks for it; valid: {', '.join((ChatRole.CRITIC, *ASKED_IN_SESSIONS))}"
                )
        if ChatRole.CRITIC in self.roles:
            if self.rl.critic is None:
                raise ValueError(
                    'roles.critic: nobody asks it; give an environment reward = "rubric" and add [stage.rl.critic], or take it out'
                )
            if self.rl.critic.refinement.weight > 0:
                raise ValueError(
                    "rl.critic.refinement.weight: lessons are the policy's, and the critic is another model; set refinement = { weight = 0.0 }, or take roles.critic out"
                )
        return self


class EvaluationConfig(Strict):
    max_bytes: ByteCount = Field(default=400_000, gt=0)
    """Held-out text a domain that is scored for bits per byte."""
    cloze_items: StrictInt = Field(default=200, ge=0)
    """Questions of the corpus, asked as a choice among four answers."""
    answered_items: StrictInt = Field(default=0, ge=0)
    """Of these, how many the model also answers in its own words: greedy text, right where it is the answer and nothing else."""
    ngram_baseline: StrictInt = Field(default=4, ge=0, le=8)
    """Order of the interpolated Kneser-Ney byte model trained on the same text; 0: none."""
    sample_tokens: StrictInt = Field(default=120, ge=0)
    prompts: tuple[str, ...] = ("The ", "def ", "In the beginning ")


class EvaluateStage(AskingStage):
    """Held-out text of a checkpoint, suites of questions to the role `target`, or both. Other roles are those that its suites ask, such as `judge`."""

    kind: Literal[StageKind.EVALUATE]
    evaluation: EvaluationConfig | None = None
    """Absent where the stage has suites: they alone are run."""
    suites: dict[SuiteReference, SuiteConfig] = Field(default_factory=dict)
    """By name, such as [stage.suites.humaneval] samples = 4."""
    resources: EvaluateResourcesConfig = EvaluateResourcesConfig()

    @model_validator(mode="before")
    @classmethod
    def _held_out_text_by_itself(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("suites") and data.get("evaluation") is None:
            return {**data, "evaluation": {}}
        return data

    @model_validator(mode="after")
    def _somebody_answers(self) -> EvaluateStage:
        if self.suites and ChatRole.TARGET not in self.roles:
            raise ValueError('roles: nobody answers the suites; add target = "<endpoint>"')
        return self

    @model_validator(mode="after")
    def _ranks_have_work(self) -> EvaluateStage:
        if self.resources.framework is not None and not self.suites:
            raise ValueError("resources.framework: only the items of suites are shared out; name some, or take it out")
        return self


class SynthesizeStage(AskingStage):
    """Roles: `agent` must be given; without `user` the user says what its task says, without `judge` programs alone judge."""

    kind: Literal[StageKind.SYNTHESIZE]
    synthesis: SynthesisConfig
    resources: DataResourcesConfig = DataResourcesConfig()

    @model_validator(mode="after")
    def _somebody_acts(self) -> SynthesizeStage:
        if ChatRole.AGENT not in self.roles:
            raise ValueError("roles.agent: nobody plays the agent; name an endpoint")
        return self


class RedteamStage(AskingStage):
    """Roles: `target`; `attacker`, where a strategy has one; `judge`, without which rules alone decide, and an answer that is no refusal fails."""

    kind: Literal[StageKind.REDTEAM]
    redteam: RedteamConfig = RedteamConfig()

    @model_validator(mode="after")
    def _roles_are_given(self) -> RedteamStage:
        if ChatRole.TARGET not in self.roles:
            raise ValueError("roles.target: nobody is attacked; name an endpoint")
        attacked_by = [strategy.value for strategy in self.redteam.strategies if strategy.has_attacker]
        if attacked_by and ChatRole.ATTACKER not in self.roles:
            raise ValueError(
                f"roles.attacker: nobody words the attacks of {' and '.join(attacked_by)}; name an endpoint of the recipe, or leave these strategies out"
            )
        return self

    def leaving(self) -> list[tuple[ChatRole, str, str]]:
        """(role, endpoint, host) of roles that would see what attackers write, outside the deployment. The target is what is measured: it may be anywhere."""
        if not any(strategy.has_attacker for strategy in self.redteam.strategies):
            return []
        found = []
        for role in (ChatRole.ATTACKER, ChatRole.JUDGE):
            name = self.roles[role].endpoint if role in self.roles else None
            endpoint = self.endpoint.get(name) if name else None
            host = leaves_deployment(endpoint, self.redteam.deployment_hosts) if endpoint else None
            if name and host:
                found.append((role, name, host))
        return found


class ContainerConfig(Strict):
    image: str | None = None
    """On a cluster. The local pool runs the command as a process."""
    command: tuple[str, ...] = Field(min_length=1)
    env: dict[Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")], str] = Field(default_factory=dict)


class ContainerStage(AskingStage):
    kind: Literal[StageKind.CONTAINER]
    container: ContainerConfig


Stage = Annotated[
    CorpusStage
    | RephraseStage
    | InstructStage
    | TokenizeStage
    | PretrainStage
    | SftStage
    | RlStage
    | EvaluateStage
    | SynthesizeStage
    | RedteamStage
    | ContainerStage,
    Field(discriminator="kind"),
]

STAGE_CLASSES: dict[StageKind, type[StageBase]] = {
    StageKind.CORPUS: CorpusStage,
    StageKind.REPHRASE: RephraseStage,
    StageKind.INSTRUCT: InstructStage,
    StageKind.TOKENIZE: TokenizeStage,
    StageKind.PRETRAIN: PretrainStage,
    StageKind.SFT: SftStage,
    StageKind.RL: RlStage,
    StageKind.EVALUATE: EvaluateStage,
    StageKind.SYNTHESIZE: SynthesizeStage,
    StageKind.REDTEAM: RedteamStage,
    StageKind.CONTAINER: ContainerStage,
}

INPUTS: dict[StageKind, dict[str, ArtifactKind]] = {
    StageKind.CORPUS: {},
    StageKind.REPHRASE: {"corpus": ArtifactKind.CORPUS},
    StageKind.INSTRUCT: {},
    StageKind.TOKENIZE: {"corpus": ArtifactKind.CORPUS},
    StageKind.PRETRAIN: {"dataset": ArtifactKind.DATASET},
    StageKind.SFT: {"checkpoint": ArtifactKind.CHECKPOINT, "tokenizer": ArtifactKind.TOKENIZER},
    StageKind.RL: {"checkpoint": ArtifactKind.CHECKPOINT, "tokenizer": ArtifactKind.TOKENIZER},
    StageKind.EVALUATE: {
        "checkpoint": ArtifactKind.CHECKPOINT,
        "tokenizer": ArtifactKind.TOKENIZER,
        "corpus": ArtifactKind.CORPUS,
    },
    StageKind.SYNTHESIZE: {},
    StageKind.REDTEAM: {},
    StageKind.CONTAINER: {},
}
"""What each kind must be given: {input name: kind of artifact}."""


def required_inputs(stage: StageBase) -> dict[str, ArtifactKind]:
    """What this stage must be given."""
    if isinstance(stage, SftStage) and stage.base is not None:
        return {}
    if isinstance(stage, EvaluateStage) and stage.evaluation is None:
        return {}
    return INPUTS[stage.kind]


OPTIONAL_INPUTS: dict[StageKind, dict[str, ArtifactKind]] = {
    StageKind.TOKENIZE: {"tokenizer": ArtifactKind.TOKENIZER},
    StageKind.PRETRAIN: {"checkpoint": ArtifactKind.CHECKPOINT},
    StageKind.SFT: {"conversations": ArtifactKind.CONVERSATIONS, "trajectories": ArtifactKind.TRAJECTORIES},
    StageKind.RL: {"dataset": ArtifactKind.DATASET},
    StageKind.EVALUATE: {
        "checkpoint": ArtifactKind.CHECKPOINT,
        "tokenizer": ArtifactKind.TOKENIZER,
        "corpus": ArtifactKind.CORPUS,
    },
}
"""What each kind may be given beside these: by name, or bound by itself to what a stage among its own `needs` makes (no farther ancestor: what
that one made of it may be what is meant). A tokenizer to encode with instead of training one; a checkpoint whose weights training begins with;
conversations to learn from; texts that a policy must not forget; the text that the target of a suite was trained on, to tell which items it has seen."""

OUTPUTS: dict[StageKind, dict[str, ArtifactKind]] = {
    StageKind.CORPUS: {"corpus": ArtifactKind.CORPUS},
    StageKind.REPHRASE: {"corpus": ArtifactKind.CORPUS},
    StageKind.INSTRUCT: {"conversations": ArtifactKind.CONVERSATIONS},
    StageKind.TOKENIZE: {"tokenizer": ArtifactKind.TOKENIZER, "dataset": ArtifactKind.DATASET},
    StageKind.PRETRAIN: {"checkpoint": ArtifactKind.CHECKPOINT},
    StageKind.SFT: {
        "checkpoint": ArtifactKind.CHECKPOINT,
        "tokenizer": ArtifactKind.TOKENIZER,
        "examples": ArtifactKind.FILES,
    },
    StageKind.RL: {
        "checkpoint": ArtifactKind.CHECKPOINT,
        "tokenizer": ArtifactKind.TOKENIZER,
        "rollouts": ArtifactKind.ROLLOUTS,
    },
    StageKind.EVALUATE: {"report": ArtifactKind.REPORT},
    StageKind.REDTEAM: {"redteam": ArtifactKind.REDTEAM},
    StageKind.SYNTHESIZE: {"tools": ArtifactKind.TOOLS, "trajectories": ArtifactKind.TRAJECTORIES},
    StageKind.CONTAINER: {"files": ArtifactKind.FILES, "checkpoint": ArtifactKind.CHECKPOINT},
}
"""What each kind makes. An output called `checkpoint` stands for the newest step's manifest (`step-<8 digits>`, or `final`)."""


class Recipe(Strict):
    version: Literal[1]
    name: RecipeName
    description: str = Field(default="", max_length=2000)
    endpoint: dict[EndpointName, Endpoint] = Field(default_factory=dict)
    """Servers that the stages' roles name."""
    stage: tuple[Stage, ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _give_endpoints(self) -> Recipe:
        """A stage's own table says everything that it may depend on, so it gets the endpoints that it asks."""
        stages = tuple(
            stage.model_copy(
                update={"endpoint": {**endpoints_of(stage.asked_roles(), self.endpoint), **stage.endpoint}}
            )
            if isinstance(stage, AskingStage)
            else stage
            for stage in self.stage
        )
        object.__setattr__(self, "stage", stages)
        return self

    def stage_by_id(self, stage_id: str) -> StageBase:
        return next(s for s in self.stage if s.id == stage_id)

    def resolved(self) -> dict[str, Any]:
        """Plain JSON with every default written out: what is stored, hashed and compared."""
        return self.model_dump(mode="json", exclude_none=False)

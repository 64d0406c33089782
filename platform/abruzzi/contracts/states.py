"""States, causes and exit codes: the words in which a run's life is told.

Every set is closed and every value is a public constant: the database checks them, the API serves them, the dashboard colours them.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class RunState(StrEnum):
    PENDING = "pending"
    """Accepted, and nothing of it runs: no stage has started, or what is next waits in the cluster."""
    RUNNING = "running"
    """At least one stage has started and the run has not ended."""
    CANCELLING = "cancelling"
    """A person asked for the end; attempts are being stopped."""
    INTERRUPTED = "interrupted"
    """The embedded platform was stopped in good order; the next `abruzzi up` continues the run."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class StageState(StrEnum):
    WAITING = "waiting"
    """A stage that it needs has not succeeded yet."""
    PENDING = "pending"
    """Everything it needs is there; its next attempt is not running yet (new, backing off, or waiting in the cluster)."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """A stage that it needs failed or was cancelled, or its gate did not hold."""

    @property
    def is_terminal(self) -> bool:
        return self in (StageState.SUCCEEDED, StageState.FAILED, StageState.CANCELLED, StageState.SKIPPED)


class AttemptState(StrEnum):
    CREATED = "created"
    """The intent is committed in Postgres; the workload may or may not exist yet."""
    STARTING = "starting"
    """The workload exists; no rank has reported."""
    RUNNING = "running"
    STOPPING = "stopping"
    """Asked to save and exit; the grace period runs."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """Saved and stopped because the platform was going down, or preempted; the next attempt is free of charge."""

    @property
    def is_terminal(self) -> bool:
        return self in (AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.CANCELLED, AttemptState.INTERRUPTED)


class Cause(StrEnum):
    """Why an attempt ended otherwise than well. Retry policy is by cause (design section 4.4)."""

    USER_ERROR = "user_error"
    """The stage's own code or configuration: never retried."""
    BAD_DATA = "bad_data"
    """Input that cannot be read or used: never retried."""
    INFRASTRUCTURE = "infrastructure"
    """The machine or a service failed, or the process asked to be tried again: retried free of charge."""
    NODE = "node"
    """The node is gone or sick: retried free of charge on another node."""
    PREEMPTION = "preemption"
    """Preempted, or interrupted by the platform, after saving: requeued free of charge."""
    RESIZE = "resize"
    """Stopped by the platform after saving, to go on with fewer data-parallel ranks, or with more again: free of charge, at once."""
    HANG = "hang"
    """A rank made no progress within its deadline: stacks kept, retried."""
    OUT_OF_MEMORY = "out_of_memory"
    """Killed for memory: not retried; the reason says what would fit."""
    DIVERGENCE = "divergence"
    """NaN or a loss spike: retried from N checkpoints back."""
    POISON = "poison"
    """The same failure k times in a row: quarantined."""
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """Died with a code that the contract does not know: retried within the budget."""


class ExitCode(IntEnum):
    """Exit codes of the stage contract (design section 6)."""

    OK = 0
    USER_ERROR = 64
    BAD_DATA = 65
    TRY_AGAIN = 75
    DIVERGENCE = 76
    """NaN or loss spike: the trainer stops by itself."""
    KILLED = 137
    PREEMPTED = 143
    """SIGTERM received, checkpoint saved."""


PHASE_ENDED = "ended"
"""Phase of a rank whose process has ended well while others of its attempt go on: its launcher says so, and nobody waits for its next word."""


class StageKind(StrEnum):
    CORPUS = "corpus"
    REPHRASE = "rephrase"
    INSTRUCT = "instruct"
    TOKENIZE = "tokenize"
    PRETRAIN = "pretrain"
    SFT = "sft"
    """Supervised fine-tuning of a checkpoint on conversations (paper section 3.1)."""
    RL = "rl"
    """Reinforcement learning of a checkpoint in environments (paper 3.2, 3.3)."""
    EVALUATE = "evaluate"
    SYNTHESIZE = "synthesize"
    """Tools, agents, tasks, and conversations in which they are used (paper 3.1.1)."""
    REDTEAM = "redteam"
    """Attacks on a model, and how often it holds (paper section 4.3)."""
    CONTAINER = "container"

    @property
    def trains(self) -> bool:
        """Whether it trains a model step by step, with checkpoints to go on from."""
        return self in (StageKind.PRETRAIN, StageKind.SFT, StageKind.RL)


class ArtifactKind(StrEnum):
    CORPUS = "corpus"
    TOKENIZER = "tokenizer"
    DATASET = "dataset"
    CHECKPOINT = "checkpoint"
    TOOLS = "tools"
    """A catalogue of tool specs."""
    TRAJECTORIES = "trajectories"
    """Conversations of agents with users and tools, judged: kept ones and discarded ones."""
    REPORT = "report"
    EXPORT = "export"
    FILES = "files"
    CONVERSATIONS = "conversations"
    """Answers to prompts by several models: kept ones, discarded ones, and those that people decide about."""
    ROLLOUTS = "rollouts"
    """What a policy did in environments while it was trained, and what it was rewarded with."""
    REDTEAM = "redteam"
    """Attacks on a model, its answers and their verdicts. What was asked and answered is shown to those who may read attacks only."""


class Role(StrEnum):
    """Roles inside a project, weakest first; ATTEMPT is a machine role that reaches one attempt."""

    VIEWER = "viewer"
    MEMBER = "member"
    MAINTAINER = "maintainer"
    ADMIN = "admin"
    ATTEMPT = "attempt"

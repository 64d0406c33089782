"""Who may do what: one pure function over a table. Deny by default."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from abruzzi.contracts.states import Role


class Action(StrEnum):
    """What a route needs; each names one."""

    READ = "read"
    """Runs, stages, artifacts, metrics, logs, events, recipes."""
    SUBMIT = "submit"
    """Submit, branch, save recipes and rubrics."""
    STEER = "steer"
    """Cancel and retry."""
    OVERRIDE_GATES = "override_gates"
    """Let a stage start although its gate does not hold."""
    REVIEW = "review"
    """Accept and reject rows of an artifact."""
    READ_ATTACKS = "read_attacks"
    """What a red team asked and what the target answered; also asked for by a verdict on it. Others see where it stands in the grid, and its fate."""
    PLAN = "plan"
    """Validate and plan: computes, stores nothing."""
    READ_TOKENS = "read_tokens"
    MANAGE_TOKENS = "manage_tokens"
    READ_AUDIT = "read_audit"
    MANAGE_NOTIFICATIONS = "manage_notifications"
    """Subscriptions, their deliveries and what could not be handled: targets may hold secrets, so seeing them needs it, too."""
    MANAGE_PROJECTS = "manage_projects"
    """Make projects, see all of them, and make tokens for any: the platform's own admins, those of project `default`."""
    MANAGE_POOLS = "manage_pools"
    """Of the platform: make, change and remove them."""
    MANAGE_NODES = "manage_nodes"
    """Of the platform: drain and return them."""
    REPORT = "report"
    """Telemetry of an attempt: metrics, heartbeats, logs, artifacts; what people said of its inputs, and the rubrics that it judges by."""
    WHOAMI = "whoami"
    """About the caller's own session."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller."""

    token_id: str
    name: str
    role: Role
    projects: tuple[str, ...]
    attempt_id: str | None = None
    """Of a stage's token: the one attempt that it reaches."""

    @property
    def actor(self) -> str:
        return f"{self.role}:{self.name}"

    @property
    def run_id(self) -> str | None:
        return self.attempt_id[:10] if self.attempt_id else None


@dataclass(frozen=True, slots=True)
class Target:
    """What an action is about; None where the request does not say."""

    attempt_id: str | None = None


PLATFORM_PROJECT = "default"
"""The project that is there from the first migration. Its admins are the platform's."""

_VIEWER = {Action.READ, Action.PLAN, Action.WHOAMI}
_MEMBER = _VIEWER | {Action.SUBMIT, Action.STEER, Action.REVIEW}
_MAINTAINER = _MEMBER | {
    Action.OVERRIDE_GATES, Action.READ_ATTACKS, Action.READ_TOKENS, Action.READ_AUDIT, Action.MANAGE_NOTIFICATIONS,
}  # fmt: skip
_ADMIN = _MAINTAINER | {Action.MANAGE_TOKENS, Action.MANAGE_PROJECTS, Action.MANAGE_POOLS, Action.MANAGE_NODES}

POLICY: dict[Role, frozenset[Action]] = {
    Role.VIEWER: frozenset(_VIEWER),
    Role.MEMBER: frozenset(_MEMBER),
    Role.MAINTAINER: frozenset(_MAINTAINER),
    Role.ADMIN: frozenset(_ADMIN),
    Role.ATTEMPT: frozenset({Action.REPORT, Action.WHOAMI}),
}


def allowed(identity: Identity, action: Action, target: Target) -> bool:
    """Whether `identity` may do `action` to `target`."""
    if action not in POLICY.get(identity.role, frozenset()):
        return False
    if action in (Action.MANAGE_PROJECTS, Action.MANAGE_POOLS, Action.MANAGE_NODES):
        return PLATFORM_PROJECT in identity.projects
    if identity.role is Role.ATTEMPT and action is Action.REPORT:
        return identity.attempt_id is not None and target.attempt_id == identity.attempt_id
    return True

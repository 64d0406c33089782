"""Imports every noun's models, so that Base.metadata knows all tables (migrations, drift test)."""

from __future__ import annotations

from abruzzi.artifacts import models as artifacts
from abruzzi.evaluations import models as evaluations
from abruzzi.events import models as events
from abruzzi.identity import models as identity
from abruzzi.logs import models as logs
from abruzzi.metrics import models as metrics
from abruzzi.nodes import models as nodes
from abruzzi.notifications import models as notifications
from abruzzi.pools import models as pools
from abruzzi.recipes import models as recipes
from abruzzi.reviews import models as reviews
from abruzzi.rubrics import models as rubrics
from abruzzi.runs import models as runs
from abruzzi.usage import models as usage
from abruzzi.workers import models as workers

REGISTERED = (
    artifacts,
    evaluations,
    events,
    identity,
    logs,
    metrics,
    nodes,
    notifications,
    pools,
    recipes,
    reviews,
    rubrics,
    runs,
    usage,
    workers,
)

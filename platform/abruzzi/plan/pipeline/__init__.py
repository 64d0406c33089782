"""Pipeline schedules as action tables: made here, executed by `abruzzi_jobs.distributed`, timed by the same simulator that plans them."""

from abruzzi.plan.pipeline.actions import Action, Op
from abruzzi.plan.pipeline.order import compute_order, forward_order
from abruzzi.plan.pipeline.shared import simulate_shared
from abruzzi.plan.pipeline.simulate import Costs, ScheduleError, Simulation, Span, simulate
from abruzzi.plan.pipeline.table import action_table, extra_warmup, forward_table, training_table

__all__ = [
    "Action",
    "Costs",
    "Op",
    "ScheduleError",
    "Simulation",
    "Span",
    "action_table",
    "compute_order",
    "extra_warmup",
    "forward_order",
    "forward_table",
    "simulate",
    "simulate_shared",
    "training_table",
]

"""Pure arithmetic over a recipe: parameters, FLOPs, memory, time. No torch, no I/O; the same numbers for CLI, API and dashboard."""

from abruzzi.plan.planner import plan_recipe
from abruzzi.plan.scale import PlanOptions

__all__ = ["PlanOptions", "plan_recipe"]

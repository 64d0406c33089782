"""Writes charts/abruzzi/dashboards/*.json (`make dashboards`): Grafana's dashboards as code, by grafana-foundation-sdk. What is committed is what this makes.

All state gauges are served by every controller, so queries take the maximum over them; counters are summed.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

FOLDER = Path(__file__).parent.parent / "charts/abruzzi/dashboards"
SERVER_ERRORS = 'abruzzi_api_requests_total{status=~"5.."}'
SOURCE = DataSourceRef(type_val="prometheus", uid="abruzzi")


@dataclass(frozen=True)
class Chart:
    title: str
    says: str
    queries: Sequence[tuple[str, str]]
    """(expression, legend)."""
    unit: str = "short"
    single: bool = False


def rate(counter: str) -> str:
    return f"rate({counter}[$__rate_interval])"


def quantile(q: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) ({rate(histogram + '_bucket')}))"


PLATFORM = {
    "Runs and queue": (
        Chart("Runs", "Runs by state", [("max by (state) (abruzzi_runs)", "{{state}}")]),
        Chart("Queue", "Stages that could run and do not run yet", [("max by (pool) (abruzzi_queue_depth)", "{{pool}}")]),
        Chart("Waiting for a machine", "Age of the oldest attempt that has not started", [("max(abruzzi_queue_oldest_seconds)", "oldest")], "s"),
        Chart("Stages", "Of runs that have not ended", [("sum by (state) (max by (kind, state) (abruzzi_stages))", "{{state}}")]),
        Chart("Attempts that failed", "By cause, in total", [('max by (cause) (abruzzi_attempts{state="failed"})', "{{cause}}")]),
    ),
    "Controller": (
        Chart("Step latency", "From a run's lease until it is quiet",
              [(quantile(0.5, "abruzzi_controller_step_seconds"), "p50"), (quantile(0.99, "abruzzi_controller_step_seconds"), "p99")], "s"),
        Chart("Lag", "How long a due run waits for a controller", [("max(abruzzi_controller_lag_seconds)", "lag")], "s"),
        Chart("Failed steps", "Steps that are tried again", [(f"sum({rate('abruzzi_controller_failures_total')})", "failures/s")]),
        Chart("Age of what is shown", "Since the state was read from Postgres", [("time() - max(abruzzi_state_read_timestamp_seconds)", "age")], "s"),
    ),
    "API": (
        Chart("Requests", "By status", [(f"sum by (status) ({rate('abruzzi_api_requests_total')})", "{{status}}")], "reqps"),
        Chart("Latency", "To the answer's start",
              [(quantile(0.5, "abruzzi_api_request_seconds"), "p50"), (quantile(0.99, "abruzzi_api_request_seconds"), "p99")], "s"),
        Chart("Latency by route, p99", "To the answer's start", [(quantile(0.99, "abruzzi_api_request_seconds", "route"), "{{route}}")], "s"),
        Chart("Errors", "Share of answers that are 5xx",
              [(f"sum({rate(SERVER_ERRORS)}) / sum({rate('abruzzi_api_requests_total')}) or vector(0)", "5xx")], "percentunit"),
    ),
}  # fmt: skip
TRAINING = {
    "Now": (
        Chart("Loss", "Attempts that run now", [("max by (run, stage) (abruzzi_training_loss)", "{{run}} {{stage}}")]),
        Chart("Tokens per second", "Attempts that run now", [("max by (run, stage) (abruzzi_training_tokens_per_second)", "{{run}} {{stage}}")]),
        Chart("Seconds per step", "Attempts that run now", [("max by (run, stage) (abruzzi_training_step_seconds)", "{{run}} {{stage}}")], "s"),
        Chart("All tokens per second", "Sum over what runs now", [("sum(max by (run, stage) (abruzzi_training_tokens_per_second))", "tokens/s")], single=True),
    ),
    "In total": (
        Chart("GPU hours", "Held by attempts, by pool", [("sum by (pool) (max by (pool, outcome) (abruzzi_gpu_seconds)) / 3600", "{{pool}}")], "h"),
        Chart("Rank hours", "By stage kind", [("sum by (kind) (max by (kind, outcome) (abruzzi_attempt_seconds)) / 3600", "{{kind}}")], "h"),
        Chart("Rank hours by outcome", "What the time went into", [("sum by (outcome) (max by (kind, outcome) (abruzzi_attempt_seconds)) / 3600", "{{outcome}}")], "h"),
        Chart("Artifacts", "Bytes that were not removed", [("max by (kind) (abruzzi_artifact_bytes)", "{{kind}}")], "bytes"),
    ),
}  # fmt: skip
SIDE_WORK = {
    "Outbox": (
        Chart("Messages", "That wait or are quarantined", [("max by (state) (abruzzi_outbox_messages)", "{{state}}")]),
        Chart("Oldest message", "That waits; a few seconds when workers do their work", [("max(abruzzi_outbox_oldest_seconds)", "oldest")], "s"),
        Chart("Quarantined", "See `abruzzi notifications work`", [('max(abruzzi_outbox_messages{state="quarantined"}) or vector(0)', "messages")], single=True),
    ),
    "Notifications and chores": (
        Chart("Deliveries", "By state", [("max by (state) (abruzzi_deliveries)", "{{state}}")]),
        Chart("Failures in a row", "By chore", [("max by (chore) (abruzzi_chore_failures)", "{{chore}}")]),
        Chart("Since it last went well", "By chore", [("max by (chore) (abruzzi_chore_age_seconds)", "{{chore}}")], "s"),
    ),
}  # fmt: skip
DASHBOARDS = {
    "abruzzi-platform": ("Abruzzi: platform", PLATFORM),
    "abruzzi-training": ("Abruzzi: training", TRAINING),
    "abruzzi-side-work": ("Abruzzi: side work", SIDE_WORK),
}


def build() -> dict[str, str]:
    """{file name: JSON}."""
    return {f"{uid}.json": _dashboard(uid, title, rows) for uid, (title, rows) in DASHBOARDS.items()}


def _dashboard(uid: str, title: str, rows: Mapping[str, tuple[Chart, ...]]) -> str:
    made = (
        Dashboard(title).uid(uid).tags(["abruzzi"]).refresh("15s").time("now-6h", "now").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    )  # fmt: skip
    number = itertools.count(1)
    for heading, charts in rows.items():
        made = made.with_row(Row(heading).id(next(number)))
        for chart in charts:
            made = made.with_panel(_panel(chart, max(6, 24 // len(charts))).id(next(number)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(chart: Chart, span: int) -> TimeSeries | Stat:
    panel = _stat() if chart.single else TimeSeries().legend(_legend()).fill_opacity(8).min(0)
    panel = panel.title(chart.title).description(chart.says).unit(chart.unit).datasource(SOURCE).span(span).height(8)
    for letter, (expression, legend) in zip("ABCDEFGH", chart.queries, strict=False):
        panel = panel.with_target(Dataquery().expr(expression).legend_format(legend).ref_id(letter).datasource(SOURCE))
    return panel


def _stat() -> Stat:
    values = ReduceDataOptions().calcs(["lastNotNull"])
    return Stat().graph_mode(BigValueGraphMode.AREA).reduce_options(values)


def _legend() -> VizLegendOptions:
    return VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in build().items():
        (FOLDER / name).write_text(content)
        sys.stdout.write(f"{FOLDER.name}/{name}\n")

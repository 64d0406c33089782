"""The matrix as text."""

from __future__ import annotations

from abruzzi.contracts.redteam import PAPER_MODELS, Plugin, Strategy
from abruzzi.contracts.safety_matrix import Agreement, SafetyCell, SafetyMatrix


def cell_text(cell: SafetyCell | None) -> str:
    """Such as `83 % (5/6, 44–97)`: rate, passes of n, interval; what waits and what has no verdict behind it."""
    if cell is None:
        return "–"
    if cell.rate is None or cell.low is None or cell.high is None:
        return f"no verdict ({cell.no_verdict})"
    waits = f", {cell.waiting} waiting" if cell.waiting else ""
    vain = f", {cell.no_verdict} no verdict" if cell.no_verdict else ""
    return f"{100 * cell.rate:.0f} % ({cell.passed}/{cell.n}, {100 * cell.low:.0f}–{100 * cell.high:.0f}{waits}{vain})"


def matrix_markdown(matrix: SafetyMatrix) -> str:
    """Ours with n and interval, the report's first model below it."""
    cells = {(cell.plugin, cell.strategy): cell for cell in matrix.cells}
    strategies = [s for s in Strategy if any(cell.strategy is s for cell in matrix.cells)]
    columns = [*strategies, None]
    lines = [
        f"| plugin | {' | '.join(s.value for s in strategies)} | all |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for plugin in Plugin:
        if (plugin, None) not in cells:
            continue
        lines.append(f"| **{plugin}** | {' | '.join(cell_text(cells.get((plugin, s))) for s in columns)} |")
        paper = [cells[plugin, s].paper.get(PAPER_MODELS[0]) if (plugin, s) in cells else None for s in strategies]
        lines.append(
            f"| report, {PAPER_MODELS[0]} | {' | '.join('–' if value is None else f'{value:.2f} %' for value in paper)} | |"
        )
    told = "; ".join(agreement_text(one) for one in matrix.agreement if one.rows)
    lines += ["", "Pass rate (passed/n, Wilson's 95 % interval). What waits for a person counts as failed."]
    return "\n".join([*lines, f"Agreement: {told}." if told else ""]).rstrip()


def agreement_text(agreement: Agreement) -> str:
    kappa = "" if agreement.kappa is None else f", Cohen's kappa {agreement.kappa:.2f}"
    first, second = agreement.between
    return f"{first} and {second} agree on {agreement.agreed} of {agreement.rows}{kappa}"

import pytest

from abruzzi.contracts.gate import clauses, judge, parse_gate

FACTS = {"ifbench": {"strict": 0.31}, "redteam": {"harmful.pass": 0.96, "privacy.pass": 0.5}}


@pytest.mark.parametrize(
    ("gate", "holds", "told"),
    [
        ("ifbench.strict >= 0.30", True, "holds: strict is 0.31"),
        ("ifbench.strict >= 0.30 and redteam.harmful.pass >= 0.95", True, "strict is 0.31, harmful.pass is 0.96"),
        ("ifbench.strict >= 0.30  and\tredteam.privacy.pass >= 0.95", False, "does not hold: privacy.pass is 0.5."),
        ("ifbench.strict < 0.3 and redteam.privacy.pass > 0.9", False, "strict is 0.31, privacy.pass is 0.5"),
        ("ifbench.strict >= 0.30 and redteam.security.pass >= 0.95", False, "made no 'security.pass'"),
        ("nobody.strict >= 0.30", False, "it has: none"),
        ("ifbench.strict >= 0.30 or redteam.harmful.pass >= 0.95", False, "cannot be read"),
        ("ifbench.strict >= 0.30 and", False, "cannot be read"),
        ("and", False, "cannot be read"),
    ],
)
def test_a_gate_holds_where_all_its_conditions_do(gate: str, holds: bool, told: str) -> None:
    verdict = judge(gate, FACTS)
    assert verdict.holds is holds
    assert told in verdict.sentence


def test_conditions_are_read_in_their_order() -> None:
    gates = parse_gate("a.x.y <= 1e-3 and b.z == -2")
    assert gates is not None
    assert [(g.stage_id, g.fact, g.comparison, g.bound) for g in gates] == [
        ("a", "x.y", "<=", 1e-3),
        ("b", "z", "==", -2.0),
    ]


def test_each_condition_is_told_with_its_number_and_how_far_it_falls_short():
    found = clauses("a.score >= 0.5 and b.loss <= 2 and b.passes > 3", {"a": {"score": 0.42}, "b": {"loss": 1.5}})
    assert [(c.gate.fact, c.value, c.holds) for c in found] == [
        ("score", 0.42, False),
        ("loss", 1.5, True),
        ("passes", None, False),
    ]
    assert found[0].short_by == pytest.approx(0.08)
    assert [c.short_by for c in found[1:]] == [None, None]
    assert clauses("no gate", {}) == []

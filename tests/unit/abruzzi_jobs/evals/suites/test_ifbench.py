from evals_oracle import verdict

from abruzzi_jobs.evals.scorers.ifbench_rules import RULES
from abruzzi_jobs.evals.suites.registry import open_suite


def test_all_294_items_name_known_rules() -> None:
    suite = open_suite("ifbench")
    items = list(suite.items())
    assert (len(items), len({item.id for item in items})) == (294, 294)
    assert {name for item in items for name in item.meta["rules"]} <= set(RULES)


def test_a_verdict_names_the_broken_rules() -> None:
    suite = open_suite("ifbench")
    item = next(suite.items())
    words = (item.meta["params"][0][f"keyword{n}"] for n in range(1, 6))
    right = " ".join(" ".join([word] * times) for word, times in zip(words, (1, 2, 3, 5, 7), strict=True))
    assert verdict(suite, item, right).parts == {"strict": 1.0, "loose": 1.0, "rules": 1.0}
    found = verdict(suite, item, f"{right} {item.meta['params'][0]['keyword1']}")
    assert (found.score, found.reason) == (0.0, "broken: count:keywords_multiple")

from __future__ import annotations

import pytest
from tuning_lab import small_tokenizer

from abruzzi_jobs.sft.markers import marker_sets, with_markers
from abruzzi_jobs.sft.template import ChatTemplate


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> ChatTemplate:
    markers = marker_sets()["shipped"]
    return ChatTemplate(with_markers(small_tokenizer(tmp_path_factory.mktemp("rollout")), markers), markers)

"""Stages of a run: where they lie, and whose time counts."""

from __future__ import annotations

import numpy as np

from experiments.stages import Stages
from flown_jax.training.stages import plain_values
from flown_jax.training.workdir import Workdir
from tests.experiments.fewshot.configs import changed


def test_a_run_may_keep_everything_to_itself(tmp_path):
    config = changed("tiny", share=False)
    with Workdir(tmp_path / "run", plain_values(config)) as work:
        result = Stages(work, share=config.share).common("thing", {}, lambda _: {"a": np.ones(1)})
    assert result.path == tmp_path / "run" / "stages" / "thing"


def test_stages_that_are_all_shared_count_where_they_came_from(tmp_path):
    with Workdir(tmp_path / "run", {}) as work:
        stages = Stages(work, share=True)
        every = stages.all_common()
        found = [of("thing", {}, lambda _: {"a": np.ones(1)}) for of in (every, every.common)]
        own = stages("thing", {}, lambda _: {"a": np.zeros(1)})
    assert found[0].path.parent == found[1].path.parent == tmp_path / "shared"
    assert own.path == tmp_path / "run" / "stages" / "thing"
    assert not found[0].reused and found[1].reused
    assert stages.seconds == found[0].seconds + found[1].seconds + own.seconds
    assert stages.seconds_here == found[0].seconds + own.seconds

"""No two rows of the few-shot table, no two sets and no two parts of a set share their draws."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import pytest

from configs.fsl import get_config
from experiments.fewshot import methods
from experiments.fewshot.report import remarks
from tests.experiments.fewshot.test_choices import ABOUT, ARRAYS, result
from tests.few_shot import small

pytestmark = pytest.mark.fast


@pytest.fixture
def drawn(monkeypatch):
    """[(what draws, its key, heads a task)] of the predictions on two sets."""
    found, way = [], small.WAY

    def sampler(name):
        def draw(*arguments, **given):
            (key,) = [
                a
                for a in (*arguments, *given.values())
                if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
            ]
            found.append((name, str(jax.random.key_data(key)), given["samples"]))
            (support,) = [a for a in arguments if getattr(a, "ndim", 0) == 4] or [given["support"]]
            heads = jnp.ones((given.get("samples", 1), len(support), way, small.WIDTH + 1))
            return heads if name == "noisy" else (heads, 1.0)

        return draw

    made = types.SimpleNamespace(
        draw_heads=sampler("flow"),
        draw_heads_with=None,
        regress_noisy_heads=sampler("noisy"),
        regress_heads=lambda *_, support, **__: jnp.ones((len(support), way, small.WIDTH + 1)),
        reconstruct_heads=None,
        base_heads=None,
    )
    monkeypatch.setattr(methods, "sampling", made)
    monkeypatch.setattr(methods.jax, "jit", lambda function, **_: function)
    monkeypatch.setattr(methods.Methods, "_baselines", lambda *_: {})
    monkeypatch.setattr(methods.Methods, "_ddpm", lambda *_: sampler("ddpm"))
    monkeypatch.setattr(methods.Methods, "_beside", lambda *_: sampler("beside"))
    monkeypatch.setattr(methods.Methods, "condition", lambda *_: {})
    given = types.SimpleNamespace(
        sampling={"samples": 3, "top": 2},
        ddpm={"timesteps": 30, "steps": 4, "samples": 3},
        caml=result(variables=ARRAYS["caml"], sizes=ABOUT["caml"]),
        regression=result(params={}),
        model=result(description=ABOUT, arrays=ARRAYS),
        beside={"other": {}},
        noise=0.3,
        chosen={"temperature": 1.0},
        setting="3-way 2-shot",
        seed=0,
    )
    these = methods.Methods(given)
    for name in ("in_distribution", "elsewhere"):
        these.predictions(small.table(tasks=8, query=2), name)
    return found


def test_no_two_rows_share_their_draws(drawn):
    whose = {}
    for name, key, _ in drawn:
        whose.setdefault(key, []).append(name)
    assert [names for names in whose.values() if len(names) > 1] == []
    # Two sets of two parts each: the flow, the same with another support, and its three rivals.
    names = [name for name, *_ in drawn]
    counts = {name: names.count(name) for name in names}
    assert counts["flow"] == 2 * counts["ddpm"] == 2 * counts["beside"] == 2 * counts["noisy"]


def test_every_row_has_as_many_heads(drawn):
    heads = {name: {count for other, _, count in drawn if other == name} for name, *_ in drawn}
    # The control, heads for another task's support, is a row of single heads.
    assert heads == {name: {3} for name in ("flow", "ddpm", "beside", "noisy")}


def test_fewer_heads_are_told():
    config = get_config("default").copy_and_resolve_references().unlock()
    assert "heads a task" not in remarks(config)["ddpm_ensemble"]
    config.ddpm.samples = 20
    found = remarks(config)
    assert "20 heads a task, where the flow has 50" in found["ddpm_ensemble"]
    assert "3 heads of 20" in found["ddpm_top3_support"]
    assert "3 heads of 50" in found["flown_top3_support"]

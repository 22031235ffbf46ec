"""Forest plots: every line is drawn, what lies far out by its value."""

from __future__ import annotations

from flown_jax.evaluation import forest as module
from flown_jax.evaluation.forest import Difference, forest
from tests.evaluation.test_figures import picture


def test_a_forest_plot_becomes_a_picture(tmp_path):
    lines = [
        Difference("rival", -1.0, 0.5, 2.0),
        Difference("ours", 2.0, None, 1.0, "ours"),
        Difference("best †", 3.0, 0.5, None, "chosen"),
        Difference("chance", -60.0, 1.0, 1.0),
    ]
    forest(tmp_path / "new" / "one.png", {"near": lines}, "points")
    forest(tmp_path / "two.png", {"near": lines, "far": lines[1:2]}, "points")
    one, two = picture(tmp_path / "new" / "one.png"), picture(tmp_path / "two.png")
    assert two.shape[1] > one.shape[1]
    forest(tmp_path / "again.png", {"near": lines, "far": lines[1:2]}, "points")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_one_line_far_out_does_not_squeeze_the_others(tmp_path, monkeypatch):
    told = []
    save = module.save_figure
    monkeypatch.setattr(module, "save_figure", lambda f, p: (told.append(f), save(f, p)))
    lines = [Difference(f"m{i}", 0.1 * i, 0.5) for i in range(9)]
    forest(tmp_path / "a.png", {"near": [*lines, Difference("far", -60.0, 1.0)]}, "points")
    (axis,) = told[0].axes
    low, high = axis.get_xlim()
    assert -3 < low < 0 < high < 3
    assert [text.get_text() for text in axis.texts] == ["-60.0"]
    assert [label.get_text() for label in axis.get_yticklabels()][-1] == "far"


def test_no_difference_at_all_is_drawn(tmp_path):
    forest(tmp_path / "a.png", {"near": [Difference("same", 0.0, 0.0, 0.0)]}, "points")
    picture(tmp_path / "a.png")

import pytest

from benchmarks import blend
from benchmarks.blend import K
from offline.evaluate import embed, ranks
from offline.run import Run
from service.request import Blend


def test_the_lists_are_those_of_the_offline_evaluation_and_diversity_moves_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"plain": Blend(), "diverse": Blend(diversity=1.0), "drawn": Blend(explore=1.0)}
    monkeypatch.setattr(blend, "SETTINGS", asked)

    rows = {row.what.partition("users, ")[2]: row.measured for row in blend.measure(run.path)}

    found = ranks(embed(run.model, run.dataset), run.dataset, "test")
    # Cold items are candidates here and none there.
    assert rows[f"plain: HR@{K}"] == pytest.approx((found < K).mean(), abs=0.05)
    assert rows["diverse: mean cosine in a list"] < rows["plain: mean cosine in a list"]
    assert rows["diverse: categories in a list"] > rows["plain: categories in a list"]
    assert rows[f"drawn: HR@{K}"] < rows[f"plain: HR@{K}"]

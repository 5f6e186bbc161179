"""What a person sees of training, and what it does not change."""

from __future__ import annotations

import pytest
from edge_adapt.cloud.errors import TrainingWarning
from edge_adapt.cloud.outer import Meta
from edge_adapt.cloud.run.adam import AdamState
from edge_adapt.cloud.run.progress import FIRST_GUESS_AFTER, Progress, minutes, short
from edge_adapt.cloud.run.state import State

METRICS = {"query_loss": 1.25, "query_accuracy": 0.5, "active_layers": 7.0}


def state(step: int) -> State:
    return State(step, Meta({}, {}), AdamState(step, {}, {}), pending=(METRICS,))


def test_the_bar_shows_loss_accuracy_active_layers_and_the_expected_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress(total=100, start=0, shown=True) as shown:
        for step in range(1, FIRST_GUESS_AFTER + 1):
            shown.step(state(step))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "loss=1.250, accuracy=0.500, active layers=7" in printed.err
    assert f"for {100 - FIRST_GUESS_AFTER} more steps, plus validation" in printed.err


def test_nothing_is_printed_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=100, start=0, shown=False) as shown:
        shown.step(state(1))
        shown.note("text")
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def validated(residual: float) -> dict[str, float]:
    return {
        "step": 4, "validation_accuracy": 0.5, "validation_ci95": 0.1, "active_layers": 1, "zero_step_sizes": 0.5,
        "lower_residual": residual,
    }  # fmt: skip


@pytest.mark.parametrize(("residual", "times"), [(0.5, 2), (0.01, 0)])
def test_an_inner_problem_that_is_not_solved_is_warned_of_above_the_bar_each_time(
    residual: float, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(total=100, start=0, shown=True) as shown:
        shown.validated(validated(residual))
        shown.validated(validated(residual))
    message = f"warning: step 4: the inner problem is not solved (lower_residual {residual:.2f}, want 0.1)"
    assert capsys.readouterr().err.count(message) == times


def test_without_a_bar_it_is_warned_of_once_and_both_ways_out_are_named() -> None:
    with Progress(total=100, start=0, shown=False) as shown:
        shown.validated(validated(0.01))
        with pytest.warns(
            TrainingWarning, match="large: lower method.inner_step_size.*few: raise method.inner_steps"
        ):
            shown.validated(validated(0.5))
        shown.validated(validated(0.5))


def test_a_loss_that_grew_without_bound_stays_short() -> None:
    assert short(2.5) == "2.500"
    assert short(237096872223207847665457468276736.0) == "2.37e+32"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (90, "1.5 min"), (3600, "60.0 min")]
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert minutes(seconds) == text

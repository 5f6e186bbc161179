"""What a person sees of training, and what it does not change."""

from __future__ import annotations

import pytest
from edge_adapt.cloud.outer import Meta
from edge_adapt.cloud.run.adam import AdamState
from edge_adapt.cloud.run.progress import FIRST_GUESS_AFTER, Progress, minutes
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


@pytest.mark.parametrize(("residual", "warned"), [(0.5, True), (0.01, False)])
def test_an_inner_problem_that_is_not_solved_is_warned_of(
    residual: float, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "step": 4, "validation_accuracy": 0.5, "validation_ci95": 0.1, "active_layers": 1, "zero_step_sizes": 0.5,
        "lower_residual": residual,
    }  # fmt: skip
    with Progress(total=100, start=0, shown=True) as shown:
        shown.validated(row)
    message = f"step 4: warning: the inner problem is not solved (residual {residual:.2f}, want 0.1)"
    assert (message in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (90, "1.5 min"), (3600, "60.0 min")]
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert minutes(seconds) == text

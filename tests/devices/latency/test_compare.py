"""Two results side by side, and a gate that fails when it should and when it cannot tell."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from devices.latency.compare import FIGURES, Rule, compare, differences, parse_rule
from edge_protocol.errors import ConfigError
from tests.fakes.latency import SUBJECT, result

LEVEL = [1_000_000] * 1000


def slower(factor: float, count: int = 1000) -> list[int]:
    """Latencies that are slower by a factor."""
    return [int(1_000_000 * factor)] * count


def broken(rule: str, first: list[int], second: list[int]) -> list[str]:
    """What breaks."""
    return [row.broken for row in compare(result(first), result(second), (parse_rule(rule),)) if row.broken]


def test_every_figure_is_set_side_by_side() -> None:
    """All figures, with their relative change."""
    rows = {row.figure: row for row in compare(result(LEVEL), result(slower(1.5)))}
    assert tuple(rows) == FIGURES
    assert rows["p99"].change == pytest.approx(0.5)
    assert rows["throughput"].change == pytest.approx(-1 / 3)
    assert rows["energy"].change is None
    assert not any(row.broken for row in rows.values())


def test_a_rule_lets_through_what_it_allows() -> None:
    """Ten per cent are allowed, eleven are not; faster never fails."""
    assert broken("p99:+10%", LEVEL, slower(1.09)) == []
    assert broken("p99:+10%", LEVEL, slower(1.11)) == ["p99 changed by +11.0%, allowed +10.0%"]
    assert broken("p99:+10%", LEVEL, slower(0.5)) == []
    assert broken("throughput:-5%", LEVEL, slower(1.02)) == []
    assert broken("throughput:-5%", LEVEL, slower(1.1)) == ["throughput changed by -9.1%, allowed -5.0%"]


def test_a_gate_that_cannot_judge_does_not_pass() -> None:
    """Too few queries for p99 in one of both, and energy that no sensor measured."""
    assert broken("p99:+10%", LEVEL, slower(1.0, 661)) == ["p99 needs 662 queries in both to be judged"]
    assert broken("energy:+10%", LEVEL, LEVEL) == ["energy was not measured in both"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"board": "another"}, "board: a board, cores: 2 / another, cores: 2"),
        ({"cores": 4}, "board: a board, cores: 2 / a board, cores: 4"),
        ({"precision": "int8-cpu"}, "precision: fp32 / int8-cpu"),
        ({"runner": "trt"}, "runner: ort / trt"),
        ({"providers": {"TensorRT": 1.0}}, "provider that ran: CPUExecutionProvider / TensorRT"),
        ({"threads": 2}, "threads: 1 / 2"),
        ({"software": "onnxruntime 2"}, "software: onnxruntime 1 / onnxruntime 2"),
        ({"sha256": "2" * 64}, "graph: 000000000000 / 222222222222"),
    ],
)
def test_what_else_differs_is_said_and_judged(changed: dict[str, object], said: str) -> None:
    """Boards, runners, precisions: to choose between them is why results are compared."""
    first, second = result(LEVEL), result(LEVEL, subject=replace(SUBJECT, **changed))
    assert differences(first, second) == [said]
    assert not any(row.broken for row in compare(first, second, (parse_rule("p99:+10%"),)))


def test_alike_results_differ_in_nothing() -> None:
    """New weights of the same model are what a release brings."""
    assert differences(result(LEVEL), result(LEVEL, subject=replace(SUBJECT, weights_sha256="2" * 64))) == []


def test_two_models_or_ways_are_not_judged_unless_that_is_meant() -> None:
    """Their figures are shown, with their change, and each rule says why it cannot be judged."""
    first, rules = result(LEVEL), (parse_rule("p99:+10%"), parse_rule("cpu:+10%"))
    other = result(LEVEL, subject=replace(SUBJECT, model="speed small gru"))
    longer = replace(first, stages={**first.stages, "decode": first.latency})
    driven = replace(first, stages={**first.stages, "queue": first.latency})
    assert not any(row.broken for row in compare(first, driven, rules)), "who issues queries is no stage of a frame"
    for second, why in (
        (other, "of two models, .* and speed small gru"),
        (longer, "of other stages, infer and decode, infer"),
    ):
        rows = {row.figure: row for row in compare(first, second, rules)}
        for figure in ("p99", "cpu"):
            assert re.match(f"{figure} cannot be judged, being {why}.*--across", rows[figure].broken)
            assert rows[figure].change == 0
        assert not rows["p90"].broken
        assert not any(row.broken for row in compare(first, second, rules, across=True))


def test_a_change_from_nothing_cannot_be_judged() -> None:
    """A first result whose p99 or throughput is 0 was measured, but says nothing of the second."""
    nothing = [0] * 1000
    for rule in ("p99:+10%", "throughput:-5%"):
        (said,) = broken(rule, nothing, LEVEL)
        assert "is 0 in the first, so no change of it can be judged" in said
    assert broken("p99:+10%", LEVEL, nothing) == []


@pytest.mark.parametrize("text", ["p99", "p99:10%", "p99:+10", "p98:+10%", "p99:+x%", ":+1%", "p99:+10%;mean:+1%"])
def test_a_rule_that_cannot_be_read_is_refused(text: str) -> None:
    """The message says how to write one."""
    with pytest.raises(ConfigError, match=r"write FIGURE:\+10%"):
        parse_rule(text)


def test_a_rule_is_read_and_written() -> None:
    """Decimals and both signs."""
    assert parse_rule("p99.9:+2.5%") == Rule("p99.9", 0.025)
    assert str(parse_rule("mean:-5%")) == "mean:-0.05"


def test_different_scenarios_are_not_compared() -> None:
    """Their latencies mean different things."""
    with pytest.raises(ConfigError, match="measure both in the same way"):
        compare(result(LEVEL), result(LEVEL, scenario="offline"))

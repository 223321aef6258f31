"""Every benchmark runs and gives sound results: its quick mode, in this process."""

from __future__ import annotations

import json

import pytest

from benchmarks import calls_per_machine, decode_speed, growth, overload, server_overhead


@pytest.fixture
def results(capsys):
    """Runs a benchmark's command; its result lines."""

    def run(module, *arguments):
        assert module.main(["--quick", *arguments]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for line in lines:
            assert {"benchmark", "case", "metric", "value", "unit"} <= set(line)
            assert line["benchmark"] == module.NAME
        return lines

    return run


def by_metric(lines):
    return {line["metric"]: line for line in lines}


def test_server_overhead(results):
    found = by_metric(results(server_overhead))
    assert found["frames_lost"]["value"] == 0
    assert found["frames_lost"]["of"] >= 20 * 50
    assert 0 < found["cpu"]["value"] < 2
    assert found["ingest_delay_p99"]["value"] > 0
    assert found["ingest_delay_p50"]["frames"] >= 2 * 40


def test_decode_speed(results):
    lines = results(decode_speed)
    assert {line.get("rival") for line in lines} == {None, "openai-whisper float32"}
    latency = {line.get("rival"): line["value"] for line in lines if line["metric"] == "latency"}
    (speedup,) = (line for line in lines if line["metric"] == "speedup")
    assert speedup["engine"] == "aii float32 auto"
    assert speedup["ratio"] == pytest.approx(
        latency["openai-whisper float32"] / latency[None], rel=0.01
    )
    assert all(line["value"] > 0 for line in lines if line["metric"] == "cpu_time")


def test_growth(results):
    lines = results(growth)
    assert [line["case"] for line in lines if line["metric"] == "latency_p50"] == [
        "call of 6 s",
        "call of 12 s",
    ]
    assert lines[3]["windows"] == 2
    assert {line["case"] for line in lines if line["metric"] == "memory_per_call"} == {
        "1 calls",
        "10 calls",
    }
    assert all(line["value"] > 0 for line in lines)


def test_calls_per_machine(results):
    (line,) = results(calls_per_machine)
    assert line["windows"] == line["calls"] == 2
    assert line["answered"] >= 1


def test_overload(results):
    found = {line["metric"]: line["value"] for line in results(overload)}
    assert (found["offered"], found["taken"], found["refused"]) == (3, 2, 1)
    assert found["windows"] >= 2
    assert found["uncovered"] == found["lost"] == found["failed"] == 0
    assert found["last_words_p95"] > 0

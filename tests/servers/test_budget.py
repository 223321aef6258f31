from __future__ import annotations

import logging

from aii.servers.budget import Budget


def test_each_change_of_state_is_logged_once(caplog):
    caplog.set_level(logging.INFO)
    budget = Budget(100)
    for _ in range(101):
        budget.change(1.0)
        budget.change(0.0)
    assert budget.over
    budget.change(-10.0)  # 91: not yet, or it would stop and go with each second
    assert budget.over
    budget.change(-2.0)
    assert not budget.over
    budget.change(9.0)
    assert (budget.over, budget.total) == (False, 98.0)
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("101 s of audio wait in all calls, more than --max-backlog-total")
    assert messages[1] == "89 s of audio wait in all calls: all are read again"


def test_without_a_limit_it_is_never_over():
    budget = Budget()
    budget.change(1e12)
    assert not budget.over

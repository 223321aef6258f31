"""A table of tokens that mostly holds one row."""

from __future__ import annotations

import pytest
import torch

from aii.compute import convert, settle
from aii.distinct import SharedRow, scores


def test_scores_of_few_rows_are_those_of_the_whole_table() -> None:
    made = torch.Generator().manual_seed(1)
    table = torch.randn(900, 8, generator=made)
    own = torch.randperm(900, generator=made)[:100].sort().values
    common = torch.ones(900, dtype=torch.bool)
    common[own] = False
    table[common] = table[int(common.nonzero()[0])].clone()
    shared = SharedRow.of(table)
    assert shared is not None
    assert shared.rows[:-1].tolist() == own.tolist()
    states = torch.randn(3, 2, 8, generator=made)
    few = states @ table[shared.rows].T
    torch.testing.assert_close(shared.spread(few), states @ table.T)


def test_a_table_of_different_rows_is_left_alone() -> None:
    table = torch.randn(300, 8, generator=torch.Generator().manual_seed(2))
    assert SharedRow.of(table) is None
    table[:140] = table[0].clone()
    assert SharedRow.of(table) is None


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_a_converted_model_scores_every_token_as_before(tiny_model, compute_type) -> None:
    import copy

    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        model.decoder.token_embedding.weight[2000:50_000] = 0.01
    try:
        settle(convert(model, compute_type))
    except Exception as error:  # a processor without exact integers
        pytest.skip(str(error))
    assert model.decoder.few is not None
    hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(3)).to(model.dtype)
    with torch.no_grad():
        found = model.decoder.project(hidden)
        model.decoder.few = None
        expected = model.decoder.project(hidden)
    assert found.shape == (2, 3, 51_865)
    if compute_type == "int8":
        assert torch.equal(found, expected)
    near = 1e-5 if compute_type == "float32" else 0.02
    torch.testing.assert_close(found, expected, atol=near, rtol=near)


def test_rows_of_a_table_that_has_changed_are_not_taken(tiny_model) -> None:
    import copy

    model = copy.deepcopy(tiny_model)
    table = model.decoder.token_embedding.weight
    with torch.no_grad():
        table[2000:50_000] = 0.01
    assert convert(model, "float32").decoder.few is None, "it may be trained on"
    settle(model)
    few = model.decoder.few
    hidden = torch.randn(2, 32)
    assert not few.serve(model.decoder.token_embedding), "gradients go to the table itself"
    assert model.decoder.project(hidden).requires_grad
    with torch.no_grad():
        assert few.serve(model.decoder.token_embedding)
        table[3000] = 1.0  # as training does
        assert not few.serve(model.decoder.token_embedding)
        torch.testing.assert_close(model.decoder.project(hidden), hidden @ table.T)
        assert not few.serve(copy.deepcopy(model).decoder.token_embedding)
    with torch.inference_mode():
        copied = copy.deepcopy(model)
        assert copied.decoder.project(hidden).shape == (2, 51_865)
        settle(copied)


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_no_state_has_no_score(tiny_model, compute_type) -> None:
    import copy

    try:
        model = convert(copy.deepcopy(tiny_model), compute_type)
    except Exception as error:  # a processor without exact integers
        pytest.skip(str(error))
    with torch.no_grad():
        assert model.decoder.project(torch.zeros(1, 0, 32)).shape == (1, 0, 51_865)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9])
def test_few_states_are_scored_as_many_are(rows) -> None:
    made = torch.Generator().manual_seed(4)
    table, states = torch.randn(5000, 24, generator=made), torch.randn(12, 24, generator=made)
    found = scores(states[:rows], table)
    assert found.is_contiguous()
    torch.testing.assert_close(found, (states @ table.T)[:rows])
    torch.testing.assert_close(scores(states[None, :rows], table)[0], found)


def test_the_embedded_model_has_few_rows(embedded_model) -> None:
    shared = SharedRow.of(embedded_model.decoder.token_embedding.weight)
    assert shared is not None
    assert len(shared.rows) < 3000

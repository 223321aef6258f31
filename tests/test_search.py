"""Choosing tokens, against sums worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from aii.errors import ServiceError
from aii.logit_filters import Constrain
from aii.search import BeamSearch, Candidate, RowSearch, best_candidate, likeliest

EOT = 3


def logits(*rows: list[float]) -> torch.Tensor:
    """Rows of probabilities as logits."""
    return torch.tensor(rows).log()


class Paths:
    """Allows 0 or 1, then the end."""

    def allowed(self, text: list[int]) -> set[int]:
        return {EOT} if text else {0, 1}


@pytest.mark.parametrize("weighed, best", [(True, (1,)), (False, (0,))])
def test_what_a_constraint_forces_counts_against_a_beam(weighed: bool, best: tuple[int]) -> None:
    """Behind 0 the network would go on; that the end is the only way does not make it likely."""
    odds = {(): [0.5, 0.4, 0.05, 0.05], (0,): [0.1, 0.1, 0.79, 0.01], (1,): [0.0, 0.1, 0.1, 0.8]}
    search = BeamSearch(1, size=2, eot=EOT, patience=None, weighed=weighed)
    constrain = Constrain(Paths(), EOT, 4)
    while not search.done:
        rows = logits(*(odds[tuple(tokens)] for tokens in search.sampled))
        constrain(rows, search.sampled)
        search.choose(rows)
    (found,) = search.candidates()
    chosen = best_candidate(found, 0.0)
    assert chosen.tokens == best
    if weighed:
        assert chosen.logprob == pytest.approx(math.log(0.4 * 0.8), abs=1e-6)


def test_greedy_rows_end_on_their_own() -> None:
    search = RowSearch(2, group=1, eot=EOT, temperature=0)
    assert search.choose(logits([0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6])) == ([0, EOT], None)
    assert not search.done
    assert search.choose(logits([0.1, 0.1, 0.1, 0.7], [0.9, 0.1, 0.0, 0.0])) == ([EOT, EOT], None)
    assert search.done
    (first,), (second,) = search.candidates()
    assert first.tokens == (0,)
    assert math.isclose(first.logprob, math.log(0.7 * 0.7), abs_tol=1e-6)
    assert second == Candidate((), pytest.approx(math.log(0.6)))


def test_draws_follow_the_odds() -> None:
    search = RowSearch(4000, group=2, eot=EOT, temperature=0.5)
    tokens, _ = search.choose(logits([0.2, 0.4, 0.4, 0.0]).expand(4000, 4))
    shares = [tokens.count(i) / 4000 for i in range(4)]  # squared odds: 1 : 4 : 4 : 0
    assert shares == pytest.approx([1 / 9, 4 / 9, 4 / 9, 0], abs=0.03)
    assert len(search.candidates()) == 2000
    assert all(len(group) == 2 for group in search.candidates())


def test_beams_find_the_best_of_all_sequences() -> None:
    """With as many beams as there are sequences, beam search is exhaustive."""
    torch.manual_seed(1)
    table = {}

    def row(prefix: tuple[int, ...]) -> list[float]:
        """Odds behind a prefix, the same whenever asked."""
        if prefix not in table:
            table[prefix] = torch.rand(5).softmax(dim=0).tolist()
        return table[prefix] if len(prefix) < 2 else [0.0, 0.0, 0.0, 1.0, 0.0]

    size = 4
    search = BeamSearch(1, size=size, eot=EOT, patience=8.0)
    for _ in range(4):
        search.choose(logits(*(row(tuple(tokens)) for tokens in search.sampled)))
    found = {c.tokens: c.logprob for c in search.candidates()[0]}
    for tokens, logprob in found.items():
        path = (*tokens, EOT)
        odds = math.prod(row(path[:i])[path[i]] for i in range(len(path)))
        assert math.isclose(math.exp(logprob), odds, rel_tol=1e-4)
    alphabet = [t for t in range(5) if t != EOT]
    singles = {(t,): row(())[t] * row((t,))[EOT] for t in alphabet}
    pairs = {(a, b): row(())[a] * row((a,))[b] for a, b in itertools.product(alphabet, alphabet)}
    best = max({**singles, **pairs}.items(), key=lambda item: item[1])
    assert math.isclose(max(found.values()), math.log(max(best[1], row(())[EOT])), abs_tol=1e-5)


def test_beams_continue_the_right_rows() -> None:
    search = BeamSearch(1, size=2, eot=EOT, patience=None)
    tokens, sources = search.choose(logits([0.6, 0.3, 0.1, 0.0], [0.6, 0.3, 0.1, 0.0]))
    assert tokens == [0, 1]
    # Row 1 (0.3) goes on better than row 0 (0.6): 0.3 x 0.9 > 0.6 x 0.4 > 0.6 x 0.3
    tokens, sources = search.choose(logits([0.4, 0.3, 0.3, 0.0], [0.05, 0.9, 0.05, 0.0]))
    assert (tokens, sources) == ([1, 0], [1, 0])
    assert search.sampled == [[1, 1], [0, 0]]
    assert not search.done


def test_an_audio_that_is_done_stays_as_it_was() -> None:
    """A batch gives each audio what it would get alone, however long the others take."""
    ends, goes_on = [0.1, 0.1, 0.0, 0.8], [0.5, 0.3, 0.15, 0.05]
    alone = BeamSearch(1, size=2, eot=EOT, patience=0.5)
    alone.choose(logits(ends, ends))
    assert alone.done
    both = BeamSearch(2, size=2, eot=EOT, patience=0.5)
    both.choose(logits(ends, ends, goes_on, goes_on))
    assert not both.done
    both.choose(logits(goes_on, goes_on, goes_on, goes_on))
    assert both.candidates()[0] == alone.candidates()[0]


@pytest.mark.parametrize(("size", "patience"), [(0, None), (5, 0.01)])
def test_no_beams_is_an_error(size: int, patience: float | None) -> None:
    with pytest.raises(ValueError, match="leaves no beam"):
        BeamSearch(1, size=size, eot=EOT, patience=patience)


def test_ranking() -> None:
    short, long = Candidate((1,), -1.0), Candidate((1, 2, 3, 4), -2.0)
    assert best_candidate([short, long], None) is long
    assert best_candidate([short, long], 0.0) is short
    assert best_candidate([short, long], 1.0) is short  # -1 / 1 against -2 / 1.5
    assert best_candidate([Candidate((), -3.0)], None).logprob == -3.0


@pytest.mark.parametrize("size", [7, 600, 1024, 51_865])
def test_the_likeliest_token_is_the_first_of_the_greatest(size: int) -> None:
    made = torch.Generator().manual_seed(size)
    logits = torch.randn(40, size, generator=made).round(decimals=1)  # many are equal
    logits[:, : size // 3] = -math.inf
    logits[3, size - 1] = logits[4, size // 2] = 50.0
    tokens, logprobs = likeliest(logits)
    assert tokens == logits.argmax(dim=-1).tolist()
    expected = logits.log_softmax(dim=-1).amax(dim=-1)
    torch.testing.assert_close(torch.tensor(logprobs), expected)


def test_scores_that_are_no_numbers_do_not_pass_for_one() -> None:
    logits = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
    logits[1, 1999] = math.nan
    logits[2] = -math.inf
    _, logprobs = likeliest(logits)
    assert [math.isfinite(logprob) for logprob in logprobs] == [True, False, False]


NOTHING = -torch.inf * torch.ones(4)


def test_rules_that_leave_no_token_are_told() -> None:
    """Not chosen by chance, nor as an end that has no probability."""
    draws = RowSearch(2, group=2, eot=EOT, temperature=1.0)
    with pytest.raises(ServiceError, match="leave no token"):
        draws.choose(torch.stack([NOTHING, torch.zeros(4)]))
    for weighed in (True, False):
        beams = BeamSearch(1, size=2, eot=EOT, patience=None, weighed=weighed)
        beams.choose(torch.stack([NOTHING, NOTHING]))
        (found,) = beams.candidates()
        with pytest.raises(ServiceError, match="leave no token"):
            best_candidate(found, None)


def test_what_follows_an_end_needs_no_token() -> None:
    draws = RowSearch(2, group=2, eot=EOT, temperature=1.0)
    draws.take([EOT, 1], [-1.0, -1.0])
    tokens, _ = draws.choose(torch.stack([NOTHING, torch.zeros(4)]))
    assert tokens[0] == EOT

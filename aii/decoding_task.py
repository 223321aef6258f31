"""Decoding in openai-whisper's own parts, for programs that put it together themselves.

``decode`` needs none of this: its loops are in ``aii.loops``. Here is what other programs subclass,
replace or borrow from that package: a task with an inference, filters on logits, a decoder that
chooses tokens and a ranker, on tensors (rows, tokens). They are thin: the rules are those of
``aii.logit_filters``, the beams those of ``aii.search``. Results are ``decode``'s.

Shapes: n audios, rows = n x group, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import logit_filters as rules
from .options import DecodingOptions, DecodingResult, compression_ratio
from .search import BeamSearch, score
from .task import Task
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .kv_cache import KVCache
    from .model import Whisper


# -- the network ------------------------------------------------------------------------------


class Inference:
    """Asks the network for scores."""

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """Scores (rows, new tokens, V) behind the tokens (rows, tokens) not read before."""
        raise NotImplementedError

    def rearrange_kv_cache(self, source_indices: Sequence[int]) -> None:
        """Let each row go on as another one stands."""
        raise NotImplementedError

    def cleanup_caching(self) -> None:
        """Forget the decode."""


class PyTorchInference(Inference):
    """The network with a cache of its own."""

    def __init__(self, model: Whisper, initial_token_length: int) -> None:
        self.model = model
        self.initial_token_length = initial_token_length
        self.kv_cache: KVCache | None = None

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        if self.kv_cache is None:
            self.kv_cache = self.model.decoder.new_cache(
                len(tokens), device=audio_features.device, dtype=audio_features.dtype
            )
        new = tokens[:, self.kv_cache.lengths[0] :]
        found: Tensor = self.model.decoder(new, audio_features, self.kv_cache)
        return found

    def rearrange_kv_cache(self, source_indices: Sequence[int]) -> None:
        if self.kv_cache is not None:
            self.kv_cache.reorder(source_indices)

    def cleanup_caching(self) -> None:
        self.kv_cache = None


# -- what may follow --------------------------------------------------------------------------


class LogitFilter:
    """Forbids tokens."""

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        """Change scores (rows, V) in place; ``tokens`` (rows, tokens) are all those before."""
        raise NotImplementedError


class _Rule(LogitFilter):
    """A rule of ours on what comes behind the first ``sample_begin`` tokens."""

    def __init__(self, rule: rules.Filter, sample_begin: int) -> None:
        self.sample_begin = sample_begin
        self._rule = rule

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        self._rule(logits, tokens[:, self.sample_begin :].tolist())


class SuppressBlank(_Rule):
    """No transcript that begins with a space alone or with its end."""

    def __init__(self, tokenizer: Tokenizer, sample_begin: int) -> None:
        super().__init__(rules.SuppressBlank(tokenizer.encode(" "), tokenizer.eot), sample_begin)
        self.tokenizer = tokenizer


class SuppressTokens(_Rule):
    """Some tokens never."""

    def __init__(self, suppress_tokens: Sequence[int]) -> None:
        super().__init__(rules.SuppressTokens(suppress_tokens), 0)
        self.suppress_tokens = list(suppress_tokens)


class ApplyTimestampRules(_Rule):
    """Timestamps in pairs and in order."""

    def __init__(
        self, tokenizer: Tokenizer, sample_begin: int, max_initial_timestamp_index: int | None
    ) -> None:
        rule = rules.TimestampRules(
            tokenizer.timestamp_begin,
            tokenizer.eot,
            tokenizer.no_timestamps,
            max_initial_timestamp_index,
        )
        super().__init__(rule, sample_begin)
        self.tokenizer = tokenizer
        self.max_initial_timestamp_index = max_initial_timestamp_index


# -- what follows -----------------------------------------------------------------------------


class TokenDecoder:
    """Chooses tokens."""

    def reset(self) -> None:
        """Begin anew."""

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        """Choose one more token for each row.

        Args:
            tokens: (rows, tokens) all so far.
            logits: (rows, V) filtered scores.
            sum_logprobs: (rows,) log-probabilities so far, changed in place.

        Returns:
            (rows, tokens + 1), and whether all rows are at their ends.
        """
        raise NotImplementedError

    def finalize(
        self, tokens: Tensor, sum_logprobs: Tensor
    ) -> tuple[Sequence[Sequence[Tensor]], list[list[float]]]:
        """The candidates of each audio, each with an end, and their log-probabilities.

        Args:
            tokens: (n, group, tokens).
            sum_logprobs: (n, group).
        """
        raise NotImplementedError


class GreedyDecoder(TokenDecoder):
    """The likeliest token at temperature 0, else a random one."""

    def __init__(self, temperature: float, eot: int) -> None:
        self.temperature = temperature
        self.eot = eot

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        if self.temperature == 0:
            chosen = logits.argmax(dim=-1)
        else:
            odds = (logits / self.temperature).softmax(dim=-1)
            chosen = torch.multinomial(odds, 1, True)[:, 0]
        ended = tokens[:, -1] == self.eot
        gained = logits.float().log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
        sum_logprobs += gained.masked_fill(ended, 0.0)
        chosen = chosen.masked_fill(ended, self.eot)
        grown = torch.cat([tokens, chosen[:, None]], dim=-1)
        return grown, bool((chosen == self.eot).all())

    def finalize(
        self, tokens: Tensor, sum_logprobs: Tensor
    ) -> tuple[Sequence[Sequence[Tensor]], list[list[float]]]:
        end = tokens.new_full((*tokens.shape[:2], 1), self.eot)
        closed = torch.cat([tokens, end], dim=-1)
        return [list(group) for group in closed], sum_logprobs.tolist()


class BeamSearchDecoder(TokenDecoder):
    """Several beams for each audio."""

    def __init__(
        self, beam_size: int, eot: int, inference: Inference, patience: float | None = None
    ) -> None:
        self.beam_size = beam_size
        self.eot = eot
        self.inference = inference
        self.patience = patience or 1.0
        self.max_candidates = round(beam_size * self.patience)
        self._search: BeamSearch | None = None
        self._begin(1)  # refuses what leaves no beam

    def _begin(self, audios: int) -> BeamSearch:
        size, eot = self.beam_size, self.eot
        return BeamSearch(audios, size=size, eot=eot, patience=self.patience)

    def reset(self) -> None:
        self._search = None

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        if len(tokens) % self.beam_size:
            raise ValueError(f"{len(tokens)} rows are no multiple of {self.beam_size} beams")
        search = self._search = self._search or self._begin(len(tokens) // self.beam_size)
        search.stand(tokens.tolist(), sum_logprobs.tolist())
        chosen, sources = search.choose(logits.float())
        assert sources is not None
        self.inference.rearrange_kv_cache(sources)
        sum_logprobs.copy_(torch.tensor(search.open_sums))
        return torch.cat([tokens[sources], tokens.new_tensor(chosen)[:, None]], -1), search.done

    def finalize(
        self, preceding_tokens: Tensor, sum_logprobs: Tensor
    ) -> tuple[Sequence[Sequence[Tensor]], list[list[float]]]:
        search = self._search or self._begin(len(preceding_tokens))
        search.stand(preceding_tokens.flatten(0, 1).tolist(), sum_logprobs.flatten().tolist())
        found = search.candidates()
        closed = [[torch.tensor([*c.tokens, self.eot]) for c in group] for group in found]
        return closed, [[c.logprob for c in group] for group in found]


class SequenceRanker:
    """Says which candidate of each audio to take."""

    def rank(
        self, tokens: Sequence[Sequence[Tensor]], sum_logprobs: Sequence[Sequence[float]]
    ) -> list[int]:
        """The place of each audio's best candidate."""
        raise NotImplementedError


class MaximumLikelihoodRanker(SequenceRanker):
    """The highest log-probability for its length; see :func:`aii.search.score`."""

    def __init__(self, length_penalty: float | None) -> None:
        self.length_penalty = length_penalty

    def rank(
        self, tokens: Sequence[Sequence[Tensor]], sum_logprobs: Sequence[Sequence[float]]
    ) -> list[int]:
        best = []
        for texts, sums in zip(tokens, sum_logprobs, strict=True):
            pairs = zip(sums, texts, strict=True)
            scores = [score(total, len(text), self.length_penalty) for total, text in pairs]
            best.append(scores.index(max(scores)))
        return best


# -- all together -----------------------------------------------------------------------------


class DecodingTask:
    """One way to decode windows, each part of which may be replaced before :meth:`run`.

    Attributes:
        tokenizer: for the language and the task.
        initial_tokens: the tokens before the sampled ones.
        sample_begin: how many those are.
        sot_index: place of the start token among them.
        inference, logit_filters, decoder, sequence_ranker: the parts.

    Raises:
        InputError: options that contradict each other or do not fit the model.
    """

    inference: Inference
    sequence_ranker: SequenceRanker
    decoder: TokenDecoder
    logit_filters: list[LogitFilter]

    def __init__(self, model: Whisper, options: DecodingOptions) -> None:
        task = Task(model, options)
        self.model = model
        self.options = options
        self.tokenizer = task.tokenizer
        self.n_group = task.group
        self.n_ctx = task.n_ctx
        self.sample_len = task.sample_len
        without = task.tokenizer.sot_sequence_including_notimestamps
        self.sot_sequence = without if options.without_timestamps else task.tokenizer.sot_sequence
        self.initial_tokens = tuple(task.initial)
        self.sample_begin = len(task.initial)
        self.sot_index = task.sot_index
        self.inference = PyTorchInference(model, self.sample_begin)
        self.sequence_ranker = MaximumLikelihoodRanker(options.length_penalty)
        self.decoder = GreedyDecoder(options.temperature, self.tokenizer.eot)
        if options.beam_size is not None:
            self.decoder = BeamSearchDecoder(
                options.beam_size, self.tokenizer.eot, self.inference, options.patience
            )
        self.logit_filters = [self._filter(rule) for rule in task.filters]
        self._detects = task.detects

    def _filter(self, rule: rules.Filter) -> LogitFilter:
        begin = self.sample_begin
        if isinstance(rule, rules.SuppressBlank):
            return SuppressBlank(self.tokenizer, begin)
        if isinstance(rule, rules.SuppressTokens):
            return SuppressTokens(rule.tokens)
        if isinstance(rule, rules.TimestampRules):
            return ApplyTimestampRules(self.tokenizer, begin, rule.latest_first)
        return _Rule(rule, begin)

    @torch.no_grad()
    def run(self, mel: Tensor) -> list[DecodingResult]:
        """Decode windows (n, mels, frames), or encoded audio (n, S, D); a result for each."""
        from .decoding import encode

        self.decoder.reset()
        features = encode(self.model, mel, fp16=self.options.fp16)
        tokens = torch.tensor([self.initial_tokens]).repeat(len(features), 1)
        languages, odds = self._detect_language(features, tokens)
        if self.options.task == "lang_id":
            every = zip(features, languages, odds, strict=True)
            return [DecodingResult(*own) for own in every]
        rows = tokens.repeat_interleave(self.n_group, dim=0).to(features.device)
        rows, sums, no_speech = self._main_loop(features, rows)
        grouped = rows.unflatten(0, (len(features), self.n_group))
        candidates, logprobs = self.decoder.finalize(grouped, sums.view(grouped.shape[:2]))
        texts = [[self._sampled(text) for text in group] for group in candidates]
        best = self.sequence_ranker.rank(texts, logprobs)
        return [
            self._result(features[i], languages[i], texts[i][k].tolist(), logprobs[i][k], silent)
            for i, (k, silent) in enumerate(zip(best, no_speech[:: self.n_group], strict=True))
        ]

    def _detect_language(
        self, audio_features: Tensor, tokens: Tensor
    ) -> tuple[list[str], list[dict[str, float]]]:
        """Each audio's language, written into its tokens where that was not known."""
        languages = [self.options.language or "en"] * len(tokens)
        if not self._detects:
            return languages, []
        found, odds = self.model.detect_language(audio_features, self.tokenizer)
        if self.options.language is None:
            languages = [max(row, key=row.__getitem__) for row in odds]
            tokens[:, self.sot_index + 1] = found
        return languages, odds

    def _main_loop(
        self, audio_features: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, list[float]]:
        """All tokens, their log-probabilities, and how likely nobody speaks, for each row."""
        sums = torch.zeros(len(tokens), device=audio_features.device)
        no_speech = [math.nan] * len(tokens)
        # Rows side by side each want their audio.
        heard = audio_features.repeat_interleave(self.n_group, dim=0)
        try:
            for taken in range(self.sample_len):
                logits = self.inference.logits(tokens, heard)
                if taken == 0:
                    odds = logits[:, self.sot_index].float().softmax(dim=-1)
                    no_speech = odds[:, self.tokenizer.no_speech].tolist()
                logits = logits[:, -1]
                for forbid in self.logit_filters:
                    forbid.apply(logits, tokens)
                tokens, completed = self.decoder.update(tokens, logits, sums)
                if completed or tokens.shape[-1] > self.n_ctx:
                    break
        finally:
            self.inference.cleanup_caching()
        return tokens, sums, no_speech

    def _sampled(self, text: Tensor) -> Tensor:
        """What lies between the initial tokens and the end."""
        end = (text == self.tokenizer.eot).nonzero()[:, 0]
        # The prompt may hold an end, too.
        return text[self.sample_begin : int(end[end >= self.sample_begin][0])]

    def _result(
        self, features: Tensor, language: str, tokens: list[int], logprob: float, silent: float
    ) -> DecodingResult:
        text = self.tokenizer.decode(tokens).strip()
        return DecodingResult(
            audio_features=features,
            language=language,
            tokens=tokens,
            text=text,
            avg_logprob=logprob / (len(tokens) + 1),
            no_speech_prob=silent,
            temperature=self.options.temperature,
            compression_ratio=compression_ratio(text),
        )

"""The parts of a server, put together: model, engine, sinks, and what calls are given.

The one place that names concrete parts; ``aii serve``, ``aii_server.py`` and the web application
that uvicorn is pointed at all come here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from aii.audio.vad import DetectorOnDemand, load_detector
from aii.cli.calls import call_settings, vocabulary_of
from aii.config import ServerConfig
from aii.engine.voice import VoiceThread
from aii.errors import ConfigError

if TYPE_CHECKING:
    from aii.engine.local import LocalEngine
    from aii.model import Whisper
    from aii.protocols import Framing
    from aii.servers.models import Loaded, Models
    from aii.servers.services import Services
    from aii.sinks.base import Sink
    from aii.sinks.outlets import Outlets
    from aii.streaming.settings import CallSettings
    from aii.streaming.vocabulary import Vocabulary

log = logging.getLogger("aii.server")

OTHER_VARIABLES = ("AII_TEST_DATA",)
"""``AII_*`` variables that are no options of the server: where the tests find recordings."""

SINK_DEADLINE = 5.0
"""Seconds for each sink's last lines."""


@dataclass
class Parts:
    """What a server process runs on, whatever listens.

    Attributes:
        config: what was asked for.
        models: the engine, and the way to change its model.
        services: what each call is given.
        audiosocket: a framing of AudioSocket alone, for a port of its own.
        sinks: where events go.
    """

    config: ServerConfig
    models: Models
    services: Services
    audiosocket: Callable[[], Framing]
    sinks: list[Sink]

    def close(self) -> bool:
        """Close engine, voice and sinks, in this order; whether all threads have come to rest."""
        at_rest = self.models.close(0.5)
        if self.services.voice is not None:
            at_rest = self.services.voice.close(0.5) and at_rest
        return close_sinks(self.sinks) and at_rest


def close_sinks(sinks: Sequence[Sink]) -> bool:
    """Write what sinks still hold; whether all are done."""
    return sum(not sink.close(SINK_DEADLINE) for sink in sinks) == 0


def build(config: ServerConfig, console: TextIO, *watchers: Sink) -> Parts:
    """Put the parts together; a bad configuration is found before the model is loaded.

    Args:
        console: where people's lines go when stdout is for JSON lines.
        watchers: further sinks that see every event, such as the web's live list.

    Raises:
        AiiError: a part cannot be had; the others are closed again.
    """
    settings = call_settings(config)
    # Calls that ask for it are watched even where the others are not.
    detector = load_detector(config.vad) or DetectorOnDemand()
    outlets = _outlets(config, console)
    sinks = [outlets, *watchers]
    try:
        log.debug("loading model %s", config.model)
        models = _models(config, settings)
    except BaseException:
        close_sinks(sinks)
        raise
    services = replace(_services(config, models, sinks, VoiceThread(detector)), outlets=outlets)
    return Parts(config, models, services, _framing(config, "audiosocket"), sinks)


def _outlets(config: ServerConfig, console: TextIO) -> Outlets:
    """Where events go; people's lines go to ``console`` where stdout is for JSON lines."""
    from aii.sinks.build import Maker, build_outlets, default_spool, parse_sinks
    from aii.sinks.spec import SinkSpec

    specs = parse_sinks(config.sink, config.jsonl, redact=config.redact != "none")
    rules = [SinkSpec.parse(text, whole=False) for text in config.allow_sink]
    spool = Path(config.spool) if config.spool else default_spool(os.environ)
    return build_outlets(specs, rules, Maker(console, spool, os.environ))


def _models(config: ServerConfig, settings: CallSettings) -> Models:
    """The model that was asked for, and the way to load others in its place."""
    from aii.languages import language_code
    from aii.servers.models import Loaded, Models
    from aii.streaming.factory import Sessions

    ids = itertools.count(1)

    def sessions(name: str, vocabulary: Vocabulary, language: str | None) -> Sessions:
        try:
            spoken = vocabulary.language(language, settings.task)
        except ConfigError as error:
            raise ConfigError(f"model {name}: {error}") from None
        spoken_to = replace(settings, language=spoken)
        return Sessions(spoken_to, vocabulary, ids, voice=True)

    def load(name: str, language: str | None, kept: Loaded | None) -> Loaded:
        if kept is not None:
            return replace(kept, sessions=sessions(name, kept.sessions.vocabulary, language))
        model = _model(name, config)
        made = sessions(name, vocabulary_of(model), language)
        _give_back()  # what only its loading needed
        return Loaded(name, _engine(config, model), made, _about(model))

    language = None if config.language is None else language_code(config.language)
    return Models(load(config.model, language, None), load, freed=_give_back)


def _model(name: str, config: ServerConfig) -> Whisper:
    from aii.checkpoints import load_model
    from aii.compute import limit_prepared_shapes

    limit_prepared_shapes(os.environ)
    model = load_model(name, device=config.device, compute_type=config.compute_type)
    model.decoder.graphs = config.cuda_graphs
    return model


def _about(model: Whisper) -> dict[str, Any]:
    """What is told of the model in service."""
    return {
        "device": str(model.device),
        "compute_type": model.compute_type,
        "multilingual": model.is_multilingual,
    }


def _engine(config: ServerConfig, model: Whisper) -> LocalEngine:
    from aii.engine.local import LocalEngine

    options: dict[str, object] = {"beam_size": config.beam_size}
    if config.temperature != "model":
        options["temperatures"] = config.temperature
    if config.audio_context != "model":
        options["audio_context"] = config.audio_context
    return LocalEngine(
        model,
        queue_size=config.queue_size,
        threads=config.threads,
        options=options,
        objective=config.objective,
    )


def _give_back() -> None:
    """Let the device and the system have the memory of what has gone."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # The C library keeps what was freed for later, hundreds of megabytes of weights too.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _framing(config: ServerConfig, name: str) -> Callable[[], Framing]:
    """What makes a framing for each connection."""
    from aii.protocols import AudioSocketOptions, make_framing

    options = AudioSocketOptions(config.audiosocket_payload, config.audiosocket_keepalive)
    return functools.partial(make_framing, name, audiosocket=options)


def _services(
    config: ServerConfig, models: Models, sinks: Sequence[Sink], voice: VoiceThread
) -> Services:
    """What every call is given."""
    from aii.servers.budget import Budget
    from aii.servers.services import Services

    return Services(
        engine=models,
        make_session=models.make_session,
        make_framing=_framing(config, config.framing),
        bind=models.bind,
        unbind=models.release,
        no_room=models.no_room if config.when_full == "refuse" else str,
        defaults=models.settings,
        sinks=sinks,
        reply=config.reply,
        rate=config.rate,
        max_backlog=config.max_backlog,
        budget=Budget(config.max_backlog_total),
        enough=config.reset_seconds + config.window,
        first_byte_timeout=config.first_byte_timeout,
        idle_timeout=config.idle_timeout,
        voice=voice,
    )

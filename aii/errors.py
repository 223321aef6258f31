"""Every error that aii raises on purpose.

    AiiError
    |-- InputError              what the caller gave is wrong; the message says what to do
    |   |-- AudioError          a recording or stream that cannot be read as audio
    |   |-- CheckpointError     a weights file that is missing, damaged, hostile or of another kind
    |   |-- ConfigError         a flag, environment variable or option with a bad name or value
    |   `-- MissingExtraError   an optional package is not installed; the message names the extra
    `-- ServiceError            we, or something that we depend on, failed
        |-- DownloadError       the network or the hub failed, or sent something else than promised
        |-- EngineClosedError   a request reached an engine that is shutting down
        `-- EngineFullError     the engine's bounded queue has no room

Each message is one line: what was wrong, then what to do about it.
"""

from __future__ import annotations


class AiiError(Exception):
    """Base of all errors that aii raises on purpose."""


class InputError(AiiError, ValueError):
    """What the caller gave is wrong."""


class AudioError(InputError, RuntimeError):
    """A recording or stream cannot be read as audio."""


class CheckpointError(InputError, RuntimeError):
    """A weights file is missing, damaged, hostile, or of another kind."""


class ConfigError(InputError):
    """A flag, environment variable or option has a bad name or value."""


class MissingExtraError(InputError, ImportError):
    """An optional package is not installed.

    Args:
        package: the import name that is missing.
        extra: the extra of aii that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'aii[{extra}]'")
        self.package = package
        self.extra = extra


class ServiceError(AiiError, RuntimeError):
    """We, or something that we depend on, failed."""


class DownloadError(ServiceError):
    """The network or the hub failed, or sent something else than promised."""


class EngineClosedError(ServiceError):
    """A request reached an engine that is shutting down."""


class EngineFullError(ServiceError):
    """The engine's bounded queue has no room."""

"""Certificates of the listeners."""

from __future__ import annotations

import ssl

from aii.errors import ConfigError


def server_context(certificate: str, key: str | None) -> ssl.SSLContext:
    """A context for a listener; TLS 1.2 and later.

    Args:
        certificate: PEM file with the chain, the server's own certificate first.
        key: PEM file with its key; None where that is in the same file.

    Raises:
        ConfigError: the files cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except FileNotFoundError:
        where = certificate if key is None else f"{certificate} or {key}"
        raise ConfigError(f"there is no file {where}; check --tls-cert and --tls-key") from None
    except ssl.SSLError as error:
        why = error.reason or str(error)
        raise ConfigError(
            f"the certificate {certificate} cannot be used: {why.lower().replace('_', ' ')}; "
            "wanted are PEM files of a certificate and its key"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the certificate {certificate} cannot be read: {error.strerror}; check --tls-cert"
        ) from None
    return context


def _no_password() -> str:
    raise ConfigError("the key has a password; give one without, readable by this user alone")

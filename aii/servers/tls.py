"""Certificates of the listeners."""

from __future__ import annotations

import ssl
from pathlib import Path

from aii.errors import ConfigError

DATES = {
    9: "is not valid yet; look at the clock of this machine",
    10: "has expired; renew it",
}
"""What OpenSSL's verification says of a certificate's dates (X509_V_ERR_...)."""


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
    # A ticket comes right behind the handshake, just when a client sends its first request. Clients
    # that read and write on two threads, as websockets' do, lose that request then, once in some
    # hundred times (OpenSSL's connections are for one thread). Calls are long; a handshake is not.
    context.num_tickets = 0
    if b"-----BEGIN CERTIFICATE-----" not in _read(certificate, "certificate", "--tls-cert"):
        raise _unusable(certificate, "there is none in it")
    if b"PRIVATE KEY-----" not in _read(key or certificate, "key", "--tls-key"):
        where = "it; give its key with --tls-key" if key is None else key
        raise _unusable(certificate, f"there is no key in {where}")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _unusable(certificate, f"the key in {key or 'it'} is another one's") from None
        why = (error.reason or "it or its key is damaged").lower().replace("_", " ")
        raise _unusable(certificate, why) from None
    return context


def trouble_with(context: ssl.SSLContext, certificate: str) -> str:
    """Why clients will refuse a certificate because of its dates; "" where they have no reason.

    A handshake in memory, with a client that trusts this certificate and nothing else.

    Args:
        context: of the server.
        certificate: the file that it was made of.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client.load_verify_locations(certificate)
        ends = client.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True)
        for end in ends * 3:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in DATES:
            return f"the certificate {certificate} {DATES[error.verify_code]}"
    except ssl.SSLError:
        pass  # it is of a kind that such a client does not take: nothing is known of its dates
    return ""


def _read(path: str, what: str, option: str) -> bytes:
    """A file's contents.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; check {option}") from None
    except OSError as error:
        raise ConfigError(
            f"the {what} {path} cannot be read: {error.strerror}; check {option}"
        ) from None


def _unusable(certificate: str, why: str) -> ConfigError:
    return ConfigError(
        f"the certificate {certificate} cannot be used: {why}; wanted are PEM files of a "
        "certificate and its key"
    )


def _no_password() -> str:
    raise ConfigError("the key has a password; give one without, readable by this user alone")

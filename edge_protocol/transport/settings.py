"""Where the broker is and how to reach it: the `broker:` section of every configuration. Owns no connection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from edge_protocol.errors import ConfigError

if TYPE_CHECKING:
    import ssl

    from edge_protocol.identity.files import IdentityFiles

FileName = Annotated[str, Meta(min_length=1, max_length=4096)]


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One broker, seen by one client.

    Attributes:
        host: name or address.
        port: TCP port; 8883 is usual with TLS.
        keepalive_s: a silent link is found dead after 1.5 times this.
        username: sent to the broker when given.
        password_file: file whose first line is the password; passwords never stand in a configuration.
        ca_file: PEM certificates to trust; turns TLS on.
        cert_file, key_file: this client's own PEM certificate and key; need `ca_file`. The broker of
            ``roadcast broker config`` takes the certificate's name for the client's.
        max_packet_bytes: larger messages are refused here, before the broker closes the link over them.
        window: messages that may wait for the broker's acknowledgement at once.
        reconnect_max_s: longest pause between two attempts; the shortest is drawn at random for each client.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 1883
    keepalive_s: Annotated[int, Meta(ge=1, le=3600)] = 15
    username: str | None = None
    password_file: FileName | None = None
    ca_file: FileName | None = None
    cert_file: FileName | None = None
    key_file: FileName | None = None
    max_packet_bytes: Annotated[int, Meta(ge=1024, le=256 << 20)] = 768 * 1024
    window: Annotated[int, Meta(ge=1, le=1000)] = 20
    reconnect_max_s: Annotated[float, Meta(ge=0.1, le=3600)] = 60.0

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("broker: cert_file and key_file belong together; give both or neither")
        if self.cert_file is not None and self.ca_file is None:
            raise ConfigError(
                "broker: a client certificate needs ca_file, the authority that the broker's own comes from"
            )
        if self.password_file is not None and self.username is None:
            raise ConfigError("broker: password_file needs username")

    @property
    def identity(self) -> IdentityFiles:
        """Where enrolment puts what this client is known by.

        Raises:
            ConfigError: the configuration does not name all three files.
        """
        from edge_protocol.identity.files import IdentityFiles  # noqa: PLC0415 - X.509 costs an agent's start dearly

        if self.ca_file is None or self.cert_file is None or self.key_file is None:
            raise ConfigError("broker: give ca_file, cert_file and key_file: enrolment writes them")
        return IdentityFiles(Path(self.ca_file), Path(self.cert_file), Path(self.key_file))


def is_awaited(settings: BrokerSettings) -> bool:
    """Whether enrolment is still to come: no certificate is in its place."""
    return settings.cert_file is not None and not Path(settings.cert_file).exists()


def read_password(settings: BrokerSettings) -> str | None:
    """Read the first line of the password file, when there is one.

    Raises:
        ConfigError: it cannot be read.
    """
    if settings.password_file is None:
        return None
    try:
        return Path(settings.password_file).read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"broker: cannot read password_file {settings.password_file}: {error}") from error


def tls_context(settings: BrokerSettings, *, patient: bool = False) -> ssl.SSLContext | None:
    """Say how to check the broker's certificate and show our own; None without `ca_file`.

    Args:
        settings: of the broker.
        patient: take a certificate that is still to come: until it is there, every connection fails and says so.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    if settings.ca_file is None:
        return None
    from edge_protocol.transport.tls import context  # noqa: PLC0415  # TLS is loaded by who uses it

    return context(settings, patient=patient)

"""TLS to the broker: whose certificate is trusted, and which one is shown. Owns no setting."""

from __future__ import annotations

import ssl
from socket import socket
from typing import TYPE_CHECKING, Any

from edge_protocol.errors import ConfigError
from edge_protocol.transport.settings import BrokerSettings, is_awaited

if TYPE_CHECKING:
    from edge_protocol.identity.files import IdentityFiles


class _RenewedContext(ssl.SSLContext):
    """Trusts and shows what lies on disk when a connection begins: enrolling and renewing need no restart.

    A file that cannot be used then fails that connection, and the next one tries again.
    """

    identity: IdentityFiles

    def load(self) -> None:
        """Take up what is there now. Raises OSError where that cannot be used."""
        if not self.identity.certificate.exists():
            raise FileNotFoundError(f"no certificate yet at {self.identity.certificate}; `enrol` gets it")
        self.load_verify_locations(self.identity.ca)
        self.load_cert_chain(self.identity.certificate, self.identity.key)

    def wrap_socket(self, sock: socket, *arguments: Any, **named: Any) -> ssl.SSLSocket:  # noqa: ANN401  as ssl has it
        """Begin a connection; the socket of one that cannot begin is closed."""
        try:
            self.load()
        except OSError:
            sock.close()
            raise
        return super().wrap_socket(sock, *arguments, **named)


def context(settings: BrokerSettings, *, patient: bool = False) -> ssl.SSLContext:
    """Say how to check the broker's certificate and show our own, for settings with `ca_file`.

    Args:
        settings: of the broker.
        patient: take a certificate that is still to come: until it is there, every connection fails and says so.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    try:
        if settings.cert_file is None:
            made: ssl.SSLContext = ssl.create_default_context(cafile=settings.ca_file)
        else:
            settings.identity.settle()
            made = _RenewedContext(ssl.PROTOCOL_TLS_CLIENT)
            made.identity = settings.identity
            if not (patient and is_awaited(settings)):
                made.load()
    except OSError as error:  # ssl.SSLError is one
        told = f"cannot use ca_file, cert_file or key_file: {error}"
        raise ConfigError(f"broker: {told}; `roadcast client enrol` writes all three") from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made

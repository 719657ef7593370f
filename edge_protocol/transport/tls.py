"""TLS to the broker: whose certificate is trusted, and which one is shown. Owns no setting."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from edge_protocol.errors import ConfigError
from edge_protocol.transport.settings import BrokerSettings

if TYPE_CHECKING:
    from edge_protocol.identity.files import IdentityFiles


class _RenewedContext(ssl.SSLContext):
    """Shows the certificate that lies on disk when a connection begins: renewing it needs no restart.

    A file that cannot be used then fails that connection, and the next one tries again.
    """

    identity: IdentityFiles

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:  # noqa: ANN401  as ssl declares it
        """Load what is there now."""
        self.load_cert_chain(self.identity.certificate, self.identity.key)
        return super().wrap_socket(*arguments, **named)


def context(settings: BrokerSettings) -> ssl.SSLContext:
    """Say how to check the broker's certificate and show our own, for settings with `ca_file`.

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
            made.load_verify_locations(settings.ca_file)
            made.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:  # ssl.SSLError is one
        told = f"cannot use ca_file, cert_file or key_file: {error}"
        raise ConfigError(f"broker: {told}; `roadcast client enrol` writes all three") from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made

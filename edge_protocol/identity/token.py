"""The enrolment token: what a device needs to trust an authority and be trusted by it once; pure.

It travels by hand, as one word. It holds the hash of the authority's certificates, so that the device cannot be led to
another authority, as in ``kubeadm join``; and a secret that the authority takes once.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge_protocol.errors import ConfigError, LocalProtocolError
from edge_protocol.ids import check_id

SECRET_BYTES: Final = 32
MARK: Final = "rct1."
"""How every token begins."""
_MAX: Final = 2048
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]


class EnrolmentToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A single-use permission to get the certificate of one name.

    Attributes:
        name: of the device.
        url: of the enrolment service, ``https://host:port``.
        authority: SHA-256 of the authority's certificates.
        secret: 32 random bytes; the authority keeps their hash only.
    """

    name: str
    url: Annotated[str, Meta(pattern=r"^https://[^/?#@\s]{1,255}$")]
    authority: Hash
    secret: Hash

    def text(self) -> str:
        """The token as one word, to be read again by `parse_token`."""
        return MARK + urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")


def parse_token(text: str) -> EnrolmentToken:
    """Read a token.

    Raises:
        ConfigError: it is not one, or it was cut short.
    """
    body = text.strip()
    try:
        mark, word = body[: len(MARK)], body[len(MARK) : _MAX]
        padded = (word + "=" * (-len(word) % 4)).encode("ascii")
        token = msgspec.msgpack.decode(urlsafe_b64decode(padded), type=EnrolmentToken)
        check_id(token.name, "name")
        whole = mark == MARK and body == token.text()
    except (ValueError, msgspec.MsgspecError, LocalProtocolError) as error:
        raise ConfigError(f"enrolment token: cannot be read ({error}); copy it whole, or make a new one") from error
    if not whole:
        raise ConfigError(f"enrolment token: it begins with {MARK!r} and is one word; copy it whole, or make a new one")
    return token

"""The holder's half of enrolment and renewal over HTTPS, after EST (RFC 7030): one request each. Owns no file's order.

A holder that knows nobody yet takes the authority's certificates from anybody, and goes on only when their hash is the
one in its token. From then on every connection is checked against them.
"""

from __future__ import annotations

import ssl
from hashlib import sha256
from http.client import HTTPException, HTTPSConnection
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from edge_protocol.errors import CheckFailedError, ConfigError, TransportError
from edge_protocol.files import write_atomic
from edge_protocol.identity.certificates import MAX_PEM_BYTES, fingerprint, read_chain, renewal_due
from edge_protocol.identity.files import IdentityFiles
from edge_protocol.identity.token import parse_token

TIMEOUT_S: Final = 30.0
MAX_BODY_BYTES: Final = 2 * MAX_PEM_BYTES
Pem = Annotated[str, Meta(max_length=MAX_PEM_BYTES)]


class EnrolRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a holder sends.

    Attributes:
        request: PKCS #10, PEM.
        secret: of the token, hex; "" for a renewal, which the present certificate vouches for.
    """

    request: Pem
    secret: Annotated[str, Meta(max_length=64, pattern="^([0-9a-f]{2})*$")] = ""


class EnrolAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the service answers; errors have neither certificate nor authority.

    Attributes:
        certificate: PEM, the holder's own first.
        authority: PEM of what to trust from now on.
        refused: why there is none, for people.
    """

    certificate: Pem = ""
    authority: Pem = ""
    refused: Annotated[str, Meta(max_length=1000)] = ""


def enrol(files: IdentityFiles, name: str, token: str) -> None:
    """Trade a token for a certificate; safe to repeat after a crash at any point, with the same token.

    Args:
        files: where the identity lies.
        name: of this holder.
        token: as one word.

    Raises:
        ConfigError: the token cannot be read.
        CheckFailedError: the token is for another name, the service is not the token's authority, or it refused.
        TransportError: the service cannot be reached.
        StoreError: the disk refused.
    """
    parsed = parse_token(token)
    if parsed.name != name:
        raise CheckFailedError(f"the token is for {parsed.name!r}, this is {name!r}")
    source = f"{parsed.url}\n{sha256(parsed.secret).hexdigest()}\n".encode()
    if files.held() and not files.next_key.exists() and files.source.exists() and files.source.read_bytes() == source:
        return
    anchors = _anchors(parsed.url, parsed.authority)
    context = ssl.create_default_context(cadata=anchors)
    asked = EnrolRequest(files.request(name).decode(), parsed.secret.hex())
    answer = _ask(parsed.url, "/enrol", context, asked)
    write_atomic(files.source, source)
    files.install(answer.certificate.encode(), anchors.encode(), name)


def renew(files: IdentityFiles, name: str, now: float, *, force: bool = False) -> bool:
    """Get the next certificate with the present one, and a new key, when a third of its life or less is left.

    Args:
        files: where the identity lies.
        name: of this holder.
        now: seconds since 1970.
        force: whenever.

    Returns:
        Whether it was due.

    Raises:
        ConfigError: there is no certificate, it has expired, or it did not come from an enrolment service.
        CheckFailedError: the service refused.
        TransportError: the service cannot be reached.
        StoreError: the disk refused.
    """
    held = files.held()
    if held is None:
        raise ConfigError(f"{files.certificate}: no certificate to renew; enrol first")
    if now >= held.not_valid_after_utc.timestamp():
        raise ConfigError(f"{files.certificate} expired {held.not_valid_after_utc:%Y-%m-%d}; enrol with a new token")
    if not force and not renewal_due(held, now):
        return False
    try:
        url = files.source.read_text(encoding="ascii").partition("\n")[0]
        context = ssl.create_default_context(cafile=str(files.ca))
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{files.source}: {error}; renew as it was enrolled, by --csr-out and --install") from error
    answer = _ask(url, "/renew", context, EnrolRequest(files.request(name).decode()))
    files.install(answer.certificate.encode(), answer.authority.encode(), name)
    return True


def _anchors(url: str, wanted: bytes) -> str:
    """Fetch the authority's certificates from whoever answers, and check them against their hash."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    answer = _ask(url, "/authority", anybody, None)
    found = fingerprint(read_chain(answer.authority.encode(), url)) if answer.authority else b""
    if found != wanted:
        raise CheckFailedError(f"{url} is not the authority that the token names; ask who made the token")
    return answer.authority


def _ask(url: str, path: str, context: ssl.SSLContext, body: EnrolRequest | None) -> EnrolAnswer:
    place = urlsplit(url)
    try:
        link = HTTPSConnection(place.hostname or "", place.port, timeout=TIMEOUT_S, context=context)
        try:
            headers = {"Content-Type": "application/json"}
            link.request("POST" if body else "GET", path, msgspec.json.encode(body) if body else None, headers)
            answer = _decode(link.getresponse().read(MAX_BODY_BYTES), url)
        finally:
            link.close()
    except ssl.SSLCertVerificationError as error:
        told = f"{url} has no valid certificate of the authority for that address: {error.verify_message}"
        raise CheckFailedError(f"{told}; check the address and this machine's clock") from error
    except (OSError, HTTPException, ValueError) as error:
        raise TransportError(f"{url}: the enrolment service cannot be reached: {error}") from error
    if answer.refused:
        raise CheckFailedError(f"{url} refused: {answer.refused}")
    return answer


def _decode(data: Any, url: str) -> EnrolAnswer:  # noqa: ANN401  bytes, as http.client has it
    try:
        return msgspec.json.decode(data, type=EnrolAnswer)
    except msgspec.MsgspecError as error:
        raise TransportError(f"{url}: no enrolment service answers there: {error}") from error

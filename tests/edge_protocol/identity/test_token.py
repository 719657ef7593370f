"""Enrolment tokens: one word that comes back whole, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.errors import ConfigError
from edge_protocol.identity.token import EnrolmentToken, parse_token

names = st.text("abcXYZ019_-", min_size=1, max_size=64)
hosts = st.text("abc.019-:[]", min_size=1, max_size=40)
hashes = st.binary(min_size=32, max_size=32)
tokens = st.builds(EnrolmentToken, names, hosts.map(lambda host: f"https://{host}"), hashes, hashes)


@given(tokens)
def test_a_token_comes_back(token: EnrolmentToken) -> None:
    """Writing and reading are inverse, with space around."""
    assert parse_token(f" {token.text()}\n") == token
    assert token.text().isascii()
    assert not any(sign.isspace() for sign in token.text())


@given(tokens, st.data())
def test_a_token_that_was_cut_is_refused(token: EnrolmentToken, data: st.DataObject) -> None:
    """No part of a token is a token."""
    text = token.text()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(ConfigError, match="enrolment token"):
        parse_token(text[:cut])


@given(st.text(max_size=100))
def test_what_is_no_token_is_refused(text: str) -> None:
    """Any other text, with or without the mark in front, is an error that says what to do."""
    for candidate in (text, f"rct1.{text}"):
        with pytest.raises(ConfigError, match="copy it whole"):
            parse_token(candidate)


def test_a_plain_address_is_refused() -> None:
    """A token that leads to an unencrypted address is none."""
    bad = EnrolmentToken("cam-1", "http://somewhere", bytes(32), bytes(32))
    with pytest.raises(ConfigError):
        parse_token(bad.text())

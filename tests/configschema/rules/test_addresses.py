"""Which addresses lead to this machine itself."""

from __future__ import annotations

import pytest

from configschema.rules.addresses import is_here


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:8080",
        "http://LOCALHOST",
        "http://127.0.0.1:8080/v1",
        "http://127.8.0.2:8080",
        "http://[::1]:8080",
        "http://0.0.0.0:8080",
        "http://[::]:8080",
    ],
)
def test_an_address_names_this_machine(address: str) -> None:
    """The address may have the machine's name, or a number that never leaves the machine."""
    assert is_here(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://gpu.lan:8080",
        "http://localhost.example.org",
        "http://127.example.org",
        "http://192.168.1.20:8080",
        "http://[2001:db8::1]:8080",
        "http://[127.0.0.1:8080",
        "http:///v1",
        "",
    ],
)
def test_an_address_does_not_name_this_machine(address: str) -> None:
    """The address is another machine's, only resembles a local one, or is no address at all."""
    assert not is_here(address)

"""Which addresses anybody may contact, in all their disguises."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normistral.corpus.crawl.addresses import PublicResolver, is_public

PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "192.0.0.8"),
    *(
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "fec0::1",
        "2001:db8::1",
    ),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:a00:1::"),
    *("2002:7f00:1::1", "::127.0.0.1"),
]


@pytest.mark.parametrize("address", [*PRIVATE, "", "localhost", "127.1"])
def test_private_and_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["158.39.100.1", "8.8.8.8", "2a02:c0::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_by_itself(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    disguises = (f"::ffff:{address}", f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}")
    assert {is_public(disguise) for disguise in disguises} == {is_public(str(address))}


def test_an_allowed_network_is_public_and_its_neighbour_is_not() -> None:
    allowed = [ipaddress.ip_network("10.20.0.0/16")]
    assert is_public("10.20.3.4", allowed)
    assert is_public("::ffff:10.20.3.4", allowed)
    assert not is_public("10.21.0.1", allowed)


class _Address:
    def __init__(self, host: str) -> None:
        self.host = host


class _Receiver:
    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.is_complete = False

    def resolutionBegan(self, resolution: object) -> None:  # noqa: N802
        return

    def addressResolved(self, address: _Address) -> None:  # noqa: N802
        self.addresses.append(address.host)

    def resolutionComplete(self) -> None:  # noqa: N802
        self.is_complete = True


class _Rebinding:
    """Gives a public address at first, then a private one, as an attacker's name server does."""

    def __init__(self) -> None:
        self.answers = [["8.8.8.8"], ["10.0.0.1", "8.8.8.8"], ["10.0.0.1"]]

    def resolveHostName(self, receiver: _Receiver, *_: object) -> None:  # noqa: N802
        for address in self.answers.pop(0):
            receiver.addressResolved(_Address(address))
        receiver.resolutionComplete()


def test_each_look_is_judged_anew() -> None:
    resolver = PublicResolver(_Rebinding(), [], {})
    looks = []
    for _ in range(3):
        receiver = _Receiver()
        resolver.resolveHostName(receiver, "evil.example", 80)
        assert receiver.is_complete
        looks.append(receiver.addresses)
    assert looks == [["8.8.8.8"], ["8.8.8.8"], []]
    assert resolver.refused == {"evil.example"}


def test_given_addresses_are_judged_like_all_others() -> None:
    resolver = PublicResolver(_Rebinding(), [], {"mine.example": "127.0.0.1", "other.example": "8.8.4.4"})
    for name, expected in (("mine.example", []), ("Other.Example", ["8.8.4.4"])):
        receiver = _Receiver()
        resolver.resolveHostName(receiver, name, 80)
        assert receiver.addresses == expected

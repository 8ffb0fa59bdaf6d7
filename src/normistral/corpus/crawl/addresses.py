"""No private addresses: what a host name leads to is looked at when the connection is made.

A check before the request would not do. A public name can lead to a private address, another one at each
look (DNS rebinding), and so can a redirect. So the reactor's own resolver leaves such addresses out: Twisted
connects to nothing but what its resolver gives it, numbers included (`http://2130706433/`).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from scrapy.resolver import CachingHostnameResolver
from twisted.internet import address as twisted_address
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from zope.interface import implementer

from normistral.recipe.crawl import NetworkSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NEVER: tuple[Network, ...] = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("fec0::/10"))
"""Special-purpose by IANA's registry, but global to Python's `ipaddress`."""

DNS_CACHE_HOSTS = 10_000

log = logging.getLogger(__name__)


def is_public(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether an address is one that anybody may contact.

    Args:
        address: IPv4 or IPv6, in numbers.
        allowed: networks that count as public besides.

    Example:
        >>> is_public("::ffff:127.0.0.1"), is_public("169.254.169.254"), is_public("158.39.100.1")
        (False, False, True)
    """
    try:
        plain = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _inside(plain)
    if inner is not None:
        return is_public(str(inner), allowed)
    if any(plain in network for network in allowed if network.version == plain.version):
        return True
    if any(plain in network for network in _NEVER if network.version == plain.version):
        return False
    return plain.is_global and not (plain.is_multicast or plain.is_reserved or plain.is_unspecified)


def _inside(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, NAT64, 6to4 or Teredo."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


@implementer(IHostnameResolver)
class PublicResolver:
    """A resolver that gives no private addresses, and remembers for which hosts it had others.

    Args:
        resolver: the one that asks.
        allowed: networks that count as public besides.
        known: addresses of names that are not asked for; checked like all others.
    """

    def __init__(self, resolver: Any, allowed: Sequence[Network], known: dict[str, str]) -> None:
        self._resolver, self._allowed, self._known = resolver, allowed, known
        self.refused: set[str] = set()

    def resolveHostName(  # noqa: N802  # names of Twisted's interface, here and below
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Tell the receiver the public addresses of a name."""
        guarded = _Guard(self, resolutionReceiver, hostName)
        address = self._known.get(hostName.lower())
        if address is None:
            return self._resolver.resolveHostName(
                guarded, hostName, portNumber, addressTypes, transportSemantics
            )
        guarded.resolutionBegan(self)
        kind = twisted_address.IPv6Address if ":" in address else twisted_address.IPv4Address
        guarded.addressResolved(kind("TCP", address, portNumber))
        guarded.resolutionComplete()
        return self

    def cancel(self) -> None:
        """Nothing is under way that could be broken off."""

    def may_contact(self, name: str, address: str) -> bool:
        """Whether an address that a name leads to may be contacted; remembers the name if not."""
        if is_public(address, self._allowed):
            return True
        if name not in self.refused:
            log.warning("host %s leads to %s, which is not contacted", name, address)
            self.refused.add(name)
        return False


@implementer(IResolutionReceiver)
class _Guard:
    def __init__(self, resolver: PublicResolver, receiver: Any, name: str) -> None:
        self._resolver, self._receiver, self._name = resolver, receiver, name

    def resolutionBegan(self, resolution: Any) -> None:  # noqa: N802
        self._receiver.resolutionBegan(resolution)

    def addressResolved(self, address: Any) -> None:  # noqa: N802
        if self._resolver.may_contact(self._name, address.host):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:  # noqa: N802
        self._receiver.resolutionComplete()


def public_resolver(reactor: Any, network: NetworkSettings) -> PublicResolver:
    """The resolver of a crawl, in front of the reactor's own.

    Args:
        reactor: whose resolver asks; `installNameResolver` makes the result its only one.
        network: what is allowed besides public addresses, and names that are not asked for.
    """
    allowed = [ipaddress.ip_network(name) for name in network.allow_networks]
    return PublicResolver(CachingHostnameResolver(reactor, DNS_CACHE_HOSTS), allowed, network.resolve)

"""Which addresses a webhook may reach: none of this machine's, of the network's or of the cloud's own, unless allowed.

A name is resolved once for each use, every address is looked at, and the connection goes to one of these: a name that
says something else the next moment (DNS rebinding) is not asked again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from chronicle.errors import ConfigError, TransientError

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], list[str]]

_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)
"""Where clouds give credentials to whoever asks from inside; some of these are public addresses by number."""
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_CARRIER = ip_network("100.64.0.0/10")


def reachable(host: str, port: int, *, allow_private: bool, resolve: Resolve | None = None) -> list[Address]:
    """The addresses of a host, if all of them may be reached; `allow_private`: private and loopback ones, too.

    Raises:
        ConfigError: one of them may not.
        TransientError: the name cannot be resolved now.
    """
    try:
        found = [ip_address(host.strip("[]"))]
    except ValueError:
        found = [ip_address(one.partition("%")[0]) for one in (resolve or _resolved)(host, port)]
    for address in found:
        if why := refusal(address, allow_private=allow_private):
            raise ConfigError(f"choose another webhook url, or set allow_private: {host} is {address}, {why}")
    if not found:
        raise TransientError(f"{host} has no address")
    return found


def refusal(address: Address, *, allow_private: bool) -> str | None:
    """Why an address may not be reached, or None."""
    inner = _inner(address)
    if inner is not None:
        return refusal(inner, allow_private=allow_private)
    if address in _METADATA:
        return "where clouds keep credentials"
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return "no address of one host"
    if address.is_loopback or address.is_private or (address.version == 4 and address in _CARRIER):
        return None if allow_private and not _odd(address) else "an address inside"
    return None if address.is_global else "no public address"


def _odd(address: Address) -> bool:
    """Private by number, but of no private network: documentation, benchmarks, broadcast, `0.x`."""
    if address.is_loopback:
        return False
    networks = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
    return not any(address in network for network in map(ip_network, networks) if network.version == address.version)


def _inner(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    low = int(address) & 0xFFFFFFFF
    compatible = 1 < int(address) < 1 << 32  # ::a.b.c.d, long obsolete, and still understood
    return IPv4Address(low) if compatible or any(address in network for network in _NAT64) else None


def _resolved(host: str, port: int) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TransientError(f"{host} cannot be resolved ({type(error).__name__})") from None
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))

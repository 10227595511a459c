"""Addresses to listen on."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

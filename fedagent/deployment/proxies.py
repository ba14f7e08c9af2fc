"""HTTP proxies that the environment names: every part of Flower obeys them, loopback included."""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def proxy_for(host: str, scheme: str) -> str | None:
    """Return the proxy, as a URL, through which Flower would ask `host`; None if there is none.

    Parameters
    ----------
    host : a name or an IP address.
    scheme : "http" or "https".
    """
    if proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(scheme) or proxies.get("all")


def without_credentials(proxy: str) -> str:
    """Return a proxy's URL as it may be shown to others."""
    parts = urlsplit(proxy)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def sparing_loopback() -> Mapping[str, str]:
    """Return the variables that keep connections within this machine from every proxy.

    Empty if no proxy is named. What the user excepts stays excepted.
    """
    if all(proxy_for(host, scheme) is None for host in LOOPBACK for scheme in ("http", "https")):
        return {}
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    spared = ",".join([*filter(None, [named]), *LOOPBACK])
    return {"no_proxy": spared, "NO_PROXY": spared}

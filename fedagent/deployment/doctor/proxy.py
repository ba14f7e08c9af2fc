"""Checks of the HTTP proxies that the environment names, which Flower obeys."""

from http.client import HTTPException
from urllib.request import BaseHandler, HTTPSHandler, ProxyHandler, build_opener

from fedagent.deployment.doctor.finding import Finding
from fedagent.deployment.doctor.reachability import TIMEOUT_S, SuperLink
from fedagent.deployment.proxies import LOOPBACK, proxy_for, without_credentials


def check_loopback() -> list[Finding]:
    """Check that no HTTP proxy comes between the processes of this machine; empty if none does."""
    taken = {host: proxy for host in LOOPBACK if (proxy := proxy_for(host, "http"))}
    if not taken:
        return []
    return [
        Finding(
            "proxy",
            "warning",
            f"http_proxy sends what stays on this machine ({', '.join(taken)}) to "
            f"{without_credentials(next(iter(taken.values())))}, and Flower's processes would not "
            "reach each other",
            f"export NO_PROXY={','.join(LOOPBACK)} and the same as no_proxy, after what stands "
            "there already. fedagent node does so for its own processes.",
        )
    ]


def check_proxy(superlink: SuperLink) -> list[Finding]:
    """Check that the HTTP proxy between here and `superlink` lets it through; empty without one."""
    scheme = "http" if superlink.insecure else "https"
    proxy = proxy_for(superlink.host, scheme)
    if proxy is None:
        return []
    shown = f"{scheme}_proxy sends what goes to {superlink} to {without_credentials(proxy)}"
    handlers: list[BaseHandler] = [ProxyHandler({scheme: proxy})]
    try:
        if not superlink.insecure:
            handlers.append(HTTPSHandler(context=superlink.trust()))
        url = f"{scheme}://{superlink}/health"
        build_opener(*handlers).open(url, timeout=TIMEOUT_S).close()
    except (OSError, HTTPException) as error:
        return [
            Finding(
                "proxy",
                "broken",
                f"{shown}, and no answer comes back that way ({error})",
                f"export NO_PROXY={superlink.host},{','.join(LOOPBACK)} and the same as no_proxy, "
                "also in the unit file or container that starts the node; or let the proxy "
                "through to it.",
            )
        ]
    return [Finding("proxy", "ok", f"{shown}, which lets it through")]

import os

import httpx
import pytest

from fedagent.deployment.proxies import LOOPBACK, proxy_for, sparing_loopback


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


def test_without_a_proxy_the_environment_stays_as_it_is():
    assert sparing_loopback() == {}


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"])
@pytest.mark.parametrize("excepted", [{}, {"no_proxy": "example.org"}, {"NO_PROXY": "example.org"}])
def test_nothing_on_this_machine_goes_through_a_proxy_and_the_rest_as_before(
    monkeypatch, variable, excepted
):
    for name, value in {variable: "http://proxy:3128", **excepted}.items():
        monkeypatch.setenv(name, value)
    before = [proxy_for(host, "http") for host in ("a.org", "example.org", "sub.example.org")]
    for name, value in sparing_loopback().items():
        monkeypatch.setenv(name, value)
    assert [proxy_for(host, "http") for host in LOOPBACK] == [None] * 3
    assert [proxy_for(h, "http") for h in ("a.org", "example.org", "sub.example.org")] == before
    assert sparing_loopback() == {}, "once is enough"


def test_flowers_http_client_takes_it_so(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr(os, "environ", os.environ | dict(sparing_loopback()))
    transports = httpx.Client()._mounts
    spared = {pattern.pattern for pattern, transport in transports.items() if transport is None}
    assert {"all://localhost", "all://127.0.0.1", "all://[::1]"} <= spared

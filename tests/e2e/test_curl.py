# SPDX-License-Identifier: Apache-2.0
"""curl fetches from outside, over IPv4 and IPv6, one and many at once."""

import pytest

from harness import WORLD4, WORLD6
from servers import HELLO


@pytest.mark.parametrize("host", [WORLD4, WORLD6])
def test_fetch(enclave, nginx, host):
    result = enclave.run(["curl", "-sS", nginx.url(host=host)]).ok()
    assert result.out == HELLO


def test_parallel_50(enclave, nginx):
    argv = ["curl", "-sS", "--parallel", "--parallel-immediate",
            "--parallel-max", "50", "-w", "%{http_code}\n"]
    for n in range(50):
        argv += ["-o", "%s/%d" % (enclave.tmp, n), nginx.url()]
    result = enclave.run(argv).ok()
    assert result.out == "200\n" * 50
    for n in range(50):
        with open("%s/%d" % (enclave.tmp, n), encoding="utf-8") as got:
            assert got.read() == HELLO


def test_addresses_are_true(enclave, nginx):
    """What curl reports with getpeername and getsockname."""
    argv = ["curl", "-sS", "-o", "/dev/null", "-w",
            "%{remote_ip} %{remote_port} %{local_ip}", nginx.url()]
    result = enclave.run(argv).ok()
    assert result.out == "%s %d %s" % (WORLD4, nginx.port, WORLD4)


def test_same_without_proxify_fails(enclave, nginx):
    """The control: it is proxify that made the others work."""
    result = enclave.plain(["curl", "-sS", nginx.url()])
    assert result.rc == 7
    assert result.out == ""

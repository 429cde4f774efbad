# SPDX-License-Identifier: Apache-2.0
"""Sites for crowds of connections, and a crowd that stays (programs/crowd.c)."""

import subprocess

from carrier import vsock_port
from harness import TIMEOUT, until


def ranged_site(new_site, ports):
    """A site whose proxy listens on that many vsock ports, from site.first on."""
    site = new_site(start=False)
    # the kernel goes on from the port it gave last, and gives up where some two
    # dozen in a row are taken: it must not come by here
    first = vsock_port() + 100000
    site.enclave.endpoint = "vsock:local:%d-%d" % (first, first + ports - 1)
    site.enclave.env["PROXY_ENDPOINT"] = site.enclave.endpoint
    site.first = first
    # what asks whether the proxy is there takes one port
    site.start_proxy(
        ["--listen", "vsock:local:%d-%d" % (first + 1, first + ports - 1)],
        endpoint="vsock:local:%d" % first)
    return site


def stay_idle(site, crowd, echo_port, host, count):
    """Connections on which nothing happens: each of them still works, new ones
    are made, and all of them end with their program."""
    site.run([crowd, "storm", host, echo_port, 1, 1]).ok()
    before = site.proxy.fds()
    client = site.enclave.popen(
        [crowd, "idle", host, echo_port, count],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with client:
        counted = client.stdout.readline()
        if counted != b"good %d bad 0\n" % count:
            # it ends with its stdin
            raise AssertionError((counted, client.communicate(timeout=TIMEOUT)))
        assert site.proxy.fds() >= before + 2 * count
        for _ in range(3):
            client.stdin.write(b"\n")
            client.stdin.flush()
            assert client.stdout.readline() == \
                b"good %d bad 0\n" % (count // 50 + 1)
        client.stdin.close()
        assert client.wait(TIMEOUT) == 0
    until(lambda: site.proxy.fds() <= before, "no fd is left")

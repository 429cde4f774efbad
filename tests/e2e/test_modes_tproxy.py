# SPDX-License-Identifier: Apache-2.0
"""TPROXY: connections of a network behind the machine, taken in on the way."""

import pytest

import modes
from harness import WORLD4, WORLD6, until
from modes import WORLD
from servers import HELLO


@pytest.fixture
def router(world):
    router = modes.Router(world)
    yield router
    router.close()


@pytest.fixture
def carrier_path(world):
    return "unix:%s/carrier" % world.dir("tproxy")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("tool", ["iptables", "nft"])
def test_chain(world, nginx, router, carrier_path, tool, family):
    """client -> TPROXY -> ip-to-vsock-transparent -> carrier ->
    vsock-to-ip-transparent -> nginx."""
    out = modes.Mode(world, "vsock-to-ip-transparent", ["-v", carrier_path])
    ins = router.mode("ip-to-vsock-transparent", "-i",
                      {4: "0.0.0.0:0", 6: "[::]:0"}[family],
                      "-v", carrier_path, "--tproxy")
    router.in_router(modes.tproxy_rule(tool, family, ins.port()))
    got = router.run_client(modes.curl(WORLD[family], nginx.port))
    assert got.ok().out == HELLO
    dst = "%s:%d" % (modes.bracket(WORLD[family]), nginx.port)
    assert "Original destination: " + dst in ins.log()
    assert "Original destination: " + dst in out.log()
    ins.finish()
    out.finish()


def test_both_families_on_one_listener(world, nginx, router, carrier_path):
    """A dual-stack socket takes IPv4 connections too, as IPv4."""
    out = modes.Mode(world, "vsock-to-ip-transparent", ["-v", carrier_path])
    ins = router.mode("ip-to-vsock-transparent", "-i", "[::]:0",
                      "-v", carrier_path, "--tproxy")
    for family in (4, 6):
        router.in_router(modes.tproxy_rule("iptables", family, ins.port()))
    for host in (WORLD4, WORLD6):
        got = router.run_client(modes.curl(host, nginx.port))
        assert got.ok().out == HELLO
    assert "Original destination: %s:%d" % (WORLD4, nginx.port) in ins.log()
    ins.finish()
    out.finish()


def test_ports(world, nginx, router, carrier_path):
    """transparent-port-to-vsock behind TPROXY."""
    out = modes.Mode(world, "vsock-to-ip", [
        "-v", carrier_path + "_4321", "-i", "%s:%d" % (WORLD4, nginx.port)])
    ins = router.mode("transparent-port-to-vsock", "-i", "0.0.0.0:0",
                      "-v", carrier_path, "--tproxy")
    router.in_router(modes.tproxy_rule("iptables", 4, ins.port()))
    got = router.run_client(modes.curl("203.0.113.9", 4321))
    assert got.ok().out == HELLO
    assert "Original destination: 203.0.113.9:4321" in ins.log()
    ins.finish()
    out.finish()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "10.79.0.1:0"])
def test_not_redirected(router, carrier_path, listen):
    """Straight to the listener's own address is refused."""
    ins = router.mode("ip-to-vsock-transparent", "-i", listen,
                      "-v", carrier_path, "--tproxy")
    router.run_client(modes.curl("10.79.0.1", ins.port()))
    until(lambda: "Failed to retrieve original destination from TCP stream" in
          ins.log(), "it is logged")
    assert "Original destination" not in ins.log()
    ins.finish()


def test_needs_privilege(world, carrier_path):
    """Without CAP_NET_ADMIN it says so at the start, and exits 1."""
    got = modes.in_world([
        "setpriv", "--bounding-set", "-net_admin,-net_raw", "--inh-caps",
        "-net_admin,-net_raw", modes.command(world, "ip-to-vsock-transparent"),
        "-i", "127.0.0.1:0", "-v", carrier_path, "--tproxy"])
    assert got.rc == 1
    assert "Failed to bind listener: malformed listening address:port" in got.err
    assert "TPROXY needs CAP_NET_ADMIN: Operation not permitted" in got.err

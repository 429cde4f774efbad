# SPDX-License-Identifier: Apache-2.0
"""--proxy-protocol and --accept-proxy-protocol: the real client's address reaches a
server that knows the protocol (nginx), in both versions."""

import pytest

import modes
from harness import PYTHON, WORLD4, WORLD6, Daemon, listening, until
from servers import Peer, read_to_eof

CONF = """
user root root;
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen {v4}:{port} proxy_protocol;
        listen [{v6}]:{port} proxy_protocol;
        location / {{
            return 200 "$proxy_protocol_addr $proxy_protocol_server_addr $proxy_protocol_server_port\\n";
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def knowing(world):
    """An nginx that answers with what the header says."""
    port, directory = world.port(), world.dir("nginx-pp")
    with open(directory + "/nginx.conf", "w", encoding="ascii") as conf:
        conf.write(CONF.format(dir=directory, port=port, v4=WORLD4, v6=WORLD6))
    daemon = Daemon("world-nginx-pp", [
        "nginx", "-c", directory + "/nginx.conf", "-p", directory, "-e", "stderr"],
        world.tmp)
    daemon.wait_ready(lambda: listening(WORLD4, port))
    daemon.port = port
    yield daemon
    daemon.kill()


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("family", [4, 6])
def test_through(stage, knowing, version, family):
    """Sent in the enclave, carried as payload, understood by the server."""
    endpoint = stage.outward()
    stage.outside("vsock-to-ip", "-v", endpoint, "-i",
                  "%s:%d" % (WORLD4, knowing.port))
    ins = stage.inside("ip-to-vsock", "-i", modes.LOOPBACK[family] + ":0",
                       "-v", endpoint, "--proxy-protocol", version)
    host = modes.LOOPBACK[family].strip("[]")
    got = stage.run(modes.curl(host, ins.port(), "/")).ok().out
    assert got == "%s %s %d\n" % (host, host, ins.port())


@pytest.mark.parametrize("first, second", [("v1", "v2"), ("v2", "v1")])
def test_taken_and_passed_on(stage, knowing, first, second):
    """Each hop reads one version and writes the other: it is the first client
    and the original destination that arrive."""
    endpoint = stage.outward()
    stage.outside("vsock-to-ip-transparent", "-v", endpoint,
                  "--accept-proxy-protocol", "--proxy-protocol", second)
    ins = stage.inside("ip-to-vsock-transparent", "-i", "127.0.0.1:0",
                       "-v", endpoint, "--proxy-protocol", first)
    stage.sh(modes.redirect_rule("nft", 4, WORLD4, None, ins.port()))
    got = stage.run(modes.curl(WORLD4, knowing.port, "/")).ok().out
    # the source that the route gives to a connection to the world
    assert got == "100.64.0.1 %s %d\n" % (WORLD4, knowing.port)


def test_taken_off(stage):
    """Accepted and not passed on: the server sees the payload alone."""
    got = []
    with Peer(lambda conn: got.append(read_to_eof(conn))) as peer:
        endpoint = stage.outward()
        stage.outside("vsock-to-ip", "-v", endpoint, "-i",
                      "%s:%d" % (peer.host, peer.port),
                      "--accept-proxy-protocol")
        ins = stage.inside("ip-to-vsock", "-i", "127.0.0.1:0", "-v", endpoint,
                           "--proxy-protocol", "v2")
        source = ("import socket\n"
                  "s = socket.create_connection(('127.0.0.1', %d), 20)\n"
                  "s.sendall(b'payload')" % ins.port())
        stage.run([PYTHON, "-c", source]).ok()
        until(lambda: got == [b"payload"], "the payload has arrived")


def test_missing(stage, nginx):
    """Where a header is expected, a connection without one is refused."""
    endpoint = stage.outward()
    out = stage.outside("vsock-to-ip", "-v", endpoint, "-i",
                        "%s:%d" % (WORLD4, nginx.port),
                        "--accept-proxy-protocol")
    ins = stage.inside("ip-to-vsock", "-i", "127.0.0.1:0", "-v", endpoint)
    assert stage.run(modes.curl("127.0.0.1", ins.port())).rc in modes.REFUSED
    until(lambda: "not a PROXY protocol header" in out.log(), "it is logged")

# SPDX-License-Identifier: Apache-2.0
"""Names for each kind of resolver: the libc's, c-ares, Go's, musl's, dig, all in
an enclave without a resolv.conf, by the host's own name server."""

import ipaddress
import os

import pytest

import names
from compiled import compiled
from harness import HERE, PYTHON, WORLD4, WORLD6
from servers import HELLO

PROGRAMS = HERE + "/programs/"
BOTH = {WORLD4, WORLD6}


@pytest.fixture(scope="module")
def stage(name_servers, carrier):
    site = name_servers.site(carrier=carrier)
    site.run(["true"]).ok()  # the vendor is up from here on
    yield site
    site.close()


@pytest.fixture(scope="session")
def built(world):
    return compiled(world, "lookups")


def command(program, built, name):
    """How a program prints a name's addresses one to a line, or "unknown"."""
    if program == "getent":
        return ["sh", "-c", 'getent ahosts "$1" | sed -n "s/ *STREAM.*//p" | '
                "grep . || echo unknown", "-", name]
    if program == "python":
        return [PYTHON, PROGRAMS + "lookup.py", name]
    if program.startswith("node-"):
        return ["node", PROGRAMS + "lookup.js", program.partition("-")[2], name]
    if program == "java":
        return ["java", "-Xmx128m", "-XX:+UseSerialGC", "-cp", built, "Lookup",
                name]
    if program in ("musl", "go"):
        return [built + "/lookup-" + program, name]
    if program == "busybox":
        return ["sh", "-c", 'out=$(busybox nslookup "$1" 2>&1); '
                'case $out in *NXDOMAIN*) echo unknown;; esac; '
                'echo "$out" | sed "1,/^$/d" | sed -n "s/^Address: *//p"', "-",
                name]
    if program == "host":
        return ["sh", "-c", 'out=$(host "$1"); '
                'case $out in *NXDOMAIN*) echo unknown;; esac; '
                'echo "$out" | sed -n "s/.* address //p"', "-", name]
    assert program == "dig"
    return ["sh", "-c", 'dig "$1" A "$1" AAAA | sed -n '
            '-e "s/.*NXDOMAIN.*/unknown/p" '
            '-e "s/.*IN[^A-Z]*A\\{1,4\\}[^A-Z]//p" | uniq', "-", name]


# Static programs make their own system calls and are not covered; that they
# resolve names is the stub's work alone.
STATIC = ["musl", "go"]
DYNAMIC = ["getent", "python", "node-lookup",
           pytest.param("java", marks=pytest.mark.no_asan("JVM")),
           "busybox", "host", "dig"]


def look_up(stage, program, built, name):
    enclave = stage.enclave
    run = enclave.plain if program in STATIC else enclave.run
    result = run(command(program, built, name)).ok()
    words = result.out.split()
    return {w if w == "unknown" else str(ipaddress.ip_address(w)) for w in words}


@pytest.mark.parametrize("program", DYNAMIC + STATIC)
def test_addresses(stage, built, program):
    assert look_up(stage, program, built, "web.names.test") == BOTH


@pytest.mark.parametrize("program", DYNAMIC + STATIC)
def test_alias(stage, built, program):
    assert look_up(stage, program, built, "one.names.test") >= BOTH


@pytest.mark.parametrize("program", DYNAMIC + STATIC)
def test_unknown_name(stage, built, program):
    assert look_up(stage, program, built, "nobody.names.test") == {"unknown"}


def test_node_resolve(stage):
    def resolve(method, name):
        return stage.run(["node", PROGRAMS + "lookup.js", method, name]).ok().out

    assert resolve("resolve4", "v4.names.test") == WORLD4 + "\n"
    assert resolve("resolve6", "v6.names.test") == WORLD6 + "\n"
    assert resolve("resolveMx", "names.test") == "mail.names.test\n"
    assert resolve("resolve4", "nobody.names.test") == "unknown\n"
    assert len(resolve("resolve4", "many.names.test").split()) == names.MANY


# musl before 1.2.4 takes what is in a truncated answer.
@pytest.mark.parametrize("program", ["getent", "python", "node-lookup", "go"])
def test_more_addresses_than_fit(stage, built, program):
    for name, count in (("many", names.MANY), ("big", names.BIG)):
        found = look_up(stage, program, built, name + ".names.test")
        assert len(found) == count


def test_musl_uses_what_fits(stage, built):
    assert len(look_up(stage, "musl", built, "many.names.test")) > 20


@pytest.mark.parametrize("options,count,truncated", [
    (["+tcp"], names.BIG, False),
    (["+notcp", "+ignore", "+bufsize=512"], 28, True),
    (["+notcp", "+ignore", "+noedns"], 28, True),
    (["+notcp", "+ignore", "+bufsize=1232"], 60, True),
    (["+notcp", "+bufsize=512"], names.BIG, False),  # asks again over TCP
    (["+notcp", "+ignore", "+bufsize=8192"], names.BIG, False),
])
def test_dig_sizes(stage, options, count, truncated):
    argv = ["dig", *options, "@127.0.0.1", "big.names.test", "A"]
    result = stage.run(argv).ok()
    flags = result.out.partition("flags:")[2].partition(";")[0].split()
    found = result.out.count("\tIN\tA\t")
    assert ("tc" in flags) == truncated
    assert found >= count
    if truncated:
        assert found < names.BIG


def test_dig_other_types(stage):
    def dig(*argv):
        return stage.run(["dig", "+short", *argv]).ok().out

    assert dig("names.test", "MX") == "10 mail.names.test.\n"
    assert dig("txt.names.test", "TXT") == '"some text"\n'
    assert dig("-x", WORLD4) in ("web.names.test.\n", "v4.names.test.\n")
    transfer = stage.run(["dig", "names.test", "AXFR"])
    assert "Transfer failed" in transfer.out


def test_fetch_by_name(stage, nginx):
    """The names and the connections together."""
    for name in ("web", "v4", "v6", "one"):
        url = nginx.url(host=name + ".names.test")
        assert stage.run(["curl", "-sS", url]).ok().out == HELLO
    url = nginx.url(host="web.names.test")
    for argv in (["wget", "-q", "-O-"], ["wget", "-4", "-q", "-O-"],
                 ["wget", "-6", "-q", "-O-"], ["busybox", "wget", "-q", "-O-"]):
        assert stage.run(argv + [url]).ok().out == HELLO


def test_ipv4_first(stage, nginx):
    """The world has no IPv6 that works for this name. A program that tries only
    the first address reaches it all the same."""
    url = nginx.url(host="half.names.test")
    assert stage.run(["busybox", "wget", "-q", "-O-", url]).ok().out == HELLO
    result = stage.run(["getent", "ahosts", "half.names.test"]).ok()
    # the name stands beside the first address, and nothing is lost
    assert result.out.splitlines()[0].split() == [
        WORLD4, "STREAM", "half.names.test"]
    assert [line.split()[0] for line in result.out.splitlines()] == (
        [WORLD4] * 3 + [names.NOBODY6] * 3)
    # where there is a route the libc's order is left alone
    code = ("import socket; print([a[4][0] for a in socket.getaddrinfo("
            "'loop.names.test', 80, type=socket.SOCK_STREAM)])")
    assert stage.run([PYTHON, "-c", code]).ok().out == "['::1', '127.0.0.1']\n"


def test_res_init_sets_use_vc(stage, world):
    """Even if the program drops RES_OPTIONS before; not if nobody asked."""
    binary = compiled(world, "resinit") + "/resinit"
    names.set_conf(stage.enclave, "nameserver 127.0.0.1\n")
    try:
        assert stage.run([binary]).ok().out == "init 1\nninit 1\n"
        result = stage.run([binary], options=["--resolv", "keep"]).ok()
        assert result.out == "init 0\nninit 0\n"
    finally:
        names.set_conf(stage.enclave, "nameserver 127.0.0.1\noptions use-vc\n")


def test_fetch_unknown_name(stage, nginx):
    result = stage.run(["curl", "-sS", nginx.url(host="nobody.names.test")])
    assert result.rc == 6
    assert "Could not resolve host" in result.err


@pytest.mark.parametrize("name,family,found", [
    ("web.names.test", "any", BOTH),
    ("web.names.test", "4", {WORLD4}),
    ("web.names.test", "6", {WORLD6}),
    ("v4.names.test", "any", {WORLD4}),
    ("v6.names.test", "any", {WORLD6}),
    ("v4.names.test", "6", {"unknown"}),
    ("127.0.0.1", "4", {"127.0.0.1"}),
    ("::1", "6", {"::1"}),
])
def test_addrconfig(stage, name, family, found):
    """getaddrinfo() with AI_ADDRCONFIG, where the libc counts addresses that are
    not loopback ones before it asks for a family."""
    argv = [PYTHON, PROGRAMS + "lookup.py", name, family, "addrconfig"]
    assert set(stage.run(argv).ok().out.split()) == found


def test_hosts_and_localhost_are_the_libcs(stage):
    result = stage.run(["getent", "hosts", "world.test"]).ok()  # /etc/hosts
    assert result.out.split() == [WORLD4, "world.test"]
    result = stage.run(["getent", "ahostsv4", "localhost"]).ok()
    assert result.out.split()[0] == "127.0.0.1"


def test_search_list_is_the_libcs(stage):
    names.set_conf(stage.enclave, "nameserver 127.0.0.1\nsearch names.test\n")
    try:
        result = stage.run(["getent", "ahostsv4", "web"]).ok()
        assert result.out.split()[0] == WORLD4
    finally:
        names.set_conf(stage.enclave, "nameserver 127.0.0.1\noptions use-vc\n")


def test_nothing_leaves_any_other_way(stage):
    """No route was made: programs that are not covered still get nowhere."""
    for family in ("-4", "-6"):
        result = stage.enclave.plain(["ip", family, "route", "show"]).ok()
        assert "default" not in result.out and "via" not in result.out
    for host in (WORLD4, WORLD6):
        result = stage.enclave.plain(
            [PYTHON, "-c", "import socket, sys; "
             "socket.create_connection((sys.argv[1], 53), 5)", host])
        assert "Network is unreachable" in result.err


def test_load(stage, world):
    """10 000 queries, 200 in flight: each answer for its own question. Beside it
    the same for the name server itself, for the transcript."""
    argv = [PYTHON, PROGRAMS + "dnsload.py"]
    fds = vendor_fds(stage)
    direct = world.run(argv + [names.DNS4, 10000, 200]).ok().out.split()
    stub = stage.run(argv + ["127.0.0.1", 10000, 200]).ok().out.split()
    assert vendor_fds(stage) - fds <= 4  # connections that wait for reuse
    assert float(stub[0]) < 10 * float(direct[0]) + 5


def vendor_fds(stage):
    return sum(len(os.listdir("/proc/%d/fd" % pid))
               for pid in stage.enclave.processes("socket_vendor"))

# SPDX-License-Identifier: Apache-2.0
"""Names whatever the enclave's resolv.conf says, and what proxify does about it:
it makes one where there is none, and leaves a user's own as it is."""

import pytest

import names
from harness import HERE, PYTHON, SILENT4, WORLD4
from names import DNS4, REFUSED4, TCP4

PROGRAMS = HERE + "/programs/"
MADE = ("# written by proxify, as there was no resolv.conf\n"
        "nameserver 127.0.0.1\noptions use-vc\n")


@pytest.fixture
def make(name_servers):
    sites = []

    def site(*args, **kw):
        sites.append(name_servers.site(*args, **kw))
        return sites[-1]

    yield site
    for one in sites:
        one.close()


def look_up(site, options=(), name="v4.names.test"):
    """By the libc, over UDP and over TCP, quietly. Return the addresses."""
    argv = [PYTHON, PROGRAMS + "lookup.py", name]
    result = site.run(argv, options=options).ok()
    assert result.err == ""
    for use_vc in ("", "use-vc"):
        # plain: it is the stub that answers, not the preloaded library
        again = site.enclave.plain(argv, env={"RES_OPTIONS": use_vc}).ok()
        assert again.out == result.out
    return result.out.split()


@pytest.mark.parametrize("conf,after", [
    (None, MADE),
    (("../run/no/such/resolv.conf",), MADE),
    (("/no/such/folder/stub-resolv.conf",), MADE),
    ("", ""),
    ("# nothing\nsearch names.test\n", "# nothing\nsearch names.test\n"),
    ("nameserver 127.0.0.1\n", "nameserver 127.0.0.1\n"),
    ("nameserver 127.0.0.53\noptions edns0 trust-ad\n",) * 2,
], ids=["missing", "dangling", "dangling-folder", "empty", "no-server",
        "loopback", "systemd"])
def test_the_hosts_resolver(make, conf, after):
    site = make(conf=conf)
    assert look_up(site) == [WORLD4]
    assert names.get_conf(site.enclave) == after
    # the second program finds everything in place
    assert look_up(site) == [WORLD4]
    assert names.get_conf(site.enclave) == after


@pytest.mark.parametrize("conf", [
    "nameserver %s\n" % DNS4,
    "nameserver %s\noptions use-vc\n" % DNS4,
    "nameserver %s\n" % TCP4,
    "nameserver %s\nnameserver %s\nnameserver %s\n" % (REFUSED4, SILENT4, DNS4),
    "nameserver %s\nnameserver %s\nnameserver %s\n" % (SILENT4, REFUSED4, DNS4),
], ids=["udp", "use-vc", "tcp-only", "third", "third-after-silence"])
def test_the_files_own_servers(make, conf):
    """A private resolver: it is asked, on its own address, and not the host's,
    which here does not know the name."""
    site = make(host=[REFUSED4], conf=conf)
    assert look_up(site) == [WORLD4]
    assert names.get_conf(site.enclave) == conf


@pytest.mark.parametrize("options", [[], ["+tcp"]])
def test_both_loopbacks(make, options):
    """Without a nameserver line dig asks ::1 first, and complains if it must."""
    result = make(conf="").run(["dig", "+short", *options, "v4.names.test"]).ok()
    assert (result.out, result.err) == (WORLD4 + "\n", "")


def test_dead_servers_are_remembered(make):
    site = make(conf="nameserver %s\nnameserver %s\nnameserver %s\n" %
                (SILENT4, REFUSED4, DNS4))
    look_up(site)
    argv = ["dig", "+short", "+tries=1", "+time=5", "@127.0.0.1", "v4.names.test"]
    result = site.run(argv).ok()
    assert result.out == WORLD4 + "\n"
    assert result.seconds < 0.5


def test_servers_of_the_host_in_turn(make):
    """Of the host's servers one refuses, and one speaks TCP only."""
    site = make(host=[REFUSED4, TCP4])
    assert look_up(site) == [WORLD4]


def test_hosts_server_takes_connections_only(make):
    """The host's first server is connected to and does not answer: the next one
    is asked, and after two names the first at once no more."""
    site = make(host=[names.MUTE4, DNS4])
    argv = ["dig", "+short", "+tries=1", "+time=5", "v4.names.test"]
    for name in ("v4", "web", "one"):
        argv[-1] = name + ".names.test"
        result = site.run(argv).ok()
        assert WORLD4 in result.out
    assert result.seconds < 1


@pytest.mark.no_asan("the library is not loaded by way of harness.environ()")
def test_few_descriptors(make):
    """Programs that hold connections to the stub open leave it descriptors to
    ask its servers with."""
    site = make()
    site.enclave.plain(["prlimit", "--nofile=64",
                        site.world.bin + "/proxify", "true"]).ok()
    code = ("import socket, subprocess\n"
            "held = [socket.create_connection(('127.0.0.1', 53))"
            " for _ in range(200)]\n"
            "for _ in range(3):\n"
            "    subprocess.run(['dig', '+tries=1', '+time=5', '+short',"
            " 'v4.names.test'], check=True)\n")
    result = site.enclave.plain([PYTHON, "-c", code]).ok()
    assert result.out == 3 * (WORLD4 + "\n")


def test_dns_option(make):
    site = make(host=[REFUSED4], conf="nameserver %s\n" % REFUSED4)
    options = ["--dns", "%s,%s:53" % (REFUSED4, DNS4)]
    assert look_up(site, options) == [WORLD4]
    assert names.get_conf(site.enclave) == "nameserver %s\n" % REFUSED4


def test_dns_option_comes_late(make):
    """The vendor asks whom it was told to when it started. A --dns that says
    otherwise later is not dropped without a word; one that says the same is."""
    site = make()
    for server, said in ((DNS4, 0), (DNS4, 0), (TCP4, 1)):
        result = site.run(["true"], options=["--dns", server]).ok()
        assert len(result.err.splitlines()) == said
    assert "--dns" in result.err
    assert site.run(["true"]).ok().err == ""


@pytest.mark.parametrize("loopback", ["local", "host"])
def test_tcp_is_answered_by_the_stub(make, loopback):
    """A resolver of a covered program that uses TCP, as RES_OPTIONS says or
    because an answer was truncated: its nameserver is the stub all the same, and
    that asks whom --dns names."""
    site = make(host=[REFUSED4], conf="nameserver %s\n" % REFUSED4)
    env = {"PROXY_LOOPBACK": loopback}
    options = ["--dns", DNS4]
    for argv in (["node", PROGRAMS + "lookup.js", "resolve4", "v4.names.test"],
                 ["dig", "+short", "+tcp", "v4.names.test"],
                 ["dig", "+short", "+tcp", "@127.0.0.1", "v4.names.test"]):
        result = site.run(argv, options=options, env=env).ok()
        assert (result.out, result.err) == (WORLD4 + "\n", "")


@pytest.mark.parametrize("options,named", [
    (["--dns", "10.0.0"], "--dns='10.0.0'"),
    (["--dns", "10.0.0.2:0"], "--dns='10.0.0.2:0'"),
    (["--dns", ""], "--dns=''"),
    (["--resolv", "maybe"], "--resolv='maybe'"),
])
def test_bad_options(make, options, named):
    result = make().run(["true"], options=options)
    assert result.rc == 125
    assert named in result.err and "expected" in result.err
    assert len(result.err.splitlines()) == 1


def test_keep(make):
    site = make()
    result = site.run(["sh", "-c", "echo ${RES_OPTIONS-none}"],
                      options=["--resolv", "keep"]).ok()
    assert (result.out, result.err) == ("none\n", "")
    assert names.get_conf(site.enclave) is None
    assert "state DOWN" not in site.enclave.plain(["ip", "addr"]).ok().out
    result = site.enclave.plain(["dig", "+tries=1", "@127.0.0.1", "x.test"])
    assert result.rc != 0


def test_use_vc(make):
    site = make()
    result = site.run(["true"], options=["--resolv", "use-vc"])
    assert result.rc == 125
    assert "resolv.conf" in result.err and "--dns" in result.err
    result = site.run(["sh", "-c", "echo $RES_OPTIONS"],
                      options=["--resolv", "use-vc", "--dns", DNS4]).ok()
    assert result.out == "use-vc\n"
    assert names.get_conf(site.enclave) == (
        "nameserver %s\noptions use-vc\n" % DNS4)


@pytest.mark.hooked_resolver
def test_use_vc_without_the_stub(make):
    """The libc asks the file's server over TCP, and the library carries it."""
    site = make(host=[REFUSED4], conf="nameserver %s\n" % DNS4)
    argv = [PYTHON, PROGRAMS + "lookup.py", "v4.names.test"]
    result = site.run(argv, options=["--resolv", "keep"]).ok()
    assert WORLD4 not in result.out
    result = site.run(argv, options=["--resolv", "use-vc"]).ok()
    assert (result.out, result.err) == (WORLD4 + "\n", "")


def test_res_options(make):
    site = make()
    argv = ["sh", "-c", "echo $RES_OPTIONS"]
    assert site.run(argv).ok().out == "use-vc\n"
    result = site.run(argv, env={"RES_OPTIONS": "ndots:2"}).ok()
    assert result.out == "ndots:2 use-vc\n"


def without(capabilities, argv):
    """The command without these rights, though root's."""
    return ["setpriv", "--bounding-set",
            ",".join("-" + c for c in capabilities), *argv]


def proxify(site, capabilities, argv, options=()):
    enclave = site.enclave
    enclave.plain(["ip", "link", "set", "lo", "up"]).ok()
    return enclave.plain(
        without(capabilities,
                [site.world.bin + "/proxify", *options, *argv]))


@pytest.mark.no_asan("the library is not loaded by way of harness.environ()")
def test_no_right_to_port_53(make):
    """Said in one line, and the program runs; unless the stub was asked for."""
    site = make(conf="nameserver %s\n" % DNS4)
    result = proxify(site, ["net_bind_service"], ["echo", "runs"])
    assert (result.rc, result.out) == (0, "runs\n")
    assert len(result.err.splitlines()) == 1
    assert "CAP_NET_BIND_SERVICE" in result.err
    result = proxify(site, ["net_bind_service"], ["echo", "runs"],
                     ["--resolv", "stub"])
    assert (result.rc, result.out) == (125, "")
    assert "CAP_NET_BIND_SERVICE" in result.err


@pytest.mark.no_asan("the library is not loaded by way of harness.environ()")
def test_no_right_to_lo(make):
    """Then the program gets its own copy of the file, and only it."""
    conf = "search names.test\nnameserver %s\n" % DNS4
    site = make(conf=conf)
    result = proxify(site, ["net_admin"],
                     ["sh", "-c", "cat /etc/resolv.conf; "
                      "getent ahosts web"])
    assert result.rc == 0 and result.err == ""
    assert result.out.startswith("nameserver 127.0.0.1\nsearch names.test\n")
    assert WORLD4 in result.out
    assert site.enclave.plain(["cat", "/etc/resolv.conf"]).ok().out == conf


@pytest.mark.no_asan("the library is not loaded by way of harness.environ()")
def test_no_right_to_either(make):
    site = make(conf="nameserver %s\n" % DNS4)
    result = proxify(site, ["net_admin", "sys_admin"], ["echo", "runs"])
    assert (result.rc, result.out) == (0, "runs\n")
    assert len(result.err.splitlines()) == 1
    for word in (DNS4, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"):
        assert word in result.err


def test_vendor_without_stub(make):
    """One that was started otherwise: it is said that names will not work."""
    site = make()
    site.run(["true"], options=["--resolv", "keep"]).ok()
    result = site.run(["echo", "runs"]).ok()
    assert result.out == "runs\n"
    assert "--dns-listen" in result.err
    assert len(result.err.splitlines()) == 1

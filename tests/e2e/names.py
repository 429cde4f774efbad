# SPDX-License-Identifier: Apache-2.0
"""Name servers for the world, and enclaves with a resolv.conf of their own.

Theory of operation

The world has a real name server (dnsmasq) that knows the zone names.test and
nothing else, and addresses where servers misbehave:

	DNS4     dnsmasq, over UDP and TCP
	TCP4     the same over TCP alone (socat)
	MUTE4    takes connections and never answers
	REFUSED4 an address of the world where nobody listens
	SILENT4  of harness.py: never answers

down.test is a zone whose own server never answers: dnsmasq forwards it to
SILENT4, the only thing it forwards.

The proxy is started with a resolv.conf of its own, as are the enclaves: each
gets a folder of links to what is in /etc mounted over /etc, so that the file in
it can be missing or a symlink to nothing, which a mount over the file alone
cannot show.
"""

import os

from harness import PYTHON, SILENT4, WORLD4, WORLD6, Daemon, Site, listening, sh

DNS4 = "10.77.53.1"
TCP4 = "10.77.53.2"
REFUSED4 = "10.77.53.3"
MUTE4 = "10.77.53.4"
NOBODY6 = "2001:db8:53::dead"

MANY = 60  # addresses: more than fit into 512 bytes
BIG = 300  # more than fit into 4096

CONF = """
listen-address={dns}
bind-interfaces
no-resolv
no-hosts
no-ping
keep-in-foreground
user=root
group=root
pid-file=
log-facility=-
log-queries
local=/test/
host-record=web.names.test,{v4},{v6}
host-record=v4.names.test,{v4}
host-record=v6.names.test,{v6}
host-record=loop.names.test,127.0.0.1,::1
host-record=half.names.test,{v4},{nobody6}
cname=one.names.test,two.names.test
cname=two.names.test,three.names.test
cname=three.names.test,web.names.test
mx-host=names.test,mail.names.test,10
txt-record=txt.names.test,"some text"
address=/load.test/{v4}
server=/down.test/{silent}
"""


def no_root():
    """What to put before a server that gives root's groups up where that cannot
    be done: in the user namespace of a run by an ordinary user. There it runs as
    nobody in particular, and has its low port because the world allows it."""
    with open("/proc/self/uid_map", encoding="ascii") as uid_map:
        if uid_map.read().split()[2] != "1":
            return []
    sh("echo 53 >/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return ["unshare", "--user", "--"]


class NameServers:
    """The world's. Made once; the zone does not change."""

    def __init__(self, world):
        self.world = world
        sh("for a in %s %s %s %s; do ip addr add $a/32 dev lo; done" %
           (DNS4, TCP4, REFUSED4, MUTE4))
        conf = world.tmp + "/dnsmasq.conf"
        with open(conf, "w", encoding="ascii") as file:
            file.write(CONF.format(dns=DNS4, v4=WORLD4, v6=WORLD6,
                                   nobody6=NOBODY6,
                                   silent=SILENT4))
            for n in range(MANY):
                file.write("host-record=many.names.test,10.77.60.%d\n" % (n + 1))
            for n in range(BIG):
                file.write("host-record=big.names.test,10.77.%d.%d\n" %
                           (61 + n // 100, n % 100 + 1))
        self.dnsmasq = Daemon(
            "world-dnsmasq", ["dnsmasq", "--conf-file=" + conf], world.tmp,
            prefix=no_root())
        self.dnsmasq.wait_ready(lambda: listening(DNS4, 53))
        self.tcp = Daemon(
            "world-dns-tcp", ["socat", "TCP-LISTEN:53,bind=%s,fork,reuseaddr,"
                              "backlog=64" % TCP4, "TCP:%s:53" % DNS4], world.tmp)
        self.tcp.wait_ready(lambda: listening(TCP4, 53))
        self.mute = Daemon(
            "world-dns-mute", [PYTHON, "-c", "import signal, socket; "
                               "s = socket.create_server(('%s', 53), backlog=512); "
                               "signal.pause()" % MUTE4], world.tmp)
        self.mute.wait_ready(lambda: listening(MUTE4, 53))

    def conf(self, *servers):
        """A resolv.conf with these servers. Return its path."""
        path = self.world.dir("resolv") + "/resolv.conf"
        with open(path, "w", encoding="ascii") as file:
            file.write("".join("nameserver %s\n" % s for s in servers))
        return path

    def site(self, host=(DNS4,), conf=None, carrier="unix", proxy_args=()):
        """An enclave whose proxy has these servers in its resolv.conf, and
        whose own is `conf`: text, or see set_conf()."""
        site = Site(self.world, carrier, proxy_args, start=False)
        site.proxy_prefix = [
            "unshare", "--mount", "sh", "-c",
            'mount --bind "$0" /etc/resolv.conf && exec "$@"',
            self.conf(*host)]
        site.start_proxy(prefix=site.proxy_prefix)
        set_conf(site.enclave, conf)
        return site


def set_conf(enclave, conf):
    """Give an enclave a resolv.conf: a text, None for no file at all, or a tuple
    with where a symlink shall point."""
    etc = enclave.tmp + "/etc"
    if not os.path.exists(etc):
        os.mkdir(etc)
        os.mkdir(etc + ".real")
        for name in os.listdir("/etc"):
            os.symlink("%s.real/%s" % (etc, name), etc + "/" + name)
        enclave.plain(["sh", "-ec", "mount --rbind /etc %s.real; "
                       "mount --bind %s /etc" % (etc, etc)]).ok()
    path = etc + "/resolv.conf"
    if os.path.lexists(path):
        os.unlink(path)
    if isinstance(conf, tuple):
        os.symlink(conf[0], path)
    elif conf is not None:
        with open(path, "w", encoding="ascii") as file:
            file.write(conf)


def get_conf(enclave):
    """The enclave's resolv.conf now; None if it is missing."""
    try:
        with open(enclave.tmp + "/etc/resolv.conf", encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return None

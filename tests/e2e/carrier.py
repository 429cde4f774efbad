# SPDX-License-Identifier: Apache-2.0
"""Carriers from the tests' own side: which there are here, and raw sockets on
an endpoint.

vsock is the kernel's own loopback (CID 1). No network namespace divides it, so
a port must be nobody else's on this machine: the kernel chooses it, and counts
on before it gives the same one again.
"""

import os
import socket

LOCAL = 1  # VMADDR_CID_LOCAL, which Python has no name for


def have_vsock():
    """Is there a vsock loopback? (Not found out by connecting: where there is
    none, a packet for CID 1 would leave for whoever runs this machine.)"""
    return os.path.isdir("/sys/module/vsock_loopback")


def vsock_port():
    """A vsock port where nobody listens."""
    with socket.socket(socket.AF_VSOCK) as sock:
        sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        return sock.getsockname()[1]


def here():
    """The carriers that there are on this machine."""
    return ["unix", "tcp"] + (["vsock"] if have_vsock() else [])


def resolve(endpoint):
    """(family, address) of an endpoint."""
    kind, _, where = endpoint.partition(":")
    if kind == "unix":
        return socket.AF_UNIX, where
    host, _, port = where.rpartition(":")
    if kind == "vsock":
        return socket.AF_VSOCK, (LOCAL, int(port))
    assert kind == "tcp", endpoint
    host = host.strip("[]")
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host, int(port))


def connect(endpoint, timeout):
    """A raw connection."""
    family, address = resolve(endpoint)
    sock = socket.socket(family)
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def listen(endpoint, backlog=128):
    """A raw listener."""
    family, address = resolve(endpoint)
    sock = socket.socket(family)
    if family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    sock.listen(backlog)
    return sock

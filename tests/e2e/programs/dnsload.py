# SPDX-License-Identifier: Apache-2.0
"""dnsload.py SERVER TOTAL FLIGHT: ask for TOTAL names of load.test over UDP, with
FLIGHT of them in flight; print the seconds it took.

Each answer must have its own question's id and name; one that is lost is asked
for again after a second, and counted.
"""

import selectors
import socket
import struct
import sys
import time

server, total, flight = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def query(number):
    label = b"n%d" % number
    return (struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) +
            bytes([len(label)]) + label + b"\4load\4test\0" +
            struct.pack("!2H", 1, 1))


def check(answer, number):
    asked = query(number)
    assert answer[:2] == asked[:2], (answer[:12], number)
    assert answer[3] & 15 == 0, (answer[:12], number)
    assert answer[12:len(asked)] == asked[12:], (answer, asked)
    address = answer[len(asked) + 12:len(asked) + 16]
    assert address == socket.inet_aton("10.77.0.1"), answer


def main():
    selector = selectors.DefaultSelector()
    following = iter(range(total))
    lost = 0
    pending = {}  # socket: (number, when)

    def ask(sock, number):
        sock.send(query(number))
        pending[sock] = number, time.monotonic()

    begin = time.monotonic()
    for _ in range(flight):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((server, 53))
        selector.register(sock, selectors.EVENT_READ)
        ask(sock, next(following))
    while pending:
        for key, _ in selector.select(0.2):
            sock = key.fileobj
            answer = sock.recv(4096)
            check(answer, pending.pop(sock)[0])
            number = next(following, None)
            if number is not None:
                ask(sock, number)
        for sock, (number, when) in list(pending.items()):
            if time.monotonic() - when > 1:
                lost += 1
                ask(sock, number)
    print("%.3f %d" % (time.monotonic() - begin, lost))


main()

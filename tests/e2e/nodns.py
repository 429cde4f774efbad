# SPDX-License-Identifier: Apache-2.0
"""A name server that knows no name: NXDOMAIN to every question.

Usage: nodns.py ADDRESS. Port 53, which is all that resolv.conf can say.
"""

import socket
import sys

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, client = sock.recvfrom(4096)
    if len(query) >= 12:
        # the same id and question, the rest of the header: an answer, no error
        # but "no such name", and no records
        end = query.index(b"\0", 12) + 5
        sock.sendto(query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + query[12:end], client)

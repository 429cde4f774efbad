# SPDX-License-Identifier: Apache-2.0
"""Hosts that are far away: a delay line for a network without sch_netem.

Theory of operation

The world routes 10.77.30.0/23 and 10.77.32.0/24 to a gateway that does not
exist, over one end of a veth pair; this program reads the frames at the other
end. Nothing but TCP over IPv4 is looked at.

	to 10.77.30.N    handed to the world's own 10.77.0.1, as if it came from
	                 10.77.31.N; a SYN is first held back for 300 ms
	to 10.77.31.N    the server's answers: sent back as if from 10.77.30.N
	to 10.77.32.N    dropped without a word

So a listener on 10.77.0.1 is also a listener on 10.77.30.N whose SYN-ACK takes
300 ms, with the kernel's TCP on both ends. It is stateless: the client's address
is 10.77.0.1 too, which the route sets as source. For short exchanges only: a
frame larger than the MTU (the kernel leaves segmentation to the hardware) is
lost.
"""

import heapq
import select
import socket
import struct
import sys
import time

DELAY = 0.3
WORLD = socket.inet_aton("10.77.0.1")
NEAR_MAC = bytes.fromhex("027700000001")
FAR_MAC = bytes.fromhex("027700000099")


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def turn(packet):
    """Return (the packet to hand back or None, is it a SYN?)."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != 6:
        return None, False
    head = (packet[0] & 15) * 4
    length = struct.unpack_from("!H", packet, 2)[0]
    dst = packet[16:20]
    if dst[:2] != WORLD[:2] or dst[2] not in (30, 31):
        return None, False
    tcp = bytearray(packet[head:length])
    src = bytes((dst[0], dst[1], dst[2] ^ 1, dst[3]))
    # veth leaves checksums to the hardware that it does not have.
    tcp[16:18] = b"\0\0"
    pseudo = src + WORLD + struct.pack("!BBH", 0, 6, len(tcp))
    tcp[16:18] = struct.pack("!H", checksum(pseudo + bytes(tcp)))
    ip = bytearray(packet[:head])
    ip[10:12] = b"\0\0"
    ip[12:20] = src + WORLD
    ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
    is_syn = tcp[13] & 0x12 == 0x02
    frame = NEAR_MAC + FAR_MAC + b"\x08\x00" + bytes(ip) + bytes(tcp)
    return frame, is_syn


def send(sock, frame):
    try:
        sock.send(frame)
    except OSError as error:
        print("frame of %d bytes lost: %s" % (len(frame), error), flush=True)


def main():
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    sock.bind(("far1", 0x0800))
    print("ready", flush=True)
    held = []  # (due, serial, frame)
    serial = 0
    while True:
        wait = max(0, held[0][0] - time.monotonic()) if held else None
        if select.select([sock], [], [], wait)[0]:
            frame, address = sock.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                frame, is_syn = turn(frame[14:])
                if frame and is_syn:
                    serial += 1
                    heapq.heappush(
                        held, (time.monotonic() + DELAY, serial, frame))
                elif frame:
                    send(sock, frame)
        while held and held[0][0] <= time.monotonic():
            send(sock, heapq.heappop(held)[2])


if __name__ == "__main__":
    sys.exit(main())

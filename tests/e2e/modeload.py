# SPDX-License-Identifier: Apache-2.0
"""Many connections of four kinds through something that forwards, counted at both
ends.

	modeload.py server ENDPOINT [--prefix HEX]
	modeload.py client ENDPOINT COUNT [--prefix HEX]

ENDPOINT is unix:/path, tcp:HOST:PORT or vsock:local:PORT. The client's --prefix is
sent ahead of each connection, the server's must be what each begins with.

A connection begins with its number, kind, and how much goes up and down:

	0  full        up, EOF, then down, EOF
	1  half-close  down, EOF, then up, EOF
	2  reset       up, down, then the client resets
	3  reset       up, down, a last byte up, then the server resets

Both write "NUMBER UP DOWN ENDING" for each, in any order; the server does when
it is told to stop (SIGTERM). The bytes are the number's, over and over, and are
compared.
"""

import asyncio
import signal
import socket
import struct
import sys

import carrier

HEAD = struct.Struct("!IBII")
PARALLEL = 64
PATIENCE = 60


def plan(number):
    """kind, up and down of a connection: mostly small, some large."""
    up, down = number * 7919 % 20000, number * 104729 % 20000
    if number % 97 == 0:
        up, down = up * 40, down * 40
    return number % 4, up, down


def pattern(number, size):
    return struct.pack("!I", number) * (size // 4 + 1)


async def read_exactly(reader, number, size):
    want = pattern(number, size)
    got = 0
    while got < size:
        piece = await reader.read(min(1 << 16, size - got))
        if not piece:
            break
        assert piece == want[got:got + len(piece)], "bytes of another"
        got += len(piece)
    return got


async def read_to_end(reader, number, size):
    """Return (bytes, how it ended)."""
    got = await read_exactly(reader, number, size)
    try:
        return got, "EOF" if await reader.read(1) == b"" else "more"
    except ConnectionResetError:
        return got, "reset"


def reset(writer):
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def send(writer, number, size):
    writer.write(pattern(number, size)[:size])
    await writer.drain()


# ---- the server ----

results = []


async def serve(reader, writer, prefix):
    try:
        assert await reader.readexactly(len(prefix)) == prefix, "wrong prefix"
        number, kind, up, down = HEAD.unpack(await reader.readexactly(HEAD.size))
        if kind == 0:
            got, end = await read_to_end(reader, number, up)
            await send(writer, number, down)
        elif kind == 1:
            await send(writer, number, down)
            writer.write_eof()
            got, end = await read_to_end(reader, number, up)
        else:
            got = await read_exactly(reader, number, up)
            await send(writer, number, down)
            if kind == 2:
                _, end = await read_to_end(reader, number, 0)
            else:
                end = "last" if await reader.read(1) == b"!" else "no last byte"
                reset(writer)
        results.append("%d %d %d %s" % (number, got, down, end))
    except asyncio.CancelledError:
        raise
    except Exception as error:  # for whoever compares
        results.append("error: %r" % error)
    finally:
        writer.close()


async def server(endpoint, prefix):
    def handle(reader, writer):
        return serve(reader, writer, prefix)
    listener = await asyncio.start_server(
        handle, sock=carrier.listen(endpoint, 4096), backlog=4096)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    await stop.wait()
    listener.close()
    print("\n".join(results), flush=True)


# ---- the client ----


async def connect(endpoint):
    family, address = carrier.resolve(endpoint)
    while True:
        sock = socket.socket(family)
        sock.setblocking(False)
        try:
            if family == socket.AF_UNIX:
                sock.connect(address)  # never under way: done, or refused
            else:
                await asyncio.get_running_loop().sock_connect(sock, address)
            return await asyncio.open_connection(sock=sock)
        except (BlockingIOError, ConnectionResetError):
            sock.close()
            # a backlog that is full: unix says the one, vsock the other
            if family not in (socket.AF_UNIX, socket.AF_VSOCK):
                raise
            await asyncio.sleep(0.001)


async def talk(endpoint, prefix, number):
    kind, up, down = plan(number)
    reader, writer = await connect(endpoint)
    try:
        writer.write(prefix + HEAD.pack(number, kind, up, down))
        if kind == 0:
            await send(writer, number, up)
            writer.write_eof()
            got, end = await read_to_end(reader, number, down)
        elif kind == 1:
            got, end = await read_to_end(reader, number, down)
            await send(writer, number, up)
        else:
            await send(writer, number, up)
            got = await read_exactly(reader, number, down)
            if kind == 2:
                end = "reset"
                reset(writer)
            else:
                writer.write(b"!")
                _, end = await read_to_end(reader, number, 0)
        print("%d %d %d %s" % (number, up, got, end))
    finally:
        writer.close()


async def client(endpoint, prefix, count):
    numbers = iter(range(count))

    async def one_after_another():
        for number in numbers:
            try:
                await asyncio.wait_for(talk(endpoint, prefix, number), PATIENCE)
            except Exception as error:  # for whoever compares
                print("error: %d %r" % (number, error))

    await asyncio.gather(*(one_after_another() for _ in range(PARALLEL)))


def main():
    role, endpoint = sys.argv[1:3]
    rest = sys.argv[3:]
    prefix = b""
    if "--prefix" in rest:
        at = rest.index("--prefix")
        prefix = bytes.fromhex(rest[at + 1])
        del rest[at:at + 2]
    if role == "server":
        asyncio.run(server(endpoint, prefix))
    else:
        asyncio.run(client(endpoint, prefix, int(rest[0])))


if __name__ == "__main__":
    main()

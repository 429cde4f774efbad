# SPDX-License-Identifier: Apache-2.0
"""Usage: hammer.py HOST PORT CLIENTS CONNECTIONS [EXPECT]

CLIENTS at a time, each making CONNECTIONS one after the other: a small HTTP
request, the answer to its end. Prints one line of counts; exit 1 if any
connection failed or an answer does not hold EXPECT.
"""

import asyncio
import collections
import sys

host, port, clients, connections = sys.argv[1], *map(int, sys.argv[2:5])
expect = (sys.argv[5] if len(sys.argv) > 5 else "200 OK").encode()
REQUEST = b"GET /hello HTTP/1.0\r\nHost: x\r\n\r\n"
counts = collections.Counter()


async def once():
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(REQUEST)
        answer = await reader.read(-1)
    finally:
        writer.close()
    counts["good" if expect in answer else "wrong %r" % answer[:60]] += 1


async def client():
    for _ in range(connections):
        try:
            await asyncio.wait_for(once(), 60)
        except (OSError, asyncio.TimeoutError) as e:
            counts[repr(e)] += 1


async def main():
    await asyncio.gather(*(client() for _ in range(clients)))


asyncio.run(main())
print(dict(counts))
sys.exit(counts["good"] != clients * connections)

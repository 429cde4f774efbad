# SPDX-License-Identifier: Apache-2.0
"""Usage: aiofetch.py HOST PORT [N]: N fetches of /hello at once with asyncio."""

import asyncio
import sys


async def fetch(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    assert writer.get_extra_info("peername")[:2] == (host, port)
    writer.write(b"GET /hello HTTP/1.0\r\nHost: x\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def main():
    host, port, times = sys.argv[1], int(sys.argv[2]), int((sys.argv + ["1"])[3])
    work = asyncio.gather(*(fetch(host, port) for _ in range(times)))
    bodies = await asyncio.wait_for(work, 20)
    assert len(set(bodies)) == 1
    print(bodies[0].decode(), end="")


asyncio.run(main())

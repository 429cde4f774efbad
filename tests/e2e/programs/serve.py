# SPDX-License-Identifier: Apache-2.0
"""Usage: serve.py threading|asyncio|backlog|tls PORT [CERTIFICATE]. Tells each
client its address.

backlog: a single thread with listen(fd, 5), the smallest server there is.
tls: https, by wrapping the listening socket.
"""

import asyncio
import http.server
import socket
import ssl
import sys

mode, port = sys.argv[1], int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.client_address[0] + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


async def serve_asyncio():
    async def client(reader, writer):
        try:
            await reader.readline()
            peer = writer.get_extra_info("peername")[0]
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n%s\n" % peer.encode())
            await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(client, None, port, backlog=1024)
    await server.serve_forever()


def serve_backlog():
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("", port))
    server.listen(5)
    while True:
        client, (peer, _) = server.accept()
        with client:
            try:
                client.recv(4096)
                client.sendall(b"HTTP/1.0 200 OK\r\n\r\n%s\n" % peer.encode())
            except OSError:
                pass


def serve_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])
    server = http.server.ThreadingHTTPServer(("", port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if mode == "asyncio":
    asyncio.run(serve_asyncio())
elif mode == "backlog":
    serve_backlog()
elif mode == "tls":
    serve_tls()
else:
    http.server.ThreadingHTTPServer(("", port), Handler).serve_forever()

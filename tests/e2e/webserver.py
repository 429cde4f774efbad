# SPDX-License-Identifier: Apache-2.0
"""A web server for the transfers that nginx has no module for.

	GET /bytes/N	N bytes of content.py
	PUT /sum	the SHA-256 of the body, and its length
	GET /peer	the client's address as the server sees it

Usage: webserver.py ADDRESS PORT
"""

import hashlib
import http.server
import socket
import sys

import content


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/peer":
            return self.answer(self.client_address[0].encode())
        if not self.path.startswith("/bytes/"):
            return self.send_error(404)
        size = int(self.path[len("/bytes/"):])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for piece in content.pieces(size):
            self.wfile.write(piece)

    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        digest = hashlib.sha256()
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        total = 0
        while left:
            piece = self.rfile.read(min(left, 1 << 20))
            if not piece:
                break
            digest.update(piece)
            total += len(piece)
            left -= len(piece)
        self.answer(b"%s %d" % (digest.hexdigest().encode(), total))

    def handle_expect_100(self):
        return True  # do_PUT answers it

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024

    def __init__(self, host, port):
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)


if __name__ == "__main__":
    Server(sys.argv[1], int(sys.argv[2])).serve_forever()

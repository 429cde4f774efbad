// SPDX-License-Identifier: Apache-2.0
// Usage: serve.js http|cluster PORT. Tells each client its own address.
'use strict';
const cluster = require('cluster');
const http = require('http');
const [mode, port] = [process.argv[2], Number(process.argv[3])];

if (mode === 'cluster' && cluster.isPrimary) {
  for (let i = 0; i < 2; i++)
    cluster.fork();
} else {
  http.createServer((req, res) => res.end(req.socket.remoteAddress + '\n'))
      .listen(port);
}

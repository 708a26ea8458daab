// node_echo.js - the echo server on Node.
//
//   node node_echo.js [tcp | unix:PATH] [CERTIFICATE KEY]       prints its address
//
// With a certificate it speaks TLS (tcp).
//
// SPDX-License-Identifier: MIT
'use strict';
const fs = require('fs');
const net = require('net');
const tls = require('tls');

const where = process.argv[2] || 'tcp';
const [certificate, key] = process.argv.slice(3);
const path = where.startsWith('unix:') ? where.slice(5) : null;

function serve(socket) {
  socket.on('data', (data) => socket.write(data));
  socket.on('error', () => socket.destroy());
}

const server = certificate
  ? tls.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key), noDelay: true }, serve)
  : net.createServer({ noDelay: true }, serve);
server.listen(path ? { path, backlog: 1024 } : { host: '127.0.0.1', port: 0, backlog: 1024 }, () => {
  console.log(path ? where : `127.0.0.1:${server.address().port}`);
});

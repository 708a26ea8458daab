// node_echo.js - the echo server on Node.
//
//   node node_echo.js [tcp | unix:PATH]       prints its address
//
// SPDX-License-Identifier: MIT
'use strict';
const net = require('net');

const where = process.argv[2] || 'tcp';
const path = where.startsWith('unix:') ? where.slice(5) : null;
const server = net.createServer({ noDelay: true }, (socket) => {
  socket.on('data', (data) => socket.write(data));
  socket.on('error', () => socket.destroy());
});
server.listen(path ? { path, backlog: 1024 } : { host: '127.0.0.1', port: 0, backlog: 1024 }, () => {
  console.log(path ? where : `127.0.0.1:${server.address().port}`);
});

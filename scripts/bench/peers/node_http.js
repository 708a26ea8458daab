// node_http.js - the HTTP server of the benchmarks on Node's http module.
//
//   node node_http.js       prints its address
//
// SPDX-License-Identifier: MIT
'use strict';
const http = require('http');

const server = http.createServer((request, response) => {
  const found = request.url === '/';
  const body = found ? 'Hello, World!\n' : 'Not Found\n';
  response.sendDate = false;
  response.writeHead(found ? 200 : 404, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
  response.end(body);
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 1024 }, () => {
  console.log(`127.0.0.1:${server.address().port}`);
});

"""The HTTP server of the benchmarks on asyncio or uvloop: the routes and bytes of scripts/examples/http_server.lua.

    python3 py_http.py asyncio|uvloop       prints its address

SPDX-License-Identifier: MIT
"""
import asyncio
import re
import sys

ANSWER = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n%s"
REQUEST = re.compile(rb"[A-Z]+ (\S+) HTTP/1\.(\d)\r\n")
CONNECTION = re.compile(rb"\r\nconnection:[ \t]*([^\r]*)", re.I)


def respond(head):
    request = REQUEST.match(head)
    if not request:
        return None, False
    connection = CONNECTION.search(head)
    keep_alive = request[2] == b"1"
    if connection:
        value = connection[1].lower()
        keep_alive = value == b"keep-alive" or (keep_alive and value != b"close")
    status, body = b"200 OK", b"Hello, World!\n"
    if request[1] != b"/":
        status, body = b"404 Not Found", b"Not Found\n"
    return ANSWER % (status, len(body), b"" if keep_alive else b"Connection: close\r\n", body), keep_alive


known = {}  # heads that were answered and leave the connection open -> answer


class Http(asyncio.Protocol):
    rest = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.rest:
            data = self.rest + data
        at, answers, keep_alive = 0, [], True
        while keep_alive:
            stop = data.find(b"\r\n\r\n", at)
            if stop < 0:
                break
            head = data[at : stop + 4]
            answer = known.get(head)
            if not answer:
                answer, keep_alive = respond(head)
                if keep_alive:
                    known[head] = answer
            if answer:
                answers.append(answer)
            at = stop + 4
        self.rest = data[at:]
        if answers:
            self.transport.write(answers[0] if len(answers) == 1 else b"".join(answers))
        if not keep_alive:
            self.transport.close()


async def main():
    server = await asyncio.get_running_loop().create_server(Http, "127.0.0.1", 0, backlog=1024)
    print("%s:%d" % server.sockets[0].getsockname(), flush=True)
    await server.serve_forever()


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main())

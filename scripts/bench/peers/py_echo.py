"""The echo server on asyncio or uvloop, as a Protocol.

    python3 py_echo.py asyncio|uvloop [protocol|buffered|streams|lines] [tcp | unix:PATH] [CERTIFICATE KEY]

Prints its address. With a certificate it speaks TLS (tcp).

SPDX-License-Identifier: MIT
"""
import asyncio
import ssl
import sys


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    shared = bytearray(256 * 1024)
    view = memoryview(shared)

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self.view

    def buffer_updated(self, n):
        # A copy: what a transport can't send at once it may keep by reference.
        self.transport.write(bytes(self.view[:n]))


async def echo_stream(reader, writer):
    while data := await reader.read(256 * 1024):
        writer.write(data)
        await writer.drain()


async def echo_lines(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


def served(echo):
    async def callback(reader, writer):
        try:
            await echo(reader, writer)
        except ConnectionError:
            pass
        writer.close()

    return callback


def make_context(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def main(kind="protocol", where="tcp", certificate=None, key=None):
    loop = asyncio.get_running_loop()
    context = make_context(certificate, key) if certificate else None
    factory = BufferedEcho if kind == "buffered" else Echo
    if kind in ("streams", "lines"):
        callback = served(echo_lines if kind == "lines" else echo_stream)
        if where.startswith("unix:"):
            server = await asyncio.start_unix_server(callback, where[5:], backlog=1024)
            address = where
        else:
            server = await asyncio.start_server(callback, "127.0.0.1", 0, backlog=1024, ssl=context)
            address = "%s:%d" % server.sockets[0].getsockname()
    elif where.startswith("unix:"):
        server = await loop.create_unix_server(factory, where[5:], backlog=1024)
        address = where
    else:
        server = await loop.create_server(factory, "127.0.0.1", 0, backlog=1024, ssl=context)
        address = "%s:%d" % server.sockets[0].getsockname()
    print(address, flush=True)
    await server.serve_forever()


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main(*sys.argv[2:]))

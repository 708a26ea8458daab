"""Writes a GiB to each connection, 64 KiB at a time, each followed by drain, on asyncio or uvloop.

    python3 py_drain.py asyncio|uvloop       prints its address

SPDX-License-Identifier: MIT
"""
import asyncio
import sys

CHUNK, TIMES = 64 * 1024, 16384


async def send(reader, writer):
    data = b"x" * CHUNK
    for _ in range(TIMES):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(send, "127.0.0.1", 0)
    print("%s:%d" % server.sockets[0].getsockname(), flush=True)
    await server.serve_forever()


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main())

"""Sends a GiB to each connection by asyncio's loop.sendfile: a file of 64 MiB, again and again. (uvloop has none.)

    python3 py_sendfile.py asyncio       prints its address

SPDX-License-Identifier: MIT
"""
import asyncio
import tempfile

SIZE, TIMES = 64 * 1024 * 1024, 16
file = tempfile.TemporaryFile()
file.write(b"x" * SIZE)
file.flush()


async def serve(transport):
    loop = asyncio.get_running_loop()
    try:
        for _ in range(TIMES):
            await loop.sendfile(transport, file)
    except ConnectionError:
        pass
    transport.close()


class Sender(asyncio.Protocol):
    def connection_made(self, transport):
        self.task = asyncio.get_running_loop().create_task(serve(transport))


async def main():
    server = await asyncio.get_running_loop().create_server(Sender, "127.0.0.1", 0)
    print("%s:%d" % server.sockets[0].getsockname(), flush=True)
    await server.serve_forever()


asyncio.run(main())

"""The echo server on asyncio's or uvloop's sock_accept, sock_recv and sock_sendall.

    python3 py_sock.py asyncio|uvloop       prints its address

SPDX-License-Identifier: MIT
"""
import asyncio
import socket
import sys


async def serve(loop, sock):
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := await loop.sock_recv(sock, 256 * 1024):
                await loop.sock_sendall(sock, data)
        except ConnectionError:
            pass


async def main():
    loop = asyncio.get_running_loop()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    listener.setblocking(False)
    print("%s:%d" % listener.getsockname(), flush=True)
    tasks = set()
    while True:
        sock, _ = await loop.sock_accept(listener)
        sock.setblocking(False)
        task = loop.create_task(serve(loop, sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main())

"""Children and executors on asyncio or uvloop.

    python3 py_work.py asyncio|uvloop true|cat|jobs       as scripts/bench/aloop/work.lua

Prints wall_ns=N cpu_ns=N a run or job; the CPU is that of this process alone.
SPDX-License-Identifier: MIT
"""
import asyncio
import sys
import time

RUNS, CATS, SIZE, JOBS = 2000, 100, 1024 * 1024, 200000


async def in_flight(tasks, n, body):
    async def worker():
        for _ in range(n // tasks):
            await body()

    await asyncio.gather(*(worker() for _ in range(tasks)))
    return n


async def true():
    async def run():
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0

    return await in_flight(8, RUNS, run)


async def cat():
    data = (bytes(i * 31 >> 3 & 255 for i in range(1, 65522)) * (SIZE // 65521 + 1))[:SIZE]
    for _ in range(CATS):
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        back, _ = await process.communicate(data)
        assert back == data and process.returncode == 0
    return CATS


def nothing():
    pass


async def jobs():
    loop = asyncio.get_running_loop()

    async def run():
        await loop.run_in_executor(None, nothing)

    return await in_flight(100, JOBS, run)


async def main(name):
    start, cpu = time.monotonic(), time.process_time()
    n = await {"true": true, "cat": cat, "jobs": jobs}[name]()
    wall, used = time.monotonic() - start, time.process_time() - cpu
    print("wall_ns=%.0f cpu_ns=%.0f" % (wall * 1e9 / n, used * 1e9 / n))


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main(sys.argv[2]))

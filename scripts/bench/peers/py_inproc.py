"""The loop's own work on asyncio or uvloop.

    python3 py_inproc.py asyncio|uvloop chain|soon|timers|cancel|reset|switch|switch100|tasks|alive|
                                        timeouts|queue

Prints ns=NANOSECONDS, CPU an operation.
SPDX-License-Identifier: MIT
"""
import asyncio
import os
import sys
import time

MILLION, CHAIN, TIMEOUTS, RESETS = 1000000, 2000000, 100000, 2000000
clock = time.process_time
seed = 1


def next_delay():
    """1 to 1000 ms in no order, the same sequence in each language."""
    global seed
    seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
    return (1 + (seed >> 8) % 1000) / 1000


def ignore():
    pass


def countdown(n, future):
    def count():
        nonlocal n
        n -= 1
        if n == 0:
            future.set_result(None)

    return count


async def chain(loop):
    done = loop.create_future()
    left = CHAIN

    def step():
        nonlocal left
        left -= 1
        if left > 0:
            loop.call_soon(step)
        else:
            done.set_result(None)

    loop.call_soon(step)
    await done
    return CHAIN


async def soon(loop):
    done = loop.create_future()
    count = countdown(MILLION, done)
    for _ in range(MILLION):
        loop.call_soon(count)
    await done
    return MILLION


async def timers(loop):
    done = loop.create_future()
    count = countdown(MILLION, done)
    for _ in range(MILLION):
        loop.call_later(next_delay(), count)
    await done
    return MILLION


async def cancel(loop):
    handles = [loop.call_later(60 + next_delay(), ignore) for _ in range(MILLION)]
    for handle in handles:
        handle.cancel()
    await asyncio.sleep(0)  # what is put off until the loop turns belongs to it
    return MILLION


async def reset(loop):
    handles = [loop.call_later(30, ignore) for _ in range(TIMEOUTS)]
    start = clock()
    for i in range(RESETS):
        k = i % TIMEOUTS
        handles[k].cancel()
        handles[k] = loop.call_later(30, ignore)
        if k == 0:
            await asyncio.sleep(0)
    return RESETS, clock() - start


async def sleeper(n):
    for _ in range(n):
        await asyncio.sleep(0)


async def switch(loop):
    await loop.create_task(sleeper(MILLION))
    return MILLION


async def switch100(loop):
    for task in [loop.create_task(sleeper(MILLION // 100)) for _ in range(100)]:
        await task
    return MILLION


async def tasks(loop):
    n = 300000
    done = loop.create_future()
    count = countdown(n, done)

    async def body():
        count()

    async def starter():
        for _ in range(n // 1000):
            for _ in range(1000):
                keep.add(loop.create_task(body()))
            await asyncio.sleep(0)
            keep.clear()

    keep = set()
    await starter()
    await done
    return n


async def alive(loop):
    n = 500000

    async def body():
        await asyncio.sleep(0)

    for task in [loop.create_task(body()) for _ in range(n)]:
        await task
    return n


async def timeouts(loop):
    for _ in range(MILLION):
        async with asyncio.timeout(10):
            pass
    return MILLION


async def queue(loop):
    n = 500000
    there, back = asyncio.Queue(), asyncio.Queue()

    async def echo():
        for _ in range(n):
            await back.put(await there.get())

    async def ask():
        for i in range(n):
            await there.put(i)
            await back.get()

    echoing, asking = loop.create_task(echo()), loop.create_task(ask())
    await asking
    await echoing
    return n


async def main(name):
    bench = globals()[name]
    start = clock()
    result = await bench(asyncio.get_running_loop())
    took = clock() - start
    n, took = result if isinstance(result, tuple) else (result, took)
    print("ns=%.2f" % (took * 1e9 / n), flush=True)
    os._exit(0)


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main(sys.argv[2]))

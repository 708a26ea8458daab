"""Reads a GiB of stdout and a GiB of stderr of a child at once, as scripts/bench/aloop/flood.lua.

    python3 py_flood.py asyncio|uvloop CHILD

Prints growth=BYTES, the most by which this process grew.
SPDX-License-Identifier: MIT
"""
import asyncio
import sys

BLOCK, SIZE = 65536, 1 << 30
PIPE = asyncio.subprocess.PIPE
blocks = [bytes([i]) * BLOCK for i in range(7)]


def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


async def check(reader, shift):
    await asyncio.sleep(0.5)
    for i in range(SIZE // BLOCK):
        assert await reader.readexactly(BLOCK) == blocks[(i + shift) % 7], "other bytes came"
    assert await reader.read() == b"", "too many bytes came"


async def main(child):
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:  # the peak is counted from here on
        file.write("5")
    process = await asyncio.create_subprocess_exec(child, stdout=PIPE, stderr=PIPE)
    await asyncio.gather(check(process.stdout, 0), check(process.stderr, 1))
    assert await process.wait() == 0, "the child failed"
    print("growth=%d" % (status("VmHWM") - before))


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main(sys.argv[2]))

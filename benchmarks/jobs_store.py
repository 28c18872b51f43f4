"""What do calls of the store of jobs cost, on SQLite and on PostgreSQL, one after the other and at the same time?

    python benchmarks/jobs_store.py postgresql://user@host/empty   # writes docs/benchmarks/jobs-store.md, a minute
    python benchmarks/jobs_store.py --quick                        # few calls on SQLite alone, writes nothing

The store holds 300 finished jobs of ten owners and 50 queued ones, as a busy server does.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import random
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from magi1_tiny import cpu_name

from animagic.jobs.job import Job
from animagic.jobs.keys import Keys
from animagic.jobs.store import Store

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "jobs-store.md"
OWNERS, FINISHED, QUEUED = 10, 300, 50
AT_ONCE = 8


def new() -> Job:
    request = {"prompt": "a red ball bounces on a green floor", "model": "magi1-tiny", "seed": 7, "frames": 96}
    return Job(f"video_{uuid.uuid4().hex}", "queued", "magi1-tiny", request, time.time(), random.choice(owners))


owners = [f"key_{number}" for number in range(OWNERS)]


def fill(store: Store, finished: int) -> list[str]:
    for _ in range(finished):
        store.update(store.add(new()).id, status="completed", completed_at=time.time(), result={"frames": 96})
    return [store.add(new()).id for _ in range(QUEUED)]


def calls(store: Store, queued: list[str]) -> dict[str, Callable[[], object]]:
    """What is measured; the queue is as long afterwards as before."""
    _, token = Keys(store).create("benchmark")
    step = itertools.count()

    def add_and_claim() -> None:
        store.add(new())
        store.claim()

    def place() -> object:
        store._places = (0.0, {})  # as if the queue had just changed
        return store.place(random.choice(queued))

    return {
        "`get`": lambda: store.get(random.choice(queued)),
        "`list` of 20": lambda: store.list(random.choice(owners), None, 20),
        "`place`, after the queue has changed": place,
        "`Keys.check`": lambda: Keys(store).check(token),
        "`update`": lambda: store.update(queued[0], report={"step": next(step)}),
        "`add` and `claim`": add_and_claim,
    }


def measure(call: Callable[[], object], threads: int, count: int) -> tuple[float, float, float]:
    """Calls per second, the milliseconds that 95 % of them take at most, and CPU milliseconds of each."""
    seconds: list[float] = []

    def one(_: int) -> None:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads)))  # connections are made
        seconds.clear()
        start, cpu = time.perf_counter(), time.process_time()
        list(pool.map(one, range(count)))
    rate = count / (time.perf_counter() - start)
    return rate, 1e3 * sorted(seconds)[int(0.95 * (count - 1))], 1e3 * (time.process_time() - cpu) / count


def rows(url: str, finished: int, count: int) -> list[str]:
    store = Store(url)
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[store.database.kind]
    try:
        queued = fill(store, finished)
        lines = []
        for call, function in calls(store, queued).items():
            (alone, alone95, cpu), (rate, rate95, _) = (measure(function, n, count) for n in (1, AT_ONCE))
            cells = [name, call, f"{cpu:.2f}", f"{alone:.0f}", f"{alone95:.1f}", f"{rate:.0f}", f"{rate95:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
        return lines
    finally:
        store.close()


def page(urls: list[str], finished: int, count: int) -> str:
    random.seed(7)
    with tempfile.TemporaryDirectory() as folder:
        measured = [line for url in [f"sqlite:///{folder}/jobs.sqlite", *urls] for line in rows(url, finished, count)]
    return f"""# The store of jobs

Written by `benchmarks/jobs_store.py`, which measures everything on this page in one run.

{cpu_name()}, {os.cpu_count()} cores, both databases on the same machine and disk;
{datetime.date.today().isoformat()}. The machine was shared with other work (load {os.getloadavg()[0]:.1f}), so only
the CPU column is exact: milliseconds of CPU time of the server's process for one call. The store holds {finished}
finished jobs and {QUEUED} queued ones of {OWNERS} owners. *95 %*: of the calls take at most so many milliseconds.

| database | call | CPU ms | a second, one thread | 95 % | a second, {AT_ONCE} threads | 95 % |
|---|---|---:|---:|---:|---:|---:|
{chr(10).join(measured)}

Calls that write wait for the disk at each commit; that is what they cost, and what a job survives a power cut for.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="*", help="further databases, empty")
    parser.add_argument("--quick", action="store_true", help="few calls; no page is written")
    parser.add_argument("-o", "--output", type=Path, help=f"the page (default: {REPORT.relative_to(ROOT)})")
    arguments = parser.parse_args()
    text = page(arguments.urls, *((20, 20) if arguments.quick else (FINISHED, 200)))
    print(text)
    output = arguments.output or (None if arguments.quick else REPORT)
    if output is not None:
        output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()

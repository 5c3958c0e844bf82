"""Count what is lost after failing file calls, kills and second writers. Prints a Markdown table.

    python benchmarks/reliability.py            every call, 200 random kills, 50 pairs (20 minutes)
    python benchmarks/reliability.py --every 5  every fifth of each

The commands are prune, run and quantize, with and without --force, on a small .onnx file. A shim
below Python makes the nth call that changes a file fail, or kills the process there: C++ libraries
write files too, so a patched `os` module would not see every call. It needs a C compiler and Linux.

Outcomes: *old* and *new* are whole results. *between*: files of one result are missing until the
next command. *mixed*: files of two results. *lost*: neither result is whole after the next command.
"""

from __future__ import annotations

import argparse
import errno
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.builders.commands import listing
from tests.builders.reliability import (
    COMMANDS,
    KEEP,
    OLD,
    PRUNE,
    RUN,
    FaultServer,
    Scene,
    compiler,
    hidden,
    run_next,
    scene,
)

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
KILLS, PAIRS, RERUNS = 200, 50, 240


def count_failing_calls(server: FaultServer, found: Scene, numbers: Iterable[int]) -> Counter[str]:
    """Let each of these calls fail with each error."""
    counts: Counter[str] = Counter()
    for nth in numbers:
        for error in ERRORS:
            server.prepare(found.before)
            ((code, message, _),) = server.run(found.line, nth=nth, error=error)
            state = found.state(server.work)
            counts["tried"] += 1
            counts[state if state in {"old", "new"} else "mixed"] += 1
            if (code, state) not in {(6, "old"), (0, "new")} or "Traceback" in message:
                counts["wrong"] += 1
                print("wrong:", found.line, nth, error, code, state, message, file=sys.stderr)
            count_after_next(server, found, counts, f"call {nth}")
    return counts


def count_kills(
    server: FaultServer, found: Scene, numbers: Iterable[int], times_s: Iterable[float]
) -> Counter[str]:
    """Kill the command at each of these calls, then after each of these times."""
    counts: Counter[str] = Counter()
    for nth, time_s in [*((n, None) for n in numbers), *((0, t) for t in times_s)]:
        server.prepare(found.before)
        if nth:
            server.run(found.line, nth=nth)
        else:
            server.run(found.line, kill_after_s=time_s)
        counts["tried"] += 1
        counts[found.state(server.work).lower()] += 1
        count_after_next(server, found, counts, f"kill at call {nth}, or after {time_s} s")
    return counts


def count_after_next(server: FaultServer, found: Scene, counts: Counter[str], what: str) -> None:
    run_next(server.work)
    lost, left = found.state(server.work) not in {"old", "new"}, hidden(server.work)
    counts["lost"] += lost
    counts["hidden"] += bool(left)
    if lost or left:
        print("lost or hidden:", found.line, what, left, file=sys.stderr)


def count_pairs(server: FaultServer, pairs: int) -> Counter[str]:
    """Start two commands together, without --force, that keep different units."""
    counts: Counter[str] = Counter()
    for number in range(pairs):
        command = (PRUNE, RUN)[number % 2]
        results = []
        for keep in (KEEP, OLD):
            server.prepare({})
            server.run(command.line(force=False, keep=keep))
            results.append(scene_of(server, command.line(force=False, keep=keep)))
        server.prepare({})
        answers = server.run(*(command.line(force=False, keep=keep) for keep in (KEEP, OLD)))
        codes = [code for code, _, _ in answers]
        counts["tried"] += 1
        won = sorted(codes) == [0, 6] and results[codes.index(0)].state(server.work) == "new"
        said = any("exists" in m or "another exporter is writing" in m for _, m, _ in answers)
        counts["one wins, the other says so"] += won and said
        counts["hidden"] += bool(hidden(server.work))
        if not (won and said):
            print("pair:", command.arguments, answers, file=sys.stderr)
    return counts


def count_reruns(server: FaultServer, reruns: int) -> Counter[str]:
    """Run each command again and again; reports contain times, all other files must be equal."""
    counts: Counter[str] = Counter()
    for command in COMMANDS.values():
        found = scene(server, command, force=False)
        for _ in range(reruns // len(COMMANDS)):
            server.prepare({})
            server.run(found.line)
            counts["tried"] += 1
            counts["identical"] += found.state(server.work) == "new"
    return counts


def scene_of(server: FaultServer, line: list[str]) -> Scene:
    return Scene(line, {}, listing(server.work), [], 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, metavar="N")
    every = parser.parse_args().every
    if compiler() is None:
        sys.exit("no C compiler, or not Linux: nothing was measured")
    chance = random.Random(0)  # noqa: S311 - no secret
    columns = ("tried", "old", "new", "between", "mixed", "lost", "hidden", "wrong")
    print("| what | " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * len(columns))
    with tempfile.TemporaryDirectory() as folder, FaultServer(Path(folder)) as server:
        for name, command in COMMANDS.items():
            for force in (False, True):
                found = scene(server, command, force=force)
                numbers = range(1, len(found.calls) + 1, every)
                count = KILLS // every // 6 + 1
                times = [chance.uniform(0, found.seconds * 1.1) for _ in range(count)]
                title = name + ", --force" * force
                rows = {
                    f"{title}: a call fails": count_failing_calls(server, found, numbers),
                    f"{title}: killed": count_kills(server, found, numbers, times),
                }
                for row, counts in rows.items():
                    numbers_ = " | ".join(str(counts[column]) for column in columns)
                    print(f"| {row} | {numbers_} |", flush=True)
        pairs = count_pairs(server, PAIRS // every)
        reruns = count_reruns(server, RERUNS // every)
    print(
        f"\n{pairs['tried']} pairs of writers without --force: in "
        f"{pairs['one wins, the other says so']} one wins and the other says so; "
        f"{pairs['hidden']} leave hidden files"
    )
    print(f"{reruns['tried']} reruns: {reruns['identical']} with identical bytes")


if __name__ == "__main__":
    main()

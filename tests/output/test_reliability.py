"""Real commands whose file calls fail, that are killed, or that write the same output together.

A small slice of `benchmarks/reliability.py`, at fixed calls.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.builders.commands import listing
from tests.builders.reliability import (
    COMMANDS,
    KEEP,
    OLD,
    PRUNE,
    FaultServer,
    Scene,
    compiler,
    hidden,
    run_next,
    scene,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="the shim needs Linux and a C compiler")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    with FaultServer(tmp_path_factory.mktemp("faults")) as server:
        yield server


@pytest.fixture(scope="module", params=["prune", "run"])
def found(request: pytest.FixtureRequest, server: FaultServer) -> Scene:
    """The commands that need no other process, with --force: they have the most calls."""
    return scene(server, COMMANDS[request.param], force=True)


def test_the_shim_sees_the_calls(found: Scene) -> None:
    """Files are written, stored and renamed below Python."""
    assert {"mkdir", "write", "fsync", "renameat2", "unlink", "rmdir"} <= set(found.calls)
    assert len(found.calls) > 30


def test_failing_calls_of_real_commands(server: FaultServer, found: Scene) -> None:
    """Each ninth call fails, the first and the last one too."""
    outcomes = set()
    for nth in (*range(1, len(found.calls), 9), len(found.calls)):
        server.prepare(found.before)
        ((code, message, _),) = server.run(found.line, nth=nth, error=errno.ENOSPC)
        state = found.state(server.work)
        assert (code, state) in {(6, "old"), (0, "new")}, (nth, message)
        assert "Traceback" not in message
        run_next(server.work)
        assert (found.state(server.work), hidden(server.work)) == (state, [])
        outcomes.add(state)
    assert outcomes == {"old", "new"}


def test_kills_of_real_commands(server: FaultServer, found: Scene) -> None:
    renames = [i for i, name in enumerate(found.calls, 1) if name.startswith("rename")]
    for nth in (8, *renames, renames[-1] + 1, len(found.calls)):
        server.prepare(found.before)
        ((code, _, _),) = server.run(found.line, nth=nth)
        assert code == -9
        assert found.state(server.work) in {"old", "new", "between"}, nth
        run_next(server.work)
        assert (found.state(server.work) in {"old", "new"}, hidden(server.work)) == (True, []), nth


def test_pairs_of_real_commands(server: FaultServer) -> None:
    results = []
    for keep in (KEEP, OLD):
        server.prepare({})
        server.run(PRUNE.line(force=False, keep=keep))
        results.append(listing(server.work))
    for _ in range(3):
        server.prepare({})
        answers = server.run(*(PRUNE.line(force=False, keep=keep) for keep in (KEEP, OLD)))
        codes = [code for code, _, _ in answers]
        assert sorted(codes) == [0, 6], answers
        assert listing(server.work) == results[codes.index(0)]
        refusal = answers[codes.index(6)][1]
        assert "exists" in refusal or "another exporter is writing" in refusal


def test_a_mixed_result_is_noticed(server: FaultServer, found: Scene) -> None:
    """The comparison itself: an old file among the new ones."""
    server.prepare(found.after)
    assert found.state(server.work) == "new"
    name = next(name for name in found.after if name.endswith("remap.json"))
    (server.work / name).write_bytes(found.before[name])
    assert found.state(server.work) == "MIXED"
    (server.work / name).unlink()
    assert found.state(server.work) == "between"
    server.prepare(found.before)
    assert found.state(server.work) == "old"


def test_quantize_once(server: FaultServer) -> None:
    """The command with a child process: its last rename fails."""
    quantized = scene(server, COMMANDS["quantize"], force=False)
    nth = max(i for i, name in enumerate(quantized.calls, 1) if name.startswith("rename"))
    server.prepare({})
    ((code, message, _),) = server.run(quantized.line, nth=nth, error=errno.EIO)
    assert (code, listing(server.work)) == (6, {})
    assert "cannot write out.onnx: Input/output error" in message

"""Kallithea's streams of subprocesses, patched and stock: the same bytes, the same errors, nothing that hangs or grows.

streams.py STOCK PATCHED: folders that hold kallithea/lib/vcs/subprocessio.py.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import importlib.util
import io
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

MB = 1 << 20
# What stock read before it looked for a failure: 18 blocks of 4 KiB and one in hand.
LOOKED_AT = 19 * 4096
SIZES = [0, 1, 4095, 4096, 65535, 65536, 65537, LOOKED_AT - 1, LOOKED_AT, LOOKED_AT + 1, 3 * MB + 17]
# What ended threads, which say it to the log.
IN_THREADS: list[str] = []
Stream = Callable[..., Any]


def load(tree: str) -> Stream:
    """Return a tree's class."""
    path = pathlib.Path(tree) / "kallithea" / "lib" / "vcs" / "subprocessio.py"
    spec = importlib.util.spec_from_file_location(f"streams_{abs(hash(tree))}", path)
    assert spec and spec.loader, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SubprocessIOChunker  # type: ignore[no-any-return]


def shell(script: str) -> list[str]:
    """Return a command that runs a script."""
    return ["/bin/sh", "-c", script]


def noise(size: int) -> bytes:
    """Return bytes in which no two blocks are equal."""
    return (b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(min(size, MB) // 32 + 1)) * (size // MB + 1))[:size]


def outcome(stream: Stream, *arguments: Any, **named: Any) -> Any:
    """Return all bytes of an answer; or the error, and whether it came in time for a status."""
    try:
        answer = stream(*arguments, **named)
    except OSError as error:
        return "in time", type(error), str(error)
    with contextlib.closing(answer):
        try:
            return b"".join(answer)
        except (OSError, TypeError) as error:
            return "too late", type(error), str(error)


class Body(io.RawIOBase):
    """A request's body of some size, which is not held in memory; it may end as a dead client's does."""

    def __init__(self, size: int, dies: bool = False) -> None:
        """Remember how much is left."""
        self.left = size
        self.dies = dies
        self.block = noise(MB)

    def read(self, size: int = -1) -> bytes:
        """Return at most so many bytes."""
        if self.dies and not self.left:
            raise OSError("the client has gone")
        block = self.block[: min(size, self.left)]
        self.left -= len(block)
        return block


def same_bytes(patched: Stream, stock: Stream, folder: pathlib.Path) -> None:
    """Any size comes through as it is, out, and in by bytes, file, file descriptor and stream."""
    for size in SIZES:
        content = noise(size)
        file = folder / "content"
        file.write_bytes(content)
        for stream in (patched, stock):
            assert outcome(stream, ["/bin/cat", str(file)]) == content, size
            assert outcome(stream, ["/bin/cat", str(file)], starting_values=[b"first"]) == b"first" + content, size
            if content:
                assert outcome(stream, ["/bin/cat"], inputstream=content) == content, size
            with file.open("rb") as opened:
                assert outcome(stream, ["/bin/cat"], inputstream=opened) == content, size
            assert outcome(stream, ["/bin/cat"], inputstream=os.open(file, os.O_RDONLY)) == content, size
            assert outcome(stream, ["/bin/cat"], inputstream=io.BytesIO(content)) == content, size
            # A process that reads nothing of its input, or not all.
            assert outcome(stream, shell("echo done"), inputstream=io.BytesIO(content)) == b"done\n", size
            assert outcome(stream, ["/usr/bin/head", "-c", "10"], inputstream=io.BytesIO(content)) == content[:10], size
    print(f"same bytes: {len(SIZES)} sizes in 8 ways")


def same_failures(patched: Stream, stock: Stream, folder: pathlib.Path) -> None:
    """A process that fails before much was said gives stock's error and words each time; stock itself lost the race now and then."""
    scripts = [
        "exit 3",
        "echo 'fatal: bad' >&2; exit 128",
        "head -c 60000 /dev/zero; echo 'fatal: late' >&2; exit 1",
        "head -c 73000 /dev/zero; exit 1",
        "kill -9 $$",
        "printf '0034shallow 1234'; echo 'fatal: The remote end hung up unexpectedly' >&2; exit 128",
        "printf '0034shallow 1234'; echo 'fatal: something else' >&2; exit 128",
    ]
    commands: list[tuple[list[str], bytes | None]] = [(shell(script), None) for script in scripts]
    commands += [
        (["git", "upload-pack", "--stateless-rpc", "--advertise-refs", str(folder / "none")], None),
        (["git", "upload-pack", "--stateless-rpc", str(folder)], b"0005x"),
    ]
    for command, body in commands:
        got = {outcome(patched, command, inputstream=body) for _ in range(20)}
        wanted = {outcome(stock, command, inputstream=body) for _ in range(20)}
        assert len(got) == 1, (command, got)
        assert got <= wanted, (command, got, wanted)
    assert outcome(patched, ["/no/such/program"]) == outcome(stock, ["/no/such/program"])
    assert outcome(patched, shell("echo no >&2; exit 2"), inputstream=Body(50 * MB)) == ("in time", OSError, "Subprocess exited due to an error: b'no\\n'")
    print(f"same failures: {len(commands)} commands, 20 times each")


def late_failures(patched: Stream, stock: Stream) -> None:
    """A process that fails when its answer is under way ends the answer with an error, with what it said; stock died of a TypeError there."""
    command = shell("head -c 1000000 /dev/zero; echo 'fatal: disk' >&2; exit 1")
    for stream, wanted in ((patched, OSError), (stock, (OSError, TypeError))):
        answer = stream(command)
        got = b""
        try:
            for block in answer:
                got += block
                # The process has ended when the last of it is asked for.
                time.sleep(0.05 if len(got) > 500_000 else 0)
        except wanted as error:
            assert stream is stock or "fatal: disk" in str(error), error
        else:
            raise AssertionError("the answer ended as if all were well")
        finally:
            answer.close()
        assert 500_000 < len(got) <= 1_000_000 and not got.strip(b"\0"), len(got)
    # Also where it fails a moment after the last of its answer was taken.
    assert outcome(patched, shell("head -c 1000000 /dev/zero; exec >&-; sleep 0.2; echo 'fatal: disk' >&2; exit 1"))[:2] == ("too late", OSError)
    print("late failures: an error, and the words are kept")


def big_stderr(patched: Stream, stock: Stream) -> None:
    """However much a process says to stderr it never waits for it, and the end of it is kept."""
    script = "i=0; while [ $i -lt 20 ]; do head -c 20000 /dev/zero | tr '\\0' x >&2; echo $i; i=$((i+1)); done; printf END >&2"
    for stream in (patched, stock):
        answer = stream(shell(script))
        with contextlib.closing(answer):
            assert b"".join(answer.output) == "".join(f"{number}\n" for number in range(20)).encode()
            kept = b"".join(answer.error)
        # Stock gave more where it was asked while it still read, byte by byte.
        assert kept.endswith(b"x" * 15997 + b"END") and (stream is stock or len(kept) == 16000), (len(kept), kept[-10:])
    when, kind, words = outcome(patched, shell(script + "; exit 1"))
    assert when == "in time" and kind is OSError and words.endswith("xEND'") and len(words) > 16000, (kind, words[-20:])
    print("big stderr: its last 16,000 bytes")


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait for something that comes at once."""
    end = time.monotonic() + 3
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def descriptors() -> int:
    """Return how many files this process has open."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process has ended."""
    return process.poll() is not None


def early_close(patched: Stream) -> None:
    """A client that goes away leaves no process, no thread and no open file, and nobody waits."""
    threads, opened = threading.active_count(), descriptors()
    silent = "head -c 200000 /dev/zero; trap '' TERM; exec sleep 3"
    for command, body in [
        (["/usr/bin/yes"], None),
        (shell("trap '' TERM; while :; do head -c 100000 /dev/zero || exit; done"), None),
        (shell("cat /dev/zero; cat"), Body(1 << 40)),
        (["/bin/cat"], Body(1 << 40)),
        (shell(silent), None),
        (shell("exit 1"), Body(1 << 40)),
    ]:
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            answer = patched(command, inputstream=body)
            next(answer)
            answer.close()
            took = time.monotonic() - begin
            assert took < 2, (command, took)
            assert len(b"".join(answer.output)) < 2 * LOOKED_AT, command
            wait_for(f"the end of {command}", functools.partial(ended, answer.process))
            del answer
        wait_for(f"threads of {command}", lambda: threading.active_count() == threads)
        wait_for(f"files of {command}", lambda: descriptors() == opened)
    # In the middle of its push: the process sees the end of its input, as before.
    IN_THREADS.clear()
    assert outcome(patched, ["/usr/bin/wc", "-c"], inputstream=Body(MB, dies=True)) == b"%d\n" % MB
    assert IN_THREADS == ["the client has gone"], IN_THREADS
    print("early close: no process, thread or file is left")


def words_of(stream: Any) -> tuple[bytes, str]:
    """Return what a stream gave, and what it said at last where that was an error."""
    got = b""
    with contextlib.closing(stream):
        try:
            for block in stream:
                got += block
        except OSError as error:
            return got, str(error)
    return got, ""


def slow_beginning(patched: Stream, repository: pathlib.Path) -> None:
    """Where so much is not said in a time that is given, what there is comes at once; a failure is in time as long as that one is not over."""
    for said in (b"", b"first"):
        begin = time.monotonic()
        answer = patched(shell(f"printf '{said.decode()}'; sleep 3; printf rest"), look_seconds=0.3)
        first = [next(answer)] if said else []
        assert 0.25 < time.monotonic() - begin < 2.5
        assert (b"".join(first) + words_of(answer)[0]) == said + b"rest"
    failing = "printf first; sleep 1; printf last; echo 'fatal: disk' >&2; exit 1"
    for seconds in (None, 30):
        when, kind, words = outcome(patched, shell(failing), look_seconds=seconds)
        assert (when, kind) == ("in time", OSError) and "fatal: disk" in words, (seconds, when, words)
    for pause in (0, 2):
        answer = patched(shell(failing), look_seconds=0.1)
        # Who comes for it late, when it has failed already, gets all that it said as well.
        time.sleep(pause)
        got, words = words_of(answer)
        assert got == b"firstlast" and "fatal: disk" in words, (pause, got, words)
    # A beginning in small parts is waited for as a whole.
    begin = time.monotonic()
    answer = patched(shell("while :; do printf x; sleep 0.05; done"), look_seconds=0.5)
    with contextlib.closing(answer):
        assert 0.4 < time.monotonic() - begin < 3
        assert not next(answer).strip(b"x")
    threads, opened = threading.active_count(), descriptors()
    answer = patched(shell("printf first; exec sleep 60"), look_seconds=0.1)
    assert next(answer) == b"first"
    answer.close()
    wait_for("the end of who had begun slowly", functools.partial(ended, answer.process))
    del answer
    # Of those before it, one may have gone only now.
    wait_for("its thread and files", lambda: threading.active_count() <= threads and descriptors() <= opened)
    advertised = ["git", "upload-pack", "--stateless-rpc", "--advertise-refs", str(repository)]
    for command, body in ((advertised, None), (["/bin/cat"], noise(3 * MB))):
        assert outcome(patched, command, inputstream=body, look_seconds=0) == outcome(patched, command, inputstream=body), command
    print("slow beginning: what there is after the time, and all of it in the end")


def pace(patched: Stream, stock: Stream) -> None:
    """Slow readers and slow processes get what they should, and a middling answer never waits for a wake-up."""
    content = noise(3 * MB)
    for stream in (patched, stock):
        answer = stream(["/bin/cat"], inputstream=io.BytesIO(content))
        with contextlib.closing(answer):
            got = b""
            for number, block in enumerate(answer):
                got += block
                time.sleep(0.05 if number % 10 == 0 else 0)
        assert got == content
        assert outcome(stream, shell("for i in 1 2 3 4 5; do head -c 50000 /dev/zero; sleep 0.1; done")) == bytes(250_000)
    for name, stream in (("patched", patched), ("stock", stock)):
        times = []
        for _ in range(20):
            begin = time.monotonic()
            assert len(outcome(stream, shell("head -c 150000 /dev/zero"))) == 150_000
            times.append(time.monotonic() - begin)
        print(f"20 answers of 150,000 bytes, {name}: slowest {max(times):.3f} s")
        assert stream is stock or max(times) < 0.9, times


def grown(work: Callable[[], Any]) -> float:
    """Return by how many MiB this process has been larger at its largest since before the work; the work comes in a child of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        work()
        os.write(writer, str(peak() - before).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as result:
        kilobytes = result.read()
    assert os.waitpid(child, 0)[1] == 0
    return int(kilobytes) / 1024


def peak() -> int:
    """Return this process's greatest size in memory, in KiB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def flat_memory(patched: Stream) -> None:
    """2 GB through it, out and in, and a reader that stalls beside a process that does not: nothing is heaped up."""

    def out() -> None:
        answer = patched(shell("head -c 2000000000 /dev/zero"))
        with contextlib.closing(answer):
            next(answer)
            time.sleep(0.5)
            assert sum(map(len, answer)) + 65536 >= 2_000_000_000

    def through() -> None:
        assert outcome(patched, ["/usr/bin/wc", "-c"], inputstream=Body(500 * MB)) == b"%d\n" % (500 * MB)

    for name, work in (("2 GB out", out), ("500 MB in", through)):
        more = grown(work)
        print(f"{name}: {more:.1f} MiB more memory")
        assert more < 8, (name, more)


def processor(stream: Stream, command: list[str], body: io.RawIOBase | None = None) -> float:
    """Return the CPU seconds of this process for an answer that is thrown away."""
    begin = time.process_time()
    answer = stream(command, inputstream=body)
    with contextlib.closing(answer):
        for _ in answer:
            pass
    return time.process_time() - begin


def cost(patched: Stream, stock: Stream) -> None:
    """200 MB cost a fraction of what they did."""
    for name, command, size in [("200 MB out", shell("head -c 200000000 /dev/zero"), 0), ("200 MB in", shell("cat >/dev/null"), 200_000_000)]:
        took = {
            key: min(processor(stream, command, Body(size) if size else None) for _ in range(3)) for key, stream in (("patched", patched), ("stock", stock))
        }
        print(f"{name}: {took['patched']:.2f} s CPU, stock {took['stock']:.2f} s")
        assert took["patched"] < took["stock"] * 0.6, took


@contextlib.contextmanager
def repository() -> Iterator[pathlib.Path]:
    """Give a folder for a test, with a git repository in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        git = ["git", "-C", name, "-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run([*git, "init", "-q"], check=True)
        (folder / "file").write_bytes(noise(MB))
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
        references = "".join(f"create refs/heads/branch-{number} HEAD\n" for number in range(2000))
        subprocess.run([*git, "update-ref", "--stdin"], input=references.encode(), check=True)
        yield folder


def same_git(patched: Stream, stock: Stream, folder: pathlib.Path) -> None:
    """What git says of 2,000 references, and a pack that it sends."""
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    wants = f"0032want {head}\n00000009done\n".encode()
    for command, body in [
        (["git", "upload-pack", "--stateless-rpc", "--advertise-refs", str(folder)], None),
        (["git", "-c", "pack.threads=1", "upload-pack", "--stateless-rpc", str(folder)], wants),
    ]:
        got = outcome(patched, command, inputstream=body)
        assert got == outcome(stock, command, inputstream=body), command
        assert len(got) > 100_000, got
    print("same git: references, a pack")


def main() -> None:
    """Compare the two trees."""
    stock, patched = map(load, sys.argv[1:3])
    threading.excepthook = lambda end: IN_THREADS.append(str(end.exc_value))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with repository() as folder:
        same_git(patched, stock, folder)
        slow_beginning(patched, folder)
        same_bytes(patched, stock, folder)
        same_failures(patched, stock, folder)
    late_failures(patched, stock)
    big_stderr(patched, stock)
    early_close(patched)
    pace(patched, stock)
    cost(patched, stock)
    flat_memory(patched)


if __name__ == "__main__":
    main()

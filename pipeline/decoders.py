"""The decoding processes of one worker: whatever a picture does to its decoder, the worker and the other pictures go on.

in      bytes of unknown origin
out     what images.prepare says of them; `decode` where that killed the decoder or took longer than it may
law     a crash, a hang or a hunger for memory costs one picture and one process, which is replaced; nothing outlives the worker
cost    a copy of the file into shared memory and one of the stored picture out of it, two short messages: 0.1 ms a picture
"""

import asyncio
import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from pipeline import pictures
from pipeline.config import DownloadConfig
from pipeline.pictures import Picture

START_SECONDS = 120.0  # until a new process says that it is ready; a busy machine is slow at this
ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHOME")  # no key is among them
PATIENCE = 6.0  # wall seconds for each CPU second that a picture may take
ROOT = str(Path(__file__).parents[1])


def shared_memory(num_bytes: int) -> int:
    """A descriptor of so much memory, which takes none until it is written to."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("wit-pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, num_bytes)
    if hasattr(os, "memfd_create"):  # a file that its decoder cuts short would take the worker with it
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def settings(config: DownloadConfig) -> str:
    """`config` on a command line."""
    return json.dumps({field.name: getattr(config, field.name) for field in fields(DownloadConfig)})


class Decoder:
    """One process, and what is shared with it. It works on one picture at a time."""

    def __init__(self, config: DownloadConfig):
        self.config = config
        self.answer: asyncio.Future[bytes] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None  # that listens to the process
        self.ready = False
        self.received, self.awaited = b"", 0
        num_bytes = max(config.max_image_bytes, 3 * config.max_image_pixels)  # as large as any picture that is stored
        memory = shared_memory(num_bytes)
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        command = [sys.executable, "-P", "-m", "pipeline.decoder", str(theirs.fileno()), str(memory), str(num_bytes)]
        path = os.pathsep.join([ROOT, *filter(None, sys.path)])
        kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        self.process = subprocess.Popen(
            [*command, settings(config)],
            pass_fds=(theirs.fileno(), memory),
            env={**kept, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # what it may start itself is killed with it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,  # until it is ready
        )
        theirs.close()
        self.memory = mmap.mmap(memory, num_bytes)
        os.close(memory)

    async def start(self) -> None:
        """Wait until it can work. RuntimeError where it cannot even start: then no picture is to blame."""
        if self.ready:
            return
        if await self.ask(b"", len(pictures.READY), START_SECONDS) != pictures.READY:
            said = self.end().decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"decoders: {sys.executable} -m pipeline.decoder does not start: {' '.join(said) or 'no reason'}")
        self.ready = True

    async def prepare(self, body: bytes | bytearray) -> Picture | str | None:
        """What images.prepare says of `body`; None where the process did not live to tell."""
        self.memory[: len(body)] = body
        request = pictures.REQUEST.pack(len(body))
        reply = await self.ask(request, pictures.REPLY.size, self.config.decode_seconds * PATIENCE)
        if len(reply) < pictures.REPLY.size:
            return None
        try:
            return pictures.unpack(reply, self.memory, len(body))
        except ValueError:
            return None

    async def ask(self, request: bytes, num_bytes: int, seconds: float) -> bytes:
        """Send `request` and wait for an answer of so many bytes; a shorter one where the process ends or takes too long."""
        loop = asyncio.get_running_loop()
        self.answer, self.received, self.awaited = loop.create_future(), b"", num_bytes
        if not self.loop:
            self.loop = loop
            loop.add_reader(self.channel.fileno(), self.receive)
        clock = loop.call_later(seconds, self.give_up)
        try:
            self.channel.send(request)
            return await self.answer
        except BrokenPipeError:  # it ended between two pictures
            return b""
        finally:
            clock.cancel()
            self.answer = None

    def give_up(self) -> None:
        """It took too long: it is killed, and nobody waits for a child of its own that holds the channel open."""
        self.kill()
        if self.answer and not self.answer.done():
            self.answer.set_result(self.received)

    def kill(self) -> None:
        """The process and whatever it started, if it has not ended by itself."""
        if self.process.returncode is not None:
            return  # its number may be another's by now
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def receive(self) -> None:
        """Take what the process says; one that talks unasked has ended, or is in a stranger's hands, and would keep us busy."""
        if not self.answer or self.answer.done():
            self.detach()
            self.kill()
            return
        try:
            piece = self.channel.recv(self.awaited - len(self.received))
        except ConnectionResetError:
            piece = b""
        self.received += piece
        if not piece:
            self.detach()
        if not piece or len(self.received) == self.awaited:
            self.answer.set_result(self.received)

    def detach(self) -> None:
        """Listen no more to the process in this event loop."""
        if self.loop:
            self.loop.remove_reader(self.channel.fileno())
            self.loop = None

    def end(self) -> bytes:
        """End the process; what it had to say for itself before it was ready."""
        self.kill()
        self.process.wait()
        assert self.process.stderr is not None
        with self.process.stderr as file:
            return file.read()

    def close(self) -> None:
        """End the process, and share nothing any more."""
        self.detach()
        if self.process.stderr and not self.process.stderr.closed:
            self.end()
        self.channel.close()
        self.memory.close()


class Decoders:
    """`async with decoders:` and then `await decoders.prepare(body)`, in one event loop after another; `close()` at the end."""

    def __init__(self, config: DownloadConfig):
        self.config = config
        self.decoders = [Decoder(config) for _ in range(config.num_decoders)]
        self.idle: asyncio.Queue[Decoder] = asyncio.Queue()
        self.deaths = 0  # pictures that took their decoder with them

    async def __aenter__(self) -> "Decoders":
        self.idle = asyncio.Queue()
        for one in self.decoders:
            self.idle.put_nowait(one)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Every picture has been answered, or its decoder replaced."""
        for one in self.decoders:
            one.detach()

    async def prepare(self, body: bytes | bytearray) -> Picture | str:
        """What images.prepare says of `body`, or `decode` where that ended the process."""
        one = await self.idle.get()
        if one.process.poll() is not None:  # killed while it had nothing to do: no picture is to blame
            one = self.replace(one)
        result = None
        try:
            await one.start()
            result = await one.prepare(body)
        finally:
            if result is None:
                self.deaths += 1
                one = self.replace(one)
            self.idle.put_nowait(one)
        return pictures.DECODE if result is None else result

    def replace(self, one: Decoder) -> Decoder:
        """A new process in the place of `one`, which is dead or busy with what nobody waits for."""
        self.decoders.remove(one)
        one.close()
        self.decoders.append(Decoder(self.config))
        return self.decoders[-1]

    def close(self) -> None:
        """End all processes."""
        while self.decoders:
            self.decoders.pop().close()

"""One decoding process: pictures in, pictures or reasons out, under limits, with nothing of ours in it but the code.

    python -m pipeline.decoder SOCKET MEMORY MEMORY_BYTES SETTINGS     (pipeline/decoders.py starts it)

in      the length of a file on the socket, the file itself in the shared memory; both are descriptors of the parent's
out     one REPLY on the socket; the picture as it is stored in the shared memory, where the file was
law     it ends when its parent does, however that ends: the socket is closed then
limits  CPU seconds a picture (the kernel's timer kills it, also with a decoder that never looks up); address space above what
        it starts with (a picture that wants more is a `bomb`); no file can be written, no core dumped; the first to go where
        the machine has no memory left
cost    0.6 s of CPU to start, once, and 3 s more where the code was never compiled; 120 MB
"""

import json
import mmap
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from pipeline import images
from pipeline.config import DownloadConfig
from pipeline.pictures import READY, REQUEST, Picture, pack

PAGE_BYTES = mmap.PAGESIZE


def address_space_bytes() -> int:
    """Address space in use; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * PAGE_BYTES if statm.exists() else 0


def confine(max_decode_bytes: int) -> None:
    """Take from this process what no decoder needs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's business
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the deadline: the process ends
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())  # what libraries say of broken files
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    used = address_space_bytes()
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + max_decode_bytes, used + max_decode_bytes))


def warm_up() -> None:
    """Import what libraries import when they are first used, and compile what is compiled (once a machine). RuntimeError where
    no picture could ever come out."""
    config = DownloadConfig()
    side = 2 * config.image_size  # is reduced
    gray = simplejpeg.encode_jpeg(np.full((side, side, 3), 128, np.uint8), colorspace="RGB")
    if not isinstance(images.prepare_usual(gray, config), Picture) or not isinstance(
        images.prepare_any(gray, "JPEG", config), Picture
    ):
        raise RuntimeError("decoder: a good picture does not come out; is simplejpeg, Pillow or numba broken?")


def serve(channel: socket.socket, memory: mmap.mmap, config: DownloadConfig) -> None:
    """Answer until the other end is gone."""
    channel.sendall(READY)
    while request := channel.recv(REQUEST.size, socket.MSG_WAITALL):
        (num_bytes,) = REQUEST.unpack(request)
        signal.setitimer(signal.ITIMER_PROF, config.decode_seconds)
        result = images.prepare(memory[:num_bytes], config)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if isinstance(result, Picture):
            memory[: len(result.image)] = result.image
        channel.sendall(pack(result))


def main() -> None:
    """The process, from its command line."""
    channel_fd, memory_fd, memory_bytes = map(int, sys.argv[1:4])
    config = DownloadConfig(**json.loads(sys.argv[4]))
    cv2.setNumThreads(1)
    warm_up()
    images.guard_pillow(config.max_image_pixels)
    memory = mmap.mmap(memory_fd, memory_bytes)
    confine(config.max_decode_bytes)
    serve(socket.socket(fileno=channel_fd), memory, config)


if __name__ == "__main__":
    main()

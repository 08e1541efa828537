"""One decoding process: pictures in, pictures or reasons out, under limits, with nothing of ours in it but the code.

    python -m pipeline.decoder SOCKET MEMORY MEMORY_BYTES SETTINGS     (pipeline/decoders.py starts it)

in      the length of a file on the socket, the file itself in the shared memory; both are descriptors of the parent's
out     one REPLY on the socket; the picture as it is stored in the shared memory, where the file was
law     what it says is read as numbers and bytes of fixed places, never unpickled: it may be in the hands of whoever made
        the file. It ends when its parent does, however that ends: the socket is closed then
limits  CPU seconds a picture (the kernel's timer kills it, also with a decoder that never looks up); address space above what
        it starts with (a picture that wants more is a `bomb`); no file can be written, no core dumped; the first to go where
        the machine has no memory left
cost    0.3 s of CPU to start, once; 75 MB
"""

import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from pipeline import images
from pipeline.config import DownloadConfig
from pipeline.images import Picture

REQUEST = struct.Struct("<Q")  # bytes of the file
READY = b"ready"
# reason (0: a picture, else its place in images.DROPS + 1), media type (place in MEDIA_TYPES); bytes of the stored picture;
# width, height, as served; phash, sha256, colors
REPLY = struct.Struct("<BBQ4IQ32s48s")
MEDIA_TYPES = tuple(images.MEDIA_TYPES.values())
PAGE_BYTES = mmap.PAGESIZE


def pack(result: Picture | str) -> bytes:
    """The REPLY that says `result`; the stored picture itself travels in the shared memory."""
    if isinstance(result, str):
        return REPLY.pack(images.DROPS.index(result) + 1, 0, 0, 0, 0, 0, 0, 0, b"", b"")
    return REPLY.pack(
        0,
        MEDIA_TYPES.index(result.media_type),
        len(result.image),
        *(result.width, result.height, result.original_width, result.original_height),
        *(result.phash, bytes.fromhex(result.sha256), result.colors),
    )


def unpack(reply: bytes, memory: mmap.mmap, num_bytes: int) -> Picture | str:
    """What a REPLY says of a file of so many bytes. ValueError where no decoder of ours can have said that."""
    reason, kind, length, width, height, original_width, original_height, phash, digest, colors = REPLY.unpack(reply)
    if reason:
        if reason > len(images.DROPS):
            raise ValueError(f"decoder: expected a reason up to {len(images.DROPS)}, found {reason}")
        return images.DROPS[reason - 1]
    if kind >= len(MEDIA_TYPES) or length > len(memory):
        raise ValueError(f"decoder: expected a picture of at most {len(memory)} bytes, found {length} of kind {kind}")
    return Picture(
        image=memory[:length],
        width=width,
        height=height,
        original_width=original_width,
        original_height=original_height,
        original_bytes=num_bytes,
        media_type=MEDIA_TYPES[kind],
        sha256=digest.hex(),
        phash=phash,
        colors=colors,
    )


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

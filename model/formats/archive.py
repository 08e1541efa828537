"""PyTorch's zip archives, `torch.save`'s and TorchScript's, read without running a word of them.

in      the path of a .pt file: a zip with NAME/data.pkl and NAME/data/KEY, uncompressed
out     what data.pkl describes, of dicts, lists, tuples, numbers and texts, with a `TensorSpec` in each tensor's place and a
        `Shell` in each module's; `load` reads a tensor's bytes when it is asked to
law     no pickle machine is at work: the opcodes are read by `pickletools.genops` and acted on here, and only the names in
        _dtypes and _BUILDERS mean anything, none of which is called; the code of a TorchScript archive is not even opened
law     the size of what is read is at most the size of the file: compressed, overlapping or over-long records are refused
source  PyTorch, torch/csrc/jit/serialization/docs/serialization.md; Python, Lib/pickletools.py
"""

import math
import os
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.formats.errors import BadModel

MAX_PICKLE_BYTES = 16_000_000  # of data.pkl, which holds names and shapes only
MAX_COPIED = 10_000_000  # items that the pickle may have copied from one container to another
MAX_DIMS = 16
_DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16,
    "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
_REBUILD = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"}
_LISTS = {f"torch.jit._pickle build_{kind}list" for kind in ("int", "double", "bool", "tensor")}


class TensorSpec(NamedTuple):
    """Where a tensor lies in its archive."""

    key: str  # of its record
    dtype: torch.dtype
    offset: int  # elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class Shell:
    """An object of a class of the archive's own code, with its attributes and without its code."""

    name: str
    attributes: dict[str, Any] = field(default_factory=dict)


class _Name(NamedTuple):
    """A global that the pickle names: "module name"."""

    name: str


_MARK = object()


class _Reader:
    """Acts on the opcodes that PyTorch's own picklers write; another opcode, or another name, is refused."""

    def __init__(self, path: str):
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.num_copied = 0

    def refuse(self, found: str) -> BadModel:
        """The error of a pickle that says more than weights."""
        return BadModel(f"{self.path}: expected weights only, found {found} in its pickle; nothing of it was run")

    def copied(self, items: Any) -> Any:
        """The items, counted: a short pickle must not ask for endless copies of one container."""
        self.num_copied += len(items)
        if self.num_copied > MAX_COPIED:
            raise self.refuse(f"more than {MAX_COPIED:,} copies")
        return items

    def to_mark(self) -> list[Any]:
        """Pop what lies above the last mark, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise self.refuse("no mark")

    def read(self, data: bytes) -> Any:
        """The object that the pickle describes."""
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.act(opcode.name, argument)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, BadModel):
                raise
            raise self.refuse(f"a damaged instruction ({error})") from None
        raise self.refuse("no end")

    def act(self, code: str, argument: Any) -> None:
        """One opcode."""
        stack = self.stack
        if code in _CONSTANTS:
            stack.append(_CONSTANTS[code]() if callable(_CONSTANTS[code]) else _CONSTANTS[code])
        elif code in _LITERALS:
            stack.append(argument)
        elif code in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if code == "MEMOIZE" else argument] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif code in _TUPLES:
            size = _TUPLES[code]
            items = stack[len(stack) - size :]
            del stack[len(stack) - size :]
            stack.append(tuple(items))
        elif code in ("TUPLE", "LIST", "DICT"):
            items = self.to_mark()
            stack.append(tuple(items) if code == "TUPLE" else items if code == "LIST" else _dict(items))
        elif code in ("GLOBAL", "STACK_GLOBAL"):
            if code == "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                argument = f"{module} {name}"
            stack.append(self.known(str(argument)))
        elif code not in ("PROTO", "FRAME"):
            self.change(code)

    def known(self, name: str) -> _Name:
        """A global that may be named."""
        module, _, leaf = name.partition(" ")
        is_storage = module == "torch" and leaf in _DTYPES
        if not (is_storage or name in _REBUILD or name in _LISTS or module == "__torch__" or module.startswith("__torch__.")):
            raise self.refuse(f"the name {module}.{leaf}"[:200])
        return _Name(name)

    def change(self, code: str) -> None:
        """An opcode that fills or builds something."""
        stack = self.stack
        if code in ("APPEND", "APPENDS"):
            items = [stack.pop()] if code == "APPEND" else self.to_mark()
            _expect(stack[-1], list).extend(items)
        elif code in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if code == "SETITEM" else self.to_mark()
            _expect(stack[-1], dict).update(_dict(items))
        elif code == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif code in ("REDUCE", "NEWOBJ"):
            arguments, name = stack.pop(), stack.pop()
            stack.append(self.build(_expect(name, _Name).name, _expect(arguments, tuple)))
        elif code == "BUILD":
            state, target = stack.pop(), stack[-1]
            if isinstance(target, Shell):
                target.attributes.update(self.copied(_expect(state, dict)))
            elif not isinstance(target, dict):  # a state dict's own notes (_metadata) are of no use here
                raise self.refuse(f"a state for a {type(target).__name__}")
        else:
            raise self.refuse(f"the instruction {code}")

    def storage(self, told: Any) -> tuple[str, torch.dtype, int]:
        """A persistent id: ("storage", a storage class, key, device, number of elements)."""
        kind, storage, key, _, size = _expect(told, tuple)
        if kind != "storage" or not isinstance(storage, _Name) or not isinstance(key, str) or not isinstance(size, int):
            raise self.refuse("a reference to something else than a tensor's bytes")
        return key, _DTYPES[storage.name.removeprefix("torch ")], size

    def build(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What an allowed name with these arguments stands for."""
        if name == "collections OrderedDict":
            return dict(self.copied(arguments[0])) if arguments else {}
        if name in _LISTS:
            return list(self.copied(arguments[0]))
        if name.startswith("__torch__"):
            return Shell(name.replace(" ", "."))
        if name == "torch._utils _rebuild_parameter":
            return arguments[0]
        if name != "torch._utils _rebuild_tensor_v2":
            raise self.refuse(f"a call of {name.replace(' ', '.')}")
        (key, dtype, _), offset, shape, stride = arguments[:4]
        numbers = [offset, *shape, *stride]
        if len(shape) != len(stride) or len(shape) > MAX_DIMS or not all(type(n) is int and n >= 0 for n in numbers):
            raise self.refuse("a tensor without a proper shape")
        return TensorSpec(key, dtype, offset, tuple(shape), tuple(stride))


_CONSTANTS: Mapping[str, Any] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_LIST": list, "EMPTY_DICT": dict,
    "MARK": _MARK,
}  # fmt: skip
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _dict(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


class Archive:
    """An open archive. Use it as a context; raises BadModel for what is not one."""

    def __init__(self, path: str):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise BadModel(f"{path}: expected a PyTorch archive, found {error}") from None
        self._entries = {info.filename: info for info in self._zip.infolist()}
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise BadModel(f"{path}: expected a zip with one NAME/data.pkl, found {len(pickles)} of them")
        self._prefix = pickles[0].removesuffix("data.pkl")
        self._check_sizes()
        if self._bytes("byteorder", 16, b"little").strip() != b"little":
            raise BadModel(f"{path}: expected little-endian numbers, found another byte order")
        self.is_torchscript = f"{self._prefix}constants.pkl" in self._entries
        self.content = _Reader(path).read(self._bytes("data.pkl", MAX_PICKLE_BYTES))

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    def _check_sizes(self) -> None:
        """Records are stored as they are and share no bytes, so that together they are no larger than the file."""
        packed = [name for name, info in self._entries.items() if info.compress_type != zipfile.ZIP_STORED]
        code = [name for name in packed if not name.startswith((f"{self._prefix}data/", f"{self._prefix}data.pkl"))]
        if len(packed) > len(code):
            raise BadModel(f"{self.path}: expected uncompressed tensors, found {packed[0]} compressed")
        total = sum(info.file_size for name, info in self._entries.items() if name not in code)
        if total > os.path.getsize(self.path):
            raise BadModel(f"{self.path}: its records claim {total:,} bytes, more than the whole file has")

    def _bytes(self, name: str, most: int, default: bytes | None = None) -> bytes:
        info = self._entries.get(self._prefix + name)
        if info is None:
            if default is None:
                raise BadModel(f"{self.path}: its record {name} is missing")
            return default
        if info.file_size > most:
            raise BadModel(f"{self.path}: expected at most {most:,} bytes in {name}, found {info.file_size:,}")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise BadModel(f"{self.path}: its record {name} can not be read: {error}") from None

    def load(self, spec: TensorSpec) -> Tensor:
        """The tensor, in memory of its own. Raises BadModel where its record is too short for it."""
        data = self._bytes(f"data/{spec.key}", os.path.getsize(self.path))
        used = spec.offset + sum((size - 1) * step for size, step in zip(spec.shape, spec.stride, strict=True)) + 1
        if 0 in spec.shape:
            return torch.empty(spec.shape, dtype=spec.dtype)
        too_large = math.prod(spec.shape) * spec.dtype.itemsize > max(len(data), spec.dtype.itemsize)
        if used * spec.dtype.itemsize > len(data) or too_large:
            raise BadModel(
                f"{self.path}: a tensor of shape {list(spec.shape)} does not fit into the {len(data)} bytes of its record"
            )
        flat = torch.frombuffer(bytearray(data), dtype=spec.dtype, count=len(data) // spec.dtype.itemsize)
        return flat.as_strided(spec.shape, spec.stride, spec.offset).contiguous()

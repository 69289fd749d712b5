"""What io_shim.cpp wrote down: a process' calls on the files of one folder, their names as points of a sweep, and the
disk they were made on, for power cuts."""

import pathlib
import random
import re
import shutil
import struct
from dataclasses import dataclass, field

HEAD = struct.Struct("@IIIiq16s")
SECTOR = 512


@dataclass
class Call:
    operation: str
    path: str
    other: str
    offset: int
    data: bytes
    error: int
    end: int  # where it ends in the record

    @property
    def point(self) -> str:
        """What it does to which file, as IO_SHIM_POINT takes it: names made by chance are asterisks."""
        return f"{self.operation} {'/'.join(general(part) for part in self.path.split('/'))}"


def general(part: str) -> str:
    """`limner.db-wal` stays; `0f`, `<64 digits>.png` and `<16 digits>.<process>` become `*`, `*.png` and `*`."""
    stem, dot, extension = part.partition(".")
    if re.fullmatch(r"[0-9a-f]{2}", part) or re.fullmatch(r"[0-9a-f-]{16,}", stem):
        return "*" + dot + extension if extension and not extension.isdigit() else "*"
    return part


def read_record(file: pathlib.Path) -> list[Call]:
    bytes_, calls, at = file.read_bytes(), [], 0
    while at < len(bytes_):
        path, other, data, error, offset, operation = HEAD.unpack_from(bytes_, at)
        at += HEAD.size
        parts = []
        for length in (path, other, data):
            parts.append(bytes_[at:at + length])
            at += length
        calls.append(Call(operation.rstrip(b"\0").decode(), parts[0].decode(), parts[1].decode(), offset, parts[2],
                          error, at))
    return calls


def points(calls: list[Call]) -> list[tuple[str, int]]:
    """Each call by its point and its number among those of the point."""
    seen, named = {}, []
    for call in calls:
        seen[call.point] = seen.get(call.point, 0) + 1
        named.append((call.point, seen[call.point]))
    return named


def parent(path: str) -> str:
    return path.rpartition("/")[0] or "."


@dataclass(eq=False)
class Node:
    """A file or a folder; what was written since the last sync waits in `pending`."""
    folder: bool = False
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None cuts or extends to that size


def change(content: bytearray, offset: int, data: bytes | None):
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset:offset + len(data)] = data


class Disk:
    """Keeps apart what was done and what is on the disk for sure: a file's bytes since its fsync, and a folder's
    names since the folder's own."""

    def __init__(self, folder: pathlib.Path):
        self.durable: dict[str, Node] = {}
        for path in sorted(folder.rglob("*")):
            whole = bytearray() if path.is_dir() else bytearray(path.read_bytes())
            self.durable[str(path.relative_to(folder))] = Node(path.is_dir(), whole)
        self.names = dict(self.durable)
        self.pending: list[tuple[str, str, Node | None]] = []  # taken from (or ""), put at (or ""), what

    def apply(self, call: Call):
        if call.error:
            return
        if call.operation in ("create", "mkdir"):
            self.rename("", call.path, Node(call.operation == "mkdir"))
        elif call.operation in ("write", "truncate"):
            data = call.data if call.operation == "write" else None
            self.names[call.path].pending.append((call.offset, data))
        elif call.operation == "rename":
            self.rename(call.path, call.other, self.names[call.path])
        elif call.operation == "link":
            self.rename("", call.other, self.names[call.path])
        elif call.operation == "unlink":
            self.rename(call.path, "", None)
        elif call.operation == "sync":
            node = self.names[call.path]
            for offset, data in node.pending:
                change(node.durable, offset, data)
            node.pending = []
        elif call.operation == "sync-folder":
            waiting = self.pending
            self.pending = []
            for source, target, node in waiting:
                if call.path in [parent(path) for path in (source, target) if path]:
                    moved(self.durable, source, target, node)
                    # A name that is gone for sure cannot come into being any more.
                    self.pending = [one for one in self.pending if not source or one[1] != source]
                else:
                    self.pending.append((source, target, node))

    def rename(self, source: str, target: str, node: Node | None):
        moved(self.names, source, target, node)
        self.pending.append((source, target, node))

    def materialise(self, folder: pathlib.Path, unsynced: str, chance: random.Random):
        """What a power cut leaves; what was not synced is `lost`, `kept`, or `torn`: each name by a coin, of each
        file's writes the first few or some sectors."""
        names = dict(self.durable)
        for source, target, node in self.pending:
            if unsynced == "kept" or unsynced == "torn" and chance.random() < 0.5:
                moved(names, source, target, node)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path, node in sorted(names.items()):
            # What lies in a folder that is not there is not there either.
            if path.endswith("-shm") or not (folder / path).parent.is_dir():
                continue
            if node.folder:
                (folder / path).mkdir()
            else:
                (folder / path).write_bytes(survivors(node, unsynced, chance))


def moved(names: dict[str, Node], source: str, target: str, node: Node | None):
    if source:
        names.pop(source, None)
    if target and node is not None:
        names[target] = node


def survivors(node: Node, unsynced: str, chance: random.Random) -> bytes:
    content = bytearray(node.durable)
    pending = node.pending if unsynced != "lost" else []
    if unsynced == "torn" and chance.random() < 0.5:
        pending = pending[:chance.randint(0, len(pending))]
    elif unsynced == "torn":
        pending = [piece for one in pending for piece in sectors(*one) if chance.random() < 0.5]
    for offset, data in pending:
        change(content, offset, data)
    return bytes(content)


def sectors(offset: int, data: bytes | None) -> list[tuple[int, bytes | None]]:
    if data is None:
        return [(offset, None)]
    cuts = [0, *range(SECTOR - offset % SECTOR, len(data), SECTOR), len(data)]
    return [(offset + begin, data[begin:end]) for begin, end in zip(cuts, cuts[1:]) if begin < end]

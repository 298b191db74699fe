"""The tar reader against Python's tarfile as the oracle, and against GNU tar's sparse formats."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.errors import Corrupt
from scow.layers.headers import number, parse_header
from scow.layers.pax import nanoseconds, parse_records
from scow.layers.tar import Entry, TarReader
from scow.testing.layers import archive, file

_COMPONENT = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=60)
_NAME = st.lists(_COMPONENT, min_size=1, max_size=6).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@st.composite
def _infos(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(_NAME))
    info.type = draw(_KINDS)
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(st.integers(0, 2**31)), draw(st.integers(0, 2**31))
    info.mtime = draw(st.integers(0, 2**36 - 1))
    data = draw(st.binary(max_size=1500)) if info.isreg() else b""
    info.size = len(data)
    if info.issym() or info.islnk():
        info.linkname = draw(_NAME)
    return info, data


def read(data: bytes, chunk: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    """All entries with their stored bytes, the archive coming in chunks of one size."""
    source = io.BytesIO(data)
    reader = TarReader(lambda: source.read(chunk))
    return [(entry, b"".join(map(bytes, reader.data()))) for entry in reader]


@given(
    st.lists(_infos(), max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.integers(1, 2000),
)
def test_reads_what_tarfile_writes(infos: list[tuple[tarfile.TarInfo, bytes]], form: int, chunk: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, data in infos:
            tar.addfile(info, io.BytesIO(data))
    found = read(buffer.getvalue(), chunk)
    assert len(found) == len(infos)
    for (entry, data), (info, expected) in zip(found, infos, strict=True):
        assert entry.name.rstrip(b"/") == info.name.encode().rstrip(b"/")
        assert (entry.kind, entry.mode, entry.uid, entry.gid) == (info.type, info.mode, info.uid, info.gid)
        assert (entry.mtime, entry.link, data) == (int(info.mtime) * 10**9, info.linkname.encode(), expected)


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_corrupt(data: bytes) -> None:
    try:
        read(data)
    except Corrupt:
        pass


@given(st.data())
def test_a_changed_header_is_corrupt(data: st.DataObject) -> None:
    block = bytearray(tarfile.TarInfo("name").tobuf())
    position = data.draw(st.integers(0, 511).filter(lambda at: not 148 <= at < 156))
    block[position] ^= data.draw(st.integers(1, 127))
    with pytest.raises(ValueError, match="checksum"):
        parse_header(bytes(block[:512]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644), (b" 644 \0\0\0", 0o644), (b"\0" * 8, 0), (b"77777777777\0", 0o77777777777),
        (b"77777777", 0o77777777), (b"000000001000", 0o1000),
        (b"\x80" + bytes(10) + b"\x01", 1), (b"\xff" * 12, -1), (b"\x80\0\0\0\x20\0\0\0", 1 << 29),
    ],
)  # fmt: skip
def test_numbers(field: bytes, value: int) -> None:
    assert number(field) == value


@pytest.mark.parametrize(
    "field", [b"0o17\0\0\0\0", b"1_0\0\0\0\0\0", b"+7\0\0\0\0\0\0", b"-7\0\0\0\0\0\0", b"89\0\0\0\0\0\0"]
)
def test_no_numbers(field: bytes) -> None:
    with pytest.raises(ValueError):
        number(field)


@given(st.integers(-(10**10), 10**10), st.integers(0, 999_999_999))
def test_times(seconds: int, fraction: int) -> None:
    text = f"{seconds}.{fraction:09}".encode()
    sign = -1 if seconds < 0 else 1
    assert nanoseconds(text) == seconds * 10**9 + sign * fraction


@pytest.mark.parametrize(
    "data",
    [b"5 a=", b"6 a=bc\n", b"x a=b\n", b"-6 a=b\n", b"6 ab\n\n", b"5 =b\n", b"6 a=b ", b"99 path=x\n", b"10 path=\0\n"],
)
def test_broken_records(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_records(data)


def test_a_global_header_says_nothing_of_entries() -> None:
    """As that of `git archive`, which names a commit. One that changes entries is refused (test_readers.py)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c0ffee"}) as tar:
        for name, headers in (("a", {}), ("b", {"mtime": "7"})):
            info = tarfile.TarInfo(name)
            info.pax_headers = headers
            tar.addfile(info)
    assert [(entry.name, entry.mtime) for entry, _ in read(buffer.getvalue())] == [(b"a", 0), (b"b", 7_000_000_000)]


def test_the_end() -> None:
    header = tarfile.TarInfo("a").tobuf()[:512]
    assert len(read(header)) == len(read(header + bytes(512))) == len(read(header + bytes(5120))) == 1
    assert read(b"") == []
    with pytest.raises(Corrupt, match="behind its end"):
        read(header + bytes(512) + header)
    with pytest.raises(Corrupt, match="within a block"):
        read(header[:511])


@pytest.mark.parametrize("chunk", [1, 100, 512, 1 << 20])
def test_an_archive_that_ends_with_its_last_byte_of_data(chunk: int) -> None:
    """As `umoci insert` writes them: neither padding nor end. What lies in a file must be there to its last byte."""
    whole = archive(file("a", b"1"), file("b", b"2" * 700))[: 512 + 512 + 512 + 700]
    for data in (whole, whole + bytes(100), whole + bytes(324)):
        assert [(entry.name, len(stored)) for entry, stored in read(data, chunk)] == [(b"a", 1), (b"b", 700)]
    with pytest.raises(Corrupt):
        read(whole[:-1], chunk)


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the program tar")
@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], *(["--format=pax", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))],
    ids=lambda options: options[-1].lstrip("-"),
)
def test_sparse_formats(tmp_path: Path, options: list[str]) -> None:
    size = 6_000_000
    pieces = {index * 200_000: b"piece %d" % index for index in range(29)}
    with open(tmp_path / "sparse", "wb") as big:
        big.truncate(size)
        for offset, piece in pieces.items():
            big.seek(offset)
            big.write(piece)
    command = ["tar", "--sparse", *options, "-cf", "-", "-C", str(tmp_path), "sparse"]
    ((entry, stored),) = read(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert (entry.name, entry.kind, entry.size) == (b"sparse", b"0", size)
    assert entry.sparse is not None
    whole = bytearray(size)
    at = 0
    for offset, length in entry.sparse:
        whole[offset : offset + length] = stored[at : at + length]
        at += length
    assert bytes(whole) == (tmp_path / "sparse").read_bytes()
    assert at < size // 2

"""A layer holds the same files to scow, to Go's archive/tar and to GNU tar; what they disagree on is refused."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.layers.blocks import GNU, USTAR, V7, extended, header, long, old_sparse, padded, pair, record
from tests.unit.layers.compare import check_as_go, entries, read

from scow.errors import Corrupt

_EVIL = header(b"evil")
_LEAD = "1\n0\n1\n"
_REAL = (("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "4096"))
_SPARSE = (("GNU.sparse.size", "4096"), ("GNU.sparse.numblocks", "1"))

#: One of each kind that Go and GNU read differently, or that one of them doesn't read.
REFUSED = {
    "blanks": header(mode=b" " * 8),
    "two NULs before the digits": header(mode=b"\x00\x00000644"),
    "a space within a number": header(mode=b"64 7\x00\x00\x00\x00"),
    "a letter at a number's end": header(mode=b"0000644x"),
    "a tab before a number": header(mode=b"\t000644\0"),
    "a number of more than 64 bits": header(size=b"\x80" + b"\xff" * 11),
    "an odd mark of base-256": header(mtime=b"\x81" + bytes(11)),
    "a checksum in base-256": header(checksum=b"\x80\0\0\0\0\0\x0f\x53"),
    "no number in a file's device": header(device=b"zzzzzzzzzzzzzzzz"),
    "no number before a pax header": extended(("path", "p"), fields={"mode": b"zzzzzzzz"}) + header(),
    "a prefix in GNU's form": header(magic=GNU, rest=b"prefix"),
    "star's prefix without end": header(rest=b"p" * 155 + bytes(8) + b"tar\0"),
    "star's times": header(rest=b"p".ljust(131, b"\0") + b"z" * 24 + bytes(8) + b"tar\0"),
    "a file like a directory": header(b"d/", size=3) + padded(b"abc"),
    "a directory of before POSIX with a length": header(b"d/", b"\0", 512, magic=V7) + _EVIL,
    **{f"a length for kind {kind:c}": header(b"l", b"%c" % kind, 512, b"t") + _EVIL for kind in b"2346"},
    "a hard link's length by pax": extended(("size", "512")) + header(b"l", b"1", 0, b"t") + _EVIL,
    **{f"an empty {key}": extended((key, "")) + header() for key in ("path", "linkpath", "size", "uid", "mtime")},
    "a time that is none": extended(("atime", "yesterday")) + header(),
    "a time rounded in two ways": extended(("mtime", "-1.9999999999")) + header(),
    "a size of more than 64 bits": extended(("size", "99999999999999999999")) + header(),
    "a NUL in a path": extended(("path", "a\0b")) + header(),
    "a NUL in a key": extended(("a\0b", "c")) + header(),
    "records padded with NULs": header(b"pax", b"x", 15) + padded(record(b"path", b"p")) + header(),
    "a long name and a path": long(b"long") + extended(("path", "pax")) + header(),
    "a path and a long name": extended(("path", "pax")) + long(b"long") + header(),
    "a long link and a linkpath": long(b"long", b"K") + extended(("linkpath", "pax")) + header(b"l", b"2"),
    "an empty long name": long(b"") + header(),
    "a global path": extended(("path", "everywhere"), kind=b"g") + header(),
    "a global size": extended(("size", "512"), kind=b"g") + header() + _EVIL,
    "a global attribute": extended(("SCHILY.xattr.user.a", "b"), kind=b"g") + header(),
    "a global header behind a pax one": extended(("path", "p")) + extended(("comment", "c"), kind=b"g") + header(),
    "a global header behind a long name": long(b"long") + extended(("comment", "c"), kind=b"g") + header(),
    "a sparse name without a map": extended(("GNU.sparse.name", "other")) + header(),
    "a sparse size without a map": extended(*_SPARSE) + header(),
    "an unknown sparse form": extended(*_SPARSE, ("GNU.sparse.major", "2"), ("GNU.sparse.map", "0,1"))
    + header(size=1) + padded(b"x"),
    "a sparse map longer than it says": extended(*_SPARSE, ("GNU.sparse.map", "0,1,5,1")) + header(size=2)
    + padded(b"xy"),
    "a sparse map out of order": extended(
        *_SPARSE, ("GNU.sparse.numbytes", "1"), ("GNU.sparse.offset", "0")) + header(size=1) + padded(b"x"),
    "two sparse maps": extended(*_SPARSE, *_REAL, ("GNU.sparse.map", "0,1")) + header(size=513)
    + padded(_LEAD.encode()) + padded(b"x"),
    "a sparse link": extended(*_SPARSE, ("GNU.sparse.map", "0,0")) + header(b"l", b"2", 0, b"t"),
    "GNU's old sparse form under another magic": old_sparse(pair(0, 1), b"x").replace(GNU, USTAR),
    "both sparse forms": extended(*_SPARSE, ("GNU.sparse.map", "0,1")) + old_sparse(pair(0, 1), b"x"),
    "a pax size for the old sparse form": extended(("size", "512")) + old_sparse(b"", b"") + _EVIL,
    "an old sparse map with a gap": old_sparse(pair(0, 1) + bytes(24) + pair(5, 1), b"x", more=b"\1") + bytes(512),
    "an old sparse piece without a length": old_sparse(b"00000000000\0" + b"\x0000000000001"[:12], b"x"),
    "an old sparse file of a negative size": old_sparse(b"", b"", size=b"\xff" * 12),
    "a header of Solaris": extended(("path", "p"), kind=b"X") + header(),
}  # fmt: skip


@pytest.mark.parametrize("archive", REFUSED.values(), ids=REFUSED.keys())
def test_what_readers_disagree_on_is_refused(archive: bytes) -> None:
    with pytest.raises(Corrupt):
        read(archive + bytes(1024))


def test_an_error_names_the_entry() -> None:
    with pytest.raises(Corrupt, match=r"header at byte 512 \('secret'\)"):
        entries(header() + header(b"secret", mode=b"zzzzzzzz") + bytes(1024))


#: What both read alike.
TAKEN = {
    "a size without terminator": header(size=b"000000000003") + padded(b"abc"),
    "all digits of a size": header(size=b"00000000010" + b"0") + padded(b"x" * 64) + header(b"behind"),
    "a number without terminator": header(mode=b"00000644", uid=b"00001750", mtime=b"777777777777"),
    "leading blanks": header(mode=b"   644 \0", size=b"          3 ") + padded(b"abc"),
    "a NUL and blanks": header(mode=b"\x00  00644"),
    "something behind a number's NUL": header(mode=b"644\x00junk"),
    "a checksum without terminator": header(checksum=b"%08o"),
    "a checksum with blanks": header(checksum=b"%7o "),
    "base-256": header(size=b"\x80" + bytes(10) + b"\3", mtime=b"\xff" * 11 + b"\xfe") + padded(b"abc"),
    "a hard link's length": header(b"l", b"1", 512, b"a") + header(b"behind"),
    "a directory's length": header(b"d/", b"5", 512) + header(b"behind"),
    "a directory of before POSIX": header(b"d/", b"\0", magic=V7),
    "a device of before POSIX": header(b"n", b"3", magic=V7, device=b"0000001\x000000003\0"),
    "a device": header(b"n", b"3", device=b"0000001\x000000003\0"),
    "blank device numbers of a file": header(device=b" " * 16),
    "a prefix": header(rest=b"some/where"),
    "a prefix of star": header(rest=b"p".ljust(131, b"\0") + b"00000000000 00000000000 " + bytes(8) + b"tar\0"),
    "times in GNU's form": header(magic=GNU, rest=b"00000000001 00000000002 "),
    "two pax headers": extended(("path", "first")) + extended(("uid", "5")) + header(),
    "one key twice": extended(("path", "one"), ("path", "two")) + header(),
    "pax over ustar": extended(("path", "p"), ("uid", "7"), ("mtime", "1.5"), ("size", "3")) + header(rest=b"pre")
    + padded(b"abc") + header(b"behind"),
    "times before 1970": extended(("mtime", "-1.5")) + header(),
    "times in the year 3000": extended(("mtime", "32503680000.000000001")) + header(),
    "a global comment": extended(("comment", "c"), kind=b"g") + header(),
    "a charset": extended(("hdrcharset", "BINARY"), ("path", "p")) + header(),
    "long names": long(b"n" * 200) + long(b"t" * 300, b"K") + header(b"n" * 100, b"2", 0, b"t" * 100, magic=GNU),
    "two long names": long(b"first") + long(b"second") + header(magic=GNU),
    "the old sparse form": old_sparse(pair(0, 1) + pair(4000, 2), b"xyz"),
    "the old sparse form with more": header(
        b"s", b"S", 5, magic=GNU,
        rest=bytes(41) + b"".join(pair(9 * at, 1) for at in range(4)) + b"\1" + b"00000010000\0",
    ) + pair(100, 1) + bytes(512 - 24) + padded(b"vwxyz") + header(b"behind"),
    "sparse 0.0": extended(*_SPARSE, ("GNU.sparse.offset", "9"), ("GNU.sparse.numbytes", "1")) + header(size=1)
    + padded(b"x"),
    "sparse 0.1": extended(*_SPARSE, ("GNU.sparse.name", "n"), ("GNU.sparse.map", "9,1")) + header(size=1)
    + padded(b"x"),
    "sparse 1.0": extended(*_REAL, ("GNU.sparse.name", "n")) + header(size=513) + padded(_LEAD.encode())
    + padded(b"x"),
}  # fmt: skip


@pytest.mark.parametrize("archive", TAKEN.values(), ids=TAKEN.keys())
def test_what_readers_agree_on_is_read_alike(archive: bytes) -> None:
    assert entries(archive + bytes(1024))
    check_as_go(archive + bytes(1024))


def test_digits_of_a_size() -> None:
    """Twelve digits and no terminator: the last one counts, too, or what follows is a file to some only."""
    (entry,) = entries(header(size=b"000000001000") + _EVIL + bytes(1024))
    assert entry.size == 512


_ODD = st.binary(min_size=8, max_size=8) | st.text("01234567 \0", min_size=8, max_size=8).map(str.encode)
_FIELD = st.just(b"0000644\0") | _ODD | st.integers(0, 0o77777777).map(lambda number: b"%08o" % number)
_FEW = st.integers(0, 1100)
_SIZE = st.one_of(
    _FEW.map(lambda size: b"%011o\0" % size), _FEW.map(lambda size: b"%012o" % size),
    _FEW.map(lambda size: b"%11o " % size), _FEW.map(lambda size: b"\x80" + size.to_bytes(11, "big")),
    st.text("0017 \0", min_size=12, max_size=12).map(str.encode),
)  # fmt: skip
_TIME = _SIZE | st.integers(0, 8**12 - 1).map(lambda time: b"%012o" % time) | st.just(b"\xff" * 12)
_TEXT = st.sampled_from([b"a", b"b/", b"n" * 100, b"d/e", b""])
_SPARSE_KEYS = ["major", "minor", "name", "size", "realsize", "numblocks", "map", "offset", "numbytes"]
_KEY = st.sampled_from(
    ["path", "linkpath", "size", "uid", "gid", "mtime", "atime", "uname", "comment", "SCHILY.xattr.user.a"]
) | st.sampled_from(_SPARSE_KEYS).map("GNU.sparse.{}".format)
_VALUE = st.sampled_from(["", "0", "1", "2", "3", "512", "0,1", "0,1,2,1", "a", "b/", "1.5", "-1.5", "-1", "+1", "\0"])
_REST = st.sampled_from(
    [b"", b"p", b"p" * 155, b"p".ljust(131, b"\0") + b"00000000000 00000000000 " + b"tar\0".rjust(12)]
)
_MAGIC = st.sampled_from([USTAR, USTAR, GNU, V7, b"ustar  1"])


@st.composite
def _member(draw: st.DrawFn) -> bytes:
    """Metadata at times, a header that is odd in a field or two, and content that may look like a header."""
    data = b""
    for _ in range(draw(st.integers(0, 2))):
        data += draw(
            st.one_of(
                st.lists(st.tuples(_KEY, _VALUE), max_size=5).map(lambda records: extended(*records)),
                st.tuples(_KEY, _VALUE).map(lambda pair: extended(pair, kind=b"g")),
                st.sampled_from([long(b"long"), long(b"l/", b"L"), long(b"k", b"K"), long(b"")]),
                st.sampled_from([extended(*_REAL), extended(*_SPARSE, ("GNU.sparse.map", "0,1"))]),
            )
        )
    kind = draw(st.sampled_from(list("000\x00123456756SSLgxX"))).encode()
    plain = {"mode": _FIELD, "uid": _FIELD, "gid": _FIELD, "mtime": _TIME, "rest": _REST}
    chosen = draw(st.sets(st.sampled_from(sorted(plain)), max_size=2))
    fields = {key: draw(plain[key]) for key in chosen}
    if draw(st.integers(0, 9)) == 0:
        fields["device"] = draw(_FIELD) + draw(_FIELD)
    size = draw(_SIZE if draw(st.booleans()) else st.just(b"00000000000\0"))
    if kind == b"S":
        pieces = [pair(at, 1) for at in range(draw(st.integers(0, 4)))]
        more = draw(st.sampled_from([b"\0", b"\1"]))
        fields["rest"] = bytes(41) + b"".join(pieces).ljust(96, b"\0") + more + draw(_SIZE)
        data += header(draw(_TEXT), kind, size, b"t", magic=GNU, **fields)
    else:
        data += header(draw(_TEXT), kind, size, draw(_TEXT), magic=draw(_MAGIC), **fields)
    return data + draw(st.sampled_from([b"", b"", padded(b"x"), padded(_LEAD.encode()) + padded(b"x"), _EVIL]))


_ARCHIVE = st.lists(_member(), min_size=1, max_size=3).map(lambda members: b"".join(members) + bytes(1024))


@settings(max_examples=400, deadline=None)
@given(_ARCHIVE)
def test_any_archive_is_read_as_go_reads_it_or_refused(archive: bytes) -> None:
    check_as_go(archive)


_LINE = re.compile(r'(.)\S+ (-?\d+)/(-?\d+) +(\d+|\d+,\d+) (\S+ \S+) +"((?:[^"\\]|\\.)*)"(?: (?:link to|->) "(.*)")?')
_KINDS = {"-": b"0", "C": b"0", "h": b"1", "l": b"2", "c": b"3", "b": b"4", "d": b"5", "p": b"6"}


def check_as_gnu(archive: bytes) -> None:
    """Raises AssertionError where scow takes an archive and GNU tar lists other things."""
    try:
        found = entries(archive)
    except Corrupt:
        return
    if any(not (0 <= entry.uid < 2**32 - 1 and 0 <= entry.gid < 2**32 - 1) for entry in found):
        return  # refused when it is unpacked
    command = ["tar", "-tv", "--numeric-owner", "--full-time", "--quoting-style=c", "-f", "-"]
    done = subprocess.run(command, input=archive, capture_output=True, env={"TZ": "UTC", "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    lines = [_LINE.fullmatch(line) for line in done.stdout.decode().splitlines()]
    assert len(lines) == len(found), done.stdout
    for entry, line in zip(found, lines, strict=True):
        assert line is not None, done.stdout
        kind, uid, gid, size, when, name, link = line.groups()
        assert (_KINDS[kind], int(uid), int(gid)) == (entry.kind, entry.uid, entry.gid)
        assert name.encode().rstrip(b"/") == entry.name.rstrip(b"/")
        if kind in "lh":
            assert link.encode() == entry.link
        if kind in "cb":
            assert size == f"{entry.device[0]},{entry.device[1]}"
        elif entry.kind == b"0":
            assert int(size) == entry.size
        if entry.mtime >= 0 or not entry.mtime % 10**9:  # GNU tar unpacks others rightly, but lists them a second late
            whole = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=entry.mtime // 10**9)
            assert when.partition(".")[0] == str(whole)


_needs_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="needs the program tar")


@_needs_tar
@pytest.mark.parametrize("archive", TAKEN.values(), ids=TAKEN.keys())
def test_gnu_tar_agrees(archive: bytes) -> None:
    check_as_gnu(archive + bytes(1024))


@_needs_tar
@settings(max_examples=150, deadline=None)
@given(_ARCHIVE)
def test_any_archive_is_read_as_gnu_tar_reads_it_or_refused(archive: bytes) -> None:
    check_as_gnu(archive)

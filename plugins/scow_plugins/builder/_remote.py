"""ADD of a URL: fetched into a file without a name, with its digest. http and https only."""

from __future__ import annotations

import hashlib
import os
import posixpath
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from scow.api import Corrupt, Denied, Exhausted, NotFound, Unavailable

_CHUNK = 1 << 20
_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that came. `fd` is the caller's to close; `mtime` in seconds, 0 when the server doesn't say."""

    url: str
    fd: int
    size: int
    sha256: str
    mtime: int
    name: str

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, from the beginning."""
        at = 0
        while piece := os.pread(self.fd, _CHUNK, at):
            at += len(piece)
            yield piece


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    """A redirect to a file of this machine is no answer."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _keep(fd: int, piece: bytes, url: str) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise Exhausted(f"no room for {url}: {(error.strerror or '').lower()}", hint="make room") from None


def fetch(url: str, directory: Path, check: Callable[[], None]) -> Fetched:
    """Fetch a URL; blocks. Raises NotFound, Denied, Unavailable, Exhausted, Corrupt (cut short)."""
    opener = urllib.request.build_opener(_OnlyHttp())
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with opener.open(urllib.request.Request(url, headers={"User-Agent": "scow"}), timeout=_TIMEOUT) as answer:
            digest, size = hashlib.sha256(), 0
            while piece := answer.read(_CHUNK):
                check()
                digest.update(piece)
                size += len(piece)
                _keep(fd, piece, url)
            stated = answer.headers.get("Content-Length")
            if stated and stated.isdigit() and int(stated) != size:
                raise Corrupt(f"{url}: {size} bytes came of {stated}")
            moment = _moment(answer.headers.get("Last-Modified"))
            return Fetched(url, fd, size, digest.hexdigest(), moment, name_of(url))
    except urllib.error.HTTPError as error:
        os.close(fd)
        if error.code in (401, 403):
            raise Denied(f"{url}: {error.code} {error.reason}") from None
        raise (NotFound if error.code in (404, 410) else Unavailable)(f"{url}: {error.code} {error.reason}") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        os.close(fd)
        reason = getattr(error, "reason", error)
        said = (reason.strerror or str(reason)).lower() if isinstance(reason, OSError) else str(reason)
        raise Unavailable(f"{url} can't be fetched: {said}", hint="check the address and the network") from None
    except BaseException:
        os.close(fd)
        raise


def name_of(url: str) -> str:
    """The file name in a URL; what BuildKit writes where it has none (`http://host/`)."""
    path = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rstrip("/")
    name = posixpath.basename(path)
    return name if name not in ("", ".", "..") else "__unnamed__"


def _moment(text: str | None) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp()) if text else 0
    except (ValueError, TypeError):
        return 0

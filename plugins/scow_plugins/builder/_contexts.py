"""Contexts that are no directories: archives on standard input, URLs, git repositories. They become directories.

Each lies in a directory of the build's own, which goes with the build. What an archive holds stays in it: it is
unpacked by the code that unpacks layers.
"""

from __future__ import annotations

import itertools
import os
import select
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from scow.api import Corrupt, Invalid, NotFound, ScowError
from scow.api.layers import Extractor, Limits, TarReader, Tree
from scow.api.linux import read_beneath
from scow.engine.builders import BuildRequest
from scow.engine.building import Workbench
from scow_plugins.builder import _archive, _remote
from scow_plugins.builder._git import Git, inside
from scow_plugins.builder._gitref import GitRef, is_git, parse_git

_CHUNK: Final = 1 << 20
#: The longest Dockerfile that is read where the sender decides on its length.
_FILE_MAX: Final = 16 << 20
#: How long a read is waited for before somebody looks whether to go on, in milliseconds.
_GLANCE: Final = 200
_DEFAULT: Final = ("Dockerfile", "dockerfile")
_TRUE: Final = ("1", "true", "yes", "on")


def is_remote(text: str) -> bool:
    """Whether a context's name is a URL or a git repository, and no directory."""
    return is_git(text) or text.lower().startswith(("http://", "https://"))


@asynccontextmanager
async def prepared(bench: Workbench, request: BuildRequest) -> AsyncIterator[BuildRequest]:
    """The request with its file read, and with directories for all contexts that aren't images.

    Raises NotFound, Invalid, Corrupt, Denied, Unavailable, Exhausted, Unsupported.
    """
    async with AsyncExitStack() as stack:
        request = replace(request, own_file=request.file is not None or request.context is not None)
        if request.stream is not None:
            request = await _from_stream(stack, bench, request, request.stream)
        elif request.remote:
            request = await _from_remote(stack, bench, request)
        contexts = dict(request.contexts)
        for name, place in contexts.items():
            if is_remote(place):
                contexts[name] = str(await _directory_of(stack, bench, request, place))
        request = replace(request, contexts=contexts, stream=None, remote="")
        # Not in a thread, which would be a tenth of a build that changes nothing: these are short regular files.
        yield _with_file(request)


async def _from_stream(stack: AsyncExitStack, bench: Workbench, request: BuildRequest, fd: int) -> BuildRequest:
    """Standard input: an archive with everything in it, or a Dockerfile alone."""
    head = await trio.to_thread.run_sync(_head, fd)
    if not _archive.looks_like_archive(head):
        if request.file_name:
            raise Invalid(
                f"there is no context that could hold the file {request.file_name}",
                hint="with `-`, standard input is an archive, or the Dockerfile itself",
            )
        rest = await trio.to_thread.run_sync(_rest, fd)
        return replace(request, file=_checked(head + rest, "standard input"), file_name="Dockerfile", own_file=True)
    place = await stack.enter_async_context(bench.directory())
    await trio.to_thread.run_sync(_unpack, itertools.chain([head], _reading(fd)), place, "standard input")
    return replace(request, context=place)


async def _from_remote(stack: AsyncExitStack, bench: Workbench, request: BuildRequest) -> BuildRequest:
    if is_git(request.remote):
        return replace(request, context=await _clone(stack, bench, request, request.remote))
    fetched = await _fetched(stack, bench, request.remote)
    if _archive.looks_like_archive(next(fetched.pieces(), b"")):
        return replace(request, context=await _unpacked(stack, bench, fetched))
    if request.file is not None or request.file_name:
        raise Invalid(f"{request.remote} is no archive, so that it can't be a context")
    data = next(fetched.pieces(), b"") if fetched.size <= _CHUNK else b"".join(fetched.pieces())
    return replace(request, file=_checked(data, request.remote), file_name=fetched.name or "Dockerfile")


async def _directory_of(stack: AsyncExitStack, bench: Workbench, request: BuildRequest, place: str) -> Path:
    """A named context."""
    if is_git(place):
        return await _clone(stack, bench, request, place)
    return await _unpacked(stack, bench, await _fetched(stack, bench, place))


async def _clone(stack: AsyncExitStack, bench: Workbench, request: BuildRequest, text: str) -> Path:
    source = parse_git(text)
    keep = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "").lower() in _TRUE
    place, _ = await cloned(stack, bench, request, source, keep=keep if source.keep is None else source.keep)
    return place


async def cloned(
    stack: AsyncExitStack, bench: Workbench, request: BuildRequest, source: GitRef, *, keep: bool, commit: str = ""
) -> tuple[Path, str]:
    """A repository's directory for as long as `stack` lives, and its commit; `commit`: it must be that one."""
    place = await stack.enter_async_context(bench.directory())
    git = Git(source, place, request.secrets.get, agent=request.agents.get("default", ""))
    name, found = await git.resolve()
    if commit and found != commit:
        raise Corrupt(f"{source.shown}: {name} has moved from {commit} to {found} during the build")
    tree = await git.checkout(name, found, keep=keep)
    return inside(tree, source.subdir, source.shown), found


async def commit_of(bench: Workbench, request: BuildRequest, source: GitRef) -> str:
    """The commit that a reference means now; nobody is asked when it says so itself."""
    async with bench.directory() as place:
        git = Git(source, place, request.secrets.get, agent=request.agents.get("default", ""))
        return (await git.resolve())[1]


async def _fetched(stack: AsyncExitStack, bench: Workbench, url: str) -> _remote.Fetched:
    fetched = await trio.to_thread.run_sync(_remote.fetch, url, bench.state_dir, trio.from_thread.check_cancelled)
    stack.callback(os.close, fetched.fd)
    return fetched


async def _unpacked(stack: AsyncExitStack, bench: Workbench, fetched: _remote.Fetched) -> Path:
    place = await stack.enter_async_context(bench.directory())
    await trio.to_thread.run_sync(_unpack, fetched.pieces(), place, fetched.url)
    return place


class _Files(Extractor):
    """A context's files are files, also those whose names would mean a removal in a layer."""

    def _is_whiteout(self, directory: bytes, name: bytes) -> bool:
        return False


def _unpack(pieces: Iterator[bytes], place: Path, shown: str) -> None:
    """Put an archive's entries beneath a directory, and nowhere else. Blocks. Raises Corrupt, Invalid, Exhausted."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = Tree(fd, None)
    try:
        extractor = _Files(tree, Limits())
        reader = TarReader(_checking(_archive.opened(pieces)))
        for entry in reader:
            extractor.add(entry, reader.data)
        reader.drain()
        extractor.seal()
    except ScowError as error:
        raise type(error)(f"the context of {shown}: {error.message}", hint=error.hint) from None
    except _archive.BROKEN as error:
        raise Corrupt(f"the context of {shown} can't be read: {error}") from None
    finally:
        tree.close()
        os.close(fd)


def _checking(chunks: Iterator[bytes]) -> Callable[[], bytes]:
    def chunk() -> bytes:
        trio.from_thread.check_cancelled()
        return next(chunks, b"")

    return chunk


def _reading(fd: int) -> Iterator[bytes]:
    """What comes from a descriptor; whoever sends nothing for a while doesn't keep us from being stopped."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        trio.from_thread.check_cancelled()
        if poll.poll(_GLANCE):
            piece = os.read(fd, _CHUNK)
            if not piece:
                return
            yield piece


def _head(fd: int) -> bytes:
    """Enough to see what it is."""
    head = b""
    for piece in _reading(fd):
        head += piece
        if len(head) >= _archive.BLOCK:
            break
    return head


def _rest(fd: int) -> bytes:
    found, size = [], 0
    for piece in _reading(fd):
        found.append(piece)
        size += len(piece)
        if size >= _FILE_MAX:
            break
    return b"".join(found)


def _checked(data: bytes, shown: str) -> bytes:
    if len(data) >= _FILE_MAX:
        raise Invalid(f"{shown} is neither an archive nor a Dockerfile: it is too long")
    return data


def _with_file(request: BuildRequest) -> BuildRequest:
    """The Dockerfile and its ignore file, read out of a context that a stranger may have filled."""
    if request.file is not None and (request.ignore is not None or request.context is None):
        return request
    assert request.context is not None
    root = os.open(request.context, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if request.file is not None:
            return replace(request, ignore=_read(root, ".dockerignore") or b"")
        for name in (request.file_name,) if request.file_name else _DEFAULT:
            data = _read(root, name)
            if data is not None:
                break
        else:
            shown = request.file_name or _DEFAULT[0]
            raise NotFound(
                f"failed to read dockerfile: {shown} is not in the context", hint="name it with -f: its path in there"
            )
        ignore = _read(root, f"{name}.dockerignore")
        if ignore is None:
            ignore = _read(root, ".dockerignore") or b""
        return replace(request, file=data, file_name=name, ignore=ignore)
    finally:
        os.close(root)


def _read(root: int, name: str) -> bytes | None:
    """A regular file of a context, whose links end at its root; None where there is none. Raises Invalid."""
    try:
        data = read_beneath(root, name, _FILE_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Invalid(f"{name} in the context can't be read: {error.strerror}") from None
    if len(data) > _FILE_MAX:
        raise Invalid(f"{name} in the context is larger than {_FILE_MAX >> 20} MiB")
    return data


def ignore_of(place: Path) -> bytes:
    """The ignore file of a directory that is a context; empty where there is none. Raises Invalid."""
    root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _read(root, ".dockerignore") or b""
    finally:
        os.close(root)

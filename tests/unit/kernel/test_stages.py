"""The typed calls to the hooks: contracts, errors, events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from scow.api import Descriptor, Digest, MountRequest, Reference, Source, parse_named
from scow.errors import Conflict, Corrupt, Denied, Internal, NotFound, ScowError, Unavailable, Unsupported
from scow.events import EventLog
from scow.model.platform import Platform
from scow.model.storage import UnpackRequest
from scow.stages import Stages

from .conftest import Toy

Build = Callable[..., tuple[Stages, EventLog]]
NAME: Reference = parse_named("nginx")
DIGEST = Digest.of(b"x")
LAYER = Descriptor("t", DIGEST, 1)


def request(driver: str = "a") -> MountRequest:
    return MountRequest(driver, "c1", (), Path("/nowhere"), cast(Any, None))


def outcomes(events: EventLog) -> list[tuple[str, str, str]]:
    ends = [event for event in events.past() if event.attributes.get("phase") == "end"]
    return [(event.action, event.attributes["plugin"], event.attributes["outcome"]) for event in ends]


def resolves(body: str) -> str:
    return f"""
class Plugin(Base):
    @hookimpl
    def resolve(self, reference, platform):
        async def run():
            await trio.lowlevel.checkpoint()
            {body}
        return run
"""


GOOD = resolves(
    "return Resolved(reference, Document(Descriptor('m', Digest.of(b'x'), 1), b'x'), Source('b', self.context.name))"
)


async def resolve(stages: Stages) -> str:
    return (await stages.resolve(NAME, Platform("linux", "amd64"))).source.location


@pytest.mark.parametrize("miss", ["NotFound('x')", "Unavailable('x')"])
async def test_misses_pass_on(toy: Toy, stages_of: Build, miss: str) -> None:
    stages, events = stages_of(toy("a", "resolve", resolves(f"raise {miss}")) + toy("b", "resolve", GOOD))
    assert await resolve(stages) == "b"
    assert [outcome[:2] for outcome in outcomes(events)] == [("resolve", "a"), ("resolve", "b")]
    assert outcomes(events)[1][2] == "ok"


@pytest.mark.parametrize("error", [Denied, Corrupt, Unsupported, Conflict])
async def test_other_errors_stop(toy: Toy, stages_of: Build, error: type[ScowError]) -> None:
    raising = resolves(f"raise {error.__name__}('x')")
    stages, events = stages_of(toy("a", "resolve", raising) + toy("b", "resolve", GOOD))
    with pytest.raises(error):
        await resolve(stages)
    assert outcomes(events) == [("resolve", "a", error.kind.value)]


async def test_of_several_misses_an_outage_says_most(toy: Toy, stages_of: Build) -> None:
    missing, away = resolves("raise NotFound('m')"), resolves("raise Unavailable('u')")
    stages, _ = stages_of(toy("a", "resolve", missing) + toy("b", "resolve", away))
    with pytest.raises(Unavailable):
        await resolve(stages)
    stages, _ = stages_of(toy("a", "resolve", missing) + toy("b", "resolve", missing))
    with pytest.raises(NotFound):
        await resolve(stages)


async def test_nobody_claims(toy: Toy, stages_of: Build) -> None:
    declines = "class Plugin(Base):\n    @hookimpl\n    def resolve(self, reference, platform): return None"
    stages, _ = stages_of(toy("a", "resolve", declines))
    with pytest.raises(Unsupported) as caught:
        await resolve(stages)
    assert "asked: a" in str(caught.value.hint)
    with pytest.raises(Unsupported) as caught:
        await stages.fetch(Source("x", "there"), LAYER, cast(Any, None))
    assert "nobody" in str(caught.value.hint)


@pytest.mark.parametrize("body", ["return 3", "return None"])
async def test_wrong_results_are_the_plugins_fault(toy: Toy, stages_of: Build, body: str) -> None:
    stages, _ = stages_of(toy("a", "resolve", resolves(body)))
    with pytest.raises(Internal, match="plugin a broke its contract"):
        await resolve(stages)


@pytest.mark.parametrize("gives", ["3", "'text'"])
async def test_wrong_claims_are_the_plugins_fault(toy: Toy, stages_of: Build, gives: str) -> None:
    names = ("mount(self, request)", "unpack(self, request)", "resolve(self, reference, platform)")
    body = "".join(f"    @hookimpl\n    def {name}: return {gives}\n" for name in names)
    stages, _ = stages_of(toy("a", "resolve unpack mount", "class Plugin(Base):\n" + body))
    with pytest.raises(Internal, match="plugin a broke its contract"):
        await resolve(stages)
    with pytest.raises(Internal, match="plugin a broke its contract"):
        await stages.unpack(UnpackRequest("a", LAYER, DIGEST, DIGEST, (), cast(Any, None)))
    with pytest.raises(Internal, match="plugin a broke its contract"):
        async with stages.mount(request()):
            pass


@pytest.mark.parametrize("body", ["raise KeyError('k')", "raise ExceptionGroup('g', [KeyError('k')])"])
async def test_foreign_errors_are_wrapped(toy: Toy, stages_of: Build, body: str) -> None:
    stages, events = stages_of(toy("a", "resolve", resolves(body)) + toy("b", "resolve", GOOD))
    with pytest.raises(Internal, match="'a' failed in resolve") as caught:
        await resolve(stages)
    assert caught.value.__cause__ is not None
    assert outcomes(events) == [("resolve", "a", "internal")]


async def test_a_nurserys_group_is_opened(toy: Toy, stages_of: Build) -> None:
    stages, _ = stages_of(toy("a", "resolve", resolves("raise ExceptionGroup('g', [KeyError(), Denied('d')])")))
    with pytest.raises(Denied):
        await resolve(stages)


async def test_a_claim_that_raises_is_wrapped(toy: Toy, stages_of: Build) -> None:
    source = "class Plugin(Base):\n    @hookimpl\n    def mount(self, request): raise KeyError('k')"
    stages, _ = stages_of(toy("a", "mount", source))
    with pytest.raises(Internal, match="'a' failed in mount"):
        async with stages.mount(request()):
            pass


async def test_cancellation_is_untouched(toy: Toy, stages_of: Build) -> None:
    stages, events = stages_of(toy("a", "resolve", resolves("await trio.sleep_forever()")))
    with trio.move_on_after(0.01) as scope:
        await resolve(stages)
    assert scope.cancelled_caught
    assert outcomes(events) == [("resolve", "a", "cancelled")]


def holds(entering: str = "pass", leaving: str = "pass", gives: str = "Rootfs('a', 7)") -> str:
    return f"""
log = []
@asynccontextmanager
async def held():
    log.append("enter")
    {entering}
    try:
        yield {gives}
    finally:
        {leaving}
        log.append("leave")
class Plugin(Base):
    log = log
    @hookimpl
    def mount(self, request): return held() if request.driver == self.context.name else None
"""


async def test_held(toy: Toy, stages_of: Build) -> None:
    stages, events = stages_of(toy("a", "mount", holds()))
    async with stages.mount(request()) as rootfs:
        assert rootfs.fd == 7
        assert outcomes(events) == [("mount", "a", "ok")]
    assert outcomes(events) == [("mount", "a", "ok"), ("unmount", "a", "ok")]
    assert all(event.id == "c1" for event in events.past())


async def test_no_such_driver(toy: Toy, stages_of: Build) -> None:
    stages, _ = stages_of(toy("a", "mount", holds()))
    with pytest.raises(Unsupported, match="'b'"):
        async with stages.mount(request("b")):
            pass


async def test_wrong_value_is_released_and_named(toy: Toy, stages_of: Build) -> None:
    found = toy("a", "mount", holds(gives="3"))
    stages, _ = stages_of(found)
    with pytest.raises(Internal, match="plugin a broke its contract: mount gave int"):
        async with stages.mount(request()):
            pass
    assert found[0].load().log == ["enter", "leave"]  # type: ignore[attr-defined]


class Own(Exception):
    """The body's."""


@pytest.mark.parametrize(
    "error",
    [Own("x"), NotFound("x"), ExceptionGroup("g", [Own("x")]), ExceptionGroup("g", [NotFound("x"), Own("y")]),
     BaseExceptionGroup("g", [KeyboardInterrupt(), Own("x")]), KeyboardInterrupt()],
)  # fmt: skip
async def test_the_bodys_errors_are_its_own(toy: Toy, stages_of: Build, error: BaseException) -> None:
    stages, _ = stages_of(toy("a", "mount", holds()))
    with pytest.raises(type(error)) as caught:
        async with stages.mount(request()):
            raise error
    assert caught.value is error


@pytest.mark.parametrize(("entering", "leaving"), [("raise KeyError('k')", "pass"), ("pass", "raise KeyError('k')")])
async def test_failures_on_the_way_in_and_out(toy: Toy, stages_of: Build, entering: str, leaving: str) -> None:
    stages, _ = stages_of(toy("a", "mount", holds(entering, leaving)))
    with pytest.raises(Internal, match="'a' failed in mount"):
        async with stages.mount(request()):
            pass


async def test_failure_to_leave_after_the_bodys_error(toy: Toy, stages_of: Build) -> None:
    stages, _ = stages_of(toy("a", "mount", holds(leaving="raise KeyError('k')")))
    with pytest.raises(Internal, match="'a' failed in mount"):
        async with stages.mount(request()):
            raise Own("x")


async def test_cancelled_body_leaves(toy: Toy, stages_of: Build) -> None:
    found = toy("a", "mount", holds())
    stages, _ = stages_of(found)
    with trio.move_on_after(0.01) as scope:
        async with stages.mount(request()):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert found[0].load().log == ["enter", "leave"]  # type: ignore[attr-defined]


async def test_wrappers_see_what_has_not_started(toy: Toy, stages_of: Build) -> None:
    wraps = """
    @asynccontextmanager
    async def around(inner):
        async with inner as rootfs:
            yield Rootfs("wrapped", rootfs.fd + 1)
    class Plugin(Base):
        @hookimpl(wrapper=True)
        def mount(self, request):
            inner = yield
            return inner and around(inner)
    """
    stages, _ = stages_of(toy("a", "mount", holds()) + toy("w", "mount", wraps))
    async with stages.mount(request()) as rootfs:
        assert (rootfs.driver, rootfs.fd) == ("wrapped", 8)


async def test_two_engines_do_not_meet(toy: Toy, stages_of: Build) -> None:
    found = toy("a", "resolve", GOOD.replace("self.context.name", "str(id(self))"))
    (one, _), (two, _) = stages_of(found), stages_of(found)
    assert await resolve(one) != await resolve(two)

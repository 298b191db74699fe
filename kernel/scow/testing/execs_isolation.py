"""Checks of runtimes: what a container sees, what it may do, and that an image can't reach the host by it."""

from __future__ import annotations

import os
import signal
import struct
from fcntl import ioctl
from pathlib import Path
from termios import TIOCGWINSZ

import trio

from scow.errors import Denied, Internal, Invalid, NotFound, ScowError
from scow.model.network import Endpoint
from scow.model.process import BindMount, Isolation, ProcessSpec, TmpfsMount
from scow.sys.namespaces import new_netns
from scow.testing.execs import Bench, status_of

__all__ = ["CHECKS"]


async def check_sees_only_itself(bench: Bench) -> None:
    """A hostname of its own, one process in /proc, and cgroups whose root is its own."""
    outcome = await bench.shell("hostname; echo /proc/[0-9]*; cat /proc/self/cgroup")
    host, processes, *groups = outcome.out.split("\n")
    assert (host, processes) == ("vessel", "/proc/1"), outcome
    assert {line.split(":", 2)[2] for line in groups if line} <= {"/"}, outcome


async def check_nothing_of_the_host_comes_along(bench: Bench) -> None:
    """Seen from outside: three descriptors, default signals, its own program, no links to the host's root."""
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    extra = os.open("/", os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        async with bench.running(ProcessSpec(("sleep", "60"))) as process:
            status, proc = status_of(process), f"/proc/{process.pid}"
            assert sorted(os.listdir(f"{proc}/fd")) == ["0", "1", "2"]
            assert {status[name].strip("0") for name in ("SigIgn", "SigBlk", "SigCgt", "SigPnd", "ShdPnd")} == {""}
            assert os.readlink(f"{proc}/exe").endswith("/bin/busybox")
            assert status["NSpid"].split()[1:] == ["1"], status
            assert os.stat(f"{proc}/root").st_ino == os.stat(bench.root).st_ino
            assert status["Umask"] == "0022"
            assert status["NSsid"].split()[1:] == ["1"]
            children = Path(f"{proc}/task/{process.pid}/children").read_text()
            assert children == "", "somebody else lives in the container"
    finally:
        signal.signal(signal.SIGUSR2, before)
        os.close(extra)


async def check_lives_in_the_network_given(bench: Bench) -> None:
    """Its interfaces and its sysctls are those of the endpoint's network namespace."""
    netns = new_netns()
    try:
        endpoint = Endpoint("test", netns)
        isolation = Isolation("x", sysctls=(("net.ipv4.ip_forward", "1"), ("kernel.msgmax", "4096")))
        async with bench.running(ProcessSpec(("sleep", "60")), endpoint=endpoint, isolation=isolation) as container:
            files = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax")
            outcome = await bench.inside(container, "cat", *files)
            assert outcome.out == "1\n4096\n", outcome
            outcome = await bench.inside(container, "ls", "/sys/class/net", "/proc/sys/net/ipv4/conf")
            assert outcome.out.split("\n\n")[0].split()[1:] in (["lo"], ["all", "default", "lo"]), outcome
            assert os.stat(f"/proc/{container.pid}/ns/net").st_ino == os.fstat(netns).st_ino
    finally:
        os.close(netns)


async def check_capabilities_are_dockers(bench: Bench) -> None:
    """Fourteen in effect and permitted, none to inherit; another user has none; seccomp filters both."""
    docker = 0xA80425FB
    for user, expected in (("", docker), ("boat", 0)):
        async with bench.running(ProcessSpec(("sleep", "60"), user=user)) as process:
            status = status_of(process)
            sets = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
            have = _bounding()
            assert sets["CapBnd"] == docker & have, status
            assert sets["CapPrm"] == sets["CapEff"] == expected & have, status
            assert sets["CapInh"] == sets["CapAmb"] == 0, status
            assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "0"), status


async def check_capabilities_are_added_and_dropped(bench: Bench) -> None:
    """--cap-drop ALL leaves none, --cap-add gives one, --privileged all that we have and no filter."""
    for isolation, expected, seccomp in (
        (Isolation("x", cap_drop=("ALL",)), 0, "2"),
        (Isolation("x", cap_drop=("all",), cap_add=("net_admin",)), 1 << 12, "2"),
        (Isolation("x", cap_add=("CAP_SYS_TIME",)), 0xA80425FB | 1 << 25, "2"),
        (Isolation("x", privileged=True), _bounding(), "0"),
        (Isolation("x", seccomp="unconfined"), 0xA80425FB, "0"),
    ):
        async with bench.running(ProcessSpec(("sleep", "60")), isolation=isolation) as process:
            status = status_of(process)
            assert int(status["CapEff"], 16) == expected & _bounding(), (isolation, status)
            assert status["Seccomp"] == seccomp, (isolation, status)
    async with bench.running(ProcessSpec(("sleep", "60")), isolation=Isolation("x", no_new_privileges=True)) as process:
        assert status_of(process)["NoNewPrivs"] == "1"


def _bounding() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    return int(line.split()[1], 16)


async def check_the_filter_says_no(bench: Bench) -> None:
    """mount(2) and unshare(2) are refused even where capabilities wouldn't."""
    outcome = await bench.shell("mount -t tmpfs none /tmp; echo $?")
    assert "Operation not permitted" in outcome.err or "permission denied" in outcome.err, outcome
    assert outcome.out != "0\n", outcome


async def check_devices_are_the_ordinary_ones(bench: Bench) -> None:
    """The nodes and links of the OCI runtime spec; other devices can be made but not opened."""
    script = "cd /dev; for n in null zero full random urandom tty fd stdin stdout stderr ptmx shm mqueue pts; do "
    script += "test -e $n -o -h $n || echo missing $n; done; echo x > null; head -c 3 zero | wc -c; "
    script += "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem; mknod /tmp/kmsg c 1 11; head -c 1 /tmp/kmsg"
    outcome = await bench.shell(script)
    assert outcome.out.strip() == "3", outcome
    assert outcome.err.count("Operation not permitted") >= 2, outcome


async def check_kernel_files_are_masked(bench: Bench) -> None:
    """Docker's lists of masked and read-only places."""
    outcome = await bench.shell(
        "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware"
    )
    assert outcome.out.strip() == "0", outcome
    script = "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/uevent_helper; do echo x > $f; done"
    script += "; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x; cat /proc/sys/kernel/hostname"
    outcome = await bench.shell(script)
    assert outcome.out == "vessel\n", outcome
    assert "Read-only file system" in outcome.err, outcome


async def check_hostile_links_stay_inside(bench: Bench) -> None:
    """/dev, /etc and targets of mounts that are links to the host's directories touch nothing of the host's."""
    victim = bench.directory / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "file").write_text("safe")
    before = _listing(victim)
    up = "../" * 40
    for name in ("dev", "etc"):
        for path in sorted((bench.root / name).rglob("*"), reverse=True):
            path.unlink()
        (bench.root / name).rmdir()
        (bench.root / name).symlink_to(f"{up}{str(victim).lstrip('/')}")
    (bench.root / "data").symlink_to(f"/proc/1/root{victim}/sub")
    hosts = bench.directory / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    etc = ((str(hosts), "/etc/hosts"), (str(hosts), "/etc/file"))
    mounts = (TmpfsMount("/link/t"), BindMount(str(hosts), "/link/new"))
    (bench.root / "link").symlink_to(victim)
    isolation = Isolation("x", mounts=mounts)
    async with bench.running(ProcessSpec(("/bin/sleep", "60")), isolation=isolation, etc=etc) as process:
        outcome = await bench.inside(process, "/bin/cat", "/etc/hosts")
        assert outcome.out == "127.0.0.1 localhost\n", outcome
    assert _listing(victim) == before
    try:
        async with bench.running(ProcessSpec(("true",)), isolation=Isolation("x", mounts=(TmpfsMount("/data/x"),))):
            pass
    except ScowError:
        pass
    assert _listing(victim) == before
    assert bench.leftovers() == []


async def check_links_for_proc_and_sys_are_refused(bench: Bench) -> None:
    """A link where the kernel's own files go is an error that names it."""
    for name in ("proc", "sys"):
        (bench.root / name).rmdir()
        (bench.root / name).symlink_to("tmp")
        try:
            await bench.run("true")
        except Invalid as error:
            assert f"/{name}" in str(error)
        else:
            raise AssertionError(name)
        (bench.root / name).unlink()
        (bench.root / name).mkdir()
    assert bench.leftovers() == []


def _listing(directory: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in (directory, *directory.rglob("*")))


async def check_the_interpreter_is_out_of_reach(bench: Bench) -> None:
    """A command, or its #! line, that is /proc/self/exe doesn't get the program of whoever starts containers."""
    for name, make in (
        ("direct", lambda path: path.symlink_to("/proc/self/exe")),
        ("script", lambda path: (path.write_text("#!/proc/self/exe\n"), path.chmod(0o755))),
    ):
        make(bench.root / "bin" / name)
        with trio.fail_after(10):
            try:
                outcome = await bench.run(name, "-c", "print('python runs')")
            except ScowError:
                continue
            assert outcome.status.code != 0, (name, outcome)
            assert "python" not in outcome.out.lower() + outcome.err.lower(), (name, outcome)


async def check_shows_the_engines_files(bench: Bench) -> None:
    """/etc/hosts and the like lie over the image, also where the image has a dangling link or nothing."""
    content = bench.directory / "content"
    content.write_text("from outside\n")
    (bench.root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    etc = tuple((str(content), f"/etc/{name}") for name in ("resolv.conf", "hosts", "hostname"))
    async with bench.running(ProcessSpec(("sleep", "60")), etc=etc) as container:
        outcome = await bench.inside(container, "cat", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
        assert outcome.out == "from outside\n" * 3, outcome
    assert (bench.root / "run/systemd/resolve/stub-resolv.conf").read_text() == ""


async def check_files_of_the_engine_are_copies(bench: Bench) -> None:
    """What a container writes to /etc/hosts changes nothing of the host's, and has an end; a read-only one can't."""
    content = bench.directory / "content"
    content.write_text("from outside\n")
    etc = tuple((str(content), f"/etc/{name}") for name in ("resolv.conf", "hosts", "hostname"))
    script = "dd if=/dev/zero of=/etc/hosts bs=1M count=64; chmod 600 /etc/hosts; chown 5 /etc/hosts; cat /etc/hostname"
    async with bench.running(ProcessSpec(("sleep", "60")), etc=etc) as container:
        outcome = await bench.inside(container, "sh", "-c", f"echo more >> /etc/hosts && {script}")
        assert outcome.out == "from outside\n", outcome
        assert "No space left" in outcome.err, outcome
    isolation = Isolation("x", read_only=True)
    async with bench.running(ProcessSpec(("sleep", "60")), etc=etc, isolation=isolation) as container:
        script = "for f in hosts hostname resolv.conf; do echo more >> /etc/$f; chmod 600 /etc/$f; done"
        outcome = await bench.inside(container, "sh", "-c", script)
        assert outcome.err.count("Read-only file system") == 6, outcome
    assert content.read_text() == "from outside\n"
    assert (content.stat().st_mode & 0o777, content.stat().st_uid) == (0o644, os.getuid())


async def check_links_into_the_kernels_files_are_refused(bench: Bench) -> None:
    """Mounts and files of the engine that an image's link would put into /proc or /sys."""
    content = bench.directory / "content"
    content.write_text("from outside\n")
    for link, to in (("p", "/proc"), ("s", "/sys"), ("k", "/proc/sys/kernel"), ("g", "sys/fs/cgroup")):
        (bench.root / link).symlink_to(to)
    (bench.root / "etc/hosts").symlink_to("../proc/sys/kernel/core_pattern")
    file, directory = str(content), str(bench.directory)
    names = ("/p", "/p/sys", "/s", "/s/kernel", "/s/new", "/k", "/g", "/g/new", "/p/new")
    mounts = [mount for name in names for mount in (TmpfsMount(name), BindMount(directory, name))]
    mounts += (BindMount(file, name) for name in ("/p/version", "/p/new", "/k/hostname", "/s/new"))
    for mount in mounts:
        await _refused(bench, Isolation("x", mounts=(mount,)))
    await _refused(bench, Isolation("x"), etc=((file, "/etc/hosts"),))
    assert Path("/proc/sys/kernel/core_pattern").read_text() != "from outside\n"
    # Whoever names /sys himself is served.
    outcome = await bench.run("ls", "-A", "/sys/fs", isolation=Isolation("x", mounts=(TmpfsMount("/sys/fs"),)))
    assert outcome.out == "", outcome


async def check_a_hostile_image_is_no_bug(bench: Bench) -> None:
    """Loops, files in place of directories, names too long: errors that say what is wrong with the image."""
    content = bench.directory / "content"
    content.write_text("from outside\n")
    (bench.root / "loop").symlink_to("loop")
    (bench.root / "file").write_text("")
    (bench.root / "long").symlink_to("x" * 300)
    (bench.root / "magic").symlink_to("/proc/self/root/tmp")
    file, directory = str(content), str(bench.directory)
    for place in ("/loop", "/loop/x", "/file/x", "/long", "/long/x", "/magic/x", "/" + "y" * 256, "/z" * 2048):
        for mount in (TmpfsMount(place), BindMount(file, place), BindMount(directory, place)):
            await _refused(bench, Isolation("x", mounts=(mount,)))
        await _refused(bench, Isolation("x"), etc=((file, place),))
        await _refused(bench, Isolation("x"), cwd=place)
        await _refused(bench, Isolation("x"), command=place)
    for name in ("etc", "dev"):
        for path in sorted((bench.root / name).rglob("*"), reverse=True):
            path.unlink()
        (bench.root / name).rmdir()
        for to in ("loop", "file", "long", "/proc/self/root/tmp"):
            (bench.root / name).symlink_to(to)
            await _refused(bench, Isolation("x"), etc=((file, "/etc/hosts"),))
            (bench.root / name).unlink()


async def _refused(
    bench: Bench,
    isolation: Isolation,
    *,
    etc: tuple[tuple[str, str], ...] = (),
    cwd: str = "/",
    command: str = "/bin/true",
) -> None:
    """By an error that a user can act on, and not by a word of missing rights."""
    asked = (isolation.mounts, etc, cwd, command)
    try:
        async with bench.running(ProcessSpec((command,), cwd=cwd), isolation=isolation, etc=etc) as process:
            await process.wait()
    except ScowError as error:
        assert not isinstance(error, Internal | Denied), (asked, error)
    else:
        raise AssertionError(asked)


async def check_mounts_are_as_asked(bench: Bench) -> None:
    """Binds of directories and files, read-only to the last sub-mount, memory file systems, a read-only root."""
    source = bench.directory / "source"
    source.mkdir()
    (source / "file").write_text("content\n")
    mounts = (
        BindMount(str(source), "/data/deep/here"),
        BindMount(str(source), "/fixed", read_only=True),
        BindMount(str(source / "file"), "/one", read_only=True),
        BindMount("/dev", "/hostdev", read_only=True),
        TmpfsMount("/scratch", size=1 << 20),
    )
    script = (
        "cat /data/deep/here/file /fixed/file /one; echo 1 > /data/deep/here/new; echo 2 > /fixed/new; echo 3 > /one;"
    )
    script += "touch /hostdev/shm/x /new; "
    script += "touch /scratch/y && dd if=/dev/zero of=/scratch/big bs=1M count=3; stat -c %a /scratch"
    outcome = await bench.shell(script, Isolation("x", mounts=mounts, read_only=True))
    assert outcome.out == "content\n" * 3 + "1777\n", outcome
    assert (source / "new").read_text() == "1\n"
    assert outcome.err.count("Read-only file system") == 4, outcome
    assert "No space left" in outcome.err, outcome
    try:
        await bench.shell("true", Isolation("x", mounts=(BindMount(f"{source}/nothing", "/x"),)))
    except NotFound as error:
        assert "bind source path does not exist" in str(error)
    else:
        raise AssertionError("mounted nothing")
    for target in ("/", "relative", "/proc/sys", "/etc/passwd/x"):
        try:
            await bench.shell("true", Isolation("x", mounts=(BindMount(str(source), target),)))
        except ScowError:
            pass
        else:
            raise AssertionError(target)
    assert bench.leftovers() == []


async def check_memory_file_systems_are_as_asked(bench: Bench) -> None:
    """Owner, mode, programs in it, files at most; what the kernel refuses is the request's fault."""
    own = (("uid", "7"), ("gid", "8"), ("nr_inodes", "5"), ("size", "50%"))
    mount = TmpfsMount("/t", mode=0o710, options=own, flags=("exec", "noatime"))
    script = (
        "stat -c %u:%g:%a /t; cp /bin/busybox /t/true; /t/true && echo runs; grep -c ' /t .*noatime' /proc/mounts; "
    )
    outcome = await bench.shell(script + "touch /t/1 /t/2 /t/3 /t/4 /t/5", Isolation("x", mounts=(mount,)))
    assert outcome.out == "7:8:710\nruns\n1\n", outcome
    assert "No space left" in outcome.err, outcome
    for wrong in (("size", "500%%"), ("huge", "perhaps"), ("nr_inodes", "many")):
        await _refused(bench, Isolation("x", mounts=(TmpfsMount("/t", options=(wrong,)),)))


async def check_nothing_is_masked_where_that_was_asked_for(bench: Bench) -> None:
    """systempaths=unconfined: /proc as the kernel shows it, with what capabilities still refuse."""
    file = "/proc/sys/kernel/msgmax"
    script = f"grep -c ' /proc/' /proc/mounts; cat {file} > {file} && echo wrote"
    outcome = await bench.shell(script, Isolation("x", unmasked=True))
    assert outcome.out == "0\nwrote\n", outcome


async def check_terminal(bench: Bench) -> None:
    """A terminal of the container's own devpts, of the size asked for, resized later, with job control."""
    script = "test -t 0 && test -t 1 && stty size && ls /dev/pts && stat -c %t:%T /dev/console && tty; "
    script += "read x; stty size; echo $TERM"
    async with bench.running(ProcessSpec(("sh", "-c", script), tty=True, rows=31, columns=97)) as process:
        console = process.console
        assert console is not None
        assert struct.unpack("HHHH", ioctl(console, TIOCGWINSZ, bytes(8)))[:2] == (31, 97)
        text = await _read_until(console, "ptmx")
        assert "31 97" in text, text
        process.resize(20, 50)
        os.write(console, b"\n")
        text += await _read_until(console, "xterm")
        assert "20 50" in text, text
        assert (await process.wait()).code == 0
    later = ProcessSpec(("sh", "-c", "stty size; cat"), tty=True, rows=5, columns=6)
    async with bench.running(ProcessSpec(("sleep", "60"))) as container, container.exec(later, None) as one:
        assert one.console is not None
        await _read_until(one.console, "5 6")
        os.write(one.console, b"\x03")
        assert (await one.wait()).signal == signal.SIGINT
    assert bench.leftovers() == []


async def _read_until(console: int, word: str) -> str:
    text = ""
    with trio.fail_after(10):
        while word not in text:
            await trio.lowlevel.wait_readable(console)
            try:
                text += os.read(console, 65536).decode()
            except BlockingIOError:
                continue
    return text


CHECKS = tuple(check for name, check in sorted(globals().items()) if name.startswith("check_"))

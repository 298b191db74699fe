"""`scow run` as its users know it from docker."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from .conftest import Scow, free_port, wait_port
from .machine import eventually


def test_output_and_exit_code(pulled: Scow) -> None:
    done = pulled.try_("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_missing_image_is_pulled_first(mirrored: Scow) -> None:
    done = mirrored.try_("run", "--rm", "busybox", "echo", "hello")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"hello\n"
    assert b"Unable to find image 'busybox:latest' locally" in done.stderr


def test_image_command_and_environment(pulled: Scow) -> None:
    assert "FROM_IMAGE=yes" in pulled("run", "--rm", "busybox", "env")
    out = pulled("run", "--rm", "-e", "A=1", "-e", "FROM_IMAGE=no", "busybox", "env")
    assert "A=1\n" in out
    assert "FROM_IMAGE=no\n" in out


def test_stdin_is_forwarded(pulled: Scow) -> None:
    assert pulled("run", "--rm", "-i", "busybox", "cat", stdin=b"x" * 300_000) == "x" * 300_000
    assert pulled("run", "--rm", "busybox", "cat", stdin=b"not forwarded") == ""


def test_large_output_is_whole(pulled: Scow) -> None:
    out = pulled("run", "--rm", "busybox", "sh", "-c", "yes 0123456789 | head -n 200000")
    assert out == "0123456789\n" * 200_000


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, 137)],
    ids=["TERM", "INT", "KILL"],
)
def test_ended_by_signal(pulled: Scow, number: int, code: int) -> None:
    # PID 1 ignores signals without a handler (pid_namespaces(7)), so the shell's child does it.
    done = pulled.try_("run", "--rm", "busybox", "sh", "-c", f"sh -c 'kill -{int(number)} $$'; exit $?")
    assert done.returncode == code


def test_workdir_user_hostname_entrypoint(pulled: Scow) -> None:
    assert pulled("run", "--rm", "-w", "/made/here", "busybox", "sh", "-c", "readlink -f .") == "/made/here\n"
    assert "uid=33(www) gid=33(www)" in pulled("run", "--rm", "-u", "www", "busybox", "id")
    assert "uid=1234 gid=5678" in pulled("run", "--rm", "-u", "1234:5678", "busybox", "id")
    assert pulled("run", "--rm", "--hostname", "box", "busybox", "hostname") == "box\n"
    assert pulled("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b") == "a b\n"


def test_mounts(pulled: Scow, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    (source / "file").write_text("from the host\n")
    assert pulled("run", "--rm", "-v", f"{source}:/data", "busybox", "cat", "/data/file") == "from the host\n"
    pulled("run", "--rm", "-v", f"{source}:/data", "busybox", "sh", "-c", "echo back > /data/answer")
    assert (source / "answer").read_text() == "back\n"
    done = pulled.try_("run", "--rm", "-v", f"{source}:/data:ro", "busybox", "touch", "/data/no")
    assert b"Read-only file system" in done.stderr
    assert pulled("run", "--rm", "-v", f"{source}/file:/etc/one", "busybox", "cat", "/etc/one") == "from the host\n"


def test_read_only_and_tmpfs(pulled: Scow) -> None:
    done = pulled.try_("run", "--rm", "--read-only", "--tmpfs", "/scratch", "busybox", "sh", "-c",
                       "touch /scratch/yes && echo ok; touch /no")  # fmt: skip
    assert done.stdout == b"ok\n"
    assert b"Read-only file system" in done.stderr


def test_writes_stay_in_the_container(pulled: Scow) -> None:
    pulled("run", "--name", "first", "busybox", "sh", "-c", "echo mine > /etc/mine; rm /www/index.html")
    assert pulled("run", "--rm", "busybox", "cat", "/www/index.html") == "hello from busybox\n"
    assert pulled.try_("run", "--rm", "busybox", "cat", "/etc/mine").returncode == 1


def test_detached_life(pulled: Scow) -> None:
    container = pulled("run", "-d", "--name", "life", "busybox", "sh", "-c",
                       "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done").strip()  # fmt: skip
    assert re.fullmatch("[0-9a-f]{64}", container)
    assert eventually(lambda: pulled("logs", "life") == "up\n")
    assert "life" in pulled("ps")
    assert "Up " in pulled("ps")
    assert pulled("exec", "life", "sh", "-c", "echo inside; echo $FROM_IMAGE") == "inside\nyes\n"
    assert pulled("stop", "life").strip() == "life"
    assert pulled("logs", "life") == "up\nbye\n"
    state = json.loads(pulled("inspect", "life"))[0]["State"]
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("exited", 3, False)
    assert "life" not in pulled("ps")
    assert "Exited (3)" in pulled("ps", "-a")
    pulled("start", "life")
    assert eventually(lambda: pulled("logs", "life") == "up\nbye\nup\n")
    pulled.fails("rm", "life", code=1, says="running")
    pulled("kill", "life")
    assert pulled("wait", "life").strip() == "137"
    assert pulled("rm", "life").strip() == "life"
    assert pulled("ps", "-aq") == ""


def test_exec_codes(pulled: Scow) -> None:
    pulled("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    assert pulled.try_("exec", "box", "sh", "-c", "exit 9").returncode == 9
    pulled.fails("exec", "box", "nosuch", code=127, says="nosuch")
    pulled.fails("exec", "box", "/etc/passwd", code=126, says="/etc/passwd")
    assert pulled("exec", "-i", "box", "cat", stdin=b"through exec") == "through exec"
    assert (
        pulled("exec", "-u", "www", "-e", "B=2", "-w", "/tmp", "box", "sh", "-c", "id -u; echo $B; pwd")
        == "33\n2\n/tmp\n"
    )
    pulled("exec", "-d", "box", "touch", "/tmp/detached")
    assert eventually(lambda: pulled.try_("exec", "box", "test", "-e", "/tmp/detached").returncode == 0)
    pulled("stop", "-t", "0", "box")
    pulled.fails("exec", "box", "true", code=1, says="not running")


def test_published_port(pulled: Scow) -> None:
    port = free_port()
    pulled("run", "-d", "--name", "web", "-p", f"{port}:80", "busybox", "httpd", "-f", "-h", "/www")
    wait_port(port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"hello from busybox\n"
    assert f"0.0.0.0:{port}->80/tcp" in pulled("ps")
    pulled.fails("run", "--rm", "-p", f"{port}:80", "busybox", "true", code=125, says=str(port))
    pulled("stop", "-t", "0", "web")
    pulled("run", "--rm", "-p", f"{port}:80", "busybox", "true")


def test_containers_reach_each_other(pulled: Scow) -> None:
    pulled("run", "-d", "--name", "server", "busybox", "httpd", "-f", "-h", "/www")
    address = json.loads(pulled("inspect", "server"))[0]["NetworkSettings"]["IPAddress"]
    assert pulled("run", "--rm", "busybox", "wget", "-q", "-O", "-", f"http://{address}/") == "hello from busybox\n"


def test_networks_none_and_host(pulled: Scow) -> None:
    assert "lo" in pulled("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net")
    assert pulled("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net").split() == ["lo"]
    inner = pulled("run", "--rm", "--network", "host", "busybox", "sh", "-c", "readlink /proc/self/ns/net")
    assert inner.strip() == str(Path("/proc/self/ns/net").readlink())


def test_limits_reach_the_kernel(pulled: Scow) -> None:
    done = pulled.try_("run", "--rm", "-m", "32m", "busybox", "sh", "-c", "head -c 200000000 /dev/zero | tail | wc -c")
    assert b"200000000" not in done.stdout
    out = pulled.try_(
        "run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done"
    )
    assert b"fork" in out.stderr
    assert pulled.try_("run", "--name", "oom", "-m", "16m", "busybox", "tail", "/dev/zero").returncode == 137
    assert json.loads(pulled("inspect", "oom"))[0]["State"]["OOMKilled"] is True


def test_capabilities(pulled: Scow) -> None:
    def effective(*flags: str) -> int:
        out = pulled("run", "--rm", *flags, "busybox", "grep", "CapEff", "/proc/self/status")
        return int(out.split()[1], 16)

    assert effective() == 0xA80425FB  # Docker's fourteen
    assert effective("--cap-drop", "ALL") == 0
    assert effective("--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == 1 << 12
    assert effective("--privileged") > effective()


def test_rm_leaves_nothing(pulled: Scow) -> None:
    pulled("run", "--rm", "busybox", "true")
    assert pulled("ps", "-aq") == ""
    assert list((pulled.root / "containers").iterdir()) == []


def test_interrupt_of_the_command_reaches_the_container(pulled: Scow) -> None:
    process = pulled.start("run", "--rm", "--name", "sig", "busybox", "sh", "-c",
                           "trap 'echo got it; exit 5' INT; echo ready; while :; do sleep 0.05; done",
                           stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == b"got it\n"
    assert process.wait(20) == 5
    process.stdout.close()


def test_restart_policy(pulled: Scow) -> None:
    pulled("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo try; exit 1")
    assert eventually(lambda: pulled("inspect", "-f", "{{.State.Status}}", "again").strip() == "exited", 15)
    assert pulled("logs", "again") == "try\n" * 3


def test_pause_and_resume_through_the_api_are_listed(pulled: Scow) -> None:
    pulled("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    shown = json.loads(pulled("inspect", "box"))[0]
    assert shown["State"]["Running"] is True
    assert shown["State"]["Pid"] > 0
    assert Path(f"/proc/{shown['State']['Pid']}").exists()

"""The local store as its users know it from docker: names, removal, history, space."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from .conftest import Scow


@pytest.fixture
def launcher() -> bool:
    """The store is the same with and without the launcher."""
    return True


def blobs(scow: Scow) -> set[str]:
    return {path.name for path in (scow.root / "content" / "blobs" / "sha256").iterdir()}


def layers(scow: Scow) -> set[str]:
    return {path.name for path in scow.root.glob("storage/*/layers/*")}


def gc_line(scow: Scow, keep: str) -> list[str]:
    """What a collection would do with the image `more:1`, in words."""
    (line,) = [line for line in scow("gc", "--dry-run", "--keep", keep).splitlines() if " more:1 " in line]
    return line.split()


def test_tag_and_rmi(pulled: Scow) -> None:
    image = pulled("images", "-q", "--no-trunc").strip()
    pulled("tag", "busybox", "mine/box:2")
    pulled("tag", image[7:19], "other")
    assert set(pulled("images", "-q", "--no-trunc").split()) == {image}
    assert pulled("rmi", "mine/box:2") == "Untagged: mine/box:2\n"
    pulled.fails("rmi", image[7:19], code=1, says="has names in several repositories")
    out = pulled("rmi", "busybox").splitlines()
    assert out[0] == "Untagged: busybox:latest"
    assert re.fullmatch(r"Untagged: busybox@sha256:[0-9a-f]{64}", out[1])
    assert len(out) == 2
    assert pulled("run", "--rm", "other", "cat", "/second/layer") == "upper\n"
    out = pulled("rmi", "other").splitlines()
    assert out[:2] == ["Untagged: other:latest", f"Deleted: {image}"]
    assert len(out) == 4, out
    assert not blobs(pulled)
    assert not layers(pulled)
    assert json.loads((pulled.root / "content" / "index.json").read_text())["manifests"] == []
    pulled.fails("rmi", "other", code=1, says="no such image: other")
    pulled("rmi", "-f", "other")
    pulled.fails("tag", "nothing", "x", code=1, says="no such image: nothing")
    assert pulled("run", "--rm", "busybox", "echo", "again") == "again\n"


def test_rmi_refuses_what_is_in_use(pulled: Scow) -> None:
    name = pulled("create", "--name", "user", "busybox", "echo", "alive").strip()[:12]
    pulled.fails("rmi", "busybox", code=1, says=f"in use by the container user ({name})")
    pulled("run", "-d", "--name", "running", "busybox", "sleep", "60")
    pulled.fails("rmi", "-f", "busybox", code=1, says="in use by the running container running")
    pulled("rm", "-f", "running")
    assert "Deleted: " in pulled("rmi", "-f", "busybox")
    assert layers(pulled)
    assert pulled("start", "-a", "user") == "alive\n"
    pulled("rm", "user")
    pulled("system", "prune", "-f")
    assert not blobs(pulled)
    assert not layers(pulled)


def test_shared_layers_stay(pulled: Scow) -> None:
    pulled("pull", "-q", "team/tool:1.2")
    before = layers(pulled)
    pulled("rmi", "team/tool:1.2")
    assert layers(pulled) == before
    assert pulled("run", "--rm", "busybox", "echo", "here") == "here\n"


def test_history_tree_and_filters(pulled: Scow) -> None:
    lines = pulled("history", "busybox").splitlines()
    assert lines[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert len(lines) == 3
    assert lines[2].startswith("<missing>")
    assert pulled("history", "-q", "busybox").split() == [pulled("images", "-q").strip(), "<missing>"]
    lines = pulled("images", "--tree").splitlines()
    assert lines[0].split() == ["IMAGE", "ID", "SIZE", "HERE"]
    assert lines[1].startswith("busybox:latest")
    assert lines[2].startswith("└─ linux/")
    assert lines[2].endswith("yes")
    assert pulled("images", "-q", "--filter", "before=busybox") == ""
    assert pulled("images", "-q", "--filter", "until=1h")


def test_image_prune(pulled: Scow) -> None:
    assert pulled("image", "prune", "-f") == "Total reclaimed space: 0B\n"
    pulled("create", "--name", "user", "busybox", "true")
    assert pulled("image", "prune", "-af") == "Total reclaimed space: 0B\n"
    pulled("rm", "user")
    assert pulled("image", "prune", "-a", stdin=b"n\n") == ""
    assert pulled("image", "prune", "-af", "--filter", "label=kind=other") == "Total reclaimed space: 0B\n"
    out = pulled("image", "prune", "-a", stdin=b"y\n")
    assert "untagged: busybox:latest" in out
    assert not blobs(pulled)
    assert not layers(pulled)


def test_space(pulled: Scow) -> None:
    pulled("pull", "-q", "team/tool:1.2")
    pulled("run", "--name", "done", "busybox", "sh", "-c", "yes | head -c 3000000 > /big")
    rows = [json.loads(line) for line in pulled("system", "df", "--format", "json").splitlines()]
    assert [(row["Type"], row["TotalCount"], row["Active"]) for row in rows] == [
        ("Images", "1", "1"),
        ("Containers", "1", "0"),
        ("Local Volumes", "0", "0"),
        ("Build Cache", "0", "0"),
        ("Leftovers", "0", "0"),
    ]
    assert float(rows[1]["Size"].removesuffix("MB")) > 3
    assert "busybox" in pulled("system", "df", "-v")
    (pulled.root / "content" / "ingest" / ("sha256-" + "a" * 64)).write_bytes(b"x" * 5000)
    out = pulled("gc", "--keep", "0", "--dry-run")
    assert "container done uses it" in out
    assert "interrupted downloads" in out
    assert "Would take" in out
    assert blobs(pulled)
    # Of what is removed it says what goes, and what others keep there.
    pulled("commit", "done", "more:1")
    kept, removed = (gc_line(pulled, keep) for keep in ("1g", "1k"))
    assert kept[0] == "keep"
    assert kept[-2:] == ["all", "fits"] or kept[-3:] == ["the", "rest", "fits"]
    assert removed[0] == "remove"
    assert sum(word.endswith(("MB", "kB")) for word in removed) == 2
    assert "More than 1.024kB: what stays is used by containers" in pulled("gc", "-n", "--keep", "1k")
    pulled("rmi", "more:1")
    out = pulled("system", "prune", "-af")
    assert "Deleted Containers:" in out
    assert "untagged: busybox:latest" in out
    assert not blobs(pulled)
    assert not layers(pulled)
    assert not list((pulled.root / "content" / "ingest").iterdir())


def test_diff_and_commit(pulled: Scow) -> None:
    script = "echo 1 > /etc/new; rm /second/layer; rm -r /www; mkdir /www; echo x >> /etc/passwd; mkfifo /tmp/pipe"
    pulled("run", "--name", "cc", "-e", "ADDED=1", "busybox", "sh", "-c", script)
    assert pulled("diff", "cc").splitlines() == [
        "C /etc",
        "A /etc/new",
        "C /etc/passwd",
        "C /second",
        "D /second/layer",
        "C /tmp",
        "A /tmp/pipe",
        "C /www",
        "D /www/index.html",
    ]
    image = pulled(
        "commit", "-a", "Me", "-m", "mine", "-c", 'CMD ["cat", "/etc/new"]', "-c", "ENV B=2", "cc", "made:1"
    ).strip()
    assert pulled("run", "--rm", "made:1") == "1\n"
    assert pulled("run", "--rm", "made:1", "ls", "/second", "/www").split() == ["/second:", "/www:"]
    assert "ADDED=1\nB=2\n" in pulled("run", "--rm", "made:1", "sh", "-c", "env | grep -e ADDED -e B= | sort")
    top = json.loads(pulled("history", "--format", "json", "--no-trunc", "made:1").splitlines()[0])
    image = image.strip()
    assert (top["ID"], top["Comment"]) == (image, "mine")
    pulled("rm", "cc")
    pulled.fails("diff", "cc", code=1, says="no such container: cc")
    assert pulled("run", "--rm", "busybox", "cat", "/second/layer") == "upper\n"
    pulled("rmi", "busybox")
    assert pulled("run", "--rm", image[7:19]) == "1\n"


def test_same_layer_from_every_driver(pulled: Scow) -> None:
    script = "echo 1 > /etc/new; rm /second/layer; rm -r /www; mkdir /www; ln /etc/new /hard; ln -s a /soft; "
    script += "for f in /etc/new /www /etc /second /; do touch -d '2020-01-01 00:00:00' $f; done"
    script += "; touch -h -d '2020-01-01 00:00:00' /soft"
    found = set()
    for driver in ("overlay", "native", "erofs"):
        pulled("run", "--name", driver, "--storage", driver, "busybox", "sh", "-c", script)
        pulled("commit", driver, f"of:{driver}")
        shown = json.loads(pulled("inspect", f"of:{driver}"))[0]
        found.add((len(shown["RootFS"]["Layers"]), shown["RootFS"]["Layers"][-1], pulled("diff", driver)))
        assert pulled("run", "--rm", "--storage", "overlay", f"of:{driver}", "cat", "/hard") == "1\n"
    assert len(found) == 1, found


def test_export(pulled: Scow, tmp_path: Path) -> None:
    pulled("run", "--name", "cc", "-v", f"{tmp_path}:/mounted", "busybox", "sh", "-c", "echo 1 > /new")
    pulled("export", "-o", str(tmp_path / "out.tar"), "cc")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("new").read() == b"1\n"  # type: ignore[union-attr]
        assert tar.getmember("bin/sh").linkname == "busybox"
        assert not [name for name in tar.getnames() if name.startswith("mounted/")]
    pulled("run", "-d", "--name", "rr", "busybox", "sleep", "100")
    with tarfile.open(fileobj=io.BytesIO(pulled.try_("export", "rr").stdout)) as tar:
        assert "bin/busybox" in tar.getnames()
        assert "proc" in tar.getnames()
        assert not [name for name in tar.getnames() if name.startswith("proc/")]


@pytest.mark.parametrize("running", [True, False])
def test_cp(pulled: Scow, tmp_path: Path, running: bool) -> None:
    pulled("run", "-d", "--name", "cc", "busybox", "sleep", "100")
    pulled("exec", "cc", "sh", "-c", "ln -s /www /tmp/link; ln -s ../../../../etc/hostname /tmp/out")
    if not running:
        pulled("stop", "-t", "0", "cc")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_text("deep\n")
    (tree / ".wh.odd").write_text("odd\n")
    pulled("cp", str(tree), "cc:/srv")
    pulled("cp", str(tree), "cc:/srv")
    pulled("cp", f"{tree}/.", "cc:/tmp/link")
    pulled("cp", str(tree / "sub" / "file"), "cc:/etc/renamed")
    back = tmp_path / "back"
    pulled("cp", "cc:/srv", str(back))
    assert (back / "sub" / "file").read_text() == "deep\n"
    assert (back / ".wh.odd").read_text() == "odd\n"
    assert (back / "tree" / "sub" / "file").read_text() == "deep\n"
    pulled("cp", "cc:/www/sub/file", str(back))
    assert (back / "file").read_text() == "deep\n"
    pulled("cp", "cc:/etc/renamed", str(back / "file"))
    pulled("cp", "cc:/tmp/link", str(tmp_path / "l"))
    assert (tmp_path / "l").is_symlink()
    pulled("cp", "-L", "cc:/tmp/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed" / "index.html").exists()
    with tarfile.open(fileobj=io.BytesIO(pulled.try_("cp", "cc:/www", "-").stdout)) as tar:
        assert "www/sub/file" in tar.getnames()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("owned")
        member.uid, member.size = 33, 3
        tar.addfile(member, io.BytesIO(b"abc"))
    pulled("cp", "-", "cc:/tmp", stdin=archive.getvalue())
    pulled("cp", "-a", "cc:/tmp/owned", str(tmp_path / "owned"))
    assert (tmp_path / "owned").stat().st_uid == 33
    pulled.fails("cp", "cc:/none", str(back), code=1, says="there is no /none")
    pulled.fails("cp", str(tree), "cc:/etc/passwd", code=2, says="can't copy the directory")
    pulled.fails("cp", str(tree / "sub" / "file"), "cc:/no/dir/", code=1, says="there is no directory")
    pulled.fails("cp", str(tree / "sub" / "file"), "cc:/no/dir", code=1, says="there is no")
    pulled.fails("cp", "cc:/a", "d:/b", code=1, says="between containers")
    if not running:
        assert pulled("start", "cc") == "cc\n"
    assert pulled("exec", "cc", "cat", "/etc/renamed", "/tmp/owned") == "deep\nabc"


def test_fsck(pulled: Scow) -> None:
    out = pulled("fsck")
    assert re.fullmatch(r"Checked \d+ blobs and 2 layers: all well\n", out), out
    blob = max((pulled.root / "content" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    done = pulled.try_("fsck")
    assert done.returncode == 1
    assert f"blob sha256:{blob.name} has the digest" in done.stdout.decode()
    assert "needed by busybox:latest" in done.stdout.decode()
    assert "repaired" in pulled("fsck", "--repair")
    assert "all well" in pulled("fsck")
    blob.unlink()
    assert "is missing" in pulled.try_("fsck", "--layers=false").stdout.decode()
    assert "repaired" in pulled("fsck", "--repair")


def test_fsck_of_layers(pulled: Scow) -> None:
    for storage in ("overlay", "native", "erofs"):
        check_layers(pulled, storage)


def check_layers(pulled: Scow, storage: str) -> None:
    pulled("run", "--rm", "--storage", storage, "busybox", "true")
    places = sorted((pulled.root / "storage" / storage / "layers").iterdir())
    victim = next((path for place in places for path in place.rglob("passwd")), places[0])
    victim.write_bytes(victim.read_bytes()[:-1] + b"X")
    done = pulled.try_("fsck")
    assert f"as {storage} has unpacked it, is not what its blob says" in done.stdout.decode(), done
    assert "repaired" in pulled("fsck", "--repair")
    assert "all well" in pulled("fsck")
    assert not list(pulled.root.glob("fsck-*"))
    assert "root:x" in pulled("run", "--rm", "--storage", storage, "busybox", "cat", "/etc/passwd")


def test_fsck_of_what_was_made_here(pulled: Scow, registry: str) -> None:
    """A committed image is nowhere to be fetched from, whatever images of its name there are elsewhere."""
    pulled("run", "--name", "cc", "busybox", "sh", "-c", "echo 1 > /made")
    image = pulled("commit", "cc", "team/tool:1.2").strip()  # a name that the registry has, too
    manifest = json.loads((pulled.root / "content" / "index.json").read_text())["manifests"]
    (entry,) = [each for each in manifest if "team/tool" in each["annotations"]["org.opencontainers.image.ref.name"]]
    blob = pulled.root / "content" / "blobs" / "sha256"
    top = json.loads((blob / entry["digest"][7:]).read_text())["layers"][-1]["digest"][7:]
    spoilt = b"x" + (blob / top).read_bytes()[1:]
    (blob / top).write_bytes(spoilt)
    done = pulled.try_("fsck", "--repair")
    assert done.returncode == 1
    assert "not repaired: it was made or loaded here" in done.stdout.decode(), done.stdout.decode()
    # It is still there, and still the image that it was.
    assert (blob / top).read_bytes() == spoilt
    assert pulled("images", "-q", "--no-trunc", "team/tool").strip() == image
    assert pulled("run", "--rm", "team/tool:1.2", "cat", "/made") == "1\n"
    assert not list(blob.glob(".*"))
    # What a killed repair had put aside is there again.
    (blob / top).rename(blob / f".{top}.damaged")
    assert "has the digest" in pulled.try_("fsck").stdout.decode()
    # Once it is in a registry under its digest, it can be mended.
    (blob / top).unlink()
    pulled("rmi", "-f", "team/tool:1.2")
    pulled("commit", "cc", "team/tool:1.2")
    pulled("push", "-q", "team/tool:1.2", f"{registry}/made/here:1")
    assert (blob / top).read_bytes() != spoilt  # the same files make the same layer
    (blob / top).write_bytes(spoilt)
    out = pulled("fsck", "--repair")
    assert "not repaired" not in out
    assert "all well" in pulled("fsck")

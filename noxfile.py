"""Every check of the project as a nox session; `nox` alone runs those that are quick and need no privileges.

Needs Python 3.11 or newer and pip: `python3 -m pip install nox`, then `nox -l` lists the sessions. What a session
installs comes from the dependency groups in pyproject.toml.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "imports", "unit", "docs"]
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True

HERE = Path(__file__).parent
NULL = HERE / "tests" / "thirdparty" / "scow-null"
#: flake8-async's rules that this project breaks knowingly.
WAIVED = {
    "ASYNC102": "scow.aio.cleanup shields and bounds undo steps, which the rule can't see",
    "ASYNC103": "the last border of a child process ends in os._exit",
    "ASYNC104": "the same",
    "ASYNC109": "timeout= in seconds is Docker's vocabulary",
    "ASYNC113": "start_soon in __aenter__ of a class that owns its nursery",
    "ASYNC114": "the same",
    "ASYNC119": "async context managers made of generators: contextlib closes them",
    "ASYNC120": "the same as ASYNC102",
    "ASYNC124": "a protocol's methods are async whether or not one of them waits",
    "ASYNC128": "the same as ASYNC113",
    "ASYNC230": "supervisors have one thread and read short files inline (docs/design/process-model.md)",
    "ASYNC232": "the same",
    "ASYNC240": "the same",
    "ASYNC900": "optional; async generators are closed with aclosing",
    "ASYNC910": "optional; not every path of a short async function has something to wait for",
    "ASYNC911": "the same",
    "ASYNC912": "the same",
    "ASYNC913": "the same",
}
ASYNCHRONOUS = ["kernel", "plugins", "docs/examples", "tests/thirdparty"]
FORMATTED = ["kernel", "plugins", "tests", "docs", "benchmarks", "noxfile.py"]


def group(session: nox.Session, *names: str) -> None:
    """Install dependency groups of pyproject.toml."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml(HERE / "pyproject.toml"), *names))


def testing(session: nox.Session) -> None:
    """What every session that runs tests needs: scow from the checkout, and the test group."""
    group(session, "test")
    session.install("-e", ".")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, and the traps of asynchronous code."""
    group(session, "lint")
    session.run("ruff", "check", *FORMATTED)
    session.run("ruff", "format", "--check", *FORMATTED)
    files = [str(path) for root in ASYNCHRONOUS for path in sorted((HERE / root).rglob("*.py"))]
    session.run("flake8-async", "--disable", ",".join(WAIVED), *files, silent=True)


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, over kernel, plugins and the examples in the documentation."""
    group(session, "types")
    session.install("-e", ".")
    session.run("mypy", "--cache-dir", session.create_tmp())


@nox.session
def imports(session: nox.Session) -> None:
    """The directions of the design: who may import whom."""
    group(session, "lint")
    session.install("-e", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def unit(session: nox.Session) -> None:
    """Tests that need neither root nor anybody else's program."""
    testing(session)
    session.run("pytest", "tests/unit", "-m", "not root", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Strangers' bytes, spoilt at random, into all that reads them: `-- --seconds 600`, `-- --replay FILE`."""
    testing(session)
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """Every plugin found in the environment against its stage's suite (root)."""
    testing(session)
    session.run("pytest", "tests/conformance", "tests/thirdparty", *session.posargs)


@nox.session
@nox.parametrize("launcher", ["on", "off"])
def scenarios(session: nox.Session, launcher: str) -> None:
    """Whole commands from end to end, with the warm launcher and without (root)."""
    testing(session)
    session.run("pytest", "tests/scenarios", *session.posargs, env={"SCOW_WARM": "1" if launcher == "on" else "0"})


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation against the code; its examples are run where root allows it."""
    testing(session)
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel beside a stranger's plugin: installed, listed, conforming, running a container (root)."""
    session.install("build")
    made = Path(session.create_tmp()) / "dist"
    shutil.rmtree(made, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(made), ".", silent=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(made), str(NULL), silent=True)
    session.install("--force-reinstall", *map(str, sorted(made.glob("*.whl"))))
    group(session, "test")
    # Not from the checkout: the tests see what was installed.
    session.chdir(NULL)
    session.run("pytest", "-c", "pyproject.toml", "--rootdir", ".", "tests", *session.posargs)
    session.run("scow", "plugins")
    root = Path(session.create_tmp()) / "scow"
    session.run("scow", "--root", str(root), "run", "--rm", "--network", "null", "host:", "uname", "-sr")


@nox.session
def bench(session: nox.Session) -> None:
    """Times against docker and podman where they are installed; results go to benchmarks/results (root).

    `nox -s bench -- run --rounds 5`, `-- pull --images 100`, `-- build --cases steps`, `-- layers`: one of them, with
    its options.
    """
    group(session, "bench")
    session.install(".")
    scripts, arguments = ["run", "pull", "build", "layers"], list(session.posargs)
    if arguments and arguments[0] in scripts:
        scripts = [arguments.pop(0)]
    for script in scripts:
        session.run("python", f"benchmarks/{script}.py", *arguments)

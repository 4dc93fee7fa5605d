"""Carries out the Dockerfile's own instructions without a container engine: in clean roots, by chroot.

A stage's root is an overlay over the stage before; the first is a Debian that debootstrap makes, of the
release that the base image names. What runs gets process ids of its own (and is 1, as in a container), a root
that is read-only, and nothing to write to but what is mounted.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from dockerfile_parse import DockerfileParser

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "Dockerfile"
# What Debian calls what is in Docker's Python image.
BASE_PACKAGES = "ca-certificates,netbase,python3,python3-venv,tzdata"
# How this machine reaches its package registries; lent to what is built, and not part of it.
LENT = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs")
ENDS_SECONDS = 10.0


@dataclass(frozen=True)
class Stage:
    """A stage as its instructions left it.

    Attributes:
        layers: Folders of what was written, the latest first; the last one is the base image's.
        environment: As ENV says.
        folder: As WORKDIR says.
        user: As USER says.
        health: The exec form of HEALTHCHECK.
        command: The exec form of CMD.
    """

    layers: tuple[Path, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    health: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    @property
    def megabytes(self) -> float:
        """What the stage holds beside the base image."""
        return sum(_bytes(layer) for layer in self.layers[:-1]) / 1e6


def _bytes(folder: Path) -> int:
    files = (Path(path) / name for path, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their values, in order."""
    with DOCKERFILE.open("rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    return [(item["instruction"], item["value"]) for item in structure if item["instruction"] != "COMMENT"]


def argument(name: str) -> str:
    """What a global ARG says."""
    found = dict(value.partition("=")[::2] for kind, value in instructions() if kind == "ARG")
    return found[name]


class Recipes:
    """The stages of the Dockerfile, built in a folder when they are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[str, Stage] = {}

    def build(self, target: str) -> Stage:
        """The target, and what it is built from."""
        if target not in self._built:
            self._built[target] = self._carry_out(target)
        return self._built[target]

    def _carry_out(self, target: str) -> Stage:
        stage, found = Stage(()), False
        for kind, value in instructions():
            if kind == "FROM":
                if found:
                    break
                parent, _, name = value.partition(" AS ")
                found = name == target
                if found:
                    stage = self._begin(parent, target)
            elif found:
                stage = self._step(stage, kind, value)
        assert found, f"the Dockerfile has no target {target}"
        return stage

    def _begin(self, parent: str, target: str) -> Stage:
        base = Stage(
            (self._base(),), {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}
        )
        over = base if parent == "${PYTHON_IMAGE}" else self.build(parent)
        layer = self._folder / target
        layer.mkdir()
        return replace(over, layers=(layer, *over.layers))

    def _base(self) -> Path:
        [release] = re.findall(r"-slim-(\w+)@sha256:", argument("PYTHON_IMAGE"))
        base = self._folder / f"base-{release}"
        if not base.exists():
            unfinished = self._folder / f"unfinished-{release}"
            shutil.rmtree(unfinished, ignore_errors=True)
            mirror = os.environ.get("HOUSING_DEBIAN_MIRROR")
            command = [
                "debootstrap",
                "--variant=minbase",
                f"--include={BASE_PACKAGES}",
                release,
                str(unfinished),
            ]
            subprocess.run([*command, *([mirror] if mirror else [])], check=True, stdout=subprocess.DEVNULL)
            unfinished.rename(base)
        return base

    def _step(self, stage: Stage, kind: str, value: str) -> Stage:  # noqa: PLR0911
        match kind:
            case "ARG":
                name, _, default = value.partition("=")
                return replace(stage, environment={**stage.environment, name: default})
            case "ENV":
                pairs = [part.partition("=")[::2] for part in shlex.split(value)]
                given = {name: re.sub(r"\$\{(\w+)\}", self._of(stage), text) for name, text in pairs}
                return replace(stage, environment={**stage.environment, **given})
            case "WORKDIR":
                self._in_root(stage, ["mkdir", "-p", value])
                return replace(stage, folder=value)
            case "COPY":
                self._copy(stage, value)
            case "RUN":
                self._in_root(stage, list(_exec_form(value) or ("/bin/sh", "-c", value)))
            case "USER":
                return replace(stage, user=value)
            case "HEALTHCHECK":
                return replace(stage, health=_exec_form(value.partition("CMD ")[2]))
            case "CMD":
                return replace(stage, command=_exec_form(value))
            case "EXPOSE" | "LABEL" | "STOPSIGNAL":
                pass
            case _:
                raise NotImplementedError(kind)
        return stage

    @staticmethod
    def _of(stage: Stage):  # noqa: ANN205  (a function that re.sub takes)
        return lambda match: stage.environment[match[1]]

    def _copy(self, stage: Stage, value: str) -> None:
        parts = value.split()
        origin = REPOSITORY
        if parts[0].startswith("--from="):
            other = self.build(parts.pop(0).removeprefix("--from="))
            with mounted(other.layers, writable=None) as root:
                self._into(stage, [root / path.lstrip("/") for path in parts[:-1]], parts[-1])
            return
        self._into(stage, [origin / path for path in parts[:-1]], parts[-1])

    def _into(self, stage: Stage, sources: Sequence[Path], destination: str) -> None:
        with mounted(stage.layers[1:], writable=stage.layers[0]) as root:
            place = root / stage.folder.lstrip("/") / destination if destination[0] != "/" else None
            place = place or root / destination.lstrip("/")
            for source in sources:
                into = place / source.name if destination.endswith("/") else place
                if source.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(source, into, symlinks=True, ignore=ignored, dirs_exist_ok=True)
                else:
                    shutil.copy2(source, into)

    @staticmethod
    def _in_root(stage: Stage, command: Sequence[str]) -> None:
        with mounted(stage.layers[1:], writable=stage.layers[0]) as root:
            steps = [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
            steps += [f"mount --bind {path} {root}{path}" for path in LENT if (root / path[1:]).exists()]
            environment = {**stage.environment, **{k: v for k, v in os.environ.items() if k == "PIP_CERT"}}
            folder = stage.folder if (root / stage.folder.lstrip("/")).is_dir() else "/"
            inside = ["chroot", str(root), "env", "-C", folder, "-i", *_pairs(environment), *command]
            script = " && ".join([*steps, f"exec {shlex.join(inside)}"])
            done = subprocess.run(
                ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script],
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _exec_form(value: str) -> tuple[str, ...]:
    return tuple(json.loads(value)) if value.lstrip().startswith("[") else ()


def _pairs(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


@contextmanager
def mounted(layers: Sequence[Path], writable: Path | None) -> Iterator[Path]:
    """The layers as one folder; read-only without a layer to write to."""
    top = writable or layers[0]
    root = top.with_name(f"{top.name}.root")
    work = top.with_name(f"{top.name}.work")
    root.mkdir(exist_ok=True)
    below = ":".join(map(str, layers))
    options = f"lowerdir={below}"
    if writable is not None:
        work.mkdir(exist_ok=True)
        options += f",upperdir={writable},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


@dataclass(frozen=True)
class Container:
    """A stage that runs.

    Attributes:
        stage: What runs.
        process: The namespace's first process, as this machine sees it.
        environment: What it was started with.
        log: What it wrote.
    """

    stage: Stage
    outer: "subprocess.Popen[bytes]"
    process: psutil.Process
    environment: Mapping[str, str]
    log: Path

    def execute(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container, as the same user with the same variables."""
        user, group = self.stage.user.split(":")
        entered = ["nsenter", f"--target={self.process.pid}", "--mount", "--pid", "--root", "--wdns=/data"]
        entered += [f"--setuid={user}", f"--setgid={group}", "env", "-i", *_pairs(self.environment)]
        return subprocess.run([*entered, *command], capture_output=True, text=True, check=False)

    def wait_until_healthy(self, health: Sequence[str], seconds: float) -> None:
        """Return once its health check succeeds."""
        deadline = time.monotonic() + seconds
        while True:
            assert self.outer.poll() is None, self.log.read_text()[-4000:]
            asked = self.execute(health)
            if asked.returncode == 0:
                return
            assert time.monotonic() < deadline, asked.stderr + self.log.read_text()[-4000:]
            time.sleep(0.5)

    def stop(self) -> float:
        """SIGTERM, as an engine does; returns how many seconds it took to end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.outer.wait(timeout=60)
        return time.monotonic() - began


@contextmanager
def running(
    stage: Stage, data: Path, variables: Mapping[str, str], command: Sequence[str] = ()
) -> Iterator[Container]:
    """A stage's command in a read-only root; only `data` (as /data) and /tmp can be written to."""
    environment = {**stage.environment, **variables}
    data.mkdir(exist_ok=True)
    owner, group = map(int, stage.user.split(":"))
    for path in (data, *data.rglob("*")):
        os.chown(path, owner, group)
    with mounted(stage.layers, writable=None) as root, tempfile.NamedTemporaryFile(delete=False) as log:
        steps = [
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
            f"mount --bind {data} {root}/data",
        ]
        inside = ["chroot", f"--userspec={stage.user}", str(root), "env", "-C", stage.folder, "-i"]
        inside += [*_pairs(environment), *(command or stage.command)]
        script = " && ".join([*steps, f"exec {shlex.join(inside)}"])
        outer = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            first = _first_child(outer)
            yield Container(stage, outer, first, environment, Path(log.name))
        finally:
            outer.kill()
            outer.wait()
            Path(log.name).unlink()


def _first_child(outer: "subprocess.Popen[bytes]") -> psutil.Process:
    parent, deadline = psutil.Process(outer.pid), time.monotonic() + 10
    while not (found := parent.children()):
        assert time.monotonic() < deadline, "unshare started nothing"
        time.sleep(0.01)
    return found[0]

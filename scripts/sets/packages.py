"""Packages of npm and Debian: downloaded by `npm` and `apt-get`, unpacked into a folder, never installed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Unpacked:
    """An unpacked package; the set's ABOUT.txt lists its name, version and licence."""

    name: str
    version: str
    folder: Path
    licence: str


class Packages:
    """Unpacks packages into a folder, each once.

    unpacked: the folder. downloads: where the packages' archives are kept; one that lies there already is
    taken, so that sets can be made without a network.
    """

    def __init__(self, unpacked: Path, downloads: Path) -> None:
        self.unpacked, self.downloads = unpacked, downloads
        self.used: dict[str, Unpacked] = {}
        for folder in (unpacked, downloads):
            folder.mkdir(parents=True, exist_ok=True)

    def npm(self, name: str, wanted: Callable[[str], bool] = lambda path: True) -> Path:
        """The folder of an npm package. wanted: whether to unpack a file, by its path in the package."""
        if name not in self.used:
            pattern = re.compile(re.escape(name) + r"-\d.*\.tgz")
            archive = self._archive(name, pattern, ["npm", "pack", name], "npm (apt-get install npm)")
            into = self.unpacked / f"npm-{name}"
            with _reading(archive), tarfile.open(archive) as tar:
                for member in tar:
                    path = member.name.partition("/")[2]  # without "package/"
                    if member.isfile() and (path == "package.json" or wanted(path)):
                        tar.extract(member, into, filter="data")
                (root,) = into.iterdir()
                about = json.loads((root / "package.json").read_text())
                self.used[name] = Unpacked(name, about["version"], root, f"{about.get('license')} (npm)")
        return self.used[name].folder

    def debian(self, name: str) -> Path:
        """The folder of a Debian package, which holds its "usr"."""
        if name not in self.used:
            pattern = re.compile(re.escape(name) + r"_.*\.deb")
            command = ["apt-get", "download", "-q", name]
            archive = self._archive(name, pattern, command, "apt-get and dpkg-deb (Debian or Ubuntu)")
            folder = self.unpacked / f"debian-{name}"
            _run(["dpkg-deb", "-x", str(archive), str(folder)], self.unpacked, "dpkg-deb")
            file = f"usr/share/doc/{name}/copyright"
            version = unquote(archive.name.split("_")[1])
            self.used[name] = Unpacked(name, version, folder, f"licences/{name}.txt")
            if (folder / file).is_file():
                (self.unpacked / "licences").mkdir(exist_ok=True)
                shutil.copyfile(folder / file, self.unpacked / "licences" / f"{name}.txt")
        return self.used[name].folder

    def _archive(self, name: str, pattern: re.Pattern[str], command: list[str], program: str) -> Path:
        """The package's archive in the downloads folder; runs `command` to download it if it is missing."""

        def archives() -> list[Path]:
            return sorted(file for file in self.downloads.iterdir() if pattern.fullmatch(file.name))

        if not archives():
            print(f"downloading {name}", flush=True)
            # Into a folder of its own: a download that was cut off is never taken for a package.
            partial = self.downloads / f".partial-{os.getpid()}"
            partial.mkdir()
            try:
                _download(command, partial, program)
                for file in partial.iterdir():
                    if pattern.fullmatch(file.name):
                        file.replace(self.downloads / file.name)
            finally:
                shutil.rmtree(partial)
        if not archives():
            raise UserError(f"{name}: `{' '.join(command)}` brought no package.")
        return archives()[-1]


def _download(command: list[str], folder: Path, program: str) -> None:
    """Runs a command that downloads. If apt-get fails, root updates its lists and tries again."""
    try:
        _run(command, folder, program)
    except UserError as error:
        if command[0] != "apt-get":
            raise
        if os.geteuid():
            raise UserError(f"{error} Perhaps its lists are old: sudo apt-get update.") from error
        _run(["apt-get", "update", "-q"], folder, program)
        _run(command, folder, program)


def _run(command: list[str], folder: Path, program: str) -> None:
    """Runs a command in a folder. Raises UserError with the program's error line (of npm, the first two)."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError(f"`{' '.join(command)}`: needs {program}.") from error
    if done.returncode:
        lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"E:|npm err|npm error|dpkg-deb: error", line, re.I)]
        # npm ends with the place of its log; what went wrong stands in its first lines.
        reason = errors[:2] if command[0] == "npm" else (errors or lines)[-1:]
        raise UserError(f"`{' '.join(command)}` failed: {'; '.join(reason)[:300] or 'it says no reason'}.")


class _reading:  # noqa: N801 - reads as a clause: with _reading(archive)
    """Turns errors of a damaged archive into one line that names it."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, tarfile.TarError | EOFError | OSError | ValueError | KeyError):
            raise UserError(f"{self.archive}: cannot be unpacked ({error}). Remove it and rerun.") from error

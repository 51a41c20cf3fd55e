"""Faults of the disk, switched on and off while the broker runs: those that faults.c knows."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")


class Missing(Exception):
    """What this needs is not there, so that it cannot be tried here."""


class Faults:
    """A disk for one data directory that fails when told to.

    Args:
        directory: where the compiled shim and its control file go; not the data directory.

    Raises:
        Missing: no C compiler; where the variable CI is set, that is a RuntimeError.
    """

    def __init__(self, directory: Path, data_dir: Path) -> None:
        self._control = directory / "faults"
        self._library = directory / "faults.so"
        self._data_dir = data_dir
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            if os.environ.get("CI"):
                raise RuntimeError("no C compiler, and CI is set: install gcc")
            raise Missing("no C compiler")
        command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
        subprocess.run([*command, "-o", self._library, SOURCE, "-ldl"], check=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """For the broker. Not named like its own settings, which it does not let be misspelt."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAULTS_CONTROL": str(self._control),
            "FAULTS_BELOW": str(self._data_dir.resolve()),
        }

    def switch(self, *words: str) -> None:
        """Makes this go wrong from now on; nothing, without words."""
        if not words:
            self._control.unlink(missing_ok=True)
            return
        # As a whole: half a word would be none.
        beside = self._control.with_name("faults.new")
        beside.write_text(" ".join(words))
        beside.replace(self._control)

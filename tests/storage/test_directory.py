"""The data directory: where it is, who has it, and what is told when it cannot be used.

A lock belongs to an open file, so that a second opening in one process is refused as that of
another process is. Permissions are not taken away by chmod, as root would not notice.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from amqpd.storage.directory import find_directory, open_directory
from amqpd.storage.errors import StorageError

OPENS_AND_WAITS = """
import sys
from amqpd.storage.directory import open_directory
directory = open_directory(sys.argv[1], {})
print("opened", flush=True)
sys.stdin.read()
"""


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def refusal(opener, configured: Path | str) -> str:
    """The text with which a directory is refused."""
    with pytest.raises(StorageError) as refused:
        opener(str(configured), {})
    return str(refused.value)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, ".local/state/amqpd"),
        ("linux", {"XDG_STATE_HOME": "{home}/state"}, "state/amqpd"),
        ("darwin", {}, "Library/Application Support/amqpd"),
    ],
)
def test_an_empty_setting_means_the_place_of_the_platform(tmp_path, platform, variables, expected):
    given = {name: text.format(home=tmp_path) for name, text in variables.items()}
    directory = open_directory("", {"HOME": str(tmp_path)} | given, platform)
    assert directory.path == tmp_path / expected
    assert directory.file == tmp_path / expected / "amqpd.db"
    assert directory.path.is_dir()
    directory.close()


def test_a_missing_directory_is_made_with_those_above_it_for_this_user_alone(tmp_path):
    directory = open_directory("~/a/b/c", {"HOME": str(tmp_path)})
    assert directory.path == tmp_path / "a/b/c"
    assert {permissions(tmp_path / made) for made in ("a", "a/b", "a/b/c")} == {0o700}
    assert permissions(directory.path / "amqpd.lock") == 0o600
    directory.close()


def test_a_directory_that_is_there_keeps_its_permissions(tmp_path):
    tmp_path.chmod(0o755)
    open_directory(str(tmp_path), {}).close()
    assert permissions(tmp_path) == 0o755


def test_a_second_broker_is_told_who_has_the_directory_and_what_to_do(tmp_path):
    directory = open_directory(str(tmp_path), {})
    assert refusal(open_directory, tmp_path) == (
        f"data directory {tmp_path} is in use by another amqpd (pid {os.getpid()});"
        " stop it or give this one another directory: --data-dir"
    )
    directory.close()


def test_a_directory_is_the_same_by_another_name(tmp_path):
    directory = open_directory(str(tmp_path / "data"), {})
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert "is in use" in refusal(open_directory, tmp_path / "link")
    directory.close()


def test_a_closed_directory_can_be_opened_again_and_closing_twice_takes_it_from_nobody(tmp_path):
    first = open_directory(str(tmp_path), {})
    first.close()
    second = open_directory(str(tmp_path), {})
    first.close()
    assert "is in use" in refusal(open_directory, tmp_path)
    second.close()
    open_directory(str(tmp_path), {}).close()


@pytest.mark.parametrize("written", ["", "nonsense\n", "99999999999999999999999"])
def test_what_an_earlier_process_left_in_the_lock_file_is_replaced(tmp_path, written):
    lock_file = tmp_path / "amqpd.lock"
    lock_file.write_text(written)
    directory = open_directory(str(tmp_path), {})
    assert lock_file.read_text() == f"{os.getpid()}\n"
    directory.close()


def test_a_holder_that_has_not_written_its_number_yet_is_told_without_it(tmp_path):
    directory = open_directory(str(tmp_path), {})
    (tmp_path / "amqpd.lock").write_text("")
    assert "is in use by another amqpd; stop it" in refusal(open_directory, tmp_path)
    directory.close()


def test_a_program_started_by_the_holder_does_not_hold_the_directory(tmp_path):
    directory = open_directory(str(tmp_path), {})
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False):
        directory.close()
        open_directory(str(tmp_path), {}).close()


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_its_directory_to_the_next(tmp_path):
    """Runs another interpreter, as only a process can be killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", OPENS_AND_WAITS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "opened\n"
        assert f"another amqpd (pid {holder.pid});" in refusal(open_directory, tmp_path)
        holder.kill()
    open_directory(str(tmp_path), {}).close()


@pytest.mark.parametrize("opener", [open_directory, find_directory])
def test_a_file_in_place_of_the_directory_is_refused(tmp_path, opener):
    file = tmp_path / "file"
    file.write_text("")
    assert refusal(opener, file) == (
        f"data directory {file} is not a directory; move it away or give another directory:"
        " --data-dir"
    )


def test_a_directory_that_cannot_be_created_is_refused_with_the_part_that_failed(tmp_path):
    (tmp_path / "file").write_text("")
    assert refusal(open_directory, tmp_path / "file/a/b") == (
        f"cannot create data directory {tmp_path}/file/a/b: {tmp_path}/file/a: Not a directory;"
        " give another directory: --data-dir"
    )
    too_long = tmp_path / ("x" * 256)
    assert refusal(open_directory, too_long) == (
        f"cannot create data directory {too_long}: File name too long;"
        " give another directory: --data-dir"
    )


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "amqpd.lock").mkdir()
    assert refusal(open_directory, tmp_path) == (
        f"cannot write data directory {tmp_path}: {tmp_path}/amqpd.lock: Is a directory;"
        " give another directory: --data-dir"
    )


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a file system nobody writes to")
def test_a_directory_that_this_user_may_not_write_is_refused_with_the_user():
    told = refusal(open_directory, "/sys/kernel")
    assert re.fullmatch(
        r"cannot write data directory /sys/kernel: /sys/kernel/amqpd\.lock: "
        rf"(Permission denied; allow it to this user \(uid {os.geteuid()}\) or"
        r"|Read-only file system;) give another directory: --data-dir",
        told,
    )


@pytest.mark.parametrize("opener", [open_directory, find_directory])
@pytest.mark.parametrize(
    ("configured", "why"),
    [
        ("~nobody_has_this_name/data", "there is no home directory"),
        ("/data\0", "NUL in a name"),
    ],
)
def test_a_path_that_means_no_directory_is_refused(opener, configured, why):
    assert refusal(opener, configured).endswith(f": {why}; give another directory: --data-dir")


def test_a_directory_is_found_while_a_broker_uses_it_and_stays_in_its_hands(tmp_path):
    directory = open_directory(str(tmp_path), {})
    directory.file.write_text("")
    found = find_directory(str(tmp_path), {})
    assert (found.path, found.file) == (directory.path, directory.file)
    found.close()
    assert "is in use" in refusal(open_directory, tmp_path)
    directory.close()


def test_finding_a_directory_makes_nothing(tmp_path):
    missing = tmp_path / "missing"
    assert refusal(find_directory, missing) == (
        f"there is no data directory {missing}; give another directory: --data-dir"
    )
    assert refusal(find_directory, tmp_path) == (
        f"data directory {tmp_path} has no amqpd.db: no broker has kept anything there;"
        " give another directory: --data-dir"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_looked_at_is_refused(tmp_path):
    (tmp_path / "amqpd.db").symlink_to(tmp_path / "amqpd.db")
    assert refusal(find_directory, tmp_path) == (
        f"cannot read data directory {tmp_path}: {tmp_path}/amqpd.db:"
        " Too many levels of symbolic links; give another directory: --data-dir"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_that_this_user_may_not_read_is_refused_with_the_user(tmp_path):
    (tmp_path / "amqpd.db").touch(mode=0)
    assert refusal(find_directory, tmp_path) == (
        f"cannot read data directory {tmp_path}: {tmp_path}/amqpd.db: Permission denied;"
        f" allow it to this user (uid {os.geteuid()}) or give another directory: --data-dir"
    )

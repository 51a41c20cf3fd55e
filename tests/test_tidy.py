"""The style guide, executable: what every file of the repository keeps to.

`CONTRIBUTING.md` says the rules in words; here each is one test. Which room may import which is
checked by import-linter (`[tool.importlinter]` in `pyproject.toml`); what it cannot see is here.
"""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "amqpd"

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
LINE_MAX = 100
TEST_NAME_WORDS_MIN = 3

FOLDERS = {"amqpd", "tests", "interop", "conf", "docs"}
# What builds and virtual environments leave in a work tree; none of it is ever committed.
LEFT_BEHIND = re.compile(r"\..*|build|dist|venv|__pycache__|.*\.egg-info")

# The rooms that must give the same bytes for the same inputs.
PURE = (
    "core.py",
    "session/",
    "broker/",
    "wire/",
)
# Those who talk to a person: the command line, the ready line, and why there is no ready line.
PRINTERS = ("cli/", "server/banner.py", "server/run.py")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore(?!\[[\w-]+(, ?[\w-]+)*\]  # \S)")
REMINDER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

Finder = Callable[[Path, ast.Module], Iterator[tuple[int, str]]]


@cache
def python_files(*folders: str) -> tuple[Path, ...]:
    """Python files below top-level folders, without what is installed there."""
    return tuple(
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not {"node_modules", ".run"} & set(path.parts)
    )


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text())


def in_package(path: Path) -> str:
    """The path of a file of the package as the lists above write it."""
    return path.relative_to(PACKAGE).as_posix()


def expect_none(find: Finder, *folders: str) -> None:
    """Fails with file, line and reason of everything that `find` finds."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {reason}"
        for path in python_files(*folders)
        for line, reason in find(path, parsed(path))
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every call: `sleep` for both `sleep(1)` and `time.sleep(1)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.lineno, node.func.attr


def imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of every import; the name is "" for `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, node.module or "", alias.name


def test_no_file_has_more_than_600_lines() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        lines = len(path.read_text().splitlines())
        if lines > FILE_LINES_MAX:
            yield lines, f"{lines} lines"

    expect_none(find, "amqpd", "tests", "interop")


def test_no_function_has_more_than_70_lines() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    yield node.lineno, f"{node.name} has {lines} lines"

    expect_none(find, "amqpd", "tests", "interop")


def test_no_line_is_longer_than_100_columns() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > LINE_MAX and " " in line.strip():  # one word cannot be broken
                yield number, f"{len(line)} columns"

    expect_none(find, "amqpd", "tests", "interop")


def test_every_module_says_what_it_is_for() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        if tree.body and not ast.get_docstring(tree):
            yield 1, "no module docstring"

    expect_none(find, "amqpd", "tests", "interop")


def test_public_classes_and_functions_have_docstrings() -> None:
    """Handlers of methods are excepted: AMQP says what `exchange.declare` is."""

    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        if in_package(path).startswith("session/methods/"):
            return
        for node in tree.body:
            if not isinstance(node, (ast.ClassDef, *FUNCTIONS)) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                yield node.lineno, f"{node.name} has no docstring"

    expect_none(find, "amqpd")


def test_every_type_ignore_gives_its_reason() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if TYPE_IGNORE.search(line):
                yield number, "write `# type: ignore[code]  # why`"

    expect_none(find, "amqpd")


def test_nothing_is_left_to_be_done_later() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        if path == Path(__file__):
            return  # it has the words it looks for
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if found := REMINDER.search(line):
                yield number, found[0]

    expect_none(find, "amqpd", "tests", "interop")


def test_only_the_command_line_and_the_start_print() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        if not in_package(path).startswith(PRINTERS):
            yield from ((line, "print") for line, name in calls(tree) if name == "print")

    expect_none(find, "amqpd")


def test_unit_tests_never_sleep() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        for line, name in calls(tree):
            if name in {"sleep", "sleep_until", "sleep_forever"}:
                yield line, name

    expect_none(find, "tests")


def test_unit_tests_import_no_client_of_a_broker() -> None:
    clients = {"pika", "aio_pika", "aiormq", "kombu", "celery", "amqp"}

    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        for line, module, _ in imports(tree):
            if module.split(".")[0] in clients:
                yield line, module

    expect_none(find, "tests")


def test_the_name_of_every_test_is_a_sentence() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        if not path.name.startswith("test_"):
            return
        for node in ast.walk(tree):
            if not isinstance(node, FUNCTIONS) or not node.name.startswith("test_"):
                continue
            if len(node.name.split("_")[1:]) < TEST_NAME_WORDS_MIN:
                yield node.lineno, node.name

    expect_none(find, "tests")


def test_only_wire_methods_imports_pamqp() -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        if in_package(path) == "wire/methods.py":
            return
        for line, module, _ in imports(tree):
            if module.split(".")[0] == "pamqp":
                yield line, module

    expect_none(find, "amqpd")


def test_the_core_reads_no_clock_and_no_file_and_draws_no_random_numbers_of_its_own() -> None:
    """The names that modules it may import could lend it; import-linter forbids the modules."""
    borrowed = re.compile(r"open\(|Random\(|date(time)?\.(now|utcnow|today)\b")

    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        if not in_package(path).startswith(PURE):
            return
        for line, module, name in imports(tree):
            if module == "random" and name != "Random":
                yield line, f"random.{name}: only the class Random, to be handed in"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call | ast.Attribute):
                source = ast.unparse(node)
                if borrowed.match(source):
                    yield node.lineno, source

    expect_none(find, "amqpd")


def test_the_model_makes_no_replies_and_knows_neither_json_nor_sql() -> None:
    foreign = {"amqpd.wire.methods", "amqpd.wire.prefixes", "json", "msgspec.json", "sqlite3"}

    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        # The ends of basic.deliver are made once an address, where the address is kept.
        if not in_package(path).startswith("broker/") or path.name == "message.py":
            return
        for line, module, name in imports(tree):
            if module in foreign or f"{module}.{name}" in foreign:
                yield line, f"{module} {name}".strip()

    expect_none(find, "amqpd")


@pytest.mark.parametrize("final", ["Queue", "Core"])
def test_queue_and_core_have_no_subclasses(final: str) -> None:
    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for base in node.bases:
                    name = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
                    if name == final:
                        yield node.lineno, f"{node.name} is a subclass of {final}"

    expect_none(find, "amqpd", "tests", "interop")


def test_errors_are_never_caught_and_dropped_without_a_word() -> None:
    """`except X: pass` says why in a comment."""

    def find(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
        lines = path.read_text().splitlines()
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if node.type is None:
                yield node.lineno, "bare except"
            whole = lines[node.lineno - 1 : node.body[-1].end_lineno]
            if isinstance(node.body[0], ast.Pass) and not any("#" in line for line in whole):
                yield node.lineno, "except: pass without a reason"

    expect_none(find, "amqpd")


def test_the_top_level_has_its_folders_and_no_others() -> None:
    found = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert {name for name in found if not LEFT_BEHIND.fullmatch(name)} == FOLDERS

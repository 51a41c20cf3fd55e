"""The documents are held to the code: what they name exists, and what exists they name."""

import re
from pathlib import Path

import pytest

from amqpd.config.schema import settings, tables
from amqpd.config.sources import load as load_config
from amqpd.testing.conversation import load
from amqpd.version import VERSION

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "amqpd"
CONVERSATION_FILES = sorted((ROOT / "tests/conversations").glob("*.conv"))
CONVERSATIONS = {item.name: item for path in CONVERSATION_FILES for item in load(path)}

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "interop/*/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
    if not {"node_modules", ".run"} & set(path.parts)
)
ARCHITECTURE = ROOT / "docs/ARCHITECTURE.md"
COMPATIBILITY = ROOT / "docs/COMPATIBILITY.md"

in_documents = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def code_spans(text: str) -> list[str]:
    """What stands between single backticks, outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def conversations_named() -> set[str]:
    """The conversations that COMPATIBILITY.md names; `file: *` names all of a file."""
    files = "|".join(path.stem for path in CONVERSATION_FILES)
    spans = code_spans(COMPATIBILITY.read_text())
    named = {span for span in spans if re.match(rf"({files}): ", span)}
    whole = {span.removesuffix("*") for span in named if span.endswith(": *")}
    known = {name for name in CONVERSATIONS if name.startswith(tuple(whole))}
    return known | {span for span in named if not span.endswith(": *")}


@in_documents
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    local = {link.split("#")[0] for link in links if not re.match(r"https?:|#", link)}
    assert [link for link in sorted(local) if not (document.parent / link).exists()] == []


@in_documents
def test_every_test_that_is_named_exists(document: Path) -> None:
    named = [span for span in code_spans(document.read_text()) if span.startswith("tests/")]
    missing = []
    for span in named:
        if "<" in span:
            continue  # a name that the reader is to fill in
        path, _, test = span.partition("::")
        if not (ROOT / path).exists() or (test and f"def {test}(" not in (ROOT / path).read_text()):
            missing.append(span)
    assert missing == []


@in_documents
def test_every_setting_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    known = {f"{table}.{key}" for table, key in settings()}
    variables = re.findall(r"\bAMQPD_([A-Z]+)__([A-Z_]+)\b", text)
    named = {f"{table}.{name}".lower() for table, name in variables if table != "TABLE"}
    for span in code_spans(text):
        # Methods of AMQP have hyphens where settings have underscores.
        match = re.fullmatch(r"([a-z]+)\.([a-z]+_[a-z_]+)( = .*)?", span)
        if match and match[1] in tables():
            named.add(f"{match[1]}.{match[2]}")
    assert named - known == set()


@in_documents
def test_every_configuration_that_is_shown_is_valid(document: Path, tmp_path: Path) -> None:
    shown = re.findall(r"^```toml\n(.*?)^```", document.read_text(), re.M | re.S)
    for number, text in enumerate(shown):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        load_config(file, environ={}, flags={})


def test_every_conversation_that_compatibility_names_exists() -> None:
    assert conversations_named() - CONVERSATIONS.keys() == set()


def test_every_known_difference_from_rabbitmq_is_in_compatibility() -> None:
    """Conversations with an `a~` line, for RabbitMQ 4.x only, or about what is not there yet."""
    different = {
        name
        for name, conversation in CONVERSATIONS.items()
        if conversation.only == "4.x"
        or conversation.file == "not_yet"
        or any(step.differences for step in conversation.steps)
    }
    assert different - conversations_named() == set()


def test_the_code_map_names_every_module_and_nothing_else() -> None:
    text = ARCHITECTURE.read_text()
    text = text[text.index("## Code map") : text.index("## Invariants")]
    named = set(code_spans(text))
    unnamed = []
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        if path.name == "__init__.py" or inside.parts[0] in {"cli", "config", "testing"}:
            continue
        room = inside.parts[0]
        spellings = {f"amqpd/{inside}", str(inside), str(inside.relative_to(room))}
        folders = {f"{parent}/" for parent in inside.relative_to(room).parents}
        if not spellings & named and not folders & named:
            unnamed.append(str(inside))
    assert unnamed == []
    files = {path.name for path in PACKAGE.rglob("*.py")}
    named_files = {span.split("/")[-1] for span in named if re.fullmatch(r"[\w/]+\.py", span)}
    assert named_files - files == set()


def test_architecture_is_short_enough_to_be_read() -> None:
    assert len(ARCHITECTURE.read_text().splitlines()) <= 300


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    first = re.search(r"^## \[(.+?)\]", text, re.M)
    assert first
    assert first[1] == VERSION or (first[1] == "Unreleased" and f"Will be {VERSION}" in text)

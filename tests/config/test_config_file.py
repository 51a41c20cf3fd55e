"""The lines on which keys stand, for every way in which TOML lets one write them."""

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from amqpd.config.problems import ConfigError
from amqpd.config.sources import load_file
from amqpd.config.toml_file import line_numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only a comment\n\n", {}),
        ("a = 1\nb = 2", {("a",): 1, ("b",): 2}),
        ("[t]\na = 1\r\n\r\nb = 2\r\n", {("t",): 1, ("t", "a"): 2, ("t", "b"): 4}),
        ("[t] # x\n\n  a = 1 # y\n", {("t",): 1, ("t", "a"): 3}),
        ("t.a = 1\n", {("t",): 1, ("t", "a"): 1}),
        ('t = { a = 1, b = "x" }\n', {("t",): 1, ("t", "a"): 1, ("t", "b"): 1}),
        ("[t]\na = [\n  1, # one\n  2,\n]\nb = 3\n", {("t",): 1, ("t", "a"): 2, ("t", "b"): 6}),
        ('[t]\na = """\n[u]\nb = 1\n"""\nc = 1\n', {("t",): 1, ("t", "a"): 2, ("t", "c"): 6}),
        ("[t]\na = 'x\u2028y'\nb = 1\n", {("t",): 1, ("t", "a"): 2, ("t", "b"): 3}),
        (
            "[t.u]\na = 1\n[t]\nb = 2\n",
            {("t", "u"): 1, ("t", "u", "a"): 2, ("t",): 3, ("t", "b"): 4},
        ),
        ('["t"]\n"a b" = 1\n', {("t",): 1, ("t", "a b"): 2}),
    ],
)
def test_each_key_and_table_is_found_on_its_line(text, expected):
    tomli.loads(text)
    assert line_numbers(text) == expected


LINES = st.lists(
    st.sampled_from(
        [
            "",
            "# note",
            "{} = 1",
            '{} = "[x]"',
            "{} = [\n  1,\n\n  2\n]",
            "{} = '''\n[t]\nq = 1\n'''",
        ]
    ),
    max_size=8,
)


@given(LINES, LINES)
def test_blank_lines_comments_and_long_values_never_shift_a_line(before, after):
    numbered = [
        line.format(f"k{index}") if "{}" in line else line
        for index, line in enumerate([*before, "[table]", *after])
    ]
    text = "\n".join(numbered)
    rows = text.split("\n")
    for path, line in line_numbers(text).items():
        begins = rows[line - 1]
        assert begins == "[table]" if path == ("table",) else begins.startswith(f"{path[-1]} = ")


def test_policies_are_lists_of_tables(tmp_path):
    file = tmp_path / "amqpd.toml"
    file.write_text(
        '[[policies]]\nname = "a"\npattern = "^a"\ndefinition = {max-length = 1}\n'
        '[[policies]]\nname = "b"\npattern = "^b"\napply_to = "exchanges"\npriority = 2\n'
        'definition = {alternate-exchange = "x"}\n'
        '[[operator_policies]]\nname = "o"\npattern = ""\ndefinition = {expires = 1}\n'
    )
    config = load_file(file).config
    assert [each.name for each in config.policies] == ["a", "b"]
    assert (config.policies[1].apply_to, config.policies[1].priority) == ("exchanges", 2)
    assert config.operator_policies[0].definition == {"expires": 1}


def test_a_policy_with_something_wrong_is_told_by_its_number(tmp_path):
    file = tmp_path / "amqpd.toml"
    file.write_text(
        '[[policies]]\nname = "a"\npattern = "^a"\ndefinition = {max-length = 1}\n'
        '[[policies]]\nname = "b"\npattern = 7\ndefinition = {}\n'
        '[operator_policies]\nname = "o"\n'
    )
    with pytest.raises(ConfigError) as refused:
        load_file(file)
    first, second = refused.value.problems
    assert "[[policies]] number 2 is not possible (Expected str, got int at pattern)" in first
    assert "it has name, pattern, apply_to, priority, definition" in first
    assert "operator_policies is a list of tables: write [[operator_policies]]" in second

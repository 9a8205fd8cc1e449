"""A plugin's name with options: one text, read in one way wherever it stands."""

import doctest
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import UserError
from zoo.plugins import spec
from zoo.plugins.spec import PluginSpec

WORD = st.text(string.ascii_letters + string.digits + "_", min_size=1)
VALUE = st.text(string.ascii_letters + string.digits + "_.+-/ ", min_size=1).map(str.strip).filter(bool)


@given(WORD, st.dictionaries(WORD, VALUE), st.sampled_from(["", " ", "\n  "]))
def test_what_is_written_is_read(name: str, options: dict[str, str], space: str) -> None:
    settings = [f"{key}{space}={space}{value}" for key, value in options.items()]
    separator = f"{space},{space}"
    assert PluginSpec.parse(f"{space}{name}({separator.join(settings)}{space})") == PluginSpec(name, options)
    assert PluginSpec.parse(separator.join([name, *settings])) == PluginSpec(name, options)
    quoted = [f'{key}="{value}, (x) = [y"' for key, value in options.items()]
    unquoted = {key: f"{value}, (x) = [y" for key, value in options.items()}
    assert PluginSpec.parse(f"{name}({','.join(quoted)})") == PluginSpec(name, unquoted)


def test_brackets_hold_commas() -> None:
    assert PluginSpec.parse("m(eps=[0.1, 0.2], tau=1,)").options == {"eps": "[0.1, 0.2]", "tau": "1"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("m(tau=0.2", r"the \) is missing"),
        ("m(tau=0.2) x", r"text stands after the \)"),
        ("m(tau=f(2))", "cannot be nested"),
        ("m(n(tau=1))", "cannot be nested"),
        ("m(tau=[1)", "] is missing|cannot be nested"),
        ("m(tau='1)", "' is missing"),
        ("m(0.2)", "'0.2' is not key=value"),
        ("m(tau)", "'tau' is not key=value"),
        ("m(tau=)", "'tau=' is not key=value"),
        ("m(=1)", "'=1' is not key=value"),
        ("m(tau=1,,start=2)", "an option is empty"),
        ("m(tau=1, tau=2)", "gives tau twice"),
        ("m tau=1", "neither"),
        ("(tau=1)", "there is no name"),
        ("", "there is no name"),
    ],
)
def test_another_form_is_answered_in_one_line_with_what_to_write(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        PluginSpec.parse(text, "--method")
    assert str(caught.value).startswith("--method: ")
    assert "\n" not in str(caught.value)
    assert "write name(key=value" in str(caught.value) or "leave one out" in str(caught.value)


def test_the_example_is_right() -> None:
    assert doctest.testmod(spec).failed == 0

"""Messages are what the document says, byte by byte, and whatever else comes is told apart from them."""

import json
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.messages import MessageError, decode, encode


def test_a_message_is_json_and_little_endian_doubles_row_by_row():
    parts = encode({"kind": "episode", "episode": 7}, {"k": np.float32([[1.5, -2.0], [0.25, 3.0]]), "x": [[]]})
    assert json.loads(parts[0]) == {"kind": "episode", "episode": 7, "arrays": {"k": [2, 2], "x": [1, 0]}}
    assert parts[1:] == [struct.pack("<4d", 1.5, -2.0, 0.25, 3.0), b""]


def test_what_was_encoded_is_decoded_to_the_last_bit():
    values = np.random.default_rng(0).normal(size=(3, 2, 4))
    message = decode(encode({"kind": "a", "t": 2}, {"K": values, "none": np.zeros((2, 0))}))
    assert dict(message.fields) == {"kind": "a", "t": 2}
    np.testing.assert_array_equal(message.array("K", (3, 2, 4)), values)
    assert message.array("none", (2, 0)).shape == (2, 0)


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ([], "not JSON"),
        ([b"\xff"], "not JSON"),
        ([b"[" * 100_000], "not JSON"),
        ([b"9" * 5000], "not JSON"),
        ([b"[]"], "not a JSON object"),
        ([b'{"arrays": [1]}'], "not a JSON object"),
        ([b'{"arrays": {"x": [-1]}}', b""], "not a JSON object"),
        ([b'{"arrays": {"x": [true]}}', b"12345678"], "not a JSON object"),
        ([b'{"arrays": {"x": [2]}}'], "names 1 arrays and has 0"),
        ([b'{"arrays": {"x": [2]}}', b"12345678"], "x has 8 bytes, and [2] doubles take 16"),
        ([b'{"arrays": {"x": [1000000000, 1000000000]}}', b"12345678"], "x has 8 bytes"),
    ],
)
def test_what_is_wrong_with_a_message_is_named(parts, what):
    with pytest.raises(MessageError) as error:
        decode(parts)
    assert what in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({}, "x is missing"),
        ({"x": [1.0]}, r"x has shape \(1,\), and must have \(2,\)"),
    ],
)
def test_what_is_wrong_with_an_array_is_named(arrays, what):
    with pytest.raises(MessageError, match=what):
        decode(encode({}, arrays)).array("x", (2,))


def test_no_number_that_is_not_finite_comes_or_goes():
    with pytest.raises(MessageError, match=r"u\[1, 0\] is inf, and must be finite"):
        encode({}, {"u": np.array([[0.0], [np.inf]])})
    message = decode([b'{"arrays": {"u": [2]}}', struct.pack("<2d", 1.0, np.nan)])
    with pytest.raises(MessageError, match=r"u\[1\] is nan, and must be finite"):
        message.array("u", (2,))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=3))
def test_bytes_of_any_kind_are_a_message_or_an_error(parts):
    with suppress(MessageError):
        decode(parts)


WORDS = st.sampled_from(["", "x", "arrays"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_json_of_any_kind_is_a_message_or_an_error(header):
    for value in (header, {"arrays": header}, {"arrays": {"x": header}}):
        with suppress(MessageError):
            decode([json.dumps(value).encode(), b"12345678"])

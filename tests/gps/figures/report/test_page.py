"""The page as a file: it names nothing outside of itself, and no text of a run is markup."""

from __future__ import annotations

import builtins
from html.parser import HTMLParser

import pytest

from gps.errors import UserError
from gps.figures.report.page import packed, page, unpacked

HOSTILE = "</script><script>window.hacked = 1</script><img src=http://evil.example/x onerror=hack()> {{report}} <!--"


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "abcd", "<!-- </script>", "λ" * 1000])
def test_what_is_packed_comes_back_and_has_no_tag(text):
    assert unpacked(packed(text)) == text
    assert not set("<'\"/\\") & set(packed(text))


def test_a_hostile_text_is_no_markup():
    """A page of nothing but such texts has the tags of any other."""
    plain, hostile = (
        page(text, {"facts": [[text, text]], "notes": [text], "axes": {}, "sections": [{"title": text}]})
        for text in ("words", HOSTILE)
    )
    assert Tags(hostile).tags == Tags(plain).tags
    assert "evil.example" not in hostile.replace("&lt;img src=http://evil.example", "")


def test_a_page_loads_nothing():
    """No tag has an address, and the page's own policy forbids what a script might try."""
    tags = Tags(page("words", {})).tags
    assert not [pair for _, attributes in tags for pair in attributes.items() if pair[0] in ("src", "href", "action")]
    (policy,) = [a["content"] for tag, a in tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy


def test_the_same_report_is_the_same_file():
    assert page("words", {"a": 1}) == page("words", {"a": 1})


def test_without_plotly_the_error_says_how_to_install_it(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments):
        if name.startswith("plotly"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'guided-policy-search\[report\]'"):
        page("words", {})

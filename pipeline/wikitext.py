"""Wikitext: the running text of an article, and whether it is a disambiguation page.

in      the wikitext of one page
out     its text, a line for each line of the article; or a reason why there is none
drops   too_deep: brackets nested deeper than MAX_DEPTH, which only vandals write
law     comments, templates, tables, references, formulas, code, files, categories and URLs leave nothing; of a link stays
        what the reader sees. Words on both sides of what is taken out stay two words
cost    time linear in the page, whatever is in it. mwparserfromhell alone is not: 12,500 tables that nobody closes
        (50 kB) take it 70 s, 5,000 external links more than 8. So one pass with a stack takes out what may nest first,
        and the library reads what is left: links, entities, headings. This is also several times faster
source  MediaWiki's help on markup; mwparserfromhell 0.7 for links and entities
"""

import re

import mwparserfromhell
from mwparserfromhell.nodes import Heading, HTMLEntity, Text, Wikilink

TOO_DEEP = "too_deep"
MAX_DEPTH = 100
SKIPPED_TAGS = (
    "ref", "math", "chem", "ce", "gallery", "timeline", "score", "graph", "hiero", "imagemap", "inputbox", "syntaxhighlight",
    "source", "templatedata", "categorytree", "mapframe", "maplink", "style", "script", "templatestyles",
)  # fmt: skip
SKIPPED_LINKS = re.compile(r"\s*(?:file|image|media|category)\s*:", re.I)
OTHER_LANGUAGE = re.compile(r"\s*[a-z]{2,3}(?:-[a-z-]{2,12})?:(?! )")
_NESTING = re.compile(
    r"(?P<template>\{\{)|(?P<end_template>\}\})|(?P<table>^[ \t:*]*\{\|)|(?P<end_table>^[ \t]*\|\})"
    rf"|<(?P<close>/?)(?P<tag>{'|'.join(SKIPPED_TAGS)})\b[^<>]{{0,2000}}>",
    re.I | re.M,
)
_LINK = re.compile(r"\[\[|\]\]")
_URL = re.compile(r"\[?(?:\b(?:https?|ftp):)?//[^\s\[\]<>|]{1,2000}", re.I)
_TAG = re.compile(r"</?[a-z][^<>]{0,2000}>", re.I)
_LINE_START = re.compile(r"^[*#:; ]+|^-{4,}|__[A-Z]{3,32}__", re.M)
_DISAMBIGUATION = re.compile(
    r"\{\{[ _]*(?:[\w -]{0,40}disambig(?:uation)?(?: page)?|dab|hndis|geodis|numberdis|mathdab|schooldis|hospitaldis"
    r"|letter-number combination disambiguation)[ _]*(?:\||\}\}|\n)|__DISAMBIG__"
    r"|\[\[[ ]*Category:[^\]\n]{0,100}disambiguation pages",
    re.I,
)
_DISAMBIGUATION_TITLE = re.compile(r"\(disambiguation\)\s*$", re.I)


def is_disambiguation(title: str, wikitext: str) -> bool:
    """True for a page that only lists what its title may mean: by title, template, magic word or category."""
    return bool(_DISAMBIGUATION_TITLE.search(title) or _DISAMBIGUATION.search(wikitext))


def plain_text(wikitext: str) -> tuple[str, str | None]:
    """The text of the page, and the reason why there is none."""
    wikitext = _without_comments(wikitext)
    for find_spans in (_nested_spans, _bad_links):
        spans = find_spans(wikitext)
        if spans is None:
            return "", TOO_DEEP
        wikitext = _without(wikitext, spans)
    wikitext = _TAG.sub(" ", wikitext.replace("{{", " ").replace("{|", " ")).replace("<", " ")
    wikitext = _LINE_START.sub(" ", _URL.sub(" ", wikitext))
    pieces: list[str] = []
    _collect(mwparserfromhell.parse(wikitext, skip_style_tags=True), pieces)
    return "".join(pieces), None


def _collect(code: mwparserfromhell.wikicode.Wikicode, pieces: list[str]) -> None:
    for node in code.nodes:
        if isinstance(node, Text):
            pieces.append(node.value)
        elif isinstance(node, Wikilink):
            title = str(node.title)
            if SKIPPED_LINKS.match(title) or (node.text is None and OTHER_LANGUAGE.match(title)):
                pieces.append(" ")
            else:
                _collect(node.text if node.text is not None else node.title, pieces)
        elif isinstance(node, HTMLEntity):
            pieces.append(node.normalize() or " ")
        elif isinstance(node, Heading):
            _collect(node.title, pieces)
        else:
            pieces.append(" ")


def _without_comments(text: str) -> str:
    pieces, at = [], 0
    while (start := text.find("<!--", at)) >= 0:
        end = text.find("-->", start + 4)
        pieces.append(text[at:start])
        at = end + 3 if end >= 0 else len(text)  # a comment that nobody closes goes on to the end, as in MediaWiki
    return " ".join([*pieces, text[at:]]) if pieces else text


def _nested_spans(text: str) -> list[tuple[int, int]] | None:
    """Where templates, tables and skipped tags are; None where they nest too deep."""
    spans: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    for found in _NESTING.finditer(text):
        name = found.lastgroup or ""
        if name == "tag":
            name = found["tag"].lower()
            if found[0].endswith("/>"):
                spans.append(found.span())
                continue
            is_end = bool(found["close"])
        else:
            is_end, name = name.startswith("end_"), name.removeprefix("end_")
        if not is_end:
            stack.append((name, found.start()))
            if len(stack) > MAX_DEPTH:
                return None
        elif any(opened == name for opened, _ in stack):
            while (top := stack.pop())[0] != name:
                pass
            spans.append((top[1], found.end()))
    return spans


def _bad_links(text: str) -> list[tuple[int, int]] | None:
    """The brackets of links that nobody closes or that stand in a link in a link; a file's caption may hold links."""
    spans: list[tuple[int, int]] = []
    stack: list[int] = []
    for found in _LINK.finditer(text):
        if found[0] == "[[":
            stack.append(found.start())
        elif not stack:
            spans.append(found.span())
        else:
            start = stack.pop()
            if len(stack) >= 2:
                spans += [(start, start + 2), found.span()]
    return spans + [(start, start + 2) for start in stack]


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with a space for each span; a span in a span counts once."""
    pieces, at = [], 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= at:
            pieces.append(text[at:start])
            at = end
    return " ".join([*pieces, text[at:]])

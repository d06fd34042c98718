"""The part of YAML that configurations are written in: mappings, lists and plain values by indentation, no
more.

Tags, anchors, aliases and several documents are refused: a file beside a model is data from elsewhere, too.
"""

from __future__ import annotations

import json
import re

MAX_DEPTH = 20
KEY = re.compile(r"^(?P<key>[^\s#:'\"\[\]{},&*!|>%@`][^:#]*?|'[^']*'|\"[^\"]*\")\s*:(?:\s+(?P<rest>.*))?$")
NUMBER = re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$")
CONSTANTS = {"": None, "~": None, "null": None, "true": True, "yes": True, "false": False, "no": False}


def read_yaml(text: str) -> object:
    """The value of a document.

    Raises:
        ValueError: it holds more than the part of YAML that is read here; the message says in which line.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = without_comment(line).rstrip()
        if not stripped.strip() or stripped.strip() == "---":
            continue
        content = stripped.lstrip(" ")
        if content.startswith("\t"):
            raise ValueError(f"line {number} is indented by a tab")
        lines.append((number, len(stripped) - len(content), content))
    if not lines:
        return {}
    value, end = _block(lines, 0, lines[0][1], 0)
    if end != len(lines):
        raise ValueError(f"line {lines[end][0]} is indented in another way")
    return value


def without_comment(line: str) -> str:
    """A line up to a # that stands outside of quotes."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place]
    return line


def _block(lines, start, indent, depth):
    if depth > MAX_DEPTH:
        raise ValueError(f"line {lines[start][0]} lies too deep")
    if lines[start][2] == "-" or lines[start][2].startswith("- "):
        return _list(lines, start, indent, depth)
    if KEY.match(lines[start][2]):
        return _mapping(lines, start, indent, depth)
    return scalar(lines[start][2], lines[start][0]), start + 1


def _mapping(lines, place, indent, depth):
    values = {}
    while place < len(lines) and lines[place][1] == indent:
        number, _, content = lines[place]
        match = KEY.match(content)
        if match is None:
            break
        key, rest = match["key"].strip("'\""), (match["rest"] or "").strip()
        place += 1
        if rest:
            values[key], place = scalar(rest, number), _after(lines, place, indent)
            continue
        below = place < len(lines) and (
            lines[place][1] > indent or (lines[place][1] == indent and lines[place][2].startswith("-"))
        )
        values[key] = None
        if below:
            values[key], place = _block(lines, place, lines[place][1], depth + 1)
    return values, place


def _after(lines, place, indent):
    if place < len(lines) and lines[place][1] > indent:
        raise ValueError(f"line {lines[place][0]} goes on with the line before, which is not read")
    return place


def _list(lines, place, indent, depth):
    values = []
    while place < len(lines) and lines[place][1] == indent and lines[place][2][:2] in ("-", "- "):
        number, _, content = lines[place]
        rest = content[1:].lstrip()
        if not rest:
            place += 1
            value = None
            if place < len(lines) and lines[place][1] > indent:
                value, place = _block(lines, place, lines[place][1], depth + 1)
        else:  # what follows the dash is a block that begins there
            inner = indent + len(content) - len(rest)
            lines[place] = (number, inner, rest)
            value, place = _block(lines, place, inner, depth + 1)
        values.append(value)
    return values, place


def scalar(text: str, number: int) -> object:
    """A plain value, a quoted one, or a list in brackets."""
    if text[0] in "&*!|>%@`{":
        if text == "{}":
            return {}
        raise ValueError(f"line {number} has something else than plain values ({text[:20]!a})")
    if text[0] == "[":
        return _flow(text, number)
    if text[0] == "'" and text.endswith("'") and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text[0] == '"':
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"line {number} has a text that is not closed") from error
    if text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()]
    if NUMBER.match(text):
        plain = text.replace("_", "")
        return float(plain) if re.search(r"[.eE]", plain) else int(plain)
    return text


def _flow(text: str, number: int) -> list:
    """A list in brackets, which may hold lists."""
    stack: list[list] = [[]]
    for token in re.findall(r"\[|\]|'[^']*'|\"[^\"]*\"|[^\[\],]+|,", text):
        word = token.strip()
        if word == "[":
            stack.append([])
        elif word == "]":
            if len(stack) < 2:
                raise ValueError(f"line {number} has a bracket too many")
            closed = stack.pop()
            stack[-1].append(closed)
        elif word and word != ",":
            stack[-1].append(scalar(word, number))
        if len(stack) > MAX_DEPTH:
            raise ValueError(f"line {number} lies too deep")
    if len(stack) != 1 or len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise ValueError(f"line {number} has a list that is not closed")
    return stack[0][0]

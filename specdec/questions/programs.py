"""Programs: the code that an answer holds, as one text that stands on its question's stub.

Finds code in Markdown or in bare text, and compiles it to see what is whole; runs nothing. Standard library only: it
is the sandboxed process that reads answers (`sandboxed.py`), since compiling a hostile text can end a process.
"""

import ast
import builtins
import re
import symtable
import sys
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

MAX_ENDS = 8  # closing fences tried for a block whose docstring holds fences of its own
MAX_GLUED = 40  # lines that begin at the margin and may still be one statement
# A fence, as CommonMark has it, after the marks of list items and quotations.
_OPENING = re.compile(
    r"(?P<before>(?:[ \t]*(?:>|[-*+]|\d+[.)])(?=[ \t]))*[ \t]*)(?P<fence>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)"
)
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+(?:\([^)]*\)|[^\n(;#]+)", re.MULTILINE)
# A fence after words or code on the same line.
_MID_LINE = re.compile(
    r"^(?![ \t]*(?:\d+[.)]|[-*+>])[ \t]+`)([^`\n\"']*\w[^`\n\"']*?)[ \t]*(`{3,}\w*)[ \t]*$", re.MULTILINE
)
_GOES_ON = re.compile(r"(?:else|elif|except|finally)\b|[)\]}]|\"\"\"|'''")  # a line at the margin that begins nothing


class Block(NamedTuple):
    """A fenced block without its fences and the indentation of its list item."""

    code: str
    is_closed: bool  # False: the text ended first, cut by its budget


def code_of(text: str, stub: str, function: str = "") -> str:
    """The program in an answer to `stub`: what defines `function` (by default the last that the stub defines).

    That is the last block that defines it, with what it needs of other blocks; else bare text that defines it; else a
    block, or all of the text, as the body that the stub lacks. The stub comes first, for its imports and helpers.
    """
    text, stub = _plain_lines(text), _plain_lines(stub)
    function = function or _last_function(stub)
    is_body = text.lstrip("\n")[:1] in (" ", "\t") and not defines(textwrap.dedent(text), function)
    if is_body and is_whole(stub + text):
        return stub + text  # as the data set has it: the text goes on where the stub ends
    found = blocks(text)
    number = next(_defining(found, function), None)
    if number is not None:
        others = [_at_margin(block.code) for block in found]
        code = others[number] if found[number].is_closed else whole_statements(others[number])
        needed = _needed(code, stub, others, number)
        return _joined([complete(stub), *needed[:1], code, *needed[1:]])
    for bare in map(whole_statements, (text, _indented(text, function))):
        if defines(bare, function):
            return _joined([complete(stub), bare])
    return next(_with_body(text, found, stub), f"{complete(stub)}\n{text}")


def is_whole(code: str) -> bool:
    """Whether Python takes it for a program."""
    try:
        compile(code, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
        return False
    return True


def complete(stub: str) -> str:
    """A stub that runs: with a body where it has not even a docstring; nothing where none makes it whole."""
    tails = ("", "    pass\n", "  pass\n", "\tpass\n")
    return next((f"{stub}\n{tail}" for tail in tails if is_whole(f"{stub}\n{tail}")), "")


def defines(code: str, name: str) -> bool:
    """Whether a line at the margin gives `name` a function, a class or a value, be the code whole or not."""
    name = re.escape(name)
    found = rf"^(?:(?:async[ \t]+)?def[ \t]+{name}\b|class[ \t]+{name}\b|{name}[ \t]*(?::[^=\n]*)?=(?!=))"
    return re.search(found, code, re.MULTILINE) is not None


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in order."""
    lines, found, at = text.split("\n"), [], 0
    while at < len(lines):
        opening = _OPENING.fullmatch(lines[at])
        at += 1
        if opening is not None:
            block, after = _block(lines[at:], opening)
            is_stray = not is_whole(_at_margin(block.code)) and any(map(_names_language, block.code.split("\n")))
            if not is_stray:
                found.append(block)
                at += after
    return found


def whole_statements(text: str) -> str:
    """The statements of a text that are whole and define or do something: without prose, without what was cut."""
    lines = text.split("\n")
    starts = [n for n, line in enumerate(lines) if line[:1].strip() and not _GOES_ON.match(line)]
    ends, kept, n = [*starts[1:], len(lines)], [], 0
    while n < len(starts):
        pieces = (("\n".join(lines[starts[n] : end]), m) for m, end in enumerate(ends[n : n + MAX_GLUED], n + 1))
        piece, after = next(((piece, m) for piece, m in pieces if is_whole(piece)), ("", n + 1))
        kept += [piece] if _says_something(piece) else []
        n = after
    return "\n".join(kept)


def _plain_lines(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    return _MID_LINE.sub(r"\1\n\2", text)


def _last_function(stub: str) -> str:
    names = re.findall(r"^(?:async[ \t]+)?def[ \t]+(\w+)", stub, re.MULTILINE)
    return names[-1] if names else ""


def _names_language(line: str) -> bool:
    opening = _OPENING.fullmatch(line)
    return opening is not None and len(opening["before"]) <= 3 and bool(opening["info"].strip())


def _block(lines: list[str], opening: re.Match[str]) -> tuple[Block, int]:
    """The block after an opening fence, and how many lines it takes with its closing fence.

    Where the first closing fence leaves no whole program, it may stand in a docstring: a later one is taken if it
    does. A fence at any depth closes what nothing else does.
    """
    width, is_quoted = len(opening["before"]), ">" in opening["before"]
    inner = [_without(line, width, is_quoted) for line in lines]
    closing = re.compile(rf"([ \t]*){opening['fence'][0]}{{{len(opening['fence'])},}}[ \t]*")
    ends = {n: len(match[1]) for n, line in enumerate(inner) if (match := closing.fullmatch(line))}
    proper = [n for n, depth in ends.items() if depth <= 3]
    first = proper[0] if proper else len(inner)
    for end in (first, *list(ends)[:MAX_ENDS]):
        code = "\n".join(inner[:end])
        if is_whole(_at_margin(code)):
            return Block(code, end < len(inner)), end + 1
    return Block("\n".join(inner[:first]), first < len(inner)), first + 1


def _without(line: str, width: int, is_quoted: bool) -> str:
    """A line of a block without the blanks, or the marks of a quotation, that its fence has before it."""
    if is_quoted:
        return re.sub(r"^[ \t]*(?:>[ \t]?)+", "", line)
    blanks = len(line) - len(line.lstrip(" \t"))
    return line[min(width, blanks) :]


def _at_margin(code: str) -> str:
    """Code that begins at the margin, but for a body, which is whole nowhere else than in its function."""
    return textwrap.dedent(code) if code.lstrip("\n")[:1] in (" ", "\t") else code


def _indented(text: str, function: str) -> str:
    """The lines at the depth of a definition of the function or deeper: Markdown's other kind of code block."""
    start = re.search(rf"^([ \t]+)(?:async[ \t]+)?def[ \t]+{re.escape(function)}\b", text, re.MULTILINE)
    if start is None or re.search("^class ", text, re.MULTILINE):  # a method is not the function
        return ""
    depth = start[1]
    return "\n".join(
        line.removeprefix(depth) for line in text.split("\n") if line.startswith(depth) or not line.strip()
    )


def _defining(found: list[Block], function: str) -> Iterator[int]:
    """Numbers of the blocks that define the function, the last first; of one that was cut, only if it came so far."""
    for number in reversed(range(len(found))):
        code = _at_margin(found[number].code)
        if defines(code if found[number].is_closed else whole_statements(code), function):
            yield number


def _says_something(piece: str) -> bool:
    """False for words that Python can read: an expression that calls nothing, such as "Done", or "Note: this"."""
    nodes = ast.parse(piece).body
    return any(getattr(node, "value", node) is not None and not isinstance(node, ast.Expr) for node in nodes) or any(
        isinstance(inner, ast.Call) for node in nodes for inner in ast.walk(node)
    )


def _needed(code: str, stub: str, others: list[str], number: int) -> list[str]:
    """Definitions of other blocks that `code` uses, directly or through them: those before it, those after it.

    Nothing else of those blocks is run: no tests, no examples.
    """
    offered = [(n, *one) for n, other in enumerate(others) if n != number for one in _definitions(other)]
    known = {*dir(builtins), *_bound_in(complete(stub)), *_bound_in(code)}
    wanted, taken = _free(code) - known, set[int]()
    while wanted:
        new = {m for m, (_, names, _) in enumerate(offered) if names & (wanted | {"*"})} - taken
        if not new:
            break
        taken |= new
        for m in new:
            wanted |= _free(offered[m][2]) - known
    before, after = (
        "\n".join(source for m, (n, _, source) in enumerate(offered) if m in taken and (n < number) is is_before)
        for is_before in (True, False)
    )
    return [before, after]


def _definitions(code: str) -> list[tuple[set[str], str]]:
    """What each statement at the margin defines, and its source. None where the code is not whole."""
    if not is_whole(code):
        return []
    lines, found = code.split("\n"), []
    for node in ast.parse(code).body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        found.append((_bound(node), "\n".join(lines[first - 1 : node.end_lineno])))
    return [one for one in found if one[0]]


def _bound_in(code: str) -> set[str]:
    return {name for names, _ in _definitions(code) for name in names}


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement gives a meaning to; of a condition or an attempt, those of all its branches."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        return names if "*" not in names or getattr(node, "module", "") in sys.stdlib_module_names else set()
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    if isinstance(node, ast.If | ast.Try):
        return {name for one in ast.walk(node) if isinstance(one, ast.stmt) and one is not node for name in _bound(one)}
    return set()


def _free(code: str) -> set[str]:
    """The names that a program takes from outside of its functions."""
    if not is_whole(code):
        return set()
    names, tables = set(), [symtable.symtable(code, "<answer>", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        is_outermost = table.get_type() == "module"
        used = (one for one in table.get_symbols() if one.is_referenced())
        names |= {one.get_name() for one in used if one.is_global() or is_outermost}
    return names


def _joined(parts: list[str]) -> str:
    """One program: `from __future__` must stand before all else."""
    futures = dict.fromkeys(line.strip() for part in parts for line in _FUTURE.findall(part))
    return "\n\n".join([*futures, *(_FUTURE.sub("pass", part) for part in parts)])


def _with_body(text: str, found: list[Block], stub: str) -> Iterator[str]:
    """Programs in which a block, the last first, or the text is the body of the stub's function."""
    bodies = [block.code for block in reversed(found) if not is_whole(_at_margin(block.code))]
    bare = text.split("\n```", 1)[0]
    bodies += [
        bare,
        *(block.code for block in reversed(found)),
        re.split(r"\n(?=\S)", bare.lstrip("\n"), maxsplit=1)[0],
    ]
    for body in bodies:
        for shaped in (body, "    " + body.lstrip(), textwrap.indent(_at_margin(body), "    ")):
            program = f"{stub}\n{shaped}\n"
            if shaped.strip() and is_whole(program):
                yield program

"""Every line that the daemon can log, read from its source: level, words and fields.

``python -m tests.logevents`` writes the table of docs/reference/log.md. An ellipsis stands for a
part of a sentence that is known only at run time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/log.md"
BEGIN, END = "<!-- events -->\n", "<!-- end of events -->\n"
LEVELS = ("debug", "info", "warning", "error", "exception")
OPEN = "…"
OF_ALL = ("event", "level", "timestamp", "exception")
OF_A_SERVER = ("model", "state", "pid")  # `Standing.tell` adds them
OF_OTHERS = {"facts": ("client", "key")}  # `Asker.facts`
HELPERS = ("tell", "step", "report_failure", "_tell")  # their arguments are examined
MOST_FORMS = 12  # of a single sentence


@attrs.frozen(order=True, slots=False)
class Line:
    """A line that can be logged.

    Attributes:
        words: the event's text, with an ellipsis for parts that are known only at run time.
        level: of the line.
        fields: of the line, besides the level and the time.
    """

    words: str
    level: str
    fields: tuple[str, ...]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(".*".join(map(re.escape, self.words.split(OPEN))), re.DOTALL)

    def allows(self, entry: Mapping[str, object]) -> bool:
        """Whether an entry of a log is this line: its level, its sentence, and no other fields."""
        return (
            entry["level"] == self.level
            and entry.keys() <= {*OF_ALL, *self.fields}
            and self._pattern.fullmatch(str(entry["event"])) is not None
        )


@attrs.frozen
class _Place:
    """The surroundings of a call: what names mean there."""

    names: Mapping[str, list[ast.expr]]
    adds: Mapping[str, list[str]]
    answers: Mapping[str, list[str]]

    def words(self, node: ast.expr | None, deep: int = 0) -> list[str]:
        """Return the forms that a text can have."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=values):
                return self._joined(values, deep)
            case ast.FormattedValue(value=value) | ast.Await(value=value):
                return self.words(value, deep)
            case ast.IfExp(body=body, orelse=other):
                return [*self.words(body, deep), *self.words(other, deep)]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined([left, right], deep)
            case ast.Name(id=name) if deep < 3 and name in self.names:
                forms = [self.words(one, deep + 1) for one in self.names[name]]
                return list(dict.fromkeys(form for some in forms for form in some))
            case ast.Subscript(value=ast.Name(id=name)) if name in self.names:
                texts = [
                    self.words(one, deep + 1) for node in self.names[name] for one in _values(node)
                ]
                return [form for some in texts for form in some] or [OPEN]
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if (
                name in self.answers
            ):
                return self.answers[name]
        return [OPEN]

    def _joined(self, values: list[ast.expr], deep: int) -> list[str]:
        forms = [""]
        for value in values:
            is_call = isinstance(value, ast.FormattedValue) and isinstance(value.value, ast.Call)
            ends = [OPEN] if is_call else self.words(value, deep)
            if len(forms) * len(ends) > MOST_FORMS:
                ends = [OPEN]
            forms = [f"{form}{end}" for form in forms for end in ends]
        return [re.sub(rf"{OPEN}+", OPEN, form) for form in forms]

    def fields(self, call: ast.Call) -> list[str]:
        """Return the names of the fields that a call adds to its line."""
        found: list[str] = []
        for keyword in call.keywords:
            if keyword.arg:
                found.append(keyword.arg)
            elif isinstance(keyword.value, ast.Name):
                found += self.adds.get(keyword.value.id, [])
            elif isinstance(keyword.value, ast.Attribute):
                found += OF_OTHERS.get(keyword.value.attr, ())
            else:
                found += _keys(keyword.value)
        return found


def _keys(node: ast.AST) -> list[str]:
    return [
        key.value
        for part in ast.walk(node)
        if isinstance(part, ast.Dict)
        for key in part.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    ]


def _values(node: ast.expr) -> list[ast.expr]:
    return node.values if isinstance(node, ast.Dict) else []


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for part in ast.walk(node):
        match part:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                yield from (
                    (name.id, value)
                    for name, value in zip(names, values, strict=False)
                    if isinstance(name, ast.Name)
                )
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                yield name, ast.JoinedStr([ast.Constant(OPEN), value])
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                yield name, value
            case _:
                pass


def _given(function: ast.AST) -> dict[str, list[str]]:
    """Return the keys of each dictionary that a function makes or fills, by its name."""
    found: dict[str, list[str]] = {}
    for part in ast.walk(function):
        match part:
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key))]
            ):
                found.setdefault(name, []).append(str(key))
            case _:
                pass
    for name, value in _assigned(function):
        found.setdefault(name, [])[:0] = _keys(value)
    return found


def _place(
    module: ast.Module,
    function: ast.AST,
    shared: Mapping[str, ast.expr],
    answers: Mapping[str, list[str]],
) -> _Place:
    names: dict[str, list[ast.expr]] = {name: [value] for name, value in shared.items()}
    for part in module.body:
        for name, value in _assigned(part) if isinstance(part, ast.Assign | ast.AnnAssign) else ():
            names[name] = [value]
    inner: dict[str, list[ast.expr]] = {}
    for name, value in _assigned(function):
        inner.setdefault(name, []).append(value)
    return _Place({**names, **inner}, _given(function), answers)


def _lines(place: _Place, call: ast.Call) -> Iterator[Line]:
    """Yield the lines that a call can write."""
    match call:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr=level), args=[text, *_]
        ):
            if level in LEVELS:
                fields = place.fields(call)
                yield from _each(
                    place.words(text), ["error" if level == "exception" else level], fields
                )
        case ast.Call(func=ast.Attribute(attr="tell"), args=[level, text, *_]) if _level(
            place, level
        ):
            yield from _of_server(place.words(text), _level(place, level), place.fields(call))
        case ast.Call(func=ast.Attribute(attr="step" | "open" | "_open"), args=[_, done]):
            words = [f"{one} {OPEN}" for one in place.words(done)]
            yield from _of_server(
                [one for one in words if one != f"{OPEN} {OPEN}"], ["info"], ["duration_s"]
            )
        case ast.Call(func=ast.Attribute(attr="begin"), args=[_, steps, _]):
            words = [f"Executing {one} (timeout: {OPEN})" for one in place.words(steps)]
            yield from _of_server(words, ["info"], ["timeout_s"])
        case ast.Call(func=ast.Attribute(attr="report_failure"), args=[failure, remedy]):
            words = [f"{one}, {two}" for one in place.words(failure) for two in place.words(remedy)]
            yield from _of_server(words, ["error"], ["reason", "duration_s"])
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="OF_REQUESTS"), attr="write"),
            args=[level, text, ast.Name(id=facts)],
        ):
            fields = place.adds.get(facts, [])
            yield from _each(place.words(text), _level(place, level), fields)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr="_tell"), args=[text]):
            words = [f"<{OPEN}> {one}" for one in place.words(text) if one != OPEN]
            yield from _each(words, ["info"], ["model", *place.fields(call)])
        case _:
            pass


def _level(place: _Place, node: ast.expr) -> list[str]:
    return [one for one in place.words(node) if one in LEVELS]


def _each(words: list[str], levels: list[str], fields: list[str]) -> Iterator[Line]:
    named = tuple(dict.fromkeys(fields))
    yield from (Line(one, level, named) for one in words for level in levels)


def _of_server(words: list[str], levels: list[str], fields: list[str]) -> Iterator[Line]:
    yield from _each([f"<{OPEN}> {one}" for one in words], levels, [*OF_A_SERVER, *fields])


def _functions(module: ast.Module) -> Iterator[ast.AST]:
    """Yield the outermost functions; the meaning of a name is looked up in one whole function."""
    for part in module.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            yield part
        elif isinstance(part, ast.ClassDef):
            yield from (
                one for one in part.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            )


def _answers(modules: Iterable[ast.Module], shared: Mapping[str, ast.expr]) -> dict[str, list[str]]:
    """Return the sentences that a function returns, for each function whose name is unique."""
    found: dict[str, list[list[str]]] = {}
    for module in modules:
        for function in _functions(module):
            place = _place(module, function, shared, {})
            returns = [one for one in ast.walk(function) if isinstance(one, ast.Return)]
            forms = [form for one in returns if one.value for form in place.words(one.value)]
            name = getattr(function, "name", "")
            found.setdefault(name, []).append([form for form in forms if form.strip(OPEN)])
    return {name: some[0] for name, some in found.items() if len(some) == 1 and some[0]}


def unknown(entries: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return the entries of a log that the table lacks, without those of libraries and models."""
    own = (one for one in entries if not one.keys() & {"logger", "dropped"})
    return [one for one in own if not any(line.allows(one) for line in lines())]


@cache
def lines() -> list[Line]:
    """Return every line of the source, in the order of the words."""
    files = [*ROOT.glob("supervisor/**/*.py"), *ROOT.glob("proxy/**/*.py")]
    modules = [ast.parse(file.read_text()) for file in sorted(files)]
    shared = {
        name: value
        for module in modules
        for part in module.body
        if isinstance(part, ast.Assign)
        for name, value in _assigned(part)
        if name.isupper() and isinstance(value, ast.Constant | ast.JoinedStr)
    }
    answers = _answers(modules, shared)
    found = {
        line
        for module in modules
        for function in _functions(module)
        for place in (_place(module, function, shared, answers),)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        for line in _lines(place, call)
        if re.search("[a-z]", line.words) or getattr(function, "name", "") not in HELPERS
    }
    return sorted(found, key=lambda line: (line.words.lstrip(f"<> {OPEN}").casefold(), line))


def table(found: Iterable[Line]) -> str:
    """Return the table for the page."""
    rows = ["| Level | Event | Fields |\n|---|---|---|\n"]
    for line in found:
        words = line.words.replace(f"<{OPEN}>", "<MODEL>").replace("|", "\\|")
        fields = ", ".join(f"`{name}`" for name in line.fields)
        rows.append(f"| {line.level} | `{words}` | {fields} |\n")
    return "".join(rows)


def written(page: str) -> str:
    """Return a page with the current table."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{table(lines())}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

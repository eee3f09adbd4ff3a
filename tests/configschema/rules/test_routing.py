"""Groups, matrix, selectors, profiles and peers: how they must fit together."""

from __future__ import annotations

import pytest

from configschema import Config, ConfigError, parse
from configschema.rules.routing import company_of, rules_of

MODELS = """\
models:
  a: {cmd: 'x ${PORT}', aliases: [first]}
  b: {cmd: 'x ${PORT}'}
  c: {cmd: 'x ${PORT}'}
"""
PEER = "peers: {p: {proxy: 'http://peer:1', models: [big, small]}}\n"


def config(text: str) -> Config:
    return parse(MODELS + text, "f").config


def problems(text: str) -> list[str]:
    """Return the problems; lines count from the end of the models."""
    with pytest.raises(ConfigError) as caught:
        parse(MODELS + text, "f")
    offset = MODELS.count("\n")
    return [f"{p.line - offset}:{p.column}: {p.path}: {p.message}" for p in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "groups: {g: {members: [a, nope]}}",
            "1:27: groups.g.members.1: there is no model 'nope'",
        ),
        (
            "groups: {g: {members: [first]}}",
            "1:24: groups.g.members.0: there is no model 'first', because it is an alias: write "
            "'a'",
        ),
        (
            "groups: {g: {members: [a, a]}}",
            "1:27: groups.g.members.1: model 'a' is a member twice (see f:5:24)",
        ),
        (
            "groups: {g: {members: [a]}, h: {members: [b, a]}}",
            "1:46: groups.h.members.1: model 'a' is a member twice (see f:5:24)",
        ),
        (
            "groups: {g: {}}\nmatrix: {sets: {s: a}}",
            "2:1: matrix: groups and matrix cannot both be used: remove one (see f:5:1)",
        ),
        (
            "groups: {g: {}}\nrouting: {router: {use: group}}",
            "2:11: routing.router: routing.router and the older groups cannot both be used: "
            "move groups into it (see f:5:1)",
        ),
        (
            "routing: {router: {use: matrix}}",
            "1:20: routing.router.use: is matrix, but settings.matrix is missing",
        ),
        (
            "routing: {router: {use: fifo}}",
            "1:20: routing.router.use: expected group or matrix or memory, found 'fifo'",
        ),
        (
            "routing: {scheduler: {settings: {fifo: {priority: {a: 1, nope: 2}}}}}",
            "1:58: routing.scheduler.settings.fifo.priority.nope: there is no model 'nope'",
        ),
        ("matrix: {}", "1:1: matrix.sets: a matrix needs at least one set"),
        (
            "matrix: {vars: {a_b: a}, sets: {s: a}}",
            "1:17: matrix.vars.a_b: a short name is 1 to 32 letters, digits, '.' or '-'",
        ),
        (
            "matrix: {vars: {x: nope}, sets: {s: x}}",
            "1:17: matrix.vars.x: there is no model 'nope'",
        ),
        (
            "matrix: {evict_costs: {a: 0}, sets: {s: a}}",
            "1:24: matrix.evict_costs.a: expected a whole number, at least 1, found 0",
        ),
        (
            "matrix: {evict_costs: {nope: 1}, sets: {s: a}}",
            "1:24: matrix.evict_costs.nope: there is no such model or short name",
        ),
        (
            "matrix:\n  sets:\n    s: a & (b | nope)",
            "3:17: matrix.sets.s: there is no model or short name 'nope' "
            "at character 10 of 'a & (b | nope)'",
        ),
        (
            "matrix:\n  sets:\n    one: a\n    two: '+on & b'",
            "4:11: matrix.sets.two: there is no set 'on' at character 1 of '+on & b'; "
            "did you mean 'one'?",
        ),
        (
            "matrix:\n  sets:\n    s: (a & b",
            "3:14: matrix.sets.s: expected ')' for the '(' at character 1, found the end "
            "at character 7 of '(a & b'",
        ),
        ("selectors: {s: {targets: [a]}}", "1:13: selectors.s.strategy: is required: "),
        ("selectors: {s: {strategy: pin}}", "1:13: selectors.s.targets: needs at least one model"),
        (
            "selectors: {s: {strategy: best, targets: [a]}}",
            "1:17: selectors.s.strategy: expected warm or pin or spillover, found 'best'",
        ),
        (
            "selectors: {s: {strategy: pin, targets: [nope]}}",
            "1:42: selectors.s.targets.0: there is no model 'nope'",
        ),
        (
            "selectors: {s: {strategy: pin, targets: [t]}, t: {strategy: pin, targets: [a]}}",
            "1:42: selectors.s.targets.0: 't' is a selector, too: name its targets instead",
        ),
        (
            "selectors: {a: {strategy: pin, targets: [b]}}",
            "1:13: selectors.a: the name is also a model's id (see f:2:3)",
        ),
        (
            "selectors: {first: {strategy: pin, targets: [b]}}",
            "1:13: selectors.first: the name is also an alias (see f:2:35)",
        ),
        (
            "selectors: {s: {strategy: spillover, targets: [a, b]}}",
            "1:38: selectors.s.targets: spillover needs targets that run together: "
            "put them into one group with swap: false",
        ),
        (
            "selectors: {s: {strategy: spillover, targets: [a, first]}}",
            "1:38: selectors.s.targets: model 'a' is a target twice",
        ),
        (
            "matrix: {sets: {s: a | b}}\nselectors: {s: {strategy: spillover, targets: [a, b]}}",
            "2:38: selectors.s.targets: spillover needs targets that run together, but no set "
            "of the matrix allows it",
        ),
        (
            "selectors: {s: {strategy: spillover, settings: {spillover: 0}, targets: [a]}}",
            "1:49: selectors.s.settings.spillover: expected a whole number, at least 1, found 0",
        ),
        (
            PEER + "selectors: {s: {strategy: warm, targets: [big]}}",
            "2:43: selectors.s.targets.0: 'big' is a peer's model, but strategy warm can choose "
            "local models only",
        ),
        ("profiles: {p: {pins: {}}}", "1:16: profiles.p.pins: a profile needs at least one pin"),
        (
            "profiles: {p: {pins: {x: nope}}}",
            "1:23: profiles.p.pins.x: there is no model, alias or selector 'nope'",
        ),
        ("peers: {p: {models: [x]}}", "1:9: peers.p.proxy: a peer needs an address such as"),
        ("peers: {p: {proxy: 'http://x:1'}}", "1:9: peers.p.models: a peer needs at least one"),
        (
            "peers: {p: {proxy: ':80', models: [x]}}",
            "1:13: peers.p.proxy: expected an address such as",
        ),
        (
            "peers: {p: {proxy: 'http://x:1', models: [b/c]}, "
            "p/b: {proxy: 'http://x:1', models: [c]}}",
            "1:86: peers.p/b.models.0: a model of another peer has the full name 'p/b/c', too ",
        ),
        (
            PEER + "profiles: {q: {pins: {p/big: a}}}",
            "1:46: peers.p.models.0: its full name 'p/big' is also a pin (see f:6:23)",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(text: str, problem: str) -> None:
    """Each error names its place, and the second place where two conflict."""
    (found, *more) = problems(text)
    assert found.startswith(problem)
    assert more == []


def test_names_of_set_params_by_id_are_aliases_of_one_model() -> None:
    """Such a name may not also be another model's alias or id."""
    one = "{cmd: 'x ${PORT}', filters: {setParamsByID: {%s: {}}}}"
    for name, place in (("first", "f:2:35"), ("b", "f:3:3")):
        with pytest.raises(ConfigError) as caught:
            parse(MODELS + f"  d: {one % name}\n", "f")
        (problem,) = caught.value.problems
        assert problem.path == f"models.d.filters.setParamsByID.{name}"
        assert place in problem.message


def test_a_circle_of_sets_is_one_problem() -> None:
    """The error is at the circle's first set; a set that only leads into the circle is no error."""
    text = "matrix:\n  sets:\n    r: +s\n    s: +t & a\n    t: b | +u\n    u: +s\n    v: +v\n"
    assert [problem.partition(": ")[0] for problem in problems(text)] == ["4:5", "7:5"]


def test_a_name_of_two_peers_is_not_clear() -> None:
    """llamadoze could not know which of the two peers is meant."""
    text = PEER.replace("}\n", ", q: {proxy: 'http://peer:2', models: [big]}}\n")
    text += "selectors: {s: {strategy: pin, targets: [big]}}"
    (problem,) = problems(text)
    assert problem.endswith(
        "several peers have a model 'big': write its full name with the peer, such as 'p/big'"
    )


@pytest.mark.parametrize(
    ("expression", "place"),
    [
        (">-\n      a &\n      nope", "5:7"),
        ("a &\n      nope", "4:7"),
        ('"\\x61 & nope"', "3:16"),
        ("'a & nope'", "3:13"),
        ("a & nope", "3:12"),
    ],
)
def test_faults_in_expressions_are_shown_where_they_are(expression: str, place: str) -> None:
    """The place is exact for one or several lines, with and without quotes."""
    (problem,) = problems(f"matrix:\n  sets:\n    s: {expression}\n")
    assert problem.startswith(f"{place}: matrix.sets.s: there is no model or short name 'nope'")


def test_what_fits_together_is_taken() -> None:
    """One file may use all of these features."""
    found = config(
        """
groups: {g: {swap: false, members: [a, b]}, (default): {members: [nobody]}}
selectors:
  load: {strategy: spillover, targets: [first, b], settings: {spillover: 2}}
  any: {strategy: pin, targets: [p/big, a]}
profiles: {work: {pins: {gpt: load, off: ~, other: small, none: ''}}}
peers: {p: {proxy: "http://peer:1/base", apiKey: k, models: [big, small]}}
routing: {scheduler: {use: fifo, settings: {fifo: {priority: {first: 2, b: -1}}}}}
"""
    )
    assert found.profiles["work"].pins == {"gpt": "load", "off": None, "other": "small", "none": ""}
    assert found.peers["p"].timeouts.response_header == 60
    assert found.groups["g"].exclusive


def test_the_newer_form_of_groups_and_matrix_is_the_same() -> None:
    """A file may have both; `use` selects one, and without `use` groups apply."""
    text = "routing: {router: {%s settings: {groups: {g: {members: [a]}}, matrix: {sets: {s: b}}}}}"
    assert list(rules_of(config(text % "")).groups) == ["g"]
    matrix = rules_of(config(text % "use: matrix,")).matrix
    assert matrix is not None
    assert matrix.sets == {"s": "b"}


@pytest.mark.parametrize(
    ("text", "together"),
    [
        ("", ""),
        ("groups: {g: {swap: false, members: [a, b]}}", "ab"),
        ("groups: {g: {members: [a, b]}}", ""),
        ("groups: {g: {exclusive: false, members: [a]}}", "ab ac"),
        ("groups: {g: {persistent: true, members: [a]}}", "ab ac"),
        ("matrix: {sets: {s: a & (b | c)}}", "ab ac"),
        ("matrix: {vars: {z: c}, sets: {s: a & +t, t: b & z}}", "ab ac bc"),
    ],
)
def test_who_may_be_awake_at_the_same_time(text: str, together: str) -> None:
    """Groups or a matrix decide; without either, only one model is awake at a time."""
    company = company_of(config(text))
    pairs = ["ab", "ac", "bc"]
    assert [pair for pair in pairs if company.may_meet(*pair)] == together.split()


def test_a_peers_full_name_is_nobody_elses() -> None:
    """The name may not also be a model's id, an alias or a selector."""
    text = """\
models:
  p/big: {cmd: "x ${PORT}", aliases: [p/small]}
selectors: {p/other: {strategy: pin, targets: [p/big]}}
peers: {p: {proxy: "http://peer:1", models: [big, small, other]}}
"""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert [(p.path, p.message) for p in caught.value.problems] == [
        ("selectors.p/other", "the name is also a peer's (see f:4:58)"),
        ("peers.p.models.0", "its full name 'p/big' is also a model's id (see f:2:3)"),
        ("peers.p.models.1", "its full name 'p/small' is also an alias (see f:2:39)"),
    ]

"""Templates: what they give, and their errors in docker's words. test_looking_peers.py asks docker itself the same."""

import json
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from minicontainer.cli import table, template, template_functions
from minicontainer.cli.inspect import typed

DOCUMENT: dict[str, Any] = {
    "Id": "a5c6dd415a92c11a7fb33f9688e5cf97c02fb8d7ddd79655e944b6a0372b01e6",
    "Name": "/web",
    "Args": ["10000"],
    "State": {"Status": "running", "Running": True, "Paused": False, "Pid": 4711, "Error": ""},
    "HostConfig": {"Memory": 67108864, "CapAdd": None, "PidsLimit": None, "RestartPolicy": {"Name": "no", "Max": 0}},
    "Mounts": [{"Type": "volume", "Destination": "/data"}, {"Type": "bind", "Destination": "/ws"}],
    "Config": {"Env": ["A=b", "C=d"], "Labels": {"b": "2", "a": "<1>"}, "Entrypoint": None},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8000"}], "443/tcp": None}},
}


def render(source: str, value: Any = ...) -> str:
    return template.render(template.parse(source), typed(DOCUMENT) if value is ... else value, source)


@pytest.mark.parametrize(("source", "result"), [
    ("{{.State.Pid}}", "4711"),
    ("{{json .Mounts}}", '[{"Type":"volume","Destination":"/data"},{"Type":"bind","Destination":"/ws"}]'),
    ("{{json .Config.Labels}}", '{"a":"<1>","b":"2"}'),
    ("{{range .Config.Env}}{{.}};{{end}}", "A=b;C=d;"),
    ("{{range .HostConfig.CapAdd}}x{{else}}none{{end}}", "none"),
    ("{{range $i, $e := .Config.Env}}{{if $i}}, {{end}}{{$e}}{{end}}", "A=b, C=d"),
    ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}} {{end}}", "a:<1> b:2 "),
    ("{{range $p, $c := .NetworkSettings.Ports}}{{if $c}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}{{end}}",
     "80/tcp -> 8000"),
    ("{{range .Config.Env}}{{if eq . \"C=d\"}}{{continue}}{{end}}{{.}}{{end}}", "A=b"),
    ("{{range .Config.Env}}{{break}}{{end}}x", "x"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    ("{{if .State.Paused}}a{{else if .State.Running}}b{{else}}c{{end}}", "b"),
    ("{{with .HostConfig.CapAdd}}x{{else with .Name}}{{.}}{{end}}", "/web"),
    ("{{with $x := .State}}{{$x.Status}}{{$.Name}}{{end}}", "running/web"),
    ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
    ("{{index .Config.Labels \"b\"}}{{index .Mounts 1 | json}}", '2{"Type":"bind","Destination":"/ws"}'),
    ("{{len .Mounts}} {{len \"äb\"}} {{len .Config.Labels}}", "2 3 2"),
    ("{{and 0 1}} {{or 0 1}} {{not 0}} {{and .Name .Id | len}}", "0 1 true 64"),
    ("{{if and .State.Running (not .State.Paused)}}ok{{end}}", "ok"),
    ("{{eq .State.Status \"x\" \"running\"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt \"b\" \"a\"}} {{ge 1 2}}",
     "true true true true true false"),
    ("{{join .Config.Env \"+\"}} {{split \"a,b\" \",\"}}", "A=b+C=d [a b]"),
    ("{{lower \"ABC\"}} {{upper \"abc\"}} {{title \"ab cd\"}} {{truncate \"abcdef\" 3}} {{pad \"x\" 1 2}}|",
     "abc ABC Ab Cd abc  x  |"),
    ("{{slice \"abcdef\" 1 3}} {{slice .Config.Env 1}}", "bc [C=d]"),
    ("{{printf \"%s %d %q %v %5d|%-5s|%05d|%x|%t|%.2f|%%\" \"s\" 1 \"q\" true 42 \"ab\" 42 255 true 3.14159}}",
     's 1 "q" true    42|ab   |00042|ff|true|3.14|%'),
    ("{{printf \"%d %s\" \"x\" 3}} {{printf \"%d\"}} {{printf \"x\" 1}}",
     "%!d(string=x) %!s(int=3) %!d(MISSING) x%!(EXTRA int=1)"),
    ("{{println \"x\" 1}}{{print 1 2 \"a\" \"b\" 3}}", "x 1\n1 2ab3"),
    ("{{.Id | printf \"%.12s\"}}", "a5c6dd415a92"),
    ("{{.Config.Labels.zz}} {{.HostConfig.PidsLimit}} {{.HostConfig.CapAdd}}", "<no value> <nil> []"),
    ("{{.HostConfig.RestartPolicy}} {{.Config.Labels}} {{.Args}}", "{no 0} map[a:<1> b:2] [10000]"),
    ("{{.State.Health}} {{json .State.Health}}{{if .State.Health}}x{{end}}", "<nil> null"),
    ("  {{- .Name -}}  x {{- /* a comment */ -}} y", "/webxy"),
    ("{{/* a comment */}}{{`raw\\n`}}{{\"\\x41\\u00e9\"}} {{'a'}} {{0x10}} {{-3}} {{1e3}} {{1.5}}",
     "raw\\nAé 97 16 -3 1000 1.5"),
    ("no braces } {", "no braces } {"),
])  # fmt: skip
def test_what_a_template_gives(source: str, result: str) -> None:
    assert render(source) == result


@pytest.mark.parametrize(("source", "why"), [
    ("{{.State", ":1: unclosed action"),
    ("a\nb {{.State}", ":2: bad character U+007D '}'"),
    ("{{nope .State}}", ':1: function "nope" not defined'),
    ("{{$y}}", ':1: undefined variable "$y"'),
    ("{{if $x := .Name}}{{end}}{{$x}}", ':1: undefined variable "$x"'),
    ("{{end}}", ":1: unexpected {{end}}"),
    ("{{if .Name}}x", ":1: unexpected EOF"),
    ("{{if}}x{{end}}", ":1: missing value for if"),
    ("{{if 1}}{{else}}{{else}}{{end}}", ":1: expected end; found {{else}}"),
    ("{{break}}", ":1: {{break}} outside {{range}}"),
    ("{{\"abc}}", ":1: unterminated quoted string"),
    ("{{(.Name}}", ":1: unclosed left paren"),
    ("{{.Name)}}", ":1: unexpected right paren"),
    ("{{3 | 4}}", ":1: non executable command in pipeline stage 2"),
    ("{{/* a }}", ":1: unclosed comment"),
    ("{{range $i, $j, $k := .Mounts}}{{end}}", ":1: too many declarations in range"),
    ("{{99999999999999999999}}", ':1: integer overflow: "99999999999999999999"'),
    ("{{" + "(" * 101 + "}}", ":1: max expression depth exceeded"),
    ("{{if 1}}" * 101, ":1: max expression depth exceeded"),
])  # fmt: skip
def test_what_is_no_template(source: str, why: str) -> None:
    with pytest.raises(template.BadTemplate, match=re.escape(f"template parsing error: template: {why}")):
        template.parse(source)


@pytest.mark.parametrize(("source", "why"), [
    ("{{.Nope}}", ':1:2: executing "" at <.Nope>: map has no entry for key "Nope"'),
    ("a\nb {{.State.Nope.X}}", ':2:10: executing "" at <.State.Nope.X>: map has no entry for key "Nope"'),
    ("{{.State.Health.Status}}", ':1:8: executing "" at <.State.Health.Status>: map has no entry for key "Health"'),
    ("{{.Name.X}}", ':1:7: executing "" at <.Name.X>: can\'t evaluate field X in type interface {}'),
    ("{{\"a\" | .Name}}", ':1:8: executing "" at <.Name>: Name is not a method but has arguments'),
    ("{{\"a\" \"b\"}}", ':1:2: executing "" at <"a">: can\'t give argument to non-function "a"'),
    ("{{nil}}", ':1:2: executing "" at <nil>: nil is not a command'),
    ("{{range .Name}}x{{end}}", ':1:8: executing "" at <.Name>: range can\'t iterate over /web'),
    ("{{index .Config.Env 9}}",
     ':1:2: executing "" at <index .Config.Env 9>: error calling index: index out of range: 9'),
    ("{{len 3}}", ':1:2: executing "" at <len 3>: error calling len: len of type int'),
    ("{{eq 1 1.0}}", ':1:2: executing "" at <eq 1 1.0>: error calling eq: incompatible types for comparison'),
    ("{{join .Config.Env}}", ':1:2: executing "" at <join>: wrong number of args for join: want 2 got 1'),
    ("{{join \"a\" \",\"}}", ':1:7: executing "" at <"a">: can\'t handle "a" for arg of type []string'),
    ("{{upper 3}}", ':1:8: executing "" at <3>: expected string; found 3'),
])  # fmt: skip
def test_what_cannot_be_evaluated(source: str, why: str) -> None:
    with pytest.raises(template.TemplateFailed) as raised:
        render(source)
    assert str(raised.value) == f"template: {why}"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abC"), inner, max_size=3),
    max_leaves=8,
)
PIECES = [
    "{{", "}}", "{{-", "-}}", " ", "\n", ".", ".a", ".b.C", "$", "$x", "$x := ", "$x = ", "$i, $x := ", "if ", "else ",
    "else if ", "with ", "range ", "end", "break", "continue", "(", ")", "|", "index ", "len ", "json ", "printf ",
    "slice ", "eq ", "lt ", "and ", "or ", "not ", "join ", "split ", "title ", "truncate ", "pad ", "print ", "nil",
    '"%d"', '"%5.3q"', '"%v %x"', '"%+c"', '"a"', "`r`", "'c'", "'", '"', "`", "0", "-1", "1.5", "0x1F", "1e3", "1e999",
    "true", "/*", "*/", "text", "@", "ü", "\\", "%", ",", ":",
]  # fmt: skip


@hypothesis.given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=12), VALUES)
@hypothesis.settings(max_examples=1500)
def test_nothing_but_its_own_errors_comes_out(source: str, value: Any) -> None:
    for text in (source, f"{{{{{source}}}}}"):
        try:
            render(text, template.structs(value, frozenset("b")))
        except (template.BadTemplate, template.TemplateFailed):
            pass


FUNCTIONS = sorted(template_functions.FUNCTIONS)


@hypothesis.given(st.sampled_from(FUNCTIONS), st.lists(VALUES, max_size=4))
@hypothesis.settings(max_examples=1500)
def test_no_function_fails_otherwise(name: str, arguments: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template_functions, "WIDEST", 1000)
        source = "{{range .}}{{end}}{{" + " ".join([name, *(f"(index . {n})" for n in range(len(arguments)))]) + "}}"
        try:
            render(source, arguments)
        except template.TemplateFailed:
            pass


@hypothesis.given(st.text(st.sampled_from("%-+# 0.19dsqvxXfgeEtTcobUz"), max_size=8), st.lists(VALUES, max_size=3))
@hypothesis.settings(max_examples=1500)
def test_printf_never_fails(form: str, arguments: list[Any]) -> None:
    assert isinstance(template_functions.printf(form, *arguments), str)


@hypothesis.given(VALUES)
def test_json_is_json(value: Any) -> None:
    assert json.loads(render("{{json .}}", value)) == value


# Lists


COLUMNS = {
    "ID": table.Column("CONTAINER ID", lambda row: row[0]),
    "Names": table.Column("NAMES", lambda row: row[1]),
    "Label": table.Column("", lambda row, name="": {"a.b-c": "1"}.get(name, "")),
}
ROWS = [["0123456789ab", "web"], ["ba9876543210", "a-longer-name"]]


def listing(form: str) -> str:
    return table.listing(form, COLUMNS, ["Names", "ID"], ROWS, "formatter.ContainerContext")


def test_a_list_as_it_is_asked_for() -> None:
    plain = "NAMES           CONTAINER ID\nweb             0123456789ab\na-longer-name   ba9876543210\n"
    assert listing("") == listing("table") == plain
    assert listing("{{.Names}}") == "web\na-longer-name\n"
    assert listing(r"{{.Names}}\t{{.ID}}\n") == "web\t0123456789ab\n\na-longer-name\tba9876543210\n\n"
    assert listing(r"table {{.ID}}\t{{upper .Names}}") == (
        "CONTAINER ID   NAMES\n0123456789ab   WEB\nba9876543210   A-LONGER-NAME\n"
    )
    assert listing('table {{.Label "a.b-c"}}') == "b c\n1\n1\n"
    assert [json.loads(line) for line in listing("json").splitlines()] == [
        {"ID": identifier, "Names": name} for identifier, name in ROWS
    ]


def test_what_no_list_has() -> None:
    with pytest.raises(
        template.TemplateFailed, match=r"can't evaluate field Nope in type \*formatter\.ContainerContext"
    ):
        listing("{{.Nope}}")
    with pytest.raises(template.BadTemplate, match="failed to parse template: template: :1: unclosed action"):
        listing("{{.ID")


@pytest.mark.parametrize(("seconds", "words"), [
    (0.9, "Less than a second"), (1, "1 second"), (59.9, "59 seconds"), (60, "About a minute"), (120, "2 minutes"),
    (3599, "59 minutes"), (3600, "About an hour"), (5400, "2 hours"), (47.4 * 3600, "47 hours"), (48 * 3600, "2 days"),
    (14 * 86400, "2 weeks"), (59 * 86400, "8 weeks"), (60 * 86400, "2 months"), (730 * 86400, "2 years"),
])  # fmt: skip
def test_durations_as_docker_says_them(seconds: float, words: str) -> None:
    assert table.ago(seconds) == words

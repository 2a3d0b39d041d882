"""`-p`: what a person types, read as docker reads it (go-connections, nat/nat.go)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import errors
from minicontainer.network.nat import Port, parse_exposed, parse_ports


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8000:80", [Port("", 8000, 8000, 80, "tcp")]),
        ("8000:80/udp", [Port("", 8000, 8000, 80, "udp")]),
        ("8000:80/TCP", [Port("", 8000, 8000, 80, "tcp")]),
        ("127.0.0.1:53:5353/udp", [Port("127.0.0.1", 53, 53, 5353, "udp")]),
        ("0.0.0.0:80:80", [Port("0.0.0.0", 80, 80, 80, "tcp")]),
        ("[::1]:53:5353/udp", [Port("::1", 53, 53, 5353, "udp")]),
        ("[::]::80", [Port("::", 0, 0, 80, "tcp")]),
        ("2001:DB8:0::1:80:80", [Port("2001:db8::1", 80, 80, 80, "tcp")]),
        ("[::ffff:192.0.2.1]:80:80", [Port("192.0.2.1", 80, 80, 80, "tcp")]),
        ("80", [Port("", 0, 0, 80, "tcp")]),
        ("127.0.0.1::80", [Port("127.0.0.1", 0, 0, 80, "tcp")]),
        ("9000-9001:80-81", [Port("", 9000, 9000, 80, "tcp"), Port("", 9001, 9001, 81, "tcp")]),
        ("80-81", [Port("", 0, 0, 80, "tcp"), Port("", 0, 0, 81, "tcp")]),
        ("9000-9010:80", [Port("", 9000, 9010, 80, "tcp")]),
    ],
)
def test_what_it_means(text: str, ports: list[Port]):
    assert parse_ports([text]) == ports


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no port specified: <empty>"),
        ("8000:", "no port specified: 8000:<empty>"),
        ("a:80", "invalid hostPort: a"),
        ("80:b", "invalid containerPort: b"),
        ("65536:80", "invalid hostPort: 65536"),
        ("80:65536", "invalid containerPort: 65536"),
        ("80:0", "invalid containerPort: 0"),
        ("80:80-79", "invalid containerPort: 80-79"),
        ("80:-1", "invalid containerPort: -1"),
        ("80:80/sctq", "invalid proto: sctq"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("9000-9002:80-81", "invalid ranges specified for container and host Ports: 80-81 and 9000-9002"),
        ("[::1:80:80", "invalid IP address: [::1"),
        ("[1::2::3]:80:80", "invalid IP address: [1::2::3]"),
        ("[::1%lo]:80:80", "invalid IP address: [::1%lo]"),
        ("[]:80:80", "invalid IP address: []"),
    ],
)
def test_what_it_cannot_mean(text: str, message: str):
    with pytest.raises(errors.InvalidArgument) as refusal:
        parse_ports([text])
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("texts", "ports"),
    [
        (["80"], ["80/tcp"]),
        (["53/UDP", "53/udp"], ["53/udp"]),
        (["8000-8002", "8001/tcp"], ["8000/tcp", "8001/tcp", "8002/tcp"]),
    ],
)
def test_what_is_exposed(texts: list[str], ports: list[str]):
    assert parse_exposed(texts) == ports


@pytest.mark.parametrize("text", ["", "a", "0", "65536", "2-1", "80/sctq", "0-3"])
def test_what_cannot_be_exposed(text: str):
    with pytest.raises(errors.InvalidArgument):
        parse_exposed([text])


def test_a_port_given_twice_is_one():
    assert len(parse_ports(["80:80", "80:80/tcp", "81:80"])) == 2


@given(st.lists(st.text(alphabet="0123456789:-./tcpud[]", max_size=20), max_size=3))
def test_anything_is_ports_or_an_invalid_argument(texts: list[str]):
    try:
        ports = parse_ports(texts)
    except errors.InvalidArgument:
        return
    assert all(0 <= port.host <= port.host_end <= 65535 and 1 <= port.container <= 65535 for port in ports)

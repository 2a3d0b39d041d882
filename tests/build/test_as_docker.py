"""What docker's own builder makes of a Dockerfile is what is made here: files, config and history.

Each case is small, on a busybox. Where docker and buildah differ, docker is followed.
"""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import twins
from tests.conftest import minicontainer
from tests.twins import Case

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("docker", "dockerd", "busybox", "overlay")]


def packed(*names: str, mode: str = "w:gz") -> bytes:
    """A tar of small files, which belong to 5:6."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mode = 5, 6, 0o604
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o705
            else:
                entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()) if entry.size else None)
    return buffer.getvalue()


HERE = {"a.txt": "a\n", "b.txt": "b\n", "run.sh": "#!/bin/sh\n", "d/one": "1\n", "d/two": "2\n", "d/sub/three": "3\n"}

CASES = {
    "quotes in ENV": Case(
        'FROM base:1\nENV a="x y" b=\'$HOME z\' c=one\\ two d="say \\"hi\\"" e=\'\' f="it\'s" g=a"b"c\n'
        'ENV old form  of "it"\nENV path=$PATH:/more  h=${a} i=\'${a}\' j="${a}"\nRUN env | sort >/env\n'
    ),
    "a value of ENV seen by the same line is the old one": Case(
        "FROM base:1\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\nRUN echo $abc $def $ghi >/x\n"
    ),
    "ENV again keeps its place": Case("FROM base:1\nENV a=1 b=2\nENV FROM_BASE=no a=3 c=4\nENV PATH=/x:$PATH\n"),
    "modifiers": Case(
        "FROM base:1\nENV v=value e=\nENV A=${v:-x} B=${none:-x} C=${e:-x} D=${v:+y} E=${none:+y} F=\\$v G=\\${v}\n"
        'ENV H=${none:-${v}} I="${none:-a b}" J=$none K=a${v}b L=$v.x\n'
    ),
    "LABEL": Case(
        'FROM base:1\nARG V=7\nLABEL "com.example.vendor"="ACME Inc" version=$V "with space"=x\nLABEL multi="one \\\n'
        '  two" other=\'$V\'\nLABEL old form here\nLABEL of=me\nLABEL d="a=b=c" "q"="\\"x\\""\n'
    ),
    "CRLF": Case(
        b"FROM base:1\r\n# a comment\r\nENV a=1 \\\r\n    b=2\r\nRUN echo one \\\r\n  # inside\r\n"
        b" && echo two >/x\r\n"
        b'COPY a.txt \\\r\n  b.txt \\\r\n  /dir/\r\nCMD ["a", \\\r\n "b"]\r\n',
        HERE,
    ),
    "a line that goes on": Case(
        "FROM base:1\nRUN echo a   &&    \\\n\n   # comment\n      echo 'b  c' \\\n >/x\nENV a=1\\\n b=2 \\\n   c=3\n"
    ),
    "escape directive": Case(
        "# escape=`\nFROM base:1\nENV a=C:\\dir\\ b=x`\n  c=y\nRUN echo a\\\\b `\n >/x\nLABEL p=a` b\n"
    ),
    "ARG": Case(
        "ARG TAG=1\nARG UP=above\nFROM base:${TAG}\nARG UP\nARG A=a\nARG B=$A-b\nARG C\nARG D\nENV B=env\n"
        "RUN echo $UP $A $B $C $D >/x; env | grep -c '^A=' >/n || true\nENV E=$UP$A$B\nLABEL c=$C d=$D\n",
        args={"D": "given", "A": "mine"},
    ),
    "ARG is of its stage": Case(
        "FROM base:1 AS one\nARG A=1\nENV X=$A\nRUN echo $A >/a\nFROM one\nRUN echo [$A] >/b\nENV Y=x$A\n"
        "FROM base:1\nARG A=3\nCOPY --from=1 /a /b /c/\nRUN echo $A >/d\n"
    ),
    "ARG in quotes": Case(
        'FROM base:1\nARG A="x y"\nARG B=\'$A\'\nARG C=a\\ b\nRUN echo "$A|$B|$C" >/x\nLABEL a=$A b="$B" c=$C\n'
    ),
    "an ARG that is not used": Case("FROM base:1\nARG A\nARG B=\nRUN echo x$A$B >/x\n"),
    "proxies are known to no history": Case(
        "FROM base:1\nRUN echo $HTTP_PROXY $no_proxy >/x\nENV A=$HTTP_PROXY\n", args={"HTTP_PROXY": "http://h"}
    ),
    "a proxy that is declared": Case(
        "FROM base:1\nARG HTTP_PROXY\nRUN echo $HTTP_PROXY >/x\nENV A=$HTTP_PROXY\n", args={"HTTP_PROXY": "http://h"}
    ),
    "ENV and ARG of one name": Case(
        "FROM base:1\nENV A=env\nARG A=arg\nRUN echo $A >/x\nENV B=$A\nARG C=arg\nENV C=env\n"
        "RUN echo $C >/y\nENV D=$C\n"
    ),
    "platform arguments": Case(
        "FROM base:1\nARG TARGETOS\nARG TARGETARCH\nARG TARGETPLATFORM\nARG BUILDPLATFORM\nARG TARGETVARIANT\n"
        "RUN echo $TARGETOS $TARGETARCH $TARGETPLATFORM $BUILDPLATFORM [$TARGETVARIANT] >/x\nENV A=$TARGETARCH\n"
    ),
    "CMD before ENTRYPOINT": Case('FROM base:1\nCMD echo hi\nENTRYPOINT ["/bin/sh", "-c"]\n'),
    "ENTRYPOINT forgets what the base runs": Case("FROM base:1\nENTRYPOINT exec top -b\n"),
    "CMD of an earlier stage": Case('FROM base:1 AS a\nCMD one\nFROM a\nENTRYPOINT ["x"]\n'),
    "empty CMD and ENTRYPOINT": Case("FROM base:1\nENTRYPOINT []\nCMD []\n"),
    "CMD that is nearly JSON": Case('FROM base:1\nCMD [\'a\', \'b\']\nENTRYPOINT [ "a", "\\u00e9\\n" , "<&>" ]\n'),
    "CMD again": Case('FROM base:1\nCMD ["a"]\nCMD b   c  "d"\n'),
    "SHELL": Case(
        'FROM base:1\nSHELL ["/bin/sh", "-e", "-c"]\nRUN false; echo on >/x || true\nCMD x y\nENTRYPOINT z\n'
        'SHELL ["/bin/ash","-c"]\nRUN echo "$0" >/y\n'.replace("false; ", "")
    ),
    "HEALTHCHECK": Case(
        "FROM base:1\n"
        "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2h --retries=4 CMD test -e /x  &&  true\n"
    ),
    "HEALTHCHECK in words": Case('FROM base:1\nHEALTHCHECK CMD ["a", "b c"]\n'),
    "HEALTHCHECK NONE": Case("FROM base:1\nHEALTHCHECK CMD a\nHEALTHCHECK --interval=1.5s CMD b\nHEALTHCHECK NONE\n"),
    "HEALTHCHECK odd times": Case("FROM base:1\nHEALTHCHECK --interval=100s --timeout=3h0m1.25s CMD a\n"),
    "EXPOSE": Case(
        "FROM base:1\nARG P=90\nENV Q='1 2'\nEXPOSE 80 443/tcp 53/UDP $P\nEXPOSE 8000-8003/udp 80\nEXPOSE 9/sctp\n"
    ),
    "VOLUME": Case(
        'FROM base:1\nENV D=/srv\nRUN mkdir /v && echo 1 >/v/a\nVOLUME /v $D/x\nVOLUME ["/w x", "/z/"]\n'
        "RUN echo 2 >/v/b; echo 3 >/kept\n"
    ),
    "USER": Case(
        "FROM base:1\nARG U=alice\nUSER $U:staff\n"
        "RUN id -u >/tmp/id; id -g >>/tmp/id; echo $HOME >/tmp/home\nCOPY a.txt /tmp/a\n"
        "WORKDIR /home/w\nWORKDIR /p/q/r\nRUN touch /tmp/f\nUSER 77\n"
        "RUN touch /tmp/g; id -u >/tmp/h; echo $HOME >/tmp/i\nUSER 0:10\n"
        "RUN touch /tmp/j\n",
        HERE,
    ),
    "WORKDIR": Case(
        "FROM base:1\nENV D=/one/two\nWORKDIR $D\nWORKDIR three\nRUN pwd >p\nWORKDIR ../four/\nRUN pwd >p\n"
        'WORKDIR ${D}/"a b"\nWORKDIR /\nRUN pwd >/p\nWORKDIR etc\n'
    ),
    "WORKDIR through a link": Case(
        "FROM base:1\nRUN ln -s /srv /l && mkdir /m && chmod 700 /m\nWORKDIR /l/x\nWORKDIR /m/y\n"
    ),
    "WORKDIR says the same twice": Case("FROM base:1\nWORKDIR /tmp\nWORKDIR /tmp\nWORKDIR .\n"),
    "COPY": Case(
        "FROM base:1\nCOPY a.txt /x\nCOPY a.txt b.txt /y/\nCOPY *.txt run.sh /z/\nCOPY d /dd\nCOPY d/ /de/\n"
        "COPY d /etc\n"
        'COPY . /all/\nWORKDIR /w\nCOPY a.txt .\nCOPY a.txt b/c\nCOPY d/su? ./\nCOPY ["a.txt", "b.txt", "/v w/"]\n',
        HERE,
    ),
    "COPY and links": Case(
        "FROM base:1\nCOPY link /a\nCOPY t /t/\nCOPY l /l/\nRUN mkdir /real && ln -s real /to\n"
        "COPY a.txt /to/\nCOPY d /to\n",
        {**HERE, "link": "->a.txt", "t/in": "->nowhere", "t/x": "x", "l": "->d"},
    ),
    "COPY over what is there": Case(
        "FROM base:1\nRUN mkdir -m 700 /x /x/d && echo 1 >/x/one && chown -R alice /x && ln -s /etc/passwd /x/two\n"
        "COPY d /x\nCOPY d/sub /x/d/\n",
        HERE,
    ),
    "COPY --chown and --chmod": Case(
        "FROM base:1\nARG W=alice\nCOPY --chown=$W d /a\nCOPY --chown=alice:staff a.txt /b/c/d\n"
        "COPY --chown=5 a.txt /e\n"
        "COPY --chown=5:6 --chmod=640 a.txt d /f/\nCOPY --chown=:staff a.txt /g\nCOPY --chmod=0755 d/one /h/\n",
        HERE,
    ),
    "COPY of nothing but directories": Case("FROM base:1\nCOPY e /e\nCOPY e/ /f/\nCOPY e/in /g/\n", {"e/in/": ""}),
    "COPY --from": Case(
        "FROM base:1 AS build\nRUN mkdir -p /out/x && echo 1 >/out/x/y && chown 5:6 /out/x/y && ln -s y /out/x/l && "
        "ln /out/x/y /out/x/h && chmod 4711 /out/x/y\nFROM base:1\nCOPY --from=build /out /out\n"
        "COPY --from=0 /out/x/l /f\n"
        "COPY --from=build --chown=alice /out/x/ /g/\nCOPY --from=base:1 /etc/passwd /h\n",
    ),
    "scratch": Case(
        "FROM base:1 AS b\nFROM scratch\nCOPY --from=b /bin/busybox /bin/sh\nCOPY a.txt /\nRUN echo hi >/x\n"
        'ENV A=1\nCMD ["/bin/sh"]\n',
        HERE,
        left=("dev", "etc", "proc", "sys"),  # what it mounts on
    ),
    "scratch, and nothing but a file": Case("FROM scratch\nCOPY a.txt /\n", HERE),
    "scratch with an ENV": Case("FROM scratch\nENV a=$PATH\nCOPY a.txt x\nWORKDIR d\nADD b.txt .\nLABEL a=b\n", HERE),
    "ADD unpacks": Case(
        "FROM base:1\nADD f.tgz /a/\nADD f.tar /b\nADD f.tgz a.txt /c/\nADD --chown=alice f.tgz /d/\n"
        "ADD a.txt /e\nADD d /f\n"
        "COPY f.tgz /g/\nADD no.tgz /h/\n",
        {**HERE, "f.tgz": packed("in/", "in/x", "y"), "f.tar": packed("z/", "z/q", mode="w:"), "no.tgz": "not one"},
        left=("d/in", "d/in/x", "d/y"),  # belong to alice since BuildKit 0.26 or so
    ),
    "MAINTAINER, STOPSIGNAL": Case("FROM base:1\nMAINTAINER Me <me@x>\nARG S=TERM\nSTOPSIGNAL SIG$S\n"),
    "STOPSIGNAL as a number": Case('FROM base:1\nSTOPSIGNAL 9\nMAINTAINER "Q"\n'),
    "ONBUILD": Case(
        'FROM base:1\nONBUILD RUN   echo 1  >/x\nONBUILD COPY a.txt \\\n  /y\nONBUILD ENV a="b c"\nonbuild cmd x\n'
    ),
    "words in small letters": Case(
        "from base:1 as One\nrun echo 1 >/x\nFrom one\nCopy --from=ONE /x /y\nenv a=1\nworkdir /w\n"
    ),
    "a target": Case("FROM base:1 AS a\nRUN echo 1 >/x\nFROM a AS b\nRUN false\n", target="a"),
    "RUN": Case(
        'FROM base:1\nRUN ["sh", "-c", "echo $0 $HOME >/a", "x"]\nRUN   echo   "a   b"   >/b\n'
        'RUN echo "#no comment" >/c\n'
        "RUN [ -e /a ] && echo yes >/d\nRUN echo '$HOME' \\$HOME \"${HOME}\" >/e\nRUN umask >/f; touch /g; mkdir /h\n"
        "RUN rm /a; rm -r /h; mkdir /h; echo 1 >/h/x\nRUN rm -r /home /etc/group; ln /b /b2; mkfifo /fifo\n"
    ),
    "RUN changes the root's own files": Case(
        "FROM base:1\n"
        "RUN echo 127.0.0.9 me >>/etc/hosts; touch /dev/x /run/y; rm -rf /srv; mkdir -m 751 /srv; chmod 711 /\n"
    ),
    "cache and tmpfs mounts": Case(
        "FROM base:1\n"
        "RUN --mount=type=cache,target=/c/d --mount=type=tmpfs,target=/t echo 1 >/c/d/x; echo 1 >/t/x; ls /c >/l\n"
        "RUN --mount=type=cache,target=/c/d cat /c/d/x >/y\nRUN --mount=type=bind,target=/ctx cp /ctx/a.txt /z\n"
        "RUN --mount=target=/ctx,source=d ls /ctx >/ls\n",
        HERE,
        left=("c", "c/d", "ctx", "t"),  # what it mounts on
    ),
    "heredocs": Case(
        "FROM base:1\nRUN <<E\necho 1 >/a\nset -u\necho ${HOME} >/b\nE\nRUN <<-E\n\techo tabs >/t\n\tE\n"
        "RUN cat <<A >/c && cat <<'B' >/d\nhome $HOME\nA\nhome $HOME\nB\n"
        "COPY <<x /e\n$FROM_BASE \"q\" 'r'\nx\nCOPY <<'x' <<\"y\" a.txt /f/\n$FROM_BASE\nx\n\\$z\ny\n",
        HERE,
        spelled="FROM base:1\nRUN echo 1 >/a; echo ${HOME} >/b\nRUN echo tabs >/t\n"
        "RUN echo \"home $HOME\" >/c; echo 'home $HOME' >/d\n"
        "RUN echo yes \\\"q\\\" \\'r\\' >/e; mkdir /f; echo '$FROM_BASE' >/f/x; echo '\\$z' >/f/y\nCOPY a.txt /f/\n",
    ),
    "a heredoc that is a program": Case(
        'FROM base:1\nRUN <<E\n#!/bin/sh -e\necho "$1." >/x\ncat $0 >/y\nE\nRUN <<E sh -s one\necho "$1" >/z\nE\n',
        spelled="FROM base:1\nRUN echo . >/x; printf '%s\\n' '#!/bin/sh -e' 'echo \"$1.\" >/x' 'cat $0 >/y' >/y\n"
        "RUN echo >/z\n",
    ),
}


@pytest.fixture(scope="module")
def archive(docker: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("twins") / "base.tar"
    path.write_bytes(twins.base())
    subprocess.run([*docker, "load", "-q", "-i", str(path)], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(path.with_name("store")))
        minicontainer("load", "-i", str(path))
        yield path
        minicontainer("system", "reset", "--force")


@pytest.mark.parametrize("name", CASES)
def test_as_docker(name: str, archive: Path, docker: list[str], tmp_path: Path) -> None:
    case = CASES[name]
    twins.write(tmp_path, case)
    ours = twins.here(tmp_path, case, "--network", "none")
    assert "\n".join(twins.differences(ours, twins.docker(docker, tmp_path, case), case)) == ""

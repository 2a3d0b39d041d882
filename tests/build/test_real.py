# ruff: noqa: E501 - a Dockerfile's lines are as long as their authors make them
"""Dockerfiles as projects ship them, built here and by a real docker: the same files, the same config.

Their base is made of this machine's own python, dpkg and node, beside busybox; their packages (wheels, .debs, a
tarball of npm's) are made here, and served over HTTP on the bridge's gateway. docker sees the same address in the
network namespace that the peers have.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import engine_fixtures, peers, registries, twins
from tests.conftest import minicontainer
from tests.twins import Case

pytestmark = [
    pytest.mark.root, pytest.mark.slow,
    pytest.mark.needs("docker", "dockerd", "busybox", "overlay", "bridge", "veth", "nft", "dpkg-deb", "node"),
]  # fmt: skip

PORT = 18765
PYTHON = "/usr/bin/python3.11"
UNWANTED = (
    "test",
    "idlelib",
    "lib2to3",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "distutils",
    "pydoc_data",
    "__pycache__",
)

# Nothing is left out of the comparison but what each case names in `left`. What would differ between any two builds is
# not made, or removed by the same step: *.pyc, which has its source's time in it (pip --no-compile, python -B), and
# var/log/dpkg.log, which has times in it. Full paths of dpkg: busybox's shell prefers its own applet of that name.


class Place(NamedTuple):
    """Where docker and we meet."""

    docker: list[str]
    address: str


def libraries(*programs: str) -> set[str]:
    """The shared libraries of programs, as ldd(1) tells them."""
    found = set()
    for program in programs:
        for line in subprocess.run(["ldd", program], capture_output=True, text=True).stdout.splitlines():
            found |= {word for word in line.split() if word.startswith("/")}
    return found


def system(name: str) -> bytes:
    """An archive of `system:1` (python, pip's wheel, dpkg and tar of this machine, beside busybox) or `node:1`."""
    tree: dict[str, bytes | str | int] = {}

    def put(source: str, name: str = "") -> None:
        name = (name or source).lstrip("/")
        for at in range(1, name.count("/") + 1):
            tree.setdefault("/".join(name.split("/")[:at]), 0o755)
        tree[name] = Path(source).read_bytes()

    programs = ["/usr/bin/node"]
    if name == "system":
        programs = [PYTHON, *(f"/usr/bin/{one}" for one in ("dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "tar"))]
    modules = Path("/usr/lib/python3.11")
    for program in programs:
        put(program)
    for path in modules.rglob("*") if name == "system" else ():
        if path.is_file() and not set(path.parts) & set(UNWANTED) and path.suffix not in (".pyc", ".a"):
            put(str(path))
    for library in libraries(*programs, *(map(str, modules.glob("lib-dynload/*.so")) if name == "system" else ())):
        put(library)
    for wheel in Path("/usr/share/python-wheels").glob("pip-*.whl"):
        put(str(wheel), "usr/share/pip.whl")
    for folder in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "etc/dpkg/dpkg.cfg.d", "usr/local/bin"):
        for at in range(1, folder.count("/") + 2):
            tree.setdefault("/".join(folder.split("/")[:at]), 0o755)
    tree |= {"var/lib/dpkg/status": b"", "var/lib/dpkg/available": b"", "usr/bin/python3": "python3.11"}
    tree["usr/bin/pip"] = b'#!/bin/sh\nexec /usr/bin/python3 /usr/share/pip.whl/pip "$@"\n'
    for program in ("ldconfig", "start-stop-daemon"):  # what dpkg asks for
        tree[f"usr/bin/{program}"] = b"#!/bin/sh\n"
    modes = {one: 0o755 for one in tree if "/bin/" in one or "ld-linux" in one}
    layer = engine_fixtures.layer(tree, modes=modes)
    config, layers = twins.base_image()
    config = {**config, "config": {**config["config"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"]}}
    history = [*config["history"], {"created": "2020-01-02T00:00:00Z", "created_by": "system"}]
    return engine_fixtures.archive({f"{name}:1": ({**config, "history": history}, [*layers, layer])})


def wheel(folder: Path, name: str, body: str, requires: str = "", script: str = "") -> None:
    """A wheel of one module."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + (
        f"Requires-Dist: {requires}\n" if requires else ""
    )
    files = {
        f"{name}.py": body, f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **({f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:{script}\n"} if script else {}),
    }  # fmt: skip
    record = "".join(f"{one},,\n" for one in files) + f"{info}/RECORD,,\n"
    place = folder / "simple" / name
    place.mkdir(parents=True)
    file = f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(place / file, "w") as archive:
        for one, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(one, (2020, 1, 1, 0, 0, 0)), content)
    (place / "index.html").write_text(f'<a href="{file}">{file}</a>\n')


def package(folder: Path, name: str, depends: str = "", files: dict[str, str] | None = None, script: str = "") -> None:
    """A .deb."""
    tree = folder / f"tree-{name}"
    for path, content in {f"usr/share/{name}/about": f"{name}\n", **(files or {})}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
        (tree / path).chmod(0o755 if "/bin/" in path else 0o644)
    (tree / "DEBIAN").mkdir()
    lines = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: me <me@localhost>\nDescription: {name}\n"
    (tree / "DEBIAN/control").write_text(lines + (f"Depends: {depends}\n" if depends else ""))
    if script:
        (tree / "DEBIAN/postinst").write_text(script)
        (tree / "DEBIAN/postinst").chmod(0o755)
    subprocess.run(
        ["dpkg-deb", "-b", "--root-owner-group", "-Znone", str(tree), str(folder / f"{name}.deb")],
        check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1600000000"},
    )  # fmt: skip
    shutil.rmtree(tree)


def served(folder: Path) -> None:
    """What the builds fetch."""
    wheel(folder, "tinyflask", "def run():\n    print('app')\n", script="run")
    wheel(folder, "tinydjango", "import tinyorm\n", requires="tinyorm")
    wheel(folder, "tinyorm", "VERSION = 1\n")
    wheel(folder, "tinyguni", "def serve():\n    print('serving')\n", script="serve")
    package(folder, "libtiny")
    package(folder, "tinycurl", "libtiny", {"usr/bin/tinycurl": '#!/bin/sh\nexec wget "$@"\n'})
    package(
        folder, "tinyginx", "", {"etc/tinyginx/conf": "root /srv/www\n", "usr/bin/tinyginx": "#!/bin/sh\n"},
        "#!/bin/sh\nset -e\nmkdir -p /var/lib/tinyginx\nchown 33:33 /var/lib/tinyginx\nln -sf conf /etc/tinyginx/default\n",
    )  # fmt: skip
    with tarfile.open(folder / "left-1.0.0.tgz", "w:gz") as tar:
        for name, content in (
            ("package/package.json", '{"name":"left","version":"1.0.0","main":"index.js"}\n'),
            ("package/index.js", "module.exports = (s, n) => String(s).padStart(n)\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))


DEBS = "for p in {}; do wget -q http://GATEWAY/$p.deb -O /tmp/$p.deb; done && /usr/bin/dpkg -i {} && rm /tmp/*.deb && rm -f /var/log/dpkg.log"


def debs(*names: str) -> str:
    return DEBS.format(" ".join(names), " ".join(f"/tmp/{name}.deb" for name in names))


def pips(*words: str) -> str:
    return (
        "pip install --no-cache-dir --no-compile --root-user-action=ignore --break-system-packages "
        f"--trusted-host HOST --index-url http://GATEWAY/simple/ {' '.join(words)}"
    )


FLASK = {
    "requirements.txt": "tinyflask==1.0\n",
    "app.py": "import tinyflask\ntinyflask.run()\n",
    "static/a.css": "a{}\n",
}
DJANGO = {
    "requirements.txt": "tinydjango\ntinyguni\n",
    "manage.py": "#!/usr/bin/env python3\nimport tinydjango\n",
    "site/settings.py": "DEBUG = False\n",
    "site/__init__.py": "",
    "build/out": "x",
    ".dockerignore": "build\n*.tar.gz\n",
}
NODE = {
    "package.json": '{"name":"app","version":"1.0.0","scripts":{"start":"node ."}}\n', "index.js": "console.log(require('left')(1, 3))\n",
    "src/page.js": "module.exports = '<p>hi</p>'\n",
}  # fmt: skip
SITE = {
    "index.html": "<p>hi</p>\n",
    "img/a.svg": "<svg/>\n",
    "conf/default.conf": "listen 80;\n",
    "entry.sh": '#!/bin/sh\nexec "$@"\n',
}
LEFT = "mkdir -p node_modules/left && wget -qO- http://GATEWAY/left-1.0.0.tgz | tar xz --strip-components=1 -C node_modules/left"

CASES = {
    "the talk's": Case(
        f"FROM system:1\nWORKDIR /app\nADD requirements.txt .\nRUN {pips('-r requirements.txt')}\nADD . .\n"
        "CMD ./manage.py test\nENV PYTHONUNBUFFERED=1\n", DJANGO, ignored=("build",),
    ),
    "the talk's, with caches": Case(
        "FROM system:1\nRUN --mount=type=cache,target=/var/cache/apt \\\n    --mount=type=cache,target=/root/.cache \\\n"
        f"    {debs('libtiny', 'tinycurl')} \\\n && {pips('tinyorm')} \\\n && /usr/bin/dpkg -P tinycurl && rm -f /var/log/dpkg.log\n",
        left=("var/cache", "var/cache/apt", "root/.cache"),
    ),
    "flask": Case(
        "# syntax=docker/dockerfile:1\nARG PY=1\nFROM system:${PY}\n\nENV PYTHONDONTWRITEBYTECODE=1 \\\n    PYTHONUNBUFFERED=1\n"
        f"WORKDIR /srv/app\nCOPY requirements.txt ./\nRUN {pips('-r', 'requirements.txt')}\nCOPY --chown=alice:staff . .\n"
        'USER alice\nEXPOSE 5000\nHEALTHCHECK --interval=30s --timeout=3s CMD wget -qO- http://localhost:5000/ || exit 1\n'
        'CMD ["python3", "app.py"]\n'.replace("# syntax=docker/dockerfile:1\n", ""), FLASK,
    ),
    "flask from wheels of an earlier stage": Case(
        "FROM system:1 AS wheels\nCOPY requirements.txt /\nRUN pip download --no-cache-dir -d /wheels --trusted-host HOST "
        "--index-url http://GATEWAY/simple/ -r /requirements.txt\nFROM system:1\nCOPY --from=wheels /wheels /wheels\n"
        "RUN pip install --no-index --no-compile --break-system-packages --root-user-action=ignore "
        "--find-links=/wheels tinyflask && rm -rf /wheels /root/.cache\nENTRYPOINT [\"tinyflask\"]\n", FLASK,
    ),
    "django, a user of its own": Case(
        "FROM system:1 AS base\nRUN echo app:x:900: >>/etc/group && echo app:x:900:900::/home/app:/bin/sh >>/etc/passwd && mkdir /home/app && chown app:app /home/app\n"
        f"FROM base AS deps\nCOPY requirements.txt .\nRUN {pips('--target=/deps', '-r requirements.txt')}\n"
        "FROM base\nENV PYTHONPATH=/deps\nWORKDIR /home/app/site\nCOPY --from=deps --chown=app:app /deps /deps\n"
        "COPY --chown=900:900 . .\nRUN python3 -B manage.py && chmod -R g=u /home/app\nUSER app\nVOLUME /data\n"
        'ENTRYPOINT ["python3"]\nCMD ["manage.py", "runserver", "0.0.0.0:8000"]\nEXPOSE 8000/tcp\n', DJANGO, ignored=("build",),
    ),
    "a virtual environment": Case(
        "FROM system:1 AS b\nRUN python3 -m venv --without-pip --copies /venv\nENV PATH=/venv/bin:$PATH VIRTUAL_ENV=/venv\n"
        "RUN python3 /usr/share/pip.whl/pip install --no-compile --no-cache-dir --trusted-host HOST --index-url http://GATEWAY/simple/ "
        "tinyguni\nFROM system:1\nCOPY --from=b /venv /venv\nENV PATH=\"/venv/bin:$PATH\"\nCMD [\"tinyguni\", \"-w\", \"2\"]\n",
    ),
    "packages": Case(f"FROM system:1\nARG DEBIAN_FRONTEND=noninteractive\nRUN set -eux; {debs('libtiny', 'tinycurl')}\nCMD [\"tinycurl\"]\n"),
    "packages, and one goes again": Case(
        f"FROM system:1\nRUN {debs('libtiny', 'tinycurl')}\nRUN /usr/bin/dpkg -P tinycurl libtiny && rm -f /var/log/dpkg.log\n"
        f"RUN {debs('tinyginx')}\n"
    ),
    "a server's package": Case(
        f"FROM system:1\nLABEL maintainer=\"Me <me@localhost>\"\nRUN {debs('tinyginx')} \\\n    && ln -sf /dev/stdout /var/log/access.log \\\n"
        "    && ln -sf /dev/stderr /var/log/error.log\nCOPY conf/ /etc/tinyginx/\nCOPY *.html img /srv/www/\nEXPOSE 80 443\n"
        'STOPSIGNAL SIGQUIT\nCOPY entry.sh /\nENTRYPOINT ["/entry.sh"]\nCMD ["tinyginx", "-g", "daemon off;"]\n', SITE,
    ),
    "a .deb by ADD": Case("FROM system:1\nADD http://GATEWAY/libtiny.deb /tmp/\nRUN /usr/bin/dpkg -i /tmp/libtiny.deb && rm -f /tmp/libtiny.deb /var/log/dpkg.log\n"),
    "node": Case(
        f"FROM node:1\nWORKDIR /usr/src/app\nCOPY package*.json ./\nRUN {LEFT}\nCOPY . .\nRUN node index.js >out.txt\nENV NODE_ENV=production\n"
        'EXPOSE 3000\nCMD [ "node", "index.js" ]\n', NODE,
    ),
    "node, built in a stage": Case(
        f"FROM node:1 AS build\nWORKDIR /app\nCOPY package.json .\nRUN {LEFT}\nCOPY src src\n"
        "RUN mkdir dist && node -e \"require('fs').writeFileSync('dist/index.html', require('./src/page.js'))\"\n"
        "FROM base:1\nCOPY --from=build /app/dist /usr/share/html\nCMD httpd -f -h /usr/share/html\n", NODE,
    ),
    "node, arguments and a shell": Case(
        f"FROM node:1\nSHELL [\"/bin/sh\", \"-o\", \"pipefail\", \"-c\"]\nARG NODE_ENV=production\nENV NODE_ENV=$NODE_ENV\nWORKDIR /app\n"
        f"RUN {LEFT}\nCOPY --chmod=555 index.js src/ ./\nRUN echo \"$NODE_ENV\" | tee env >/dev/null; node index.js | sha256sum >sum\nUSER 1000:1000\n"
        "ONBUILD COPY . /app/\n", NODE, args={"NODE_ENV": "test"},
    ),
    "a static site": Case("FROM base:1\nCOPY . /www\nRUN rm -rf /www/conf /www/Dockerfile && chown -R 33:33 /www\nUSER 33\nCMD [\"httpd\", \"-fp80\"]\n", SITE),
    "scratch with one program": Case(
        "FROM base:1 AS b\nRUN mkdir -p /out/etc && cp /bin/busybox /out/app && echo 'nobody:x:65534:65534::/:' >/out/etc/passwd\n"
        "FROM scratch\nCOPY --from=b /out /\nUSER nobody\nENTRYPOINT [\"/app\"]\n"
    ),
    "CRLF": Case(
        f"FROM system:1\r\nENV A=1 \\\r\n    B=\"two words\"\r\nRUN {pips('tinyorm')} \\\r\n  # a comment\r\n  && echo done >/done\r\nCMD python3 -V\r\n"
    ),
    "heredocs": Case(
        f"FROM system:1\nRUN <<EOF\nset -e\n{debs('libtiny')}\necho \"$A\" >/x\nEOF\nRUN <<EOF\n#!/usr/bin/python3 -B\nopen('/y', 'w').write('$HOME')\nEOF\n"
        "COPY <<-\"EOF\" /etc/app.conf\n\t[app]\n\troot = $HOME\nEOF\n",
        {"app.conf": "[app]\nroot = $HOME\n"},
        spelled=f"FROM system:1\nRUN set -e; {debs('libtiny')}; echo >/x\nRUN printf '$HOME' >/y\nCOPY app.conf /etc/app.conf\n",
    ),
    "odd quoting": Case(
        "FROM system:1\nENV OPTS=\"-Dx='a b' -y\" ONE=a\\ b\nRUN python3 -B -c \"import os; open('/o', 'w').write(os.environ['OPTS'] + \\\"$ONE\\\")\"\n"
        "RUN [\"python3\", \"-c\", \"open('/p', 'w').write(\\\"$ONE 'x'\\\")\"]\nLABEL \"a.b\"='c \"d\"' e=f\\ g\nCMD python3 -c 'print(\"$OPTS\")'\n"
    ),
    "a tool that is fetched and checked": Case(
        "FROM base:1\nARG VERSION=1.0.0\nADD http://GATEWAY/left-${VERSION}.tgz /opt/\nRUN cd /opt && tar xzf left-*.tgz && mv package left-${VERSION} && "
        "ln -s left-${VERSION} left\nWORKDIR /opt/left\nENV LEFT_HOME=/opt/left PATH=/opt/left/bin:${PATH}\n"
    ),
    "four stages and a target": Case(
        f"ARG B=system:1\nFROM $B AS base\nWORKDIR /app\nFROM base AS deps\nRUN {pips('--target=/d', 'tinyorm')}\nFROM deps AS test\n"
        "COPY . .\nRUN PYTHONPATH=/d python3 -B -c 'import tinyorm' && touch /tested\nFROM base AS prod\nCOPY --from=deps /d /d\n"
        "COPY --from=test /tested /\nENV PYTHONPATH=/d\nCMD [\"python3\", \"app.py\"]\nFROM prod AS debug\nRUN false\n", FLASK, target="prod",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(docker: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("real")
    (folder / "served").mkdir()
    served(folder / "served")
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(folder / "store"))
        for name, content in (("base", twins.base()), ("system", system("system")), ("node", system("node"))):
            (folder / name).write_bytes(content)
            subprocess.run([*docker, "load", "-q", "-i", str(folder / name)], check=True, capture_output=True)
            minicontainer("load", "-q", "-i", str(folder / name))
        (network,) = json.loads(minicontainer("network", "inspect", "bridge").stdout)
        gateway = network["IPAM"]["Config"][0]["Gateway"]
        words = peers.own_network()
        subprocess.run([*words, "ip", "address", "add", f"{gateway}/32", "dev", "lo"], check=True)
        for before in ([], words):
            server = subprocess.Popen(
                [*before, sys.executable, "-m", "http.server", str(PORT), "-d", str(folder / "served")],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(server.wait)
            stack.callback(server.kill)
            while not registries.listens(server.pid, PORT):
                assert server.poll() is None, f"nobody serves at {PORT}"
                time.sleep(0.05)
        yield Place(docker, gateway)
        minicontainer("system", "reset", "--force")
        subprocess.run([*words, "ip", "address", "del", f"{gateway}/32", "dev", "lo"], check=True)


def addressed(case: Case, gateway: str) -> Case:
    """A case whose addresses are known."""

    def known(text: str) -> str:
        return (
            text.replace("GATEWAY", f"{gateway}:{PORT}").replace("--trusted-host HOST", f"--trusted-host {gateway}")
            if text
            else text
        )

    assert isinstance(case.text, str)
    return case._replace(text=known(case.text), spelled=known(case.spelled))


@pytest.mark.parametrize("name", CASES)
def test_real(name: str, place: Place, tmp_path: Path) -> None:
    case = addressed(CASES[name], place.address)
    twins.write(tmp_path, case)
    ours = twins.here(tmp_path, case)
    assert "\n".join(twins.differences(ours, twins.docker(place.docker, tmp_path, case, "host"), case)) == ""

# ruff: noqa: E501 - a Dockerfile's lines are as long as their authors make them
"""Dockerfiles as projects ship them, built here and by a real docker: the same files, the same config.

Their base is made of this machine's own programs (tests/bases.py); their packages (wheels, .debs, npm's, a Go module)
are made here (tests/packages.py), and served over HTTP on the bridge's gateway. docker sees the same address in the
network namespace that the peers have.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import bases, packages, peers, registries, twins
from tests.conftest import minicontainer, missing, need
from tests.packages import deb, wheel
from tests.twins import Case

pytestmark = [
    pytest.mark.root, pytest.mark.slow,
    pytest.mark.needs("docker", "dockerd", "busybox", "overlay", "bridge", "veth", "nft", "dpkg-deb", "apt-get"),
]  # fmt: skip

PORT = 18765
NEEDS = {"golang:": ["go"], "node:": ["node"], "npm ": ["node", "npm"]}  # whose Dockerfile says so needs these
Package = tuple[dict[str, Any], str]  # of npm's: package.json and index.js
# Nothing is left out of the comparison but what each case names in `left`. What would differ between any two builds is
# not made, or removed by the same step: *.pyc, which has its source's time in it (pip --no-compile, python -B), and
# the logs of dpkg and apt, which have times in them. Full paths of dpkg: busybox's shell prefers its own applet of that name.


class Place(NamedTuple):
    """Where docker and we meet."""

    docker: list[str]
    address: str


def served(folder: Path, address: str) -> None:
    """What the builds fetch, in the directory that is served there."""
    wheel(folder, "tinyflask", "def run():\n    print('app')\n", script="run")
    wheel(folder, "tinydjango", "import tinyorm\n", requires="tinyorm")
    wheel(folder, "tinyorm", "VERSION = 1\n")
    wheel(folder, "tinyguni", "def serve():\n    print('serving')\n", script="serve")
    deb(folder, "libtiny")
    deb(folder, "tinydoc")
    curl = {"usr/bin/tinycurl": '#!/bin/sh\nexec wget "$@"\n'}
    deb(folder, "tinycurl", "libtiny", curl, more="Recommends: tinydoc\n")
    deb(
        folder, "tinyginx", "", {"etc/tinyginx/conf": "root /srv/www\n", "usr/bin/tinyginx": "#!/bin/sh\n"},
        "#!/bin/sh\nset -e\nmkdir -p /var/lib/tinyginx\nchown 33:33 /var/lib/tinyginx\nln -sf conf /etc/tinyginx/default\n",
    )  # fmt: skip
    packages.repository(folder, "apt")
    for manifest, index in (LEFT, PAD, CHECKER):
        packages.npm(folder / "npm", f"http://{address}/npm", manifest, index)
    shutil.copyfile(folder / "npm/left/-/left-1.0.0.tgz", folder / "left-1.0.0.tgz")
    packages.go(folder / "go", *LIBRARY)


PAD: Package = ({"name": "pad", "version": "1.0.2", "bin": "index.js"}, "#!/usr/bin/env node\nmodule.exports = ' '\n")
LEFT: Package = (
    {"name": "left", "version": "1.0.0", "main": "index.js", "dependencies": {"pad": "^1.0.0"}},
    "module.exports = (s, n) => String(s).padStart(n)\n",
)
CHECKER: Package = ({"name": "checker", "version": "2.0.0"}, "throw 1\n")
LIBRARY = (
    "example.org/greeting", "v1.1.0",
    {"go.mod": "module example.org/greeting\n\ngo 1.19\n", "greeting.go": 'package greeting\n\nconst Hello = "hello, "\n'},
)  # fmt: skip

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
UNPACKED = "mkdir -p node_modules/left && wget -qO- http://GATEWAY/left-1.0.0.tgz | tar xz --strip-components=1 -C node_modules/left"

LOCK = {
    "name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": True,
    "packages": {
        "": {"name": "app", "version": "1.0.0", "dependencies": {"left": "^1.0.0"}, "devDependencies": {"checker": "^2.0.0"}},
        **{
            f"node_modules/{manifest['name']}": {
                "version": manifest["version"], "integrity": packages.integrity(packages.npm_tarball(manifest, index)),
                # As npm's own registry has it: who has another one is given that one's address instead.
                "resolved": f"https://registry.npmjs.org/{manifest['name']}/-/{manifest['name']}-{manifest['version']}.tgz",
                **{word: manifest[word] for word in ("dependencies",) if word in manifest}, **more,
            }
            for (manifest, index), more in ((CHECKER, {"dev": True}), (LEFT, {}), (PAD, {"bin": {"pad": "index.js"}}))
        },
    },
}  # fmt: skip
NPM = {
    "package.json": json.dumps({
        "name": "app", "version": "1.0.0", "dependencies": {"left": "^1.0.0"}, "devDependencies": {"checker": "^2.0.0"},
        "scripts": {"build": "node build.js"},
    }),
    "package-lock.json": json.dumps(LOCK), ".npmrc": "registry=http://GATEWAY/npm/\n", ".dockerignore": "node_modules\n",
    "index.js": "console.log(require('left')(1, 3))\n",
    "build.js": "require('fs').writeFileSync('page.html', require('left')('x', 9))\n",
}  # fmt: skip
GO = {
    "go.mod": f"module example.org/hello\n\ngo 1.19\n\nrequire {LIBRARY[0]} {LIBRARY[1]}\n",
    "go.sum": packages.go_sum(*LIBRARY),
    "cmd/hello/main.go": 'package main\n\nimport (\n\t"os"\n\n\t"example.org/greeting"\n\t"example.org/hello/internal/name"\n)\n\n'
    'var version = "dev"\n\nfunc main() {\n\tos.Stdout.WriteString(greeting.Hello + name.Name + version + "\\n")\n}\n',
    "internal/name/name.go": 'package name\n\nimport _ "embed"\n\n//go:embed name.txt\nvar Name string\n',
    "internal/name/name.txt": "world ",
    "README.md": "# hello\n", ".dockerignore": "README.md\n",
}  # fmt: skip
APT = "--mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked"
LOGS = "/var/log/dpkg.log /var/log/apt/*"

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
        f"FROM node:1\nWORKDIR /usr/src/app\nCOPY package*.json ./\nRUN {UNPACKED}\nCOPY . .\nRUN node index.js >out.txt\nENV NODE_ENV=production\n"
        'EXPOSE 3000\nCMD [ "node", "index.js" ]\n', NODE,
    ),
    "node, built in a stage": Case(
        f"FROM node:1 AS build\nWORKDIR /app\nCOPY package.json .\nRUN {UNPACKED}\nCOPY src src\n"
        "RUN mkdir dist && node -e \"require('fs').writeFileSync('dist/index.html', require('./src/page.js'))\"\n"
        "FROM base:1\nCOPY --from=build /app/dist /usr/share/html\nCMD httpd -f -h /usr/share/html\n", NODE,
    ),
    "node, arguments and a shell": Case(
        f"FROM node:1\nSHELL [\"/bin/sh\", \"-o\", \"pipefail\", \"-c\"]\nARG NODE_ENV=production\nENV NODE_ENV=$NODE_ENV\nWORKDIR /app\n"
        f"RUN {UNPACKED}\nCOPY --chmod=555 index.js src/ ./\nRUN echo \"$NODE_ENV\" | tee env >/dev/null; node index.js | sha256sum >sum\nUSER 1000:1000\n"
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
    "apt": Case(
        "FROM system:1\nRUN echo 'deb [trusted=yes] http://GATEWAY/apt ./' >/etc/apt/sources.list\nENV DEBIAN_FRONTEND=noninteractive\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends \\\n    tinycurl \\\n    tinyginx \\\n"
        f" && rm -rf /var/lib/apt/lists/* \\\n && rm -f {LOGS}\nCMD [\"cat\", \"/usr/share/libtiny/about\"]\n", prints="libtiny\n",
    ),
    "apt, with caches": Case(
        "FROM system:1\nRUN rm -f /etc/apt/apt.conf.d/docker-clean && echo 'Binary::apt::APT::Keep-Downloaded-Packages \"true\";' >/etc/apt/apt.conf.d/keep-cache\n"
        "ADD sources.list /etc/apt/sources.list.d/tiny.list\n"
        f"RUN {APT} \\\n    --mount=type=tmpfs,target=/var/log \\\n    apt-get update && apt-get install -y tinycurl=1.0 && test -e /usr/share/tinydoc/about\n"
        f"RUN {APT} \\\n    apt-get purge -y --auto-remove tinycurl && rm -f {LOGS}\n",
        {"sources.list": "deb [trusted=yes] http://GATEWAY/apt ./\n"},
    ),
    "npm ci": Case(
        "FROM node:1 AS deps\nWORKDIR /app\nCOPY package.json package-lock.json .npmrc ./\n"
        "RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --no-audit --no-fund\n\n"
        "FROM node:1\nENV NODE_ENV=production\nWORKDIR /app\nCOPY --from=deps --chown=1000:1000 /app/node_modules ./node_modules\n"
        "COPY --chown=1000:1000 . .\nUSER 1000\nEXPOSE 3000\nCMD [\"node\", \"index.js\"]\n", NPM, prints="  1\n",
    ),
    "npm install, and a build": Case(
        "FROM node:1 AS build\nWORKDIR /app\nCOPY package.json .npmrc ./\n"
        "RUN npm install --no-audit --no-fund --cache /tmp/npm && rm -rf /tmp/npm\nCOPY . .\nRUN npm run build && npm prune --omit=dev --no-audit --offline --cache /tmp/npm && rm -rf /tmp/npm /root/.npm\n"
        "FROM base:1\nCOPY --from=build /app /app\nCMD cat /app/page.html\n", {name: NPM[name] for name in NPM if "lock" not in name},
        prints="        x",
    ),
    "go": Case(
        "FROM golang:1 AS build\nWORKDIR /src\nENV GOPROXY=http://GATEWAY/go GOSUMDB=off GOTOOLCHAIN=local\nCOPY go.mod go.sum ./\n"
        "RUN --mount=type=cache,target=/go/pkg/mod go mod download && go mod verify\nCOPY . .\nARG VERSION=1.2.3\n"
        "RUN --mount=type=cache,target=/go/pkg/mod \\\n    --mount=type=cache,target=/root/.cache/go-build \\\n"
        '    CGO_ENABLED=0 GOOS=linux go build -trimpath -ldflags="-s -w -X main.version=${VERSION}" -o /out/hello ./cmd/hello\n\n'
        "FROM scratch\nCOPY --from=build /etc/passwd /etc/passwd\nCOPY --from=build /out/hello /hello\nUSER 1000:1000\nENTRYPOINT [\"/hello\"]\n",
        GO, ignored=("README.md",), prints="hello, world 1.2.3\n",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(docker: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("real")
    (folder / "served").mkdir()
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(folder / "store"))
        (network,) = json.loads(minicontainer("network", "inspect", "bridge").stdout)
        gateway = network["IPAM"]["Config"][0]["Gateway"]
        served(folder / "served", f"{gateway}:{PORT}")
        for name in ("base", "system", "node", "golang"):
            if not [word for word in NEEDS.get(f"{name}:", []) if missing(word)]:
                (folder / name).write_bytes(base(name, folder))
                subprocess.run([*docker, "load", "-q", "-i", str(folder / name)], check=True, capture_output=True)
                minicontainer("load", "-q", "-i", str(folder / name))
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


def base(name: str, folder: Path) -> bytes:
    """The archive of an image that cases begin with."""
    if name == "golang":
        (folder / "module").mkdir()
        twins.write(folder / "module", CASES["go"])
    return twins.base() if name == "base" else bases.archive(name, folder / "module", folder / "served/go")


def addressed(case: Case, gateway: str) -> Case:
    """A case whose addresses are known."""

    def known(text: str) -> str:
        return (
            text.replace("GATEWAY", f"{gateway}:{PORT}").replace("--trusted-host HOST", f"--trusted-host {gateway}")
            if text
            else text
        )

    assert isinstance(case.text, str)
    files = {name: known(content) if isinstance(content, str) else content for name, content in case.files.items()}
    return case._replace(text=known(case.text), spelled=known(case.spelled), files=files)


@pytest.mark.parametrize("name", CASES)
def test_real(name: str, place: Place, tmp_path: Path) -> None:
    case = addressed(CASES[name], place.address)
    need(*(feature for word, features in NEEDS.items() if word in str(case.text) for feature in features))
    twins.write(tmp_path, case)
    ours = twins.here(tmp_path, case)
    assert "\n".join(twins.differences(ours, twins.docker(place.docker, tmp_path, case, "host"), case)) == ""
    if case.prints:
        assert minicontainer("run", "--rm", "--network", "none", "twin").stdout == case.prints

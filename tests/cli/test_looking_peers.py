"""What we show of containers, images and volumes beside what a real docker shows of the same ones."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.cli import template
from minicontainer.cli.inspect import typed
from tests import engine_fixtures
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("ipv6")]

OURS = [sys.executable, "-m", "minicontainer"]

# Made with the same words by both engines. `done` has ended and `new` has not begun. One mount each, for docker has no
# order of them.
CONTAINERS = [
    ["run", "-d", "--name", "web", "--label", "a=1", "--label", "b=<&>", "-p", "127.0.0.1:18099:80", "-v", "vol1:/data",
     "-p", "18097:81/udp", "-p", "[::1]:18098:82", "--expose", "83-84", "-p", "18090-18091:18090-18091",
     "-e", "A=b", "-m", "64m", "--restart", "on-failure:3", "plain", "sleep", "10000"],
    ["run", "--name", "done", "--network", "none", "-v", "/srv:/srv:ro", "plain", "sh", "-c", "exit 3"],
    ["create", "--name", "new", "--network", "none", "demo", "echo", "two words"],
]  # fmt: skip


ATTACHED = [
    ["run"], ["run", "-i"], ["run", "-d"], ["run", "-d", "-i"], ["run", "-d", "-t"], ["run", "-d", "-it"],
    ["run", "-a", "stdout"], ["run", "-a", "stdin"], ["run", "-i", "-a", "stderr"], ["create"], ["create", "-i"],
    ["create", "-it"], ["create", "-a", "stdout"],
]  # fmt: skip


@pytest.fixture(scope="module")
def sides(shared_store: Path, docker: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """docker's words; the containers are there on both sides."""
    archive = tmp_path_factory.mktemp("peers") / "images.tar"
    archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    others = subprocess.run([*docker, "ps", "-aq"], capture_output=True, text=True).stdout.split()
    if others:  # what other tests have left in the docker that all share
        subprocess.run([*docker, "rm", "-f", "-v", *others], capture_output=True)
    subprocess.run([*docker, "load", "-q", "-i", archive], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(shared_store))
        try:
            for words in CONTAINERS:
                for engine in (docker, OURS):
                    done = subprocess.run([*engine, *words], capture_output=True, text=True)
                    assert done.returncode in (0, 3), done.stderr
            yield docker
        finally:
            for engine in (docker, OURS):
                subprocess.run([*engine, "rm", "-f", "-v", "web", "done", "new"], capture_output=True)
                subprocess.run([*engine, "volume", "rm", "vol1"], capture_output=True)


def typed_to(engine: list[str], *words: str) -> tuple[int, str, str]:
    done = subprocess.run([*engine, *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def document(engine: list[str], *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(typed_to(engine, "inspect", *words)[1])[0]
    return found


# Templates: docker's own document, read by docker and by us

TEMPLATES = r"""
{{.State.Pid}} {{json .Mounts}} {{.State}} {{.Mounts}} {{.Config.Labels}} {{.Config.Env}}
{{.Nope}}
{{.State.Nope.X}}
{{.State
{{.State}
{{nope .State}}
{{.Config.Labels.a}} {{.Config.Labels.zz}} {{index .Config.Labels "zz"}}|{{index .Config.Env 0}}
{{index .Config.Env 99}}
{{index .Config.Env "a"}}
{{range $k, $v := .NetworkSettings.Ports}}{{$k}}={{$v}} {{(index $v 0).HostPort}}{{end}}
{{range $i, $e := .Config.Env}}{{if $i}}, {{end}}{{$e}}{{else}}none{{end}}
{{range .HostConfig.CapAdd}}{{.}}{{else}}none{{end}}{{range 3}}x{{end}}
{{if eq .State.Status "x"}}yes{{else if .State.Running}}no{{else}}maybe{{end}}
{{with .HostConfig.CapAdd}}x{{else with .Name}}{{.}}{{end}}{{with $x := .State}}{{$x.Status}}{{end}}
{{len .Mounts}} {{join .Config.Env ","}} {{split "a,b" ","}} {{lower "ABC"}} {{upper "abc"}} {{title "it's a-b"}}
{{pad "x" 1 2}}|{{truncate "abcdef" 3}} {{slice "abcdef" 1 3}} {{slice .Config.Env 0 1}}
{{printf "%s %d %q %v %5d|%-5s|%x|%t|%5.2f" "s" 1 "q" true 42 "ab" 255 true 3.14159}}
{{printf "%+d|%05d|%X|%c|%%|%T" 3 42 "hi" 65 "s"}}
{{printf "%d" "x"}} {{printf "%s" 3}} {{printf "%d"}} {{printf "x" 1}} {{printf "%z" 1}} {{printf "%q" .Config.Env}}
{{printf "%08.3f|%+.2e|%g|%6d|%-6d|%x" 3.14159 12345.678 0.00001 42 42 255}} {{printf "%v %v %v" 1.0 1e21 1e100}}
{{- .Name -}}   x {{/* c */}}a {{- /* c */ -}} b
{{$x := .Name}}{{$x}}{{$x = "b"}}{{$x}}
{{.Name | json | printf "%s!"}} {{and 0 1}} {{or 0 1}} {{not 0}} {{and .Name .Id | len}}
{{eq 1 1.0}}
{{lt 1 2}} {{gt "b" "a"}} {{le 1 1}}{{ge 1 2}}{{ne 1 2}}
{{.State.Health}} {{json .State.Health}} {{if .State.Health}}a{{else}}b{{end}} {{.SizeRw}}
{{.State.Health.Status}}
{{end}}
{{if}}x{{end}}
{{if .Name}}x
{{range .Name}}x{{end}}
{{.Name.X}}
{{"a" | .Name}}
{{$y}}
{{1.5}} {{true}} {{0x10}} {{-3}} {{1e3}} {{`raw`}} {{"\x41\u00e9\101"}} {{'a'}}
{{nil}}
{{break}}
{{range .Config.Env}}{{break}}{{end}}x{{range .Config.Env}}{{continue}}y{{end}}
{{println "x" 1}}{{println .Config.Labels}}{{print 1 2 "a" "b" 3}}
{{not}}
{{len 3}}
{{join "a" ","}}
{{join .Config.Env}}
{{upper 3}}
{{slice "abc" 2 1}}
{{eq 1}}
{{lt 1 "a"}}
{{else}}
{{if 1}}{{else}}{{else}}{{end}}
{{.Config.Entrypoint}} {{json .Config.Entrypoint}} {{.HostConfig.CapAdd}} {{.HostConfig.PidsLimit}}
{{.HostConfig.RestartPolicy}} {{.NetworkSettings.Networks.bridge.IPAddress}} {{.GraphDriver.Data.MergedDir}}
{{"a" "b"}}
{{.Name "b"}}
{{3 | 4}}
{{|}}
{{(.Name}}
{{.Name)}}
{{"abc}}
{{. Name}}
{{range}}
{{$a, $b := .Name}}
{{range $i, $j, $k := .Mounts}}{{end}}
{{if $x := .Name}}{{$x}}{{end}}{{$x}}
{{/* a }}
{{index .Config.Labels 0}}
{{index 3 0}}
{{.Name.}}
{{@}}
{{1a}}
{{99999999999999999999}}
{{end x}}
{{.Name}{{.Id}}
{{(.State).Pid | printf "%d"}} {{len (index .Mounts 0).Type}}
""".strip().splitlines()


def read_by_us(source: str, found: dict[str, Any]) -> tuple[int, str, str]:
    """Exit code, output and error of `inspect -f` on a document that is given."""
    try:
        return 0, template.render(template.parse(source), typed(found), source) + "\n", ""
    except template.BadTemplate as error:
        return 64, "", f"{error}\n"
    except template.TemplateFailed as error:
        return 1, "\n", f"template parsing error: {error}\n"


def test_docker_reads_a_template_alike(sides: list[str]) -> None:
    found = document(sides, "web")
    different = [
        (source, theirs, ours)
        for source in TEMPLATES
        if (theirs := typed_to(sides, "inspect", "-f", source, "web")) != (ours := read_by_us(source, found))
    ]
    assert different == []


# Documents

# What docker has and we have not, and why; what we have and docker 20 has not.
GAPS = {
    "container": {
        "HostConfig.Blkio*": "no such limits here", "HostConfig.Cpu{Count,Percent,Realtime*}": "Windows, real time",
        "HostConfig.{Cgroup,Isolation,VolumeDriver,VolumesFrom,Links}": "old or Windows",
        "HostConfig.GroupAdd": "not kept, or no such flags yet",
        "HostConfig.{DeviceCgroupRules,DeviceRequests,KernelMemory,KernelMemoryTCP}": "no such flags",
        "HostConfig.IOMaximum*": "Windows",
        "HostConfig.Ulimits": "the tests' dockerd gives every container some (peers.py)",
    },
    "image": {"GraphDriver.Data.{MergedDir,WorkDir}": "an image is not mounted",
              "{Container,ContainerConfig,VirtualSize}": "gone from docker since",
              "Config.{Hostname,Domainname,Image,Attach*,Tty,OpenStdin,StdinOnce,User,Entrypoint,OnBuild}":
              "shown where the image says so"},
    "volume": {},
    "network": {"Options.com.docker.network.bridge.*": "docker's own switches"},
}  # fmt: skip
OURS_ALONE = {
    "container": {"HostConfig.LogConfig.Config.*": "a log is bounded here, whether or not anybody asked",
                  "HostConfig.Sysctls": "docker shows it where there is one",
                  "NetworkSettings.Networks.*.{MacAddress,GwPriority,DNSNames}": "newer dockers have it"},
    "image": {"Descriptor": "newer dockers have it"},
    "volume": {},
    "network": {"Options.minicontainer.forged_addresses": "whether this kernel can drop them"},
}  # fmt: skip


MAPS = ("Labels", "Ports", "PortBindings", "Networks", "Containers", "Volumes", "ExposedPorts")


def keys(value: Any, path: str = "") -> set[str]:
    """The paths of all keys of structures; of a map's, `*`."""
    found: set[str] = set()
    if isinstance(value, list):
        for item in value:
            found |= keys(item, path)
    elif isinstance(value, dict):
        for name, item in value.items():
            mapped = path in ("HostConfig.LogConfig.Config", "HostConfig.Sysctls") or path.rpartition(".")[2] in MAPS
            here = f"{path}.{'*' if mapped else name}".lstrip(".")
            found |= {here} | keys(item, here)
    return found


def covered(path: str, table: dict[str, str]) -> bool:
    """Whether a key, or one above it, is in the table: `*` is any text, `{a,b}` one of them."""
    for pattern in table:
        form = re.sub(r"\\\{(.*?)\\\}", lambda found: f"({found[1].replace(',', '|')})", re.escape(pattern))
        if re.fullmatch(form.replace(r"\*", "[^.]*") + r"(\..*)?", path):
            return True
    return False


@pytest.mark.parametrize(("kind", "name"), [
    ("container", "web"), ("container", "done"), ("container", "new"), ("image", "demo"), ("volume", "vol1"),
    ("network", "bridge"),
])  # fmt: skip
def test_documents_have_dockers_keys(sides: list[str], kind: str, name: str) -> None:
    theirs = keys(document(sides, "--type", kind, name))
    ours = keys(document(OURS, "--type", kind, name))
    assert sorted(path for path in theirs - ours if not covered(path, GAPS[kind])) == []
    assert sorted(path for path in ours - theirs if not covered(path, OURS_ALONE[kind])) == []


SAME = """
    Path Args State.Status State.Running State.Paused State.Restarting State.OOMKilled State.Dead State.ExitCode
    State.Error Name RestartCount Platform Image HostConfig.Binds HostConfig.PortBindings HostConfig.RestartPolicy
    HostConfig.AutoRemove HostConfig.CapAdd HostConfig.CapDrop HostConfig.IpcMode HostConfig.Memory
    HostConfig.MemorySwap HostConfig.NanoCpus HostConfig.CpuQuota HostConfig.PidsLimit HostConfig.Privileged
    HostConfig.ReadonlyRootfs
    HostConfig.SecurityOpt HostConfig.ShmSize HostConfig.OomScoreAdj HostConfig.ReadonlyPaths Config.Env Config.Cmd
    Config.Image Config.Volumes Config.WorkingDir Config.Entrypoint Config.Labels Config.User Config.Tty
    NetworkSettings.Ports
""".split()


@pytest.mark.parametrize("name", ["web", "done", "new"])
def test_what_both_say_of_a_container(sides: list[str], name: str) -> None:
    both = [document(engine, name) for engine in (sides, OURS)]
    for path in SAME:
        theirs, ours = both
        for key in path.split("."):
            theirs, ours = theirs[key], ours[key]
        if path == "Config.Env" and ours:  # docker has what -e says first; no name is there twice
            theirs, ours = sorted(theirs), sorted(ours)
        assert ours == theirs, path


@pytest.mark.parametrize("words", ATTACHED, ids=" ".join)
def test_both_say_alike_what_a_command_is_attached_to(sides: list[str], words: list[str]) -> None:
    said = []
    for engine in (sides, OURS):
        try:
            subprocess.run([*engine, *words, "--name", "it", "--network", "none", "plain", "true"],
                           check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip
            config = document(engine, "it")["Config"]
            names = [f"Attach{name}" for name in ("Stdin", "Stdout", "Stderr")]
            said.append({name: config[name] for name in [*names, "OpenStdin", "StdinOnce", "Tty"]})
        finally:
            subprocess.run([*engine, "rm", "-f", "it"], capture_output=True)
    assert said[1] == said[0]


# Lists

LISTS = [
    ["ps", "-a"], ["ps", "-as"], ["ps", "-aq", "--filter", "name=web"], ["ps", "-n", "2"], ["ps", "-l"],
    ["ps", "-a", "--filter", "exited=3"], ["ps", "--filter", "status=created"], ["ps", "-a", "--filter", "label=a"],
    ["ps", "-a", "--filter", "since=web"], ["ps", "-a", "--filter", "before=new"], ["ps", "--filter", "publish=18099"],
    ["ps", "-a", "--filter", "ancestor=plain"], ["ps", "-a", "--filter", "volume=vol1"],
    ["ps", "--filter", "expose=80"],
    ["ps", "-a", "--filter", "network=none"], ["ps", "-a", "--filter", "health=none"], ["ps", "--filter", "nope=1"],
    ["ps", "--filter", "nope"], ["ps", "--filter", "status=nope"], ["ps", "-a", "--format", "json"],
    ["ps", "-a", "--format", r"table {{.ID}}\t{{.Names}}\t{{.Label \"a\"}}\t{{.Mounts}}\t{{upper .Image}}"],
    ["ps", "-a", "--format", "{{.Names}}: {{.Status}} {{.State}} {{.Networks}} {{.LocalVolumes}} {{.Size}}"],
    ["ps", "-a", "--format", "{{.Nope}}"], ["ps", "--format", "{{"], ["ps", "-aq", "--no-trunc"], ["ps", "word"],
    ["images", "demo"], ["images", "demo", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"],
    ["images", "-q", "plain"], ["images", "--filter", "reference=p*"], ["images", "--filter", "nope=1"],
    ["images", "--filter", "dangling=true", "--filter", "reference=plain"],
    ["volume", "ls", "--filter", "name=vol1"], ["volume", "ls", "--filter", "name=vol1", "--format", "{{.Driver}}"],
    ["inspect", "nosuch"], ["inspect", "-f", "{{.Name}}", "web", "nosuch"], ["inspect", "--type", "nope", "web"],
    ["inspect", "-f", "{{.Name}}", "nosuch"], ["volume", "inspect", "nosuch"], ["image", "inspect", "nosuch"],
    ["container", "inspect", "demo"], ["inspect", "-f", "{{range .RepoTags}}{{.}} {{end}}{{.Id}}", "demo", "plain"],
]  # fmt: skip


def test_lists_look_alike(sides: list[str]) -> None:
    different = []
    for words in LISTS:
        (code, shown, why), (theirs_code, theirs, theirs_why) = typed_to(OURS, *words), typed_to(sides, *words)
        if (code, normal(shown), bool(why)) != (theirs_code, normal(theirs), bool(theirs_why)):
            different.append((words, theirs_code, theirs, theirs_why, code, shown, why))
    assert different == []


def normal(text: str) -> str:
    """Without ids, times, and blanks whose number hangs on these; images of one age in one order."""
    text = re.sub(r"sha256:[0-9a-f]{64}|\b[0-9a-f]{64}\b|\b[0-9a-f]{12,14}\b", "ID", text)
    text = re.sub(r"(Less than a second|About a minute|\d+ (seconds?|minutes))", "AGE", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"virtual [\d.]+MB", "virtual SIZE", text)
    text = re.sub(r" {2,}", "  ", text)
    return "\n".join(sorted(text.splitlines())) if ":latest ID" in text else text

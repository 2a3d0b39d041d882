"""`./dev bundle`: what it packs sets the course up on a bare system that has no network at all.

The laptop is a minimal Debian or Ubuntu, by debootstrap, in namespaces of its own: no interface but a loopback that is
down, nothing mounted of this checkout, the machine's pip and apt settings out of sight. Its tree is kept in .vm/ as a
tar file, as the second kernel's is; the rest is made anew.
"""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
BARE = CHECKOUT / ".vm" / "laptop.tar"

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(280),
    pytest.mark.needs("debootstrap", "apt-get", "git"),
]

# Its own root, process numbers and network; then a script. A chroot would not do: pivot_root(2), which is how a
# container gets its root, wants the root to be a mount.
BOOT = """
set -eu
cd "$1"
mount --make-rprivate /
mount --rbind . .
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p old
pivot_root . old
umount -l /old
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    MINICONTAINER_ROOT=/var/lib/of-the-classroom bash -euc "$2"
"""


def command(*words: str, cwd: Path | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


class Laptop:
    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "-mnpiu", "--fork", "--kill-child", "sh", "-c", BOOT, "boot", str(self.root), script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def must(self, script: str) -> str:
        done = self.run(script)
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


def make_bare(suite: str, folder: Path) -> None:
    """A minimal system as debootstrap leaves it, unpacked into the folder; kept for the next time."""
    if not BARE.exists():
        tree = folder.parent / "bare"
        command("unshare", "-m", "debootstrap", "--variant=minbase", suite, str(tree))
        shutil.rmtree(tree / "var/cache/apt/archives")
        BARE.parent.mkdir(exist_ok=True)
        command("tar", "-cf", f"{BARE}.new", "-C", str(tree), ".")
        os.rename(f"{BARE}.new", BARE)
        shutil.rmtree(tree)
    folder.mkdir()
    command("tar", "-xf", str(BARE), "-C", str(folder))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("bundle") / "course.tar"
    said = command(str(CHECKOUT / "dev"), "bundle", str(out))
    assert "Debian packages" in said and " MB " in said
    yield out
    out.unlink()


@pytest.fixture(scope="module")
def laptop(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """Installed from the bundle, without a network."""
    folder = tmp_path_factory.mktemp("laptop") / "root"
    suite = command("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
    make_bare(suite, folder)
    assert not (folder / "usr/bin/python3").exists()
    stick = folder / "media/a stick"  # with a blank in its name, as they have
    stick.mkdir()
    command("tar", "-xf", str(bundle), "-C", str(stick))
    (folder / "etc/hosts").write_text("127.0.0.1 localhost\n")  # an installer writes it; debootstrap does not
    made = Laptop(folder)
    said = made.must("cd '/media/a stick/minicontainer-course' && bash install.sh")
    assert "done. Your next step" in said
    shutil.rmtree(stick)
    yield made
    made.run("minicontainer system reset")
    shutil.rmtree(folder)


def test_it_names_what_it_is_for(bundle: Path) -> None:
    with tarfile.open(bundle) as archive:
        names = archive.getnames()
        kind = archive.extractfile("minicontainer-course/made-for")
        assert kind is not None and len(kind.read().split()) == 3
    assert "minicontainer-course/install.sh" in names
    assert not [name for name in names if name.endswith((".tar.gz", ".zip"))], "a wheel is missing: pip has its source"
    assert {name.split("/")[1].split("-")[0] for name in names if "/" in name} == {
        "README.md", "install.sh", "made", "debs", "wheels", "images", "checkout.tar", "reveal.js",
    }  # fmt: skip


def test_another_machine_is_refused(bundle: Path, tmp_path: Path) -> None:
    command("tar", "-xf", str(bundle), "-C", str(tmp_path), "minicontainer-course/install.sh")
    (tmp_path / "minicontainer-course/made-for").write_text("plan9 4 mips\n")
    done = subprocess.run(["bash", "minicontainer-course/install.sh"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "this bundle is for plan9 4 mips" in done.stderr


def test_there_is_no_network(laptop: Laptop) -> None:
    assert laptop.must("tail -n +3 /proc/net/dev | cut -d: -f1").split() == ["lo"]
    assert laptop.run("exec 3<>/dev/tcp/192.0.2.1/80").returncode != 0


def test_the_command_works(laptop: Laptop) -> None:
    assert "minicontainer" in laptop.must("minicontainer --version")
    assert "python" in laptop.must("minicontainer doctor || true").lower()
    assert "busybox" in laptop.must("minicontainer images")


def test_a_container_starts(laptop: Laptop) -> None:
    said = laptop.must(
        "minicontainer run --rm --network none --hostname class busybox sh -c 'hostname; echo $$; id -u'"
    )
    assert said.split() == ["class", "1", "0"]


def test_setup_finds_its_work_done(laptop: Laptop) -> None:
    """Nobody asks for a server: neither the second `setup` nor what every other verb does first."""
    assert laptop.must("cd /opt/minicontainer && ./dev setup") == ""


def test_the_slides_are_built(laptop: Laptop) -> None:
    said = laptop.must("cd /opt/minicontainer && ./dev slides --out /root/talk && ls /root/talk /root/talk/reveal")
    assert "0 refused by this machine" in said
    assert {"index.html", "figures", "reveal.js"} <= set(said.split())


def test_an_ordinary_user_runs_the_first_notebook(laptop: Laptop) -> None:
    script = """
    useradd -m learner 2>/dev/null || true
    cd /opt/minicontainer
    [ -f notebooks/01_*.ipynb ] || { echo none; exit; }
    setpriv --reuid learner --regid learner --clear-groups --inh-caps=-all \
        env -u MINICONTAINER_ROOT HOME=/home/learner .venv/bin/python -m minicontainer.teach.course execute 01
    """
    said = laptop.must(script)
    if said.strip() == "none":
        pytest.skip("notebook 01 is not in the last commit")
    assert "fine" in said

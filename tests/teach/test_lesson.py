"""What a lesson is told of the machine, and the places it is given."""

import os
from pathlib import Path

import pytest

from minicontainer.teach import child


def rooms_of_a_user(directory: str, count: int) -> list[object]:
    """As root of a user namespace with so many ids: what is in the way of two words, and of what kind the disk is."""
    import os

    from minicontainer import files, host, syscalls
    from minicontainer.kernel import idmap
    from minicontainer.teach import lesson

    me, (unshared, tell) = os.getpid(), os.pipe()
    helper = os.fork()
    if helper == 0:
        os.read(unshared, 1)
        for name in ("uid_map", "gid_map"):
            files.put(f"/proc/{me}/{name}", f"0 100000 {count}")
        os._exit(0)
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    os.write(tell, b".")
    assert os.waitpid(helper, 0)[1] == 0
    os.setresgid(0, 0, 0), os.setresuid(0, 0, 0)
    syscalls.prctl(4, 1)  # PR_SET_DUMPABLE: after a change of uid, /proc/self would be the machine's root's
    said: list[object] = [*lesson.obstacle("translation"), *lesson.obstacle("userns")]
    lesson.here = lesson.Here(12, directory)
    disk = lesson.disk()
    assert lesson.disk() == disk
    said.append(host.mount_of(disk)[1])
    if count > 1:
        map_ = (idmap.Range(0, 10, 5),)
        syscalls.move_mount(idmap.tree(disk, False, idmap.namespace(idmap.Maps(map_, map_, False))), disk)
        said.append(os.stat(disk).st_uid)
    return said


@pytest.mark.root
@pytest.mark.needs("user-namespace", "idmapped-tmpfs")
def test_a_users_disk_translates_ids_where_there_are_some(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 100000, 100000)
    for above in tmp_path.parents[:2]:
        above.chmod(0o755)
    said = child.run(rooms_of_a_user, str(tmp_path), 100)
    assert said == ["", "", "it is for root of the machine", "sudo ./dev notebooks", "tmpfs", 10]
    (tmp_path / "disk").rmdir()
    said = child.run(rooms_of_a_user, str(tmp_path), 1)
    assert said[0] == "with one user id there is nothing to translate" and "uid" in str(said[1])

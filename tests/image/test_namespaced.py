"""The store as root of a user namespace: what can be kept is, what cannot is said."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from minicontainer import errors, host
from minicontainer.image import store

CODE = """
import json, os, sys
from minicontainer.image import layers, making, store
here = store.Store(sys.argv[1])
job = here.job()
with job:
    tars = [job.path("below"), job.path("above")]
    for path, tar in zip(sys.argv[2:], tars):
        os.link(path, tar)
    image = making.make(job, {"architecture": "", "os": "linux", "config": {}}, tars, "test")
below, layer = here.layer_directories(image)
gone = os.lstat(layer + "/gone")
print(json.dumps({
    "names": sorted(os.listdir(layer)), "whiteout": [gone.st_mode, gone.st_rdev],
    "opaque": os.getxattr(layer + "/opaque", "user.overlay.opaque").decode(),
    "owners": [os.lstat(layer + "/file").st_uid, os.lstat(layer + "/file").st_mode],
    "warnings": here.layer_record(image.chain_ids[1])["warnings"], "problems": here.check(),
}))
"""


@pytest.mark.userns
def test_a_layer_in_a_user_namespace(tmp_path: Path) -> None:
    below, path = tmp_path / "below.tar", tmp_path / "layer.tar"
    with tarfile.open(below, "w") as tar:  # whiteouts are of something
        tar.addfile(tarfile.TarInfo("gone"), io.BytesIO())
    with tarfile.open(path, "w") as tar:
        for name, kind, fields in (
            (".wh.gone", tarfile.REGTYPE, {}),
            ("opaque", tarfile.DIRTYPE, {"mode": 0o755}),
            ("opaque/.wh..wh..opq", tarfile.REGTYPE, {}),
            ("file", tarfile.REGTYPE, {"uid": 33, "gid": 8, "mode": 0o6755}),
            ("disk", tarfile.BLKTYPE, {"devmajor": 8}),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO())
    root = str(tmp_path / "store")
    command = ["unshare", "-Ur", sys.executable, "-c", CODE, root, below, path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["names"] == ["file", "gone", "opaque"]
    assert told["whiteout"] == [0o20000, 0] and told["opaque"] == "y"
    assert told["owners"] == [0, 0o100755]  # without the set-id bits, which would now mean another user
    assert len(told["warnings"]) == 3 and "device" in " ".join(told["warnings"])
    assert told["problems"] == []
    if not host.in_user_namespace():
        with pytest.raises(errors.Conflict, match="user namespace"):
            store.Store(root).images()
    assert os.listdir(f"{root}/tmp") == []

"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import os
import shutil
import subprocess

from minicontainer.build import cache as package
from minicontainer.build import context


def digest(folder):
    with context.Tree(folder) as tree:
        selected = context.select(tree, ["."], lambda reason, where: None)
        return context.content(selected, {}).digest.removeprefix("sha256:")


def step(command, folder, cache):
    kept = f"{cache}/{package.key_of({'instruction': command, 'base': digest(folder)})}"
    if not os.path.exists(kept):
        subprocess.run(command, shell=True, cwd=folder, check=True)
        shutil.copytree(folder, kept, symlinks=True)
        return "done"
    shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
    return "cached"


def predict(commands, folder, cache):
    return [["done", package.why(None, {"instruction": command})] for command in commands]

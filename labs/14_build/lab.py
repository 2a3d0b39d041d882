"""Lab 14: a build cache that watches what a command reads.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import hashlib
import json
import os
import shutil
import subprocess

# A build is a list of shell commands, run one after the other in a folder. Of each, the cache remembers what it has read of
# that folder, and what it has made of it: nobody has to say so. `cache` is a directory outside of the folder, empty at first,
# and yours to fill; what one process has put there, tomorrow's finds.


def digest(folder):
    """One digest, hexadecimal, of all that is in a folder: what a build could make of it is the same if this is the same.

    Names, contents, what is a directory, a program (its owner may execute it) or a link and where to: each of these counts.
    Times, owners, other permissions, where the folder is and the order in which it was filled do not.
    """
    raise NotImplementedError


def step(command, folder, cache):
    """See that the folder is as the command leaves it. Returns "done" if it was run for that, "cached" if not.

    It need not be run if there was a time when it found the same in all that it has read. Of a file, that is the content (and
    whether it is a program); of a directory, the names in it; of a link, where it leads. What else has changed in the folder
    does not matter. A file that was there and that it has changed or removed counts as read, for `>>` needs what was there;
    but a command's own earlier work is no reason to run it once more. The command sees all times of modification as they are.

    If it fails: subprocess.CalledProcessError, and nothing is remembered. What it has made is kept, each content once.
    """
    raise NotImplementedError


def predict(commands, folder, cache):
    """What `step` would say of each of these commands, one after the other, without running or changing anything.

    A list of [verdict, behind] for them. The verdict: "cached", for certain; "done", for certain; "maybe", if it reads what an
    earlier one will write anew, for that might come out as it was. A command is expected to write the files that it wrote last
    time. One that has never been done is "done", might write anything, and leaves nothing certain to those after it that read.

    `behind` are the causes, sorted: paths in the folder that have changed since the last time (of a directory's names,
    "directory/"), and commands that are new. If what has changed was made by an earlier command, then not that: its causes.
    """
    raise NotImplementedError

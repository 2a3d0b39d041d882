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


### BEGIN SOLUTION
def fingerprint(path):
    """What a file, a link or a directory is, without its name and its times."""
    if os.path.islink(path):
        return "link " + os.readlink(path)
    if os.path.isdir(path):
        return "directory"
    with open(path, "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    return ("program " if os.stat(path).st_mode & 0o100 else "file ") + found


def paths(folder, below=""):
    """Every path in the folder, a directory before what is in it."""
    for entry in sorted(os.listdir(os.path.join(folder, below))):
        path = os.path.join(below, entry)
        yield path
        whole = os.path.join(folder, path)
        if os.path.isdir(whole) and not os.path.islink(whole):
            yield from paths(folder, path)


def state(folder):
    """By path, the fingerprint of what is there."""
    return {path: fingerprint(os.path.join(folder, path)) for path in paths(folder)}


def look(now, key):
    """What a state says of a key: a path, or "directory/" for the names in it ("/" for those of the folder itself).

    In what is foretold, a value may be a set: nobody knows it, and these are the causes.
    """
    directory = key.rstrip("/")
    if directory == key or (directory and now.get(directory) != "directory"):
        return now.get(directory)
    inside = [path for path in now if os.path.dirname(path) == directory]
    causes = [now[path] for path in inside if isinstance(now[path], set)]
    return set().union(*causes) if causes else "names " + json.dumps(sorted(inside))


def forget(folder):
    """No file of the folder has ever been read, by its time of access."""
    for path in [".", *paths(folder)]:
        whole = os.path.join(folder, path)
        os.utime(whole, ns=(0, os.lstat(whole).st_mtime_ns), follow_symlinks=False)


def seen(folder, path=""):
    """The keys of what has been read since. Whoever looks for them reads directories: so each is asked first."""
    whole = os.path.join(folder, path)
    status = os.lstat(whole)
    found = (
        {f"{path}/" if os.path.isdir(whole) and not os.path.islink(whole) else path} if status.st_atime_ns else set()
    )
    if os.path.isdir(whole) and not os.path.islink(whole):
        for entry in os.listdir(whole):
            found |= seen(folder, os.path.join(path, entry))
    return found


def ledger(command, cache):
    """Where the records of a command lie."""
    return os.path.join(cache, hashlib.sha256(command.encode()).hexdigest() + ".json")


def records(command, cache):
    """What has been found out about a command, the newest first."""
    if not os.path.exists(ledger(command, cache)):
        return []
    with open(ledger(command, cache)) as lines:
        return json.load(lines)


def fits(record, key, value):
    """Is that what the command has read there, or what it has made of it since?"""
    return value == record["reads"][key] or (key in record["writes"] and value == record["writes"][key])


def put_back(writes, folder, cache):
    """Make what a command has made."""
    for path in sorted(writes, reverse=True):
        whole = os.path.join(folder, path)
        if path.endswith("/") or not os.path.lexists(whole) or fingerprint(whole) == writes[path]:
            continue
        (os.rmdir if fingerprint(whole) == "directory" else os.unlink)(whole)
    for path in sorted(writes):
        whole = os.path.join(folder, path)
        if path.endswith("/") or writes[path] is None or os.path.lexists(whole):
            continue
        sort, _, what = writes[path].partition(" ")
        if sort == "directory":
            os.mkdir(whole)
        elif sort == "link":
            os.symlink(what, whole)
        else:
            shutil.copyfile(os.path.join(cache, what), whole)
            os.chmod(whole, 0o755 if sort == "program" else 0o644)


### END SOLUTION
def digest(folder):
    """One digest, hexadecimal, of all that is in a folder: what a build could make of it is the same if this is the same.

    Names, contents, what is a directory, a program (its owner may execute it) or a link and where to: each of these counts.
    Times, owners, other permissions, where the folder is and the order in which it was filled do not.
    """
    ### BEGIN SOLUTION
    return hashlib.sha256(json.dumps(state(folder), sort_keys=True).encode()).hexdigest()
    ### END SOLUTION


def step(command, folder, cache):
    """See that the folder is as the command leaves it. Returns "done" if it was run for that, "cached" if not.

    It need not be run if there was a time when it found the same in all that it has read. Of a file, that is the content (and
    whether it is a program); of a directory, the names in it; of a link, where it leads. What else has changed in the folder
    does not matter. A file that was there and that it has changed or removed counts as read, for `>>` needs what was there;
    but a command's own earlier work is no reason to run it once more. The command sees all times of modification as they are.

    If it fails: subprocess.CalledProcessError, and nothing is remembered. What it has made is kept, each content once.
    """
    ### BEGIN SOLUTION
    before = state(folder)
    known = records(command, cache)
    for record in known:
        if all(fits(record, key, look(before, key)) for key in record["reads"]):
            put_back(record["writes"], folder, cache)
            return "cached"
    forget(folder)
    subprocess.run(command, shell=True, cwd=folder, check=True)
    read = seen(folder)
    after = state(folder)
    changed = {path for path in {**before, **after} if before.get(path) != after.get(path)}
    reads = {}
    for key in read.union(changed):
        value = look(before, key)
        earlier = any(key in record["writes"] and record["writes"][key] == value for record in known)
        if value is not None and not earlier:
            reads[key] = value
    writes = {key: look(after, key) for key in read.union(changed) if look(before, key) != look(after, key)}
    for path in changed:
        sort, _, what = (after.get(path) or "").partition(" ")
        if sort in ("file", "program"):
            shutil.copyfile(os.path.join(folder, path), os.path.join(cache, what))
    with open(ledger(command, cache), "w") as lines:
        json.dump([{"reads": reads, "writes": writes}, *known], lines)
    return "done"
    ### END SOLUTION


def predict(commands, folder, cache):
    """What `step` would say of each of these commands, one after the other, without running or changing anything.

    A list of [verdict, behind] for them. The verdict: "cached", for certain; "done", for certain; "maybe", if it reads what an
    earlier one will write anew, for that might come out as it was. A command is expected to write the files that it wrote last
    time. One that has never been done is "done", might write anything, and leaves nothing certain to those after it that read.

    `behind` are the causes, sorted: paths in the folder that have changed since the last time (of a directory's names,
    "directory/"), and commands that are new. If what has changed was made by an earlier command, then not that: its causes.
    """
    ### BEGIN SOLUTION
    now, new, told = state(folder), set(), []
    for text in commands:
        known = records(text, cache)
        verdict, behind = judged(known, now, new) if known else ("done", {text})
        told.append([verdict, sorted(behind)])
        if not known:
            new.add(text)
        elif verdict == "cached":
            record = next(record for record in known if not any(doubts(record, now, new)))
            now.update({path: what for path, what in record["writes"].items() if not path.endswith("/")})
            now = {path: what for path, what in now.items() if what is not None}
        else:
            now.update({path: behind for path in known[0]["writes"] if not path.endswith("/")})
    return told
    ### END SOLUTION


### BEGIN SOLUTION
def doubts(record, now, new):
    """Which of a record's reads are surely not as they were, and the causes behind those that may not be."""
    wrong, behind = set(), set()
    for key in record["reads"]:
        value = look(now, key)
        if new or isinstance(value, set):
            behind.update(new, value if isinstance(value, set) else ())
        elif not fits(record, key, value):
            wrong.add(key)
    return wrong, behind


def judged(known, now, new):
    """The verdict on a command that has been done before, and its causes."""
    for record in known:
        if not any(doubts(record, now, new)):
            return "cached", set()
    for record in known:
        wrong, behind = doubts(record, now, new)
        if not wrong:
            return "maybe", behind
    wrong, behind = doubts(known[0], now, new)
    return "done", wrong.union(behind)


### END SOLUTION

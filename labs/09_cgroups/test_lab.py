"""Lab 09, graded by the files of cgroups, and by processes that are held to them."""

import os
import signal
import time

import pytest

LENT = True  # the room gets a cgroup: the fixture `cgroup`

NAMES = ("web", "batch", "night", "mail", "build", "cache")


def value(directory, name):
    """A file of a cgroup."""
    with open(os.path.join(directory, name)) as file:
        return file.read().strip()


def job(cgroup, kind, name):
    """The directory of a cgroup that the learner has made, in the hierarchy of a controller."""
    path = f"{cgroup.groups[kind]}/{name}"
    assert os.path.isdir(path), f"there is no {path}"
    return path


def crew(works):
    """In the room: a process for each work, which begins with it when SIGUSR1 comes. Their pids."""
    import os
    import signal
    import time

    def rest():
        time.sleep(30)

    def spin():
        until = time.monotonic() + 30
        while time.monotonic() < until:
            pass

    def hoard():
        held = bytearray(24 << 20)
        held[::4096] = b"x" * (len(held) // 4096)
        time.sleep(30)
        del held

    def breed():
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
        time.sleep(30)

    pids = []
    for work in works:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        pid = os.fork()
        if pid == 0:
            signal.sigwait([signal.SIGUSR1])
            {"rest": rest, "spin": spin, "hoard": hoard, "breed": breed}[work]()
            os._exit(0)
        pids.append(pid)
    return pids


def put_in(cgroup, pid, name):
    """A process of the crew goes into a cgroup, in every hierarchy, and begins."""
    for directory in dict.fromkeys(cgroup.groups.values()):
        with open(os.path.join(directory, name, "cgroup.procs"), "w") as file:
            file.write(str(pid))
    os.kill(pid, signal.SIGUSR1)


def eventually(condition, seconds=15):
    """Wait until it holds, so long at most."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.points(3)
def test_limits_as_the_kernel_has_them(room, cgroup, rng):
    """Processor, memory and processes are limited to what was asked for."""
    name, cpus = rng.choice(NAMES), rng.choice((0.25, 0.5, 0.75))
    memory, processes = rng.randrange(16, 200) << 20, rng.randrange(5, 60)
    room.call("limit", cgroup.version, cgroup.shown, name, cpus, memory, processes)
    cpu, where = job(cgroup, "cpu", name), job(cgroup, "memory", name)
    if cgroup.version == 1:
        quota, period = value(cpu, "cpu.cfs_quota_us"), value(cpu, "cpu.cfs_period_us")
        bytes_ = value(where, "memory.limit_in_bytes")
    else:
        quota, period = value(cpu, "cpu.max").split()
        bytes_ = value(where, "memory.max")
    assert quota.isdigit() and int(quota) == cpus * int(period), f"{cpus} processors: {quota} µs of {period} µs"
    assert int(period) == 100_000, f"time is counted over {period} µs; PERIOD is 100000"
    assert bytes_ == str(memory), f"memory: asked for {memory} bytes, the kernel has {bytes_}"
    count = value(job(cgroup, "pids", name), "pids.max")
    assert count == str(processes), f"processes: asked for {processes}, the kernel has {count}"


@pytest.mark.points(2)
def test_who_is_in_it(room, cgroup, rng):
    """After enter, the process is counted in all three."""
    name = rng.choice(NAMES)
    room.call("limit", cgroup.version, cgroup.shown, name, 0.5, 100 << 20, 50)
    room.call("enter", cgroup.version, cgroup.shown, name)
    for kind in ("cpu", "memory", "pids"):
        inside = value(job(cgroup, kind, name), "cgroup.procs").split()
        assert str(room.pid) in inside, f"{kind}: in the cgroup are the processes {inside}, and not {room.pid}"


@pytest.mark.points(3)
def test_what_is_used(room, cgroup, rng):
    """used counts processes and memory as they are, on both versions."""
    name, count = rng.choice(NAMES), rng.randrange(2, 5)
    workers = room.prepare(crew, ["hoard", *["rest"] * (count - 1)])
    room.call("limit", cgroup.version, cgroup.shown, name, 0.5, 200 << 20, 50)
    empty = room.call("used", cgroup.version, cgroup.shown, name)
    assert empty["processes"] == 0, f"nobody is in it, and used says {empty}"
    assert empty["throttled"] == 0, f"nobody has run in it, and used says {empty}"
    for worker in workers:
        put_in(cgroup, room.outside(worker), name)
    directory, file = job(cgroup, "memory", name), ("memory.usage_in_bytes", "memory.current")[cgroup.version - 1]
    eventually(lambda: int(value(directory, file)) > 24 << 20)
    told = room.call("used", cgroup.version, cgroup.shown, name)
    now = int(value(directory, file))
    assert told["processes"] == count, f"{count} processes are in it, and used says {told}"
    assert abs(told["memory"] - now) < 4 << 20, f"the kernel counts {now} bytes, and used says {told}"


@pytest.mark.points(3)
def test_how_often_it_had_to_wait(room, cgroup, rng):
    """used tells in which part of its periods a group was throttled."""
    name, cpus = rng.choice(NAMES), rng.choice((0.1, 0.2))
    (worker,) = room.prepare(crew, ["spin"])
    room.call("limit", cgroup.version, cgroup.shown, name, cpus, 100 << 20, 50)
    directory = job(cgroup, "cpu", name)

    def part():
        told = dict(line.split() for line in value(directory, "cpu.stat").splitlines())
        return int(told["nr_throttled"]), int(told["nr_periods"])

    put_in(cgroup, room.outside(worker), name)
    eventually(lambda: part()[0] >= 5)
    os.kill(room.outside(worker), signal.SIGKILL)
    time.sleep(0.25)  # the period that it ended in
    before = part()
    told = room.call("used", cgroup.version, cgroup.shown, name)["throttled"]
    after = part()  # a slow machine may have counted one more meanwhile
    assert before[0] >= 5, f"a process that never rests was throttled {before[0]} times: is the limit in force?"
    shares = [throttled / periods for throttled, periods in (before, after)]
    assert min(shares) - 0.02 <= told <= max(shares) + 0.02, (
        f"throttled in {after[0]} of {after[1]} periods; used says {told}"
    )


@pytest.mark.points(3)
def test_shares(room, cgroup, rng):
    """Weights become the kernel's, in the same proportion."""
    weights = {name: rng.randrange(1, 100) for name in rng.sample(NAMES, 3)}
    weights[min(weights)] = 1
    room.call("share", cgroup.version, cgroup.shown, weights)
    file = ("cpu.shares", "cpu.weight")[cgroup.version - 1]
    has = {name: int(value(job(cgroup, "cpu", name), file)) for name in weights}
    unit = has[min(weights)]
    for one, weight in weights.items():
        assert has[one] == weight * unit, f"asked for {weights}, and {file} says {has}"


@pytest.mark.points(4)
def test_the_end(room, cgroup, rng):
    """end kills whatever is in there, however deep, removes it, and harms nobody else."""
    name, other = rng.sample(NAMES, 2)
    victims = [room.outside(pid) for pid in room.prepare(crew, ["breed", "rest", "breed", "rest"])]
    bystander = victims.pop()
    for one in (name, other):
        room.call("limit", cgroup.version, cgroup.shown, one, 0.5, 100 << 20, 60)
    for directory in dict.fromkeys(cgroup.groups.values()):
        os.mkdir(f"{directory}/{name}/below")
    for pid, place in zip([bystander, *victims], (other, name, name, f"{name}/below"), strict=True):
        put_in(cgroup, pid, place)
    eventually(lambda: int(value(job(cgroup, "pids", name), "pids.current")) >= 9)
    inside = set(room.processes())
    room.call("end", cgroup.version, cgroup.shown, name, within=15)
    left = [f"{path}/{name}" for path in set(cgroup.groups.values()) if os.path.exists(f"{path}/{name}")]
    assert not left, f"still there: {left}"
    alive = {pid for pid in inside if os.path.exists(f"/proc/{pid}") and room.status(pid)["State"][0] not in "ZX"}
    assert alive == {room.pid, bystander}, (
        f"in {name} were {sorted(inside - {room.pid, bystander})}; alive are {sorted(alive)}, and {bystander} is of {other}"
    )

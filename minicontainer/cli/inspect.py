"""`inspect`: all that is known of containers, images or volumes, as JSON in docker's shape."""

import json
import signal
import sys
from typing import Any

from .. import errors, files
from ..engine import client, containers
from ..engine import container as nouns
from . import UsageError
from .flags import Flag, parse

NEVER = "0001-01-01T00:00:00Z"  # docker's time for what has not happened

FLAGS = [Flag("--type", "type", "text", "container, image or volume")]


def main(arguments: list[str]) -> int:
    """docker-inspect(1)."""
    values, names = parse("inspect NAME …", FLAGS, arguments)
    if not names:
        raise UsageError('"minicontainer inspect" needs a name or an id')
    engine = client.Client()
    lookups = {
        "container": lambda name: container(engine, name),
        "image": lambda name: image(engine, name),
        "volume": engine.volumes.inspect,
    }
    kind = values.get("type", "")
    if kind and kind not in lookups:
        raise UsageError(f"--type {kind}: container, image or volume")
    found, code = [], 0
    for name in names:
        for lookup in [lookups[kind]] if kind else lookups.values():
            try:
                found.append(lookup(name))
                break
            except (errors.NotFound, errors.InvalidArgument):
                continue
        else:
            print(f"minicontainer: no such {kind or 'object'}: {name}", file=sys.stderr)
            code = 1
    print(json.dumps(found, indent=4))
    return code


def container(engine: client.Client, name: str) -> dict[str, Any]:
    """A container as `docker inspect` describes it."""
    record = engine.containers.find(name)
    directory = engine.containers.path(record["id"])
    config = json.loads(files.read(f"{directory}/config.json"))
    process, resources = config["process"], config["linux"].get("resources", {})
    running = record["status"] in ("running", "paused", "restarting")
    return {
        "Id": record["id"],
        "Created": record["created"],
        "Path": record["args"][0],
        "Args": record["args"][1:],
        "State": {
            "Status": containers.word(record),
            "Running": running,
            "Paused": record["status"] == "paused",
            "Restarting": record["status"] == "restarting",
            "Dead": record["status"] == "dead",
            "Pid": record.get("pid", 0) if running else 0,
            "ExitCode": 0 if running and record["status"] != "restarting" else record["exit_code"] or 0,
            "Error": record.get("error", ""),
            "StartedAt": record.get("started", NEVER),
            "FinishedAt": record.get("finished", NEVER),
        },
        "Image": record["image_id"],
        "RestartCount": record["restart_count"],
        "LogPath": engine.containers.log_path(record["id"]) if record["log"]["driver"] == "json-file" else "",
        "Name": f"/{record['name']}",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "ResolvConfPath": f"{directory}/resolv.conf",
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                "MergedDir": f"{directory}/rootfs",
                "UpperDir": f"{directory}/upper",
                "WorkDir": f"{directory}/work",
            },
        },
        "HostConfig": {
            "AutoRemove": record["remove"],
            "LogConfig": {
                "Type": record["log"]["driver"],
                "Config": {"max-size": str(record["log"]["max_size"]), "max-file": str(record["log"]["max_file"])},
            },
            "RestartPolicy": {"Name": record["restart"]["name"], "MaximumRetryCount": record["restart"]["maximum"]},
            "CgroupParent": record["cgroup"].rpartition("/")[0],
            "Memory": resources.get("memory", {}).get("limit", 0),
            "CpuQuota": resources.get("cpu", {}).get("quota", 0),
            "CpuPeriod": resources.get("cpu", {}).get("period", 0),
            "PidsLimit": resources.get("pids", {}).get("limit"),
            "NetworkMode": record["network"],
            "ReadonlyRootfs": config["root"].get("readonly", False),
        },
        "Mounts": [
            {
                "Type": mount["kind"],
                **({"Name": mount["source"]} if mount["kind"] == "volume" else {}),
                "Source": engine.volumes.data(mount["source"]) if mount["kind"] == "volume" else mount["source"],
                "Destination": mount["target"],
                "RW": not mount["readonly"],
            }
            for mount in record["mounts"]
        ],
        "Config": {
            "Hostname": config.get("hostname", ""),
            "User": f"{process['user']['uid']}:{process['user']['gid']}",
            "Tty": process["terminal"],
            "OpenStdin": record["stdin"],
            "StopSignal": signal.Signals(record["stop_signal"]).name,
            "Env": process["env"],
            "Cmd": record["args"],
            "Image": record["image"],
            "WorkingDir": process["cwd"],
            "Labels": record["labels"],
        },
        "NetworkSettings": {
            "IPAddress": record.get("address", ""),
            "Ports": nouns.Container(engine.containers, record).ports,
        },
    }


def image(engine: client.Client, name: str) -> dict[str, Any]:
    """An image as `docker image inspect` describes it."""
    found = engine.containers.images.get(name)
    return {
        "Id": found.id,
        "RepoTags": found.names,
        "RepoDigests": [],
        "Created": found.created,
        "Architecture": found.architecture,
        "Os": found.os,
        "Size": found.size,
        "Config": found.config.get("config") or {},
        "RootFS": {"Type": "layers", "Layers": found.config["rootfs"]["diff_ids"]},
        "Digest": found.digest,
    }

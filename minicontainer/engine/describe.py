"""What is known of a container, an image, a volume or a network, as the document that `docker inspect` shows.

Offers `container`, `image`, `network`: plain dicts with docker's keys in docker's order. What a container asks of the
kernel is read from the config that it runs by, so it is what holds, not what was once typed. Where docker has an empty
list it is `null` or `[]` as there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import errors, files, netlink, oci
from .. import quickjson as json
from ..image import blobs
from ..kernel import capabilities, mounts
from ..network import Network, spoofing
from . import configure, containers, health, networks
from . import container as nouns

NEVER = "0001-01-01T00:00:00Z"  # docker's time for what has not happened

Document = dict[str, Any]


def container(engine: containers.Containers, record: containers.Record, size: bool = False) -> Document:
    """A container. With `size`, also what its files take: their bytes are counted, one by one."""
    directory = engine.path(record["id"])
    config = json.loads(files.read(f"{directory}/config.json"))
    layers = [engine.images.layer_directory(chain) for chain in reversed(record["layers"])]
    document = {
        "Id": record["id"],
        "Created": record["created"],
        "Path": record["args"][0],
        "Args": record["args"][1:],
        "State": state(engine, record),
        "Image": record["image_id"],
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": engine.log_path(record["id"]) if record["log"]["driver"] == "json-file" else "",
        "Name": f"/{record['name']}",
        "RestartCount": record["restart_count"],
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": config["process"].get("apparmorProfile", ""),
        "ExecIDs": None,
        "HostConfig": host_config(record, config),
        "GraphDriver": {
            "Data": {
                "LowerDir": ":".join(layers),
                "MergedDir": f"{directory}/rootfs",
                "UpperDir": f"{directory}/upper",
                "WorkDir": f"{directory}/work",
            },
            "Name": "overlay",
        },
        "Mounts": [mounted(engine, mount) for mount in record["mounts"]],
        "Config": wished(record, config),
        "NetworkSettings": network_settings(engine, record),
    }
    if size:
        own = files.disk_usage(f"{directory}/upper")
        document |= {"SizeRw": own, "SizeRootFs": own + engine.images.size_of(record["layers"])}
    return document


def state(engine: containers.Containers, record: containers.Record) -> Document:
    """How it is now; how healthy, if somebody looks after that."""
    checked = health.read(engine, record)
    running = record["status"] in containers.LIVE
    again = record["status"] == "restarting"
    return {
        "Status": containers.word(record),
        "Running": running,
        "Paused": record["status"] == "paused",
        "Restarting": again,
        "OOMKilled": bool(record.get("oom_killed")) and (again or not running),
        "Dead": record["status"] == "dead",
        "Pid": record.get("pid", 0) if running else 0,
        "ExitCode": 0 if running and not again else record["exit_code"] or 0,
        "Error": record.get("error", ""),
        "StartedAt": record.get("started", NEVER),
        "FinishedAt": record.get("finished", NEVER),
        **({"Health": checked} if checked else {}),
    }


def host_config(record: containers.Record, config: Document) -> Document:
    """What it may do to this host, and use of it."""
    linux, process = config["linux"], config["process"]
    resources = linux.get("resources") or {}
    cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
    granted = set((process.get("capabilities") or {}).get("bounding") or [])
    usual = set(capabilities.resolve())
    mapping = ["0:{}:{}".format(*record["ids"])] if record["ids"] else []
    privileged = resources.get("devices") == [{"allow": True, "access": "rwm"}]
    whole = configure.by_cpus(cpu)
    shm: Document = next((mount for mount in config["mounts"] if mount["destination"] == "/dev/shm"), {})
    security = [] if linux.get("seccomp") or privileged else ["seccomp=unconfined"]
    if process.get("apparmorProfile"):
        security.append(f"apparmor={process['apparmorProfile']}")
    return {
        "Binds": binds(record) or None,
        "ContainerIDFile": "",
        "LogConfig": {
            "Type": record["log"]["driver"],
            "Config": {
                **{name: record["log"][name] for name in ("env", "labels") if name in record["log"]},
                "max-file": str(record["log"]["max_file"]),
                "max-size": str(record["log"]["max_size"]),
            },
        },
        "NetworkMode": record["network"],
        "PortBindings": bindings(record.get("bindings") or record["ports"], record["publish_all"] or ()),
        "RestartPolicy": {"Name": record["restart"]["name"], "MaximumRetryCount": record["restart"]["maximum"]},
        "AutoRemove": record["remove"],
        "CapAdd": sorted(granted - usual) or None if not privileged else None,
        "CapDrop": sorted(usual - granted) or None,
        "CgroupnsMode": "private",
        "Dns": record["dns"]["servers"],
        "DnsOptions": record["dns"]["options"],
        "DnsSearch": record["dns"]["search"],
        "ExtraHosts": record["dns"]["hosts"] or None,
        "IpcMode": record["modes"]["ipc"] or "private",
        "OomScoreAdj": process.get("oomScoreAdj") or 0,
        "PidMode": record["modes"]["pid"],
        "Privileged": privileged,
        "PublishAllPorts": record["publish_all"] is not None,
        "ReadonlyRootfs": config["root"].get("readonly", False),
        "SecurityOpt": [*security, *(["no-new-privileges"] if process.get("noNewPrivileges") else [])] or None,
        "Sysctls": linux.get("sysctl") or {},
        "UTSMode": record["modes"]["uts"],
        "UsernsMode": record["userns"],
        **({"IDMappings": dict.fromkeys(("UidMap", "GidMap"), mapping)} if mapping else {}),  # podman's
        "ShmSize": next((size(word[5:]) for word in shm.get("options", ()) if word.startswith("size=")), 0),
        "Runtime": "minicontainer",
        "ConsoleSize": [process["consoleSize"]["height"], process["consoleSize"]["width"]],
        "CpuShares": cpu.get("shares", 0),
        "Memory": memory.get("limit", 0),
        "NanoCpus": cpu["quota"] * 10_000 if whole else 0,
        "CgroupParent": record["cgroup"].rpartition("/")[0],
        "CpuPeriod": 0 if whole else cpu.get("period", 0),
        "CpuQuota": 0 if whole else cpu.get("quota", 0),
        "CpusetCpus": cpu.get("cpus", ""),
        "CpusetMems": cpu.get("mems", ""),
        "Devices": [device(node) for node in linux.get("devices") or []] if not privileged else [],
        "MemoryReservation": memory.get("reservation", 0),
        "MemorySwap": memory.get("swap", 0),
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "PidsLimit": (resources.get("pids") or {}).get("limit"),
        "Ulimits": [
            {"Name": limit["type"][7:].lower(), "Hard": limit["hard"], "Soft": limit["soft"]}
            for limit in process.get("rlimits") or []
        ]
        or None,
        "MaskedPaths": linux.get("maskedPaths") or None,
        "ReadonlyPaths": linux.get("readonlyPaths") or None,
    }


def size(text: str) -> int:
    """`65536k` in bytes, as tmpfs(5) takes it."""
    unit = {"k": 10, "m": 20, "g": 30}.get(text[-1:].lower(), 0)
    return int(text[:-1] if unit else text) << unit


def device(node: Document) -> Document:
    """A device node of the container."""
    return {"PathOnHost": node["path"], "PathInContainer": node["path"], "CgroupPermissions": "rwm"}


def binds(record: containers.Record) -> list[str]:
    """As -v takes them: SOURCE:TARGET[:ro]."""
    return [
        f"{mount['source']}:{mount['target']}{':ro' if mount['readonly'] else ''}"
        for mount in record["mounts"]
        if mount["kind"] != "tmpfs" and mount["source"] not in record["anonymous"]
    ]


def bindings(ports: list[Document], without: Iterable[str] = ()) -> Document:
    """The ports to publish, by the container's: {"80/tcp": [{"HostIp", "HostPort"}]}; `without` what -P has added."""
    result: Document = {}
    for port in sorted(ports, key=lambda port: (port["container"], port["protocol"])):
        number = str(port["host"]) if port["host"] else ""
        place = {"HostIp": port["address"], "HostPort": number}
        result.setdefault(f"{port['container']}/{port['protocol']}", []).append(place)
    for inside in without:
        result.pop(inside, None)
    return result


def mounted(engine: containers.Containers, mount: Document) -> Document:
    """One mount."""
    place = {"Destination": mount["target"]}
    kind = {"Type": mount["kind"]}
    mode = {"Mode": "", "RW": not mount["readonly"]}
    if mount["kind"] == "volume":
        named = {"Name": mount["source"], "Source": engine.volumes.data(mount["source"])}
        return {**kind, **named, **place, "Driver": "local", **mode, "Propagation": ""}
    if mount["kind"] == "tmpfs":
        return {**kind, "Source": "", **place, **mode, "Propagation": ""}
    asked = [word for word in mount["options"] if word in mounts.PROPAGATION]
    return {**kind, "Source": mount["source"], **place, **mode, "Propagation": (asked or ["rprivate"])[-1]}


STREAMS = ("Stdin", "Stdout", "Stderr")


def wished(record: containers.Record, config: Document) -> Document:
    """The container as an image's config would describe it, and how it talks to its client."""
    own = record["config"]
    exposed = {"ExposedPorts": dict(sorted(own["ExposedPorts"].items()))} if own["ExposedPorts"] else {}
    result = {
        "Hostname": config.get("hostname", ""),
        "Domainname": "",
        "User": own["User"],
        **{f"Attach{stream}": number in record["attach"] for number, stream in enumerate(STREAMS)},
        **exposed,
        "Tty": record["tty"],
        "OpenStdin": record["stdin"],
        "StdinOnce": record["stdin"] and 0 in record["attach"],
        "Env": own["Env"] or None,
        "Cmd": own["Cmd"],
        "Image": record["image"],
        "Volumes": dict(sorted(own["Volumes"].items())) or None,
        "WorkingDir": own["WorkingDir"],
        "Entrypoint": own["Entrypoint"],
        "OnBuild": own.get("OnBuild"),
        "Labels": dict(sorted(own["Labels"].items())),
    }
    if own.get("Healthcheck"):
        result["Healthcheck"] = own["Healthcheck"]
    if record["stop_signal"] != 15:
        import signal

        result["StopSignal"] = signal.Signals(record["stop_signal"]).name
    if record["stop_timeout"] is not None:
        result["StopTimeout"] = record["stop_timeout"]
    return result


def network_settings(engine: containers.Containers, record: containers.Record) -> Document:
    """Where it is reached, while it runs. SandboxKey is what `ip netns` and `nsenter --net=` take."""
    running = record["status"] in ("running", "paused")
    ends = {name: endpoint(engine, record, name) for name in networks.asked(record)}
    shared = {} if record["network"].startswith("container:") else {record["network"]: endpoint_of_none()}
    key = f"/proc/{record['pid']}/ns/net" if running else ""
    exposed = record["config"]["ExposedPorts"] if running and ends else {}
    ports = {**dict.fromkeys(sorted(exposed)), **nouns.Container(engine, record).ports}
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": key,
        "Ports": ports,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **ends.get("bridge", endpoint_of_none()),  # docker's word for the default network alone
        "Networks": {name: in_network(engine, record, name, end) for name, end in (ends or shared).items()},
    }


def endpoint_of_none() -> Document:
    """The address of who has none."""
    return {
        "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "",
        "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
    }  # fmt: skip


def endpoint(engine: containers.Containers, record: containers.Record, name: str) -> Document:
    """The address that it has in a network, while it runs. Its MAC is the kernel's to tell, who has drawn it."""
    end = record.get("ends", {}).get(name)
    if record["status"] not in ("running", "paused") or end is None:
        return endpoint_of_none()
    network = networks.get(engine.root, name)
    try:
        cable = netlink.link(end["device"], record["pid"])
    except (errors.KernelError, FileNotFoundError):
        cable = None  # it has ended just now
    found = {
        "EndpointID": record["id"],
        "Gateway": "" if network.internal else network.gateway,
        "IPAddress": end["address"],
        "IPPrefixLen": int(network.subnet.partition("/")[2]),
        "MacAddress": cable.mac if cable else "",
    }
    if "address6" in end:
        found["GlobalIPv6Address"] = end["address6"]
        found["GlobalIPv6PrefixLen"] = int(network.subnet6.partition("/")[2])
        found["IPv6Gateway"] = "" if network.internal else network.gateway6
    return {**endpoint_of_none(), **found}


def in_network(engine: containers.Containers, record: containers.Record, name: str, end: Document) -> Document:
    """The same as an entry of Networks, with what was asked for there."""
    wished = networks.asked(record).get(name, {})
    addresses = {"IPv4Address": wished.get("ip"), "IPv6Address": wished.get("ip6")}
    return {
        "IPAMConfig": {key: address for key, address in addresses.items() if address} or None,
        "Links": None,
        "Aliases": wished.get("aliases") or None,
        "MacAddress": end["MacAddress"],
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network_id(engine, name),
        **{key: value for key, value in end.items() if key != "MacAddress"},
        "DNSNames": None,
    }


def network_id(engine: containers.Containers, name: str) -> str:
    """A network's 64 digits. One that has been removed has none."""
    try:
        found = None if name in ("host", "none") else networks.get(engine.root, name)
    except errors.NetworkNotFound:
        return ""
    return networks.identity(engine.root, found) if found else networks.predefined_id(engine.root, name)


def network(engine: containers.Containers, name: str) -> Document:
    """A network by name, id or a unique prefix of its id. Raises NetworkNotFound."""
    for predefined in ("host", "none"):
        if name == predefined or (len(name) > 3 and networks.predefined_id(engine.root, predefined).startswith(name)):
            return of_network(engine, predefined, None)
    found = networks.Networks(engine).find(name)
    return of_network(engine, found.name, found)


def of_network(engine: containers.Containers, name: str, found: Network | None) -> Document:
    """The document of a network; of host and none nothing else is known than their names."""
    members = [
        record
        for record in engine.records()
        if record["status"] in ("running", "paused")
        and (name in networks.asked(record) if found else record["network"] == name)
    ]
    pools = [pool(found.subnet, found.ip_range, found.gateway)] if found else []
    if found and found.subnet6:
        pools.append(pool(found.subnet6, found.ip_range6, found.gateway6))
    ends = {record["id"]: endpoint(engine, record, name) if found else endpoint_of_none() for record in members}
    return {
        "Name": name,
        "Id": network_id(engine, name),
        "Created": (found.created if found else "") or NEVER,
        "Scope": "local",
        "Driver": found.driver if found else "null" if name == "none" else "host",
        "EnableIPv6": bool(found and found.subnet6),
        "IPAM": {"Driver": "default", "Options": {} if found and found.id else None, "Config": pools},
        "Internal": bool(found and found.internal),
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            record["id"]: {
                "Name": record["name"],
                "EndpointID": record["id"],
                "MacAddress": ends[record["id"]]["MacAddress"],
                "IPv4Address": with_length(ends[record["id"]], "IPAddress", "IPPrefixLen"),
                "IPv6Address": with_length(ends[record["id"]], "GlobalIPv6Address", "GlobalIPv6PrefixLen"),
            }
            for record in members
        },
        "Options": options(found) if found else {},
        "Labels": found.labels if found else {},
    }


def options(network: Network) -> dict[str, str]:
    """What was asked for, and what of it was chosen."""
    if network.driver != "bridge":
        return {"parent": network.device, f"{network.driver}_mode": network.mode, **network.options}
    return {
        "com.docker.network.bridge.name": network.device,
        "com.docker.network.driver.mtu": str(network.mtu),
        "minicontainer.forged_addresses": forged_addresses(),
        **network.options,
    }


def forged_addresses() -> str:
    """What becomes of packets that a container sends from addresses that are not its own."""
    try:
        return spoofing.lacking() or "dropped"
    except errors.KernelError as error:
        return f"only root may ask the kernel ({error.strerror})"


def pool(subnet: str, ip_range: str, gateway: str) -> Document:
    """Where a network's addresses come from."""
    return {"Subnet": subnet, **({"IPRange": ip_range} if ip_range else {}), "Gateway": gateway}


def with_length(end: Document, address: str, length: str) -> str:
    """`172.29.0.2/16`, of an endpoint that has one."""
    return f"{end[address]}/{end[length]}" if end[address] else ""


def image(engine: containers.Containers, name: str) -> Document:
    """An image. Raises ImageNotFound."""
    found = engine.images.get(name)
    config = found.config
    history = config.get("history") or [{}]
    layers = [engine.images.layer_directory(chain) for chain in reversed(found.chain_ids)]
    data = {"UpperDir": layers[0], **({"LowerDir": ":".join(layers[1:])} if layers[1:] else {})} if layers else {}
    return {
        "Id": found.id,
        "RepoTags": found.names,
        "RepoDigests": found.repo_digests,
        "Parent": "",
        "Comment": history[-1].get("comment", ""),
        "Created": found.created or NEVER,
        "DockerVersion": config.get("docker_version", ""),
        "Author": config.get("author", ""),
        "Config": config.get("config") or {},
        "Architecture": found.architecture,
        **({"Variant": config["variant"]} if config.get("variant") else {}),
        "Os": found.os,
        "Size": found.size,
        "GraphDriver": {"Data": data, "Name": "overlay"},
        "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]},
        "Metadata": {"LastTagTime": NEVER},
        "Descriptor": {
            "mediaType": found.manifest.get("mediaType") or oci.MANIFEST,
            "digest": found.digest,
            "size": len(blobs.read(engine.root, found.digest)),
        },
    }

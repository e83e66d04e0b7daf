"""The discoverer inventory-file: workloads that somebody wrote down, by their control
groups. It is started by the daemon, never by hand.

It exists for hosts that run things without a container runtime: under a batch scheduler,
bubblewrap, a supervisor of one's own. It owns the last list that it could read, and must
never write anywhere. README.md says what a file looks like.
"""

import json
import os
import stat

import ebpftracer

MAX_FILE = 4 << 20
MAX_CONTAINERS = 10_000

KEYS = {"name": str, "cgroup": str, "id": str, "image": str, "runtime": str, "labels": dict}


class Wrong(Exception):
    """What is wrong with a file, as a sentence for the operator."""


class InventoryFile(ebpftracer.Discoverer):
    name = "inventory-file"
    version = "1.0.0"
    doc = "Containers from a file of JSON, or a directory of them, watched for changes."
    schema = ebpftracer.block(doc, [
        ebpftracer.attribute("path", "string", required=True, opens="path",
                             doc="A file, or a directory whose files *.json are read. It has to be there when the plugin starts. "
                                 "Give a directory where files are replaced by others rather than written to."),
        ebpftracer.attribute("interval", "duration", default=1_000_000_000, min=50e6, max=3600e9,
                             doc="How often it is looked at."),
    ])

    def validate(self, config):
        if not os.path.isabs(config["path"]):
            yield ebpftracer.error("not an absolute path", "%r depends on where the plugin runs." % config["path"], "path")

    def detect(self, config):
        path = config["path"]
        return os.path.exists(path), path

    def discover(self, config, inventory):
        seen = None
        while True:
            try:
                now = look(config["path"])
                if now != seen:
                    seen = now  # a file that is wrong is read again once it changes
                    containers = read(now)
                    ebpftracer.log.info("read %d containers from %d files", len(containers), len(now))
                    tell(containers, inventory)
            except (OSError, Wrong) as e:
                inventory.degraded("%s: what was read last stays in force" % e)
                if isinstance(e, OSError):
                    seen = None
            if not inventory.wait(config["interval"] / 1e9):
                return


def look(path):
    """The files of a path, with what tells a file from what it was before."""
    files = [path]
    if stat.S_ISDIR(os.stat(path).st_mode):
        files = sorted(os.path.join(path, f) for f in os.listdir(path) if f.endswith(".json"))
    return [(f, st.st_ino, st.st_size, st.st_mtime_ns) for f in files for st in [os.stat(f)]]


def read(files):
    """The containers of all files. OSError and Wrong say why there are none."""
    out = {}
    for path, *_ in files:
        with open(path, "rb") as f:
            raw = f.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            raise Wrong("%s has more than %d bytes" % (path, MAX_FILE))
        try:
            content = json.loads(raw)
        except ValueError as e:
            raise Wrong("%s is no JSON: %s" % (path, e))
        if not isinstance(content, dict) or set(content) != {"containers"} or not isinstance(content["containers"], list):
            raise Wrong('%s must be {"containers": [...]}' % path)
        for n, c in enumerate(content["containers"]):
            c = check(c, "%s: containers[%d]" % (path, n))
            if c["id"] in out:
                raise Wrong("%s: containers[%d]: another one has the id %r" % (path, n, c["id"]))
            out[c["id"]] = c
    if len(out) > MAX_CONTAINERS:
        raise Wrong("there are %d containers, more than %d" % (len(out), MAX_CONTAINERS))
    return list(out.values())


def check(c, where):
    """One entry, with what was left out filled in."""
    if not isinstance(c, dict):
        raise Wrong("%s is no object" % where)
    for key, value in c.items():
        if key not in KEYS:
            raise Wrong("%s has %r; it can have %s" % (where, key, ", ".join(KEYS)))
        if not isinstance(value, KEYS[key]):
            raise Wrong("%s: %s is no %s" % (where, key, {str: "text", dict: "object"}[KEYS[key]]))
    if not c.get("name"):
        raise Wrong("%s has no name" % where)
    path = c.get("cgroup", "")
    if not path.startswith("/") or path.strip("/") == "":
        raise Wrong("%s: cgroup is to be a path below the root of the cgroup2 hierarchy, like /batch/job-7" % where)
    if not all(isinstance(v, str) for v in c.get("labels", {}).values()):
        raise Wrong("%s: a label's value is no text" % where)
    return {"id": c["name"], "image": "", "runtime": "", "labels": {}, **c}


def tell(containers, inventory):
    inventory.reset()
    for c in containers:
        inventory.container(id=c["id"], scope="inventory-file", name=c["name"], cgroup_path=c["cgroup"],
                            image=image(c["image"]), runtime=c["runtime"], labels=c["labels"])
    inventory.synced()


def image(reference):
    """shop/web:1.4@sha256:... in its parts. A colon before a slash is that of a port."""
    name, _, digest = reference.partition("@")
    tag = ""
    if ":" in name.rpartition("/")[2]:
        name, _, tag = name.rpartition(":")
    return {"name": name, "tag": tag, "digest": digest}


if __name__ == "__main__":
    ebpftracer.serve(InventoryFile())

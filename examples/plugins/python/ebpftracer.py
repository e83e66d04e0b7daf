"""ebpftracer serves a plugin of ebpf-tracer that is written in Python.

It does what the Go SDK does for a plugin in Go: the handshake with the daemon, the
Plugin service, the stream of the plugin's kind, logs, and an orderly end. It needs
nothing but Debian's python3-grpcio and python3-protobuf. A plugin is a class and one call:

    class Mine(ebpftracer.Discoverer):
        name, version, doc = "mine", "1.0", "Containers of my runtime."
        schema = ebpftracer.block("", [ebpftracer.attribute("path", "string", "...")])

        def discover(self, config, inventory):
            inventory.reset()
            inventory.container(id="1", scope="mine", name="web", cgroup_path="/web")
            inventory.synced()
            while inventory.wait(60):
                ...

    if __name__ == "__main__":
        ebpftracer.serve(Mine())

The module owns the process: standard output, the signals, the threads. A plugin logs with
the module logging of Python, and may print: both end up in the daemon's log.
"""

import concurrent.futures
import json
import logging
import os
import signal
import stat
import sys
import threading
import time

import grpc
from google.protobuf import json_format

import discover_pb2 as discover
import mesh_pb2 as mesh
import plugin_pb2 as proto
import sampling_pb2 as sampling
from ebpftracer_inventory import Ended, Inventory, fit, until_end

# As in the package wire of the Go SDK, where each is explained.
PROTOCOL = 1
COOKIE = ("EBPF_TRACER_PLUGIN", "b7c2f0f5c7c94c1d9a7d6e1e3f0a52d8")
MAX_MESSAGE = 4 << 20
MAX_LOG_LINE = 64 << 10

DRAIN = 0.5  # seconds that a stream gets to end by itself

log = logging.getLogger("plugin")


# What a plugin says of its configuration.


def attribute(name, type, doc, shape="single", required=False, default=None, enum=(),
              min=None, max=None, pattern="", sensitive=False, deprecated="", opens="nothing"):
    """An argument. type is string, number, integer, bool, duration or size; shape single,
    list or map; opens nothing, socket, path or network: what the value names that the
    plugin will use. A duration is in nanoseconds, a size in bytes, here and in the
    configuration. Without a default the key of what was left out is absent."""
    A = proto.Attribute
    return A(name=name, type=A.Type.Value("TYPE_" + type.upper()), shape=A.Shape.Value("SHAPE_" + shape.upper()),
             required=required, default_json=b"" if default is None else json.dumps(default).encode(),
             doc=doc, sensitive=sensitive, deprecated=deprecated, enum=enum, min=min, max=max,
             pattern=pattern, opens=A.Opens.Value("OPENS_" + opens.upper()))


def block(doc, attributes=(), blocks=()):
    """The body of a plugin's block, or of one nested in it."""
    return proto.Block(doc=doc, attributes=attributes, blocks=blocks)


def nested(name, inner, min_items=0, max_items=0):
    """A block in a body. In the configuration it is always a list under its name."""
    return proto.NestedBlock(name=name, block=inner, min_items=min_items, max_items=max_items)


class Key(str):
    """A step of a path into a map."""


def error(summary, detail, *path):
    """A mistake in the configuration: a few words, a sentence, and where it is. A step of
    the path is the name of an attribute or block, an index, or a Key."""
    return _diagnostic(proto.Diagnostic.SEVERITY_ERROR, summary, detail, path)


def warning(summary, detail, *path):
    """What is shown and changes nothing."""
    return _diagnostic(proto.Diagnostic.SEVERITY_WARNING, summary, detail, path)


def _diagnostic(severity, summary, detail, path):
    steps = []
    for step in path:
        if isinstance(step, int):
            steps.append(proto.PathStep(index=step))
        elif isinstance(step, Key):
            steps.append(proto.PathStep(key=step))
        else:
            steps.append(proto.PathStep(attribute=step))
    return proto.Diagnostic(severity=severity, summary=summary, detail=detail, path=steps)


class Refused(Exception):
    """Raised by configure to refuse a configuration, with the diagnostics why."""

    def __init__(self, *diagnostics):
        super().__init__("; ".join(d.summary for d in diagnostics))
        self.diagnostics = diagnostics


# What an author writes.


class Plugin:
    """What all kinds have in common. Its life: validate, any number of times and without
    I/O outside of the process; configure, once; then the kind's own method, in a thread
    of its own, one at a time and again after an error, with the same config."""

    name = version = doc = ""
    schema = proto.Block()
    kind = None

    def validate(self, config):
        """Yields errors and warnings that the schema can't say."""
        return ()

    def configure(self, config, node, state_dir):
        """Takes the configuration, and waits for nothing. state_dir is a directory of the
        plugin's own, kept over restarts; "" is none."""


class Discoverer(Plugin):
    """Finds workloads. Name, version, doc and schema are the author's."""

    kind = proto.KIND_DISCOVERER

    def detect(self, config):
        """Tells cheaply whether the runtime is here, and where or what was looked for."""
        return True, ""

    def discover(self, config, inventory):
        """Sends a snapshot between reset and synced, and then each change, until
        inventory.wait answers False or a method raises Ended."""
        raise NotImplementedError


class Detector(Plugin):
    """Tells the service mesh of workloads."""

    kind = proto.KIND_MESH

    def detect(self, config, workloads):
        """Yields MeshChanges. workloads iterates over InventoryChanges."""
        raise NotImplementedError


class Sampler(Plugin):
    """Answers the load with policies."""

    kind = proto.KIND_SAMPLER
    interval = 0  # between two reports, in seconds; 0 leaves it to the daemon

    def start(self, config):
        """The Policy until the first report, at each beginning of a stream."""
        raise NotImplementedError

    def plan(self, config, report):
        """The Policy that answers a Report; None keeps the last one."""
        raise NotImplementedError


# What the daemon calls.


class _Service:
    def __init__(self, plugin, stop):
        self.plugin = plugin
        self.stop = stop
        self.lock = threading.Lock()  # of all below; held for moments only
        self.config = None
        self.reason = ""
        self.received = self.sent = 0
        self.turn = threading.Semaphore()  # one stream at a time
        self.streams = set()  # how to end each that is open

    def handlers(self):
        kinds = {
            proto.KIND_DISCOVERER: ("Discoverer", {
                "Detect": _unary(self.detect, discover.DetectRequest),
                "Discover": _stream(self.discover, discover.HostFacts),
            }),
            proto.KIND_MESH: ("Detector", {"Detect": _stream(self.mesh, discover.InventoryChanges)}),
            proto.KIND_SAMPLER: ("Sampler", {"Sample": _stream(self.sample, sampling.Report)}),
        }
        service, methods = kinds[self.plugin.kind]
        common = {
            "Describe": _unary(self.describe, proto.DescribeRequest),
            "Validate": _unary(self.validate, proto.ValidateRequest),
            "Configure": _unary(self.configure, proto.ConfigureRequest),
            "Health": _unary(self.health, proto.HealthRequest),
            "Shutdown": _unary(self.shutdown, proto.ShutdownRequest),
        }
        return (grpc.method_handlers_generic_handler("ebpftracer.v1.Plugin", common),
                grpc.method_handlers_generic_handler("ebpftracer.v1." + service, methods))

    def describe(self, request=None, context=None):
        p = self.plugin
        return proto.DescribeResponse(kind=p.kind, name=p.name, version=p.version, doc=p.doc, schema=p.schema)

    def validate(self, request, context):
        return proto.ValidateResponse(diagnostics=self.judge(request)[1])

    def judge(self, request):
        """The configuration, and what is to be said of it."""
        try:
            config = json.loads(request.config or b"{}")
            if not isinstance(config, dict):
                raise ValueError("it is no object")
        except ValueError as e:
            return None, [error("no configuration", "The plugin was given what it can't read: %s." % e)]
        try:
            return config, list(self.plugin.validate(config) or ())
        except Exception as e:
            log.exception("could not check the configuration")
            return None, [error("plugin could not check the configuration", "%s: %s" % (type(e).__name__, e))]

    def configure(self, request, context):
        with self.lock:
            if self.config is not None:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the plugin is configured already; start another process")
            config, found = self.judge(request)
            if not _refuses(found):
                try:
                    self.plugin.configure(config, request.node, request.state_dir)
                except Refused as e:
                    found += e.diagnostics
                except Exception as e:
                    log.exception("could not take the configuration")
                    found.append(error("plugin refused the configuration", str(e)))
            if not _refuses(found):
                self.config = config
        interval = int(getattr(self.plugin, "interval", 0) * 1e9)
        return proto.ConfigureResponse(diagnostics=found, report_interval_nano=interval)

    def health(self, request, context):
        # Without the lock: what is read is a whole at any time.
        reason = self.reason
        return proto.HealthResponse(degraded=reason != "", reason=reason, received=self.received, sent=self.sent)

    def shutdown(self, request, context):
        self.stop.set()
        return proto.ShutdownResponse()

    def degraded(self, reason):
        self.reason = reason

    def count_received(self):
        with self.lock:
            self.received += 1

    def count_sent(self):
        with self.lock:
            self.sent += 1

    def begin(self, context):
        """Refuses a stream before its time, and waits for its turn."""
        if self.stop.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the plugin is shutting down")
        if self.config is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the plugin is not configured yet")
        while not self.turn.acquire(timeout=0.1):
            if not context.is_active() or self.stop.is_set():
                context.abort(grpc.StatusCode.CANCELLED, "an earlier stream is still ending")

    def detect(self, request, context):
        if self.config is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the plugin is not configured yet")
        present, detail = self.plugin.detect(self.config)
        return discover.DetectResponse(present=present, detail=fit(detail))

    def discover(self, requests, context):
        self.begin(context)
        inventory = Inventory(self.degraded, requests, self.count_received)
        failed = []

        def work():
            try:
                self.plugin.discover(self.config, inventory)
            except Ended:
                pass
            except Exception as e:
                log.exception("discover failed")
                failed.append(str(e) or type(e).__name__)
            finally:
                inventory.finish()
                self.turn.release()

        with self.lock:
            self.streams.add(inventory.end)
        try:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            if not context.add_callback(inventory.end):
                inventory.end()
            for batch in inventory.batches():
                self.count_sent()
                yield batch
            inventory.end()
            thread.join(DRAIN)
        finally:
            inventory.end()
            with self.lock:
                self.streams.discard(inventory.end)
        if failed:
            context.abort(grpc.StatusCode.ABORTED, fit(failed[0]))

    def mesh(self, requests, context):
        def workloads():
            for batch in until_end(requests):
                self.count_received()
                yield batch

        yield from self.answered(context, lambda: self.plugin.detect(self.config, workloads()))

    def sample(self, requests, context):
        def answer(sequence, policy):
            if policy is None:
                return sampling.Answer(report_sequence=sequence, keep=sampling.Keep())
            return sampling.Answer(report_sequence=sequence, policy=policy)

        def answers():
            yield answer(0, self.plugin.start(self.config))
            for report in until_end(requests):
                self.count_received()
                yield answer(report.sequence, self.plugin.plan(self.config, report))

        yield from self.answered(context, answers)

    def answered(self, context, answers):
        self.begin(context)
        try:
            for one in answers():
                self.count_sent()
                yield one
        except Exception as e:
            log.exception("the stream failed")
            context.abort(grpc.StatusCode.ABORTED, fit(str(e) or type(e).__name__))
        finally:
            self.turn.release()

    def end(self):
        with self.lock:
            streams = list(self.streams)
        for end in streams:
            end()


def _refuses(diagnostics):
    return any(d.severity != proto.Diagnostic.SEVERITY_WARNING for d in diagnostics)


def _unary(method, request):
    return grpc.unary_unary_rpc_method_handler(method, request.FromString, lambda m: m.SerializeToString())


def _stream(method, request):
    return grpc.stream_stream_rpc_method_handler(method, request.FromString, lambda m: m.SerializeToString())


class _JSONLines(logging.Handler):
    """Writes records as the daemon takes them over into its log."""

    LEVELS = ((logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"), (0, "DEBUG"))

    def emit(self, record):
        try:
            level = next(name for least, name in self.LEVELS if record.levelno >= least)
            line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
                    "level": level, "msg": record.getMessage()}
            if record.exc_info:
                line["error"] = str(record.exc_info[1])
                line["trace"] = logging.Formatter().formatException(record.exc_info)
            raw = json.dumps(line)
            if len(raw) >= MAX_LOG_LINE:
                raw = json.dumps({"level": "WARN", "msg": "log record was too long and is cut",
                                  "bytes": len(raw), "begins": raw[:4096]})
            os.write(2, raw.encode() + b"\n")
        except Exception:
            self.handleError(record)


def _by_hand(plugin, args):
    if "--describe" in args:
        described = _Service(plugin, None).describe()
        print(json_format.MessageToJson(described, preserving_proto_field_name=True))
        return 0
    kind = {proto.KIND_DISCOVERER: "discoverer", proto.KIND_MESH: "mesh", proto.KIND_SAMPLER: "sampler"}[plugin.kind]
    print("%s is a plugin of ebpf-tracer (%s, version %s) and is started by it: write\n  %s \"%s\" {}\n"
          "in config.hcl and run `ebpf-tracer run`. With --describe it prints its schema."
          % (plugin.name, kind, plugin.version, kind, plugin.name), file=sys.stderr)
    return 1


def serve(plugin):
    """Runs the process as a plugin, and never returns. It ends when the daemon asks for
    it, by Shutdown or SIGTERM, and when the daemon is gone."""
    if os.environ.get(COOKIE[0]) != COOKIE[1]:
        sys.exit(_by_hand(plugin, sys.argv[1:]))

    # The daemon reads one line there, the handshake. Whatever else is printed goes to
    # the log.
    handshake = os.dup(1)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)
    logging.basicConfig(handlers=[_JSONLines()], level={"DEBUG": logging.DEBUG, "WARN": logging.WARNING,
                        "ERROR": logging.ERROR}.get(os.environ.get("EBPF_TRACER_LOG_LEVEL", ""), logging.INFO))

    # The host limits the memory that a process may ask for, and stacks count whole.
    threading.stack_size(1 << 20)

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the daemon ends us itself

    service = _Service(plugin, stop)
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(max_workers=8), handlers=service.handlers(),
        options=[("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE),
                 ("grpc.so_reuseport", 0)])
    address = os.path.join(os.environ.get("PLUGIN_UNIX_SOCKET_DIR", ""), "plugin.sock")
    if not server.add_insecure_port("unix:" + address):
        log.error("could not listen on %s", address)
        os._exit(1)
    server.start()
    os.write(handshake, b"1|%d|unix|%s|grpc\n" % (PROTOCOL, os.fsencode(address)))
    os.close(handshake)

    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_watch_stdin, daemon=True).start()
    parent = os.getppid()
    while not stop.wait(1):
        if os.getppid() != parent:
            os._exit(0)
    service.end()
    server.stop(DRAIN).wait(2 * DRAIN)
    os._exit(0)  # threads of the plugin's own need not end


def _watch_stdin():
    """The daemon holds the other end, and never writes."""
    while os.read(0, 4096):
        pass
    os._exit(0)

"""Run with: /usr/bin/python3 -B -m unittest

Plugins of each kind as processes of their own, talked to as the daemon does."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

import grpc

import discover_pb2 as discover
import ebpftracer
import mesh_pb2 as mesh
import plugin_pb2 as proto
import sampling_pb2 as sampling

SAMPLER = """
import ebpftracer, sampling_pb2
class Half(ebpftracer.Sampler):
    name, version, doc = "half", "1", "Half of all."
    interval = 2
    def start(self, config):
        print("printed by a plugin")
        return sampling_pb2.Policy(sequence=1, default_probability=0.5)
    def plan(self, config, report):
        if report.sequence == 3:
            raise ValueError("three is too many")
        return sampling_pb2.Policy(sequence=2, default_probability=0.5) if report.sequence == 2 else None
ebpftracer.serve(Half())
"""

DETECTOR = """
import ebpftracer, mesh_pb2
class All(ebpftracer.Detector):
    name, version, doc = "all", "1", "Everything is in the mesh."
    def detect(self, config, workloads):
        for batch in workloads:
            for c in batch.changes:
                fact = mesh_pb2.MeshFact(mesh=config["mesh"], workload=mesh_pb2.WorkloadRef(pod_uid=c.pod.uid))
                yield mesh_pb2.MeshChanges(changes=[mesh_pb2.MeshChange(fact=fact)])
ebpftracer.serve(All())
"""

DISCOVERER = """
import ebpftracer
class Few(ebpftracer.Discoverer):
    name, version, doc = "few", "1", "Control groups as containers."
    def validate(self, config):
        if config.get("wrong"):
            yield ebpftracer.error("wrong", "It is.", "wrong")
    def configure(self, config, node, state_dir):
        if config.get("refuse"):
            raise ebpftracer.Refused(ebpftracer.error("refused", "It is.", "refuse"))
    def discover(self, config, inventory):
        inventory.degraded("nothing is known yet")
        inventory.reset()
        for fact in inventory.facts(cgroups=True):
            if fact.HasField("synced"):
                inventory.synced()
            elif fact.HasField("cgroup"):
                inventory.container(id=fact.cgroup.path, name=fact.cgroup.path, cgroup_id=fact.cgroup.id)
ebpftracer.serve(Few())
"""

PATIENCE = 60


class Process:
    """A plugin's process, as the daemon has it."""

    def __init__(self, test, source, service):
        self.dir = tempfile.TemporaryDirectory()
        env = {ebpftracer.COOKIE[0]: ebpftracer.COOKIE[1], "PLUGIN_UNIX_SOCKET_DIR": self.dir.name}
        self.process = subprocess.Popen(
            [sys.executable, "-Bs", "-c", textwrap.dedent(source)], env=env, cwd=os.path.dirname(os.path.abspath(__file__)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        test.addCleanup(self.close)
        core, app, network, address, protocol = self.process.stdout.readline().decode().strip().split("|")
        test.assertEqual((core, app, network, protocol), ("1", "1", "unix", "grpc"))
        test.assertEqual(os.path.dirname(address), self.dir.name)
        self.channel = grpc.insecure_channel("unix:" + address)
        self.service = service

    def call(self, method, request, response):
        m = self.channel.unary_unary("/ebpftracer.v1.Plugin/" + method, type(request).SerializeToString, response.FromString)
        return m(request, timeout=PATIENCE, wait_for_ready=True)

    def configure(self, **config):
        return self.call("Configure", proto.ConfigureRequest(config=json.dumps(config).encode()), proto.ConfigureResponse)

    def health(self):
        return self.call("Health", proto.HealthRequest(), proto.HealthResponse)

    def stream(self, method, requests, response):
        m = self.channel.stream_stream("/ebpftracer.v1.%s/%s" % (self.service, method),
                                       lambda m: m.SerializeToString(), response.FromString)
        return m(iter(requests), timeout=PATIENCE)

    def ended(self):
        """How it ended, and what it wrote to its log."""
        code = self.process.wait(PATIENCE)
        return code, self.process.stderr.read().decode()

    def close(self):
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for f in (self.process.stdin, self.process.stdout, self.process.stderr):
            f.close()
        self.dir.cleanup()


class Processes(unittest.TestCase):
    def test_a_sampler_answers_each_report_in_turn(self):
        p = Process(self, SAMPLER, "Sampler")
        with self.assertRaises(grpc.RpcError) as early:
            next(p.stream("Sample", [], sampling.Answer))
        self.assertEqual(early.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertEqual(p.configure().report_interval_nano, 2_000_000_000)
        stream = p.stream("Sample", [sampling.Report(sequence=n) for n in (1, 2, 3)], sampling.Answer)
        answers = [next(stream) for _ in range(3)]
        self.assertEqual([(a.report_sequence, a.WhichOneof("answer"), a.policy.sequence) for a in answers],
                         [(0, "policy", 1), (1, "keep", 0), (2, "policy", 2)])
        with self.assertRaises(grpc.RpcError) as failed:
            next(stream)
        self.assertEqual((failed.exception.code(), failed.exception.details()),
                         (grpc.StatusCode.ABORTED, "three is too many"))
        h = p.health()
        self.assertEqual((h.received, h.sent, h.degraded), (3, 3, False))
        # The stream can be opened again.
        self.assertEqual(next(p.stream("Sample", [], sampling.Answer)).policy.sequence, 1)
        p.call("Shutdown", proto.ShutdownRequest(), proto.ShutdownResponse)
        code, log = p.ended()
        self.assertEqual(code, 0)
        self.assertIn("printed by a plugin\n", log)
        self.assertIn('"level": "ERROR", "msg": "the stream failed", "error": "three is too many"', log)

    def test_a_detector_hears_workloads_and_tells_facts(self):
        p = Process(self, DETECTOR, "Detector")
        p.configure(mesh="m")
        told = [discover.InventoryChanges(changes=[discover.InventoryChange(pod=discover.Pod(uid=u)) for u in "ab"])]
        facts = [c.fact for b in p.stream("Detect", told, mesh.MeshChanges) for c in b.changes]
        self.assertEqual([(f.mesh, f.workload.pod_uid) for f in facts], [("m", "a"), ("m", "b")])
        p.process.stdin.close()  # the daemon is gone
        self.assertEqual(p.ended()[0], 0)

    def test_a_discoverer_hears_facts_and_tells_containers(self):
        p = Process(self, DISCOVERER, "Discoverer")
        for config, path in ((dict(wrong=True), "wrong"), (dict(refuse=True), "refuse")):
            (d,) = p.configure(**config).diagnostics
            self.assertEqual(d.path[0].attribute, path)
        for garbage in (b"{", b"[]", b"null"):
            r = p.call("Validate", proto.ValidateRequest(config=garbage), proto.ValidateResponse)
            self.assertEqual([d.severity for d in r.diagnostics], [proto.Diagnostic.SEVERITY_ERROR])
        self.assertFalse(p.configure().diagnostics)
        facts = [discover.HostFact(reset=discover.Reset()),
                 discover.HostFact(cgroup=discover.CgroupFact(id=7, path="/x")),
                 discover.HostFact(synced=discover.Synced())]
        for _ in range(2):
            stream = p.stream("Discover", [discover.HostFacts(facts=facts)], discover.InventoryChanges)
            changes = [c for b in stream for c in b.changes]
            self.assertEqual([c.WhichOneof("change") for c in changes], ["reset", "subscribe", "container", "synced"])
            self.assertEqual(changes[2].container.cgroup_id, 7)
            self.assertFalse(p.health().degraded)
        with self.assertRaises(grpc.RpcError) as again:
            p.configure()
        self.assertEqual(again.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        p.process.send_signal(signal.SIGTERM)
        self.assertEqual(p.ended()[0], 0)

    def test_run_by_hand_a_plugin_explains_itself(self):
        r = subprocess.run([sys.executable, "-Bs", "inventory_file.py"], capture_output=True, text=True, env={},
                           cwd=os.path.dirname(os.path.abspath(__file__)))
        self.assertEqual(r.returncode, 1)
        self.assertIn("is a plugin of ebpf-tracer (discoverer, version 1.0.0) and is started by it", r.stderr)


if __name__ == "__main__":
    unittest.main()

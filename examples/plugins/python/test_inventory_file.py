"""Run with: /usr/bin/python3 -B -m unittest"""

import json
import os
import tempfile
import threading
import unittest

import ebpftracer
import ebpftracer_inventory
import inventory_file
import plugin_pb2 as proto


class Files(unittest.TestCase):
    def setUp(self):
        dir = tempfile.TemporaryDirectory()
        self.addCleanup(dir.cleanup)
        self.dir = dir.name

    def write(self, name, content):
        path = os.path.join(self.dir, name)
        with open(path + ".new", "w") as f:
            f.write(content if isinstance(content, str) else json.dumps(content))
        os.rename(path + ".new", path)
        return path

    def read(self):
        return inventory_file.read(inventory_file.look(self.dir))

    def test_the_files_of_a_directory_are_read_together(self):
        self.write("a.json", {"containers": [{"name": "web", "cgroup": "/web"}]})
        self.write("b.json", {"containers": [{"name": "db", "cgroup": "/db", "id": "7", "labels": {"a": "b"}}]})
        self.write("c.txt", "no JSON")
        self.assertEqual([(c["id"], c["name"]) for c in self.read()], [("web", "web"), ("7", "db")])

    def test_a_file_alone_is_read(self):
        path = self.write("list", {"containers": []})
        self.assertEqual(inventory_file.read(inventory_file.look(path)), [])

    def test_what_has_changed_is_seen(self):
        self.write("a.json", {"containers": [{"name": "web", "cgroup": "/web"}]})
        before = inventory_file.look(self.dir)
        self.assertEqual(inventory_file.look(self.dir), before)
        self.write("a.json", {"containers": [{"name": "wep", "cgroup": "/web"}]})
        self.assertNotEqual(inventory_file.look(self.dir), before)

    def test_a_mistake_is_told_with_its_place(self):
        one = {"name": "web", "cgroup": "/web"}
        for content, want in (
                ("{", "a.json is no JSON: "),
                ([], 'a.json must be {"containers": [...]}'),
                ({"containers": {}}, 'a.json must be {"containers": [...]}'),
                ({"containers": [], "more": 1}, 'a.json must be {"containers": [...]}'),
                ({"containers": [one, 7]}, "a.json: containers[1] is no object"),
                ({"containers": [{**one, "pid": 1}]}, "a.json: containers[0] has 'pid'; it can have "),
                ({"containers": [{**one, "labels": "x"}]}, "a.json: containers[0]: labels is no object"),
                ({"containers": [{**one, "labels": {"a": 1}}]}, "a.json: containers[0]: a label's value is no text"),
                ({"containers": [{"cgroup": "/web"}]}, "a.json: containers[0] has no name"),
                ({"containers": [{"name": "web"}]}, "a.json: containers[0]: cgroup is to be a path"),
                ({"containers": [{**one, "cgroup": "//"}]}, "a.json: containers[0]: cgroup is to be a path"),
                ({"containers": [{**one, "cgroup": "web"}]}, "a.json: containers[0]: cgroup is to be a path"),
                ({"containers": [one, one]}, "a.json: containers[1]: another one has the id 'web'"),
                (" " * (inventory_file.MAX_FILE + 1), "a.json has more than 4194304 bytes"),
        ):
            with self.subTest(want):
                self.write("a.json", content)
                with self.assertRaises(inventory_file.Wrong) as raised:
                    self.read()
                self.assertIn(os.path.join(self.dir, want), str(raised.exception))


class Images(unittest.TestCase):
    def test_a_reference_is_taken_apart(self):
        for reference, want in (
                ("", ("", "", "")),
                ("web", ("web", "", "")),
                ("shop/web:1.4", ("shop/web", "1.4", "")),
                ("localhost:5000/web", ("localhost:5000/web", "", "")),
                ("localhost:5000/web:1.4@sha256:00", ("localhost:5000/web", "1.4", "sha256:00")),
        ):
            i = inventory_file.image(reference)
            self.assertEqual((i["name"], i["tag"], i["digest"]), want)


class Configuration(unittest.TestCase):
    def test_a_relative_path_is_refused_at_its_place(self):
        plugin = inventory_file.InventoryFile()
        self.assertEqual(list(plugin.validate({"path": "/etc/x"})), [])
        (d,) = plugin.validate({"path": "etc/x"})
        self.assertEqual([s.attribute for s in d.path], ["path"])
        self.assertEqual(d.severity, proto.Diagnostic.SEVERITY_ERROR)

    def test_a_path_has_steps_of_each_sort(self):
        d = ebpftracer.error("a", "b", "level", 2, "labels", ebpftracer.Key("x"))
        self.assertEqual([s.WhichOneof("step") for s in d.path], ["attribute", "index", "attribute", "key"])


class Helper(unittest.TestCase):
    def inventory(self):
        self.reasons = []
        return ebpftracer_inventory.Inventory(self.reasons.append, iter(()), lambda: None)

    def test_changes_travel_in_batches_in_order_and_to_the_last(self):
        inventory = self.inventory()

        def work():
            inventory.reset()
            for n in range(1000):
                inventory.container(id=str(n), name="x" * 20_000)
            inventory.synced()
            inventory.finish()

        thread = threading.Thread(target=work)
        thread.start()
        batches = list(inventory.batches())
        thread.join()
        changes = [c for b in batches for c in b.changes]
        self.assertEqual(changes[0].WhichOneof("change"), "reset")
        self.assertEqual([c.container.id for c in changes[1:-1]], [str(n) for n in range(1000)])
        self.assertEqual(changes[-1].WhichOneof("change"), "synced")
        for b in batches:
            self.assertLessEqual(len(b.changes), 100)
            self.assertLessEqual(b.ByteSize(), 1 << 20)

    def test_a_writer_waits_for_the_reader_and_ends_with_it(self):
        inventory = self.inventory()
        ended = []

        def work():
            try:
                while True:
                    inventory.reset()
            except ebpftracer.Ended:
                ended.append(inventory.wait(60))

        thread = threading.Thread(target=work)
        thread.start()
        inventory.end()
        thread.join(60)
        self.assertEqual(ended, [False])

    def test_what_the_daemon_would_refuse_is_made_to_fit(self):
        inventory = self.inventory()
        inventory.container(id="1", name="\udcff", labels={"k": "ü" * 20_000})
        inventory.finish()
        (c,) = [c.container for b in inventory.batches() for c in b.changes]
        self.assertEqual(c.name, "?")
        self.assertEqual(c.labels["k"], "ü" * 16_384)
        self.assertEqual(list(c.truncated), ["labels"])
        with self.assertRaises(ValueError):
            inventory.container(id="1", args=["x" * 30_000] * 10)


if __name__ == "__main__":
    unittest.main()

"""ebpftracer_inventory is the way of a discoverer's words to the daemon: gathered into
batches, bounded, and made to fit. Authors have it from the module ebpftracer."""

import collections
import threading

import grpc

import discover_pb2 as discover

# As in the package wire of the Go SDK.
MAX_BATCH = 1 << 20
MAX_CHANGE = 256 << 10
MAX_STRING = 32 << 10

BATCH_CHANGES = 100  # in one batch at most
PENDING_CHANGES = 4 * BATCH_CHANGES  # that wait for the daemon before the plugin does


class Ended(Exception):
    """The daemon has ended the stream, or the plugin is to end. Let it pass."""


class Inventory:
    """Takes what a discoverer found, from any thread. Descriptions given as keywords are
    made to fit: what is not UTF-8 is replaced, what is too long is cut. A method waits
    when the daemon is slower than the runtime, and raises Ended when the stream has."""

    def __init__(self, degraded, requests, received):
        self._set_degraded = degraded
        self._requests = requests
        self._received = received
        self._changes = collections.deque()
        self._changed = threading.Condition()
        self._ended = False  # nobody reads any more
        self._finished = False  # nobody writes any more

    def reset(self):
        """Begins a snapshot."""
        self._put(discover.InventoryChange(reset=discover.Reset()))

    def synced(self):
        """Ends the snapshot, and takes back degraded."""
        self._set_degraded("")
        self._put(discover.InventoryChange(synced=discover.Synced()))

    def container(self, **fields):
        """Describes a container, whole."""
        cut = []
        c = discover.Container(**{k: fit(v, k, cut) for k, v in fields.items()})
        c.truncated.extend(sorted(set(cut)))
        self._put(discover.InventoryChange(container=c))

    def pod(self, **fields):
        """Describes a pod, whole."""
        self._put(discover.InventoryChange(pod=discover.Pod(**{k: fit(v) for k, v in fields.items()})))

    def service(self, **fields):
        """Describes a service, whole."""
        self._put(discover.InventoryChange(service=discover.Service(**{k: fit(v) for k, v in fields.items()})))

    def remove_container(self, id, scope=""):
        """Forgets a container."""
        ref = discover.ContainerRef(id=fit(id), scope=fit(scope))
        self._put(discover.InventoryChange(removed=discover.Removed(container=ref)))

    def remove_pod(self, uid):
        """Forgets a pod."""
        self._put(discover.InventoryChange(removed=discover.Removed(pod_uid=fit(uid))))

    def remove_service(self, uid):
        """Forgets a service."""
        self._put(discover.InventoryChange(removed=discover.Removed(service_uid=fit(uid))))

    def degraded(self, reason):
        """Says that the runtime does not answer: a sentence for the operator."""
        self._set_degraded(fit(reason))

    def facts(self, cgroups=False, processes=False):
        """Subscribes to the host's facts, once, and iterates over them until the stream
        ends."""
        self._put(discover.InventoryChange(subscribe=discover.Subscribe(cgroups=cgroups, processes=processes)))
        for batch in until_end(self._requests):
            self._received()
            yield from batch.facts
        raise Ended

    def wait(self, seconds):
        """Waits, and answers False when the stream has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, seconds)
            return not self._ended

    def _put(self, change):
        if change.ByteSize() > MAX_CHANGE:
            raise ValueError("a description has %d bytes, the daemon takes %d: leave out what is largest"
                             % (change.ByteSize(), MAX_CHANGE))
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._changes) < PENDING_CHANGES)
            if self._ended:
                raise Ended
            self._changes.append(change)
            self._changed.notify_all()

    # For the module ebpftracer only.

    def end(self):
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def finish(self):
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def batches(self):
        """What was put, until nobody writes or reads any more."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._finished or self._changes)
                if self._ended or not self._changes:
                    return
                batch, size = [], 0
                while self._changes and len(batch) < BATCH_CHANGES:
                    size += self._changes[0].ByteSize() + 8
                    if batch and size > MAX_BATCH:
                        break
                    batch.append(self._changes.popleft())
                self._changed.notify_all()
            yield discover.InventoryChanges(changes=batch)


def fit(value, name="", cut=None):
    """A value with each string in it valid and of a length that the daemon takes."""
    if isinstance(value, str):
        raw = value.encode("utf-8", "replace")
        if len(raw) > MAX_STRING:
            raw = raw[:MAX_STRING]
            if cut is not None:
                cut.append(name)
        return raw.decode("utf-8", "ignore")
    if isinstance(value, dict):
        return {fit(k, name, cut): fit(v, name, cut) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [fit(v, name, cut) for v in value]
    return value


def until_end(requests):
    """The messages of a stream; gRPC tells its end by an exception of its own."""
    try:
        yield from requests
    except grpc.RpcError:
        return

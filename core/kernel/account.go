package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/bpf"
)

// AccountName is what the accounting of traffic is called among the probes.
const AccountName = "resources"

// Traffic is what the sockets of a cgroup have received and sent. Bytes are those of
// IP packets, with their IP headers and without the link's; a packet is what the
// kernel's stack handles as one, which the card may cut in several or has put
// together from several.
type Traffic struct {
	ReceivedBytes   uint64
	ReceivedPackets uint64
	SentBytes       uint64
	SentPackets     uint64
}

// Add adds what another has.
func (t *Traffic) Add(o Traffic) {
	t.ReceivedBytes += o.ReceivedBytes
	t.ReceivedPackets += o.ReceivedPackets
	t.SentBytes += o.SentBytes
	t.SentPackets += o.SentPackets
}

// Sub is what has come since an earlier reading.
func (t Traffic) Sub(earlier Traffic) Traffic {
	return Traffic{
		ReceivedBytes: t.ReceivedBytes - earlier.ReceivedBytes, ReceivedPackets: t.ReceivedPackets - earlier.ReceivedPackets,
		SentBytes: t.SentBytes - earlier.SentBytes, SentPackets: t.SentPackets - earlier.SentPackets,
	}
}

// Account counts the traffic of every cgroup of the default hierarchy, each in its own
// entry, not with those above it.
//
// Counted is what passes a socket: on its way in at the socket itself, after the
// packet filter, and on its way out where the packet leaves the IP layer. So traffic
// over the loopback counts like any other, once for who sends and once for who
// receives it. What has no socket is nobody's (what is routed through the host, what
// the kernel answers by itself), and so is what arrives for a connection that is only
// remembered (TIME_WAIT). Unix sockets are no network. The kernel runs all programs that
// are attached to a cgroup or above it, whatever each decides: what another one drops on
// its way out is counted as sent.
//
// A run of a program takes 22 to 36 ns while the caches are warm. Over the loopback, on a
// busy virtual machine where a datagram takes 8.6 us of CPU time from one socket to the
// other, each of its two runs added 0.3 us (BenchmarkPacket).
//
// The entries are made by the programs, with a cgroup's first packet, and taken out by
// Forget. There is room for 16,384 of them; packets of cgroups beyond are in Overflow.
// An entry is allocated when it is made: 32 bytes for each CPU, and about 100.
type Account struct {
	probe   Probe
	object  *ebpf.Collection
	links   []link.Link // kept referenced: a link that is collected detaches
	traffic *ebpf.Map
	cpus    int
}

// NewAccount loads the programs and attaches them where the default hierarchy is
// mounted. It works from Linux 5.10 on. An error says why this host can't take it.
func NewAccount(root string) (*Account, error) {
	if err := rlimit.RemoveMemlock(); err != nil && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	spec, err := bpf.LoadAccount()
	if err != nil {
		return nil, fmt.Errorf("read the programs that account traffic: %w", err)
	}
	object, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, notPermitted(fmt.Errorf("account traffic: %w", loadError(err)))
	}
	a := &Account{probe: Probe{Name: AccountName}, object: object, traffic: object.Maps["traffic"], cpus: cpus}
	for _, p := range []struct {
		name string
		at   ebpf.AttachType
	}{
		{"account_received", ebpf.AttachCGroupInetIngress},
		{"account_sent", ebpf.AttachCGroupInetEgress},
	} {
		// The link lets other programs be attached beside it and below it.
		l, err := link.AttachCgroup(link.CgroupOptions{Path: root, Attach: p.at, Program: object.Programs[p.name]})
		if err != nil {
			err = fmt.Errorf("account traffic: attach %s at %s: %w", p.name, root, err)
			if errors.Is(err, os.ErrPermission) && os.Geteuid() == 0 {
				err = fmt.Errorf("%w: a program may be attached there that lets no other beside it (bpftool cgroup show %s)", err, root)
			}
			return nil, errors.Join(err, a.Close())
		}
		a.links = append(a.links, l)
		a.probe.Programs = append(a.probe.Programs, p.name)
	}
	return a, nil
}

// Probe tells of the accounting as of a probe.
func (a *Account) Probe() Probe { return a.probe.clone() }

// batchBytes bounds what Each reads in one go.
const batchBytes = 256 << 10

// Each calls f with the traffic of each cgroup that has had any, until f returns
// false. A cgroup that comes or goes meanwhile may be left out or come twice.
func (a *Account) Each(f func(cgroup uint64, t Traffic) bool) error {
	count := max(batchBytes/(32*a.cpus), 64)
	keys, values := make([]uint64, count), make([]Traffic, count*a.cpus)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := a.traffic.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSPC) { // that is: for one bucket
			return a.eachAlone(f)
		}
		done := errors.Is(err, ebpf.ErrKeyNotExist) // what there was is in this batch
		if err != nil && !done {
			return fmt.Errorf("read the traffic of cgroups: %w", err)
		}
		for i, key := range keys[:n] {
			if !f(key, total(values[i*a.cpus:(i+1)*a.cpus])) {
				return nil
			}
		}
		if done {
			return nil
		}
	}
}

// eachAlone is Each where several entries can't be read at a time.
func (a *Account) eachAlone(f func(cgroup uint64, t Traffic) bool) error {
	var key uint64
	var perCPU []Traffic
	entries := a.traffic.Iterate()
	for entries.Next(&key, &perCPU) {
		if !f(key, total(perCPU)) {
			return nil
		}
	}
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) { // that is: read in part
		return fmt.Errorf("read the traffic of cgroups: %w", err)
	}
	return nil
}

func total(perCPU []Traffic) (sum Traffic) {
	for _, t := range perCPU {
		sum.Add(t)
	}
	return sum
}

// Of gives the traffic of one cgroup; none: it has had none.
func (a *Account) Of(cgroup uint64) (Traffic, error) {
	var perCPU []Traffic
	err := a.traffic.Lookup(cgroup, &perCPU)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return Traffic{}, fmt.Errorf("read the traffic of cgroup %d: %w", cgroup, err)
	}
	return total(perCPU), nil
}

// Forget takes out the entry of a cgroup that is gone and gives what it was. What a
// socket that has outlived its cgroup sends later makes a new entry.
func (a *Account) Forget(cgroup uint64) (Traffic, error) {
	t, err := a.Of(cgroup)
	if err != nil {
		return t, err
	}
	if err := a.traffic.Delete(cgroup); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return t, fmt.Errorf("take out the traffic of cgroup %d: %w", cgroup, err)
	}
	return t, nil
}

// Overflow is the traffic of cgroups that found no room.
func (a *Account) Overflow() (Traffic, error) {
	var perCPU []Traffic
	if err := a.object.Maps["overflow"].Lookup(uint32(0), &perCPU); err != nil {
		return Traffic{}, fmt.Errorf("read the traffic of cgroups without room: %w", err)
	}
	return total(perCPU), nil
}

// Close detaches the programs and frees everything.
func (a *Account) Close() error {
	var errs []error
	for _, l := range a.links {
		errs = append(errs, l.Close())
	}
	a.links = nil
	a.object.Close()
	runtime.KeepAlive(a)
	return errors.Join(errs...)
}

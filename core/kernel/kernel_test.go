package kernel

import (
	"context"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// collector counts records by kind.
type collector struct {
	mu    sync.Mutex
	kinds [event.Kinds]uint64
	all   uint64
}

func (c *collector) Record(record []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all++
	c.kinds[binary.NativeEndian.Uint16(record[52:])]++
}

func (c *collector) Drained() time.Duration { return 0 }

func (c *collector) Congested() bool { return false }

func TestEveryProgramOfThisKernelAttaches(t *testing.T) {
	k, err := Load(Options{Probes: ProbeNames(), RingBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for _, p := range k.Probes() {
		t.Logf("%s: %s %v", p.Name, p.State(), p.Programs)
		if p.State() != "attached" {
			t.Errorf("%s is %s: %s", p.Name, p.State(), p.Reason())
		}
	}
}

// everyOther keeps every other event.
func everyOther() (p Policy) {
	for i := range p.Pooled {
		p.Pooled[i].Probability = 0.5
	}
	return p
}

func TestTheLedgerClosesOverPolicySwapsForEveryNumberOfRings(t *testing.T) {
	for _, rings := range []int{1, 2, 3} {
		k, err := Load(Options{Probes: ProbeNames(), RingBytes: 1 << 20, Rings: rings})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		ctx, cancel := context.WithCancel(context.Background())
		var c collector
		done := make(chan error, 1)
		go func() { done <- k.Read(ctx, &c) }()
		for i := range 20 {
			if err := exec.Command("/bin/true").Run(); err != nil {
				t.Fatal(err)
			}
			p := everyOther()
			if _, err := k.SetPolicy(p); err != nil {
				t.Fatal(err)
			}
			rows, generation, _, err := k.Ledger()
			if err != nil {
				t.Fatal(err)
			}
			if generation != uint32(i+2) {
				t.Errorf("generation %d after %d swaps", generation, i+1)
			}
			for _, r := range rows {
				if out := r.Kept + r.SampledOut + r.Filtered + r.Lost; out > r.Seen {
					t.Errorf("%v %v: outcomes %d of %d seen", r.Kind, r.Priority, out, r.Seen)
				}
			}
		}
		if err := k.Detach(); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		rows, _, _, err := k.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		var kept, seen, out uint64
		for _, r := range rows {
			kept += r.Kept
			seen += r.Seen
			out += r.SampledOut
			if sum := r.Kept + r.SampledOut + r.Filtered + r.Lost; sum != r.Seen {
				t.Errorf("%v %v: seen %d, outcomes %d", r.Kind, r.Priority, r.Seen, sum)
			}
			if r.Lost != 0 {
				t.Errorf("%v %v: %d lost", r.Kind, r.Priority, r.Lost)
			}
		}
		t.Logf("%d rings: seen %d, kept %d, sampled out %d; read %v", rings, seen, kept, out, c.kinds)
		if kept != c.all || k.InRing() != 0 {
			t.Errorf("kept %d, read %d, %d left in the rings", kept, c.all, k.InRing())
		}
		if out == 0 || seen < 20 {
			t.Errorf("nothing was decided: seen %d, sampled out %d", seen, out)
		}
		faults, err := k.Faults()
		if err != nil {
			t.Fatal(err)
		}
		for name, n := range faults {
			if n != 0 {
				t.Errorf("fault %s: %d", name, n)
			}
		}
	}
}

// TestARingThatIsNearlyFullSpillsIntoAnother fills the rings of one CPU while nobody
// reads: what one ring has no room for is in another, and nothing is told twice or lost
// from the counts.
func TestARingThatIsNearlyFullSpillsIntoAnother(t *testing.T) {
	programs := load.Build(t)
	absent := filepath.Join(t.TempDir(), "absent")
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		t.Fatal(err)
	}
	held := map[int]uint64{}
	for _, rings := range []int{1, 2, 3} {
		k, err := Load(Options{Probes: []string{"file"}, RingBytes: 1 << 16, Rings: rings})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if out, err := exec.Command(taskset, "-c", "0", programs.Open, "-n", "5000", "-f", "100", absent).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := k.Detach(); err != nil {
			t.Fatal(err)
		}
		rows, _, _, err := k.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		var kept, lost uint64
		for _, r := range rows {
			kept += r.Kept
			lost += r.Lost
		}
		if lost == 0 {
			t.Errorf("%d rings: 5000 events filled none", rings)
		}
		held[rings] = kept
		var c collector
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what is there is read to its end
		if err := k.Read(ctx, &c); err != nil {
			t.Fatal(err)
		}
		if c.all != kept {
			t.Errorf("%d rings: %d events were read, %d are counted as kept", rings, c.all, kept)
		}
	}
	t.Logf("events that found room: %v", held)
	for _, rings := range []int{2, 3} {
		if least := held[1] * uint64(rings) * 8 / 10; held[rings] < least {
			t.Errorf("%d rings held %d events of one CPU, one holds %d", rings, held[rings], held[1])
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// exec measures execs of a static program that does nothing.
func (b *bench) exec(ctx context.Context) error {
	n := 20000
	if b.Quick {
		n = 1000
	}
	c := newCosts("exec", "exec")
	args := func(prefix string) []string {
		return []string{"-n", fmt.Sprint(n), "-p", "2", "-a", prefix, b.loads.Noop}
	}
	for round := range b.Rounds {
		b.say("exec, round %d of %d", round+1, b.Rounds)
		bare, err := inContainer[load.ExecCounts](ctx, b, b.loads.Exec, args("bare:")...)
		if err != nil {
			return err
		}
		told := execsTold{prefix: fmt.Appendf(nil, "round%d:", round), seen: map[string]bool{}}
		var counts load.ExecCounts
		var spent cost
		err = b.traced(ctx, "exec", false, func(d *daemon) (err error) {
			spent, err = b.costOf(ctx, d, func() (err error) {
				counts, err = inContainer[load.ExecCounts](ctx, b, b.loads.Exec, args(string(told.prefix))...)
				return err
			})
			return err
		}, told.line, func(o *outcome) {
			got := int64(len(told.seen))
			b.found("exec", "execs found by their argument, with the container's name", got, counts.Execs, o)
			b.report.check("exec", "execs found twice", told.twice, 0)
			c.add(spent, o, got, counts.Execs, counts.PerSecond, bare.PerSecond, seconds(bare.CPUSelf+bare.CPUChildren, bare.Execs))
		})
		if err != nil {
			return err
		}
	}
	c.report(b.report)
	return b.programs(ctx, "exec", false, func() (int64, float64, error) {
		counts, err := inContainer[load.ExecCounts](ctx, b, b.loads.Exec, args("programs:")...)
		return counts.Execs, seconds(counts.CPUSelf+counts.CPUChildren, counts.Execs), err
	})
}

// execsTold are a load's execs by their arguments.
type execsTold struct {
	prefix []byte
	seen   map[string]bool
	twice  int64
}

func (x *execsTold) line(line []byte) error {
	_, rest, ok := bytes.Cut(line, append([]byte(`","`), x.prefix...))
	if !ok || !bytes.Contains(line, []byte(`"kind":"process.exec"`)) {
		return nil
	}
	arg, _, _ := bytes.Cut(rest, []byte(`"`))
	switch {
	case len(arg) == 0: // the load's own exec, which names the prefix
	case x.seen[string(arg)]:
		x.twice++
	default:
		x.seen[string(arg)] = true
	}
	return nil
}

// open measures opens of a small file.
func (b *bench) open(ctx context.Context) error {
	path := filepath.Join(b.dir, "file-to-open")
	if err := os.WriteFile(path, []byte("name\n"), 0o644); err != nil {
		return err
	}
	// By number, so that rounds are equal and memory for the JSON is bounded.
	n := 600_000
	if b.Quick {
		n = 30_000
	}
	marker := []byte(`"file":{"path":"` + path + `"`)
	for _, threads := range []string{"1", "2"} {
		name := "open, " + threads + " threads"
		if threads == "1" {
			name = "open, 1 thread"
		}
		c := newCosts(name, "open")
		args := []string{"-n", fmt.Sprint(n), "-t", threads, path}
		for round := range b.Rounds {
			b.say("%s, round %d of %d", name, round+1, b.Rounds)
			bare, err := inContainer[load.OpenCounts](ctx, b, b.loads.Open, args...)
			if err != nil {
				return err
			}
			var counts load.OpenCounts
			var spent cost
			var got int64
			err = b.traced(ctx, name, true, func(d *daemon) (err error) {
				spent, err = b.costOf(ctx, d, func() (err error) {
					counts, err = inContainer[load.OpenCounts](ctx, b, b.loads.Open, args...)
					return err
				})
				return err
			}, func(line []byte) error {
				if bytes.Contains(line, marker) {
					got++
				}
				return nil
			}, func(o *outcome) {
				b.found(name, "opens found by their path, with the container's name", got, counts.Opens, o)
				c.add(spent, o, got, counts.Opens, counts.PerSecond, bare.PerSecond, seconds(bare.CPUSelf, bare.Opens))
			})
			if err != nil {
				return err
			}
		}
		c.report(b.report)
	}
	return b.programs(ctx, "open, 1 thread", true, func() (int64, float64, error) {
		counts, err := inContainer[load.OpenCounts](ctx, b, b.loads.Open, "-n", fmt.Sprint(n), path)
		return counts.Opens, seconds(counts.CPUSelf, counts.Opens), err
	})
}

// tcp measures connections on the loopback.
func (b *bench) tcp(ctx context.Context) error {
	n := 20_000
	if b.Quick {
		n = 500
	}
	const out, in = 1000, 3000
	args := []string{"pairs", "-n", fmt.Sprint(n), "-o", fmt.Sprint(out), "-i", fmt.Sprint(in)}
	c := newCosts("tcp", "connection")
	for round := range b.Rounds {
		b.say("tcp, round %d of %d", round+1, b.Rounds)
		bare, err := inContainer[load.TCPCounts](ctx, b, b.loads.TCP, args...)
		if err != nil {
			return err
		}
		var counts load.TCPCounts
		var spent cost
		told := tcpTold{kinds: map[string]int64{}}
		err = b.traced(ctx, "tcp", false, func(d *daemon) (err error) {
			spent, err = b.costOf(ctx, d, func() (err error) {
				counts, err = inContainer[load.TCPCounts](ctx, b, b.loads.TCP, args...)
				return err
			})
			return err
		}, told.line, func(o *outcome) {
			b.found("tcp", "connects", told.kinds["network.connect"], counts.Connects, o)
			b.found("tcp", "accepts", told.kinds["network.accept"], counts.Accepts, o)
			b.found("tcp", "closes", told.kinds["network.close"], counts.Closes, o)
			b.found("tcp", "listens", told.kinds["network.listen"], counts.Listens, o)
			if both := counts.BytesSent + counts.BytesReceived; o.given() == 0 {
				b.report.check("tcp", "bytes sent, by both sides", told.sent, both)
				b.report.check("tcp", "bytes received, by both sides", told.received, both)
			}
			c.add(spent, o, told.kinds["network.close"]/2, counts.Connects, counts.PerSecond, bare.PerSecond, seconds(bare.CPUSelf, bare.Connects))
		})
		if err != nil {
			return err
		}
	}
	c.report(b.report)
	return b.programs(ctx, "tcp", false, func() (int64, float64, error) {
		counts, err := inContainer[load.TCPCounts](ctx, b, b.loads.TCP, args...)
		return counts.Connects, seconds(counts.CPUSelf, counts.Connects), err
	})
}

// tcpTold are a load's connections by kind of event, and their bytes.
type tcpTold struct {
	kinds          map[string]int64
	sent, received int64
}

func (x *tcpTold) line(line []byte) error {
	if !bytes.Contains(line, []byte(`"network":{`)) {
		return nil
	}
	var e struct {
		Kind    string
		Network struct {
			IO struct{ Transmit, Receive int64 }
		}
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("read an event: %w in %q", err, line)
	}
	x.kinds[e.Kind]++
	x.sent += e.Network.IO.Transmit
	x.received += e.Network.IO.Receive
	return nil
}

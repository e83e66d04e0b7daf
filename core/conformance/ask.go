package conformance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

func (t *tester) rpc() protov1.PluginClient { return protov1.NewPluginClient(t.probe.Conn()) }

// start checks the handshake.
func (t *tester) start(ctx context.Context) {
	t.check(ctx, "it starts and shakes hands in time", "if it ended, see what it wrote; the handshake line, 1|1|unix|SOCKET|grpc, is printed first of all, and flushed; docs/writing-plugins.md has its parts",
		func(ctx context.Context, c *check) {
			if err := t.fresh(ctx); err != nil {
				c.failf("%v", err)
			}
		})
	t.check(ctx, "nothing but the handshake is on its standard output", "print to standard error: standard output belongs to the handshake",
		func(_ context.Context, c *check) {
			t.early = t.heard.printed()
			for _, line := range t.early {
				c.warnf("before the handshake it printed %q", line)
			}
		})
}

// spoke checks what was printed in the whole run.
func (t *tester) spoke() {
	t.check(context.Background(), "nothing came on its standard output later", "print to standard error: a daemon that did not read standard output would block the plugin",
		func(_ context.Context, c *check) {
			for _, line := range t.heard.printed() {
				if !slices.Contains(t.early, line) { // which each process prints again
					c.warnf("it printed %q", line)
				}
			}
		})
}

// describe checks what the plugin says of itself.
func (t *tester) describe(ctx context.Context) {
	t.check(ctx, "it describes itself as its manifest does, every argument documented", "",
		func(ctx context.Context, c *check) {
			ctx, cancel := context.WithTimeout(ctx, askWithin)
			defer cancel()
			d, err := t.rpc().Describe(ctx, contract.Newer(&protov1.DescribeRequest{}))
			if err != nil {
				c.failf("Describe: %v", text(err))
				return
			}
			m := t.entry.Manifest
			if kind := wire.KindName(d.GetKind()); kind != string(m.Kind) || d.GetName() != m.Name {
				c.failf("it says that it is %s %q, its manifest says %s %q", kind, d.GetName(), m.Kind, m.Name)
			}
			var wrong []string
			t.schema, wrong = contract.Description(d)
			c.failAll(wrong)
			t.report.Version = d.GetVersion()
		})
}

// schemaBroken tells whether the last check failed.
func (t *tester) schemaBroken() bool {
	return t.report.Results[len(t.report.Results)-1].Status == Fail && len(t.schema.Attributes)+len(t.schema.Blocks) == 0
}

// unconfigured makes the checks of a process that has no configuration yet.
func (t *tester) unconfigured(ctx context.Context) {
	t.check(ctx, "it finds its configuration valid", "the configuration follows the schema: let Validate take it, or make the schema stricter",
		func(ctx context.Context, c *check) {
			if err := t.alive(ctx, false); err != nil {
				c.failf("%v", err)
				return
			}
			t.whileHealthy(ctx, c, func(ctx context.Context) {
				for range 2 {
					ds, err := t.validate(ctx, t.config)
					if err != nil {
						c.failf("Validate: %v", text(err))
						return
					}
					c.failAll(contract.Diagnostics(t.schema, ds))
					if err := ds.Err(); err != nil {
						c.failf("it refuses: %v", err)
					}
				}
			})
		})
	t.check(ctx, "it refuses what is no configuration, and lives on", "parse the configuration as a JSON object, and answer a diagnostic of severity error when it is none",
		func(ctx context.Context, c *check) {
			for _, name := range slices.Sorted(maps.Keys(contract.Garbage())) {
				if err := t.alive(ctx, false); err != nil {
					c.failf("%v", err)
					return
				}
				ds, err := t.validate(ctx, contract.Garbage()[name])
				if died, how := t.died(err); died {
					c.failf("%s ends the process: %s", name, how)
				} else if status.Code(err) == codes.DeadlineExceeded {
					c.failf("%s leaves it without an answer", name)
				} else if err == nil && !ds.HasErrors() {
					c.failf("Validate has nothing against %s", name)
				}
			}
		})
	t.check(ctx, "it lives on after values of a wrong type", "the daemon checks types first, but a plugin that ends on one is a plugin that others can end: answer a diagnostic",
		func(ctx context.Context, c *check) {
			wrong := contract.WrongTypes(t.schema, t.config)
			for _, name := range slices.Sorted(maps.Keys(wrong)) {
				if err := t.alive(ctx, false); err != nil {
					c.failf("%v", err)
					return
				}
				_, err := t.validate(ctx, wrong[name])
				if died, how := t.died(err); died {
					c.failf("%s ends the process: %s", name, how)
				} else if status.Code(err) == codes.DeadlineExceeded {
					c.failf("%s leaves it without an answer", name)
				}
			}
			c.notef("%d wrong values", len(wrong))
		})
	t.check(ctx, "no stream opens before it is configured", "answer FAILED_PRECONDITION until Configure was taken",
		func(ctx context.Context, c *check) {
			if err := t.alive(ctx, false); err != nil {
				c.failf("%v", err)
				return
			}
			s, err := t.open(ctx)
			if err != nil {
				return
			}
			defer s.close()
			switch err := s.ended(ctx, 2*time.Second); {
			case err == nil:
				c.failf("the stream stays open")
			case status.Code(err) == codes.Unavailable:
				_, how := t.died(err)
				c.failf("it ends the process: %s", how)
			case status.Code(err) != codes.FailedPrecondition:
				c.warnf("it is refused with %s, not with FailedPrecondition: %v", status.Code(err), text(err))
			}
		})
}

// configure configures a process, and then once more.
func (t *tester) configure(ctx context.Context) bool {
	s := t.check(ctx, "it is configured, and answers Health meanwhile", "Configure must not wait for a runtime, and not hold up Health",
		func(ctx context.Context, c *check) {
			if err := t.fresh(ctx); err != nil {
				c.failf("%v", err)
				return
			}
			t.whileHealthy(ctx, c, func(ctx context.Context) {
				if err := t.takeConfig(ctx); err != nil {
					c.failf("Configure: %v", err)
				}
			})
		})
	if s == Fail {
		return false
	}
	t.check(ctx, "it is configured only once", "answer a second Configure with FAILED_PRECONDITION: the daemon starts another process for another configuration",
		func(ctx context.Context, c *check) {
			if err := t.alive(ctx, true); err != nil {
				c.failf("%v", err)
				return
			}
			if err := t.takeConfig(ctx); err == nil {
				c.failf("it took a second configuration")
			} else if died, how := t.died(err); died {
				c.failf("a second configuration ends the process: %s", how)
			}
		})
	return true
}

// takeConfig makes the plugin take the configuration.
func (t *tester) takeConfig(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	req := t.probe.Configuration(t.config)
	req.Features = []string{"a-feature-of-a-later-edition"}
	r, err := t.rpc().Configure(ctx, contract.Newer(req))
	if err != nil {
		return text(err)
	}
	if err := wire.DiagnosticsFromProto(r.GetDiagnostics()).Err(); err != nil {
		return err
	}
	if n := r.GetReportIntervalNano(); n < 0 {
		return fmt.Errorf("it asks for a report every %d ns", n)
	}
	t.configured = true
	return nil
}

func (t *tester) validate(ctx context.Context, config []byte) (diag.Diagnostics, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	r, err := t.rpc().Validate(ctx, contract.Newer(&protov1.ValidateRequest{Config: config}))
	if err != nil {
		return nil, err
	}
	return wire.DiagnosticsFromProto(r.GetDiagnostics()), nil
}

// whileHealthy runs do and asks for the plugin's health all the while, and at least
// a few times.
func (t *tester) whileHealthy(ctx context.Context, c *check, do func(ctx context.Context)) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	rpc := t.rpc()
	wg.Go(func() {
		missed, inRow := 0, 0
		var slowest time.Duration
		for i := 0; ; i++ {
			began := time.Now()
			asking, cancel := context.WithTimeout(ctx, healthWithin)
			_, err := rpc.Health(asking, contract.Newer(&protov1.HealthRequest{}))
			cancel()
			slowest = max(slowest, time.Since(began))
			switch {
			case status.Code(err) == codes.DeadlineExceeded:
				missed++
				if inRow++; inRow == healthMisses {
					c.failf("Health did not answer within %s, %d times in a row: the daemon would take it for frozen", healthWithin, healthMisses)
				}
			case err != nil:
				if ctx.Err() == nil {
					c.failf("Health: %v", text(err))
				}
				return
			default:
				inRow = 0
			}
			select {
			case <-over:
				if i >= 3 {
					if missed > 0 && inRow < healthMisses {
						c.warnf("Health did not answer within %s, %d times of %d", healthWithin, missed, i+1)
					}
					c.notef("Health answered within %s", slowest.Round(100*time.Microsecond))
					return
				}
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	do(ctx)
	close(over)
	wg.Wait()
}

// text is an RPC's error without gRPC's own words around the plugin's.
func text(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	if s.Code() == codes.DeadlineExceeded {
		return fmt.Errorf("it did not answer in time: %w", context.DeadlineExceeded)
	}
	return fmt.Errorf("%s (%s)", strings.TrimSpace(s.Message()), s.Code())
}

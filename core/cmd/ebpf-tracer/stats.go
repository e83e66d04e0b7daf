package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newStats() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show the ledger and the daemon's other numbers",
		Long: `Show what became of every event since the daemon started, and the daemon's other
numbers. Each line of the balance closes when the daemon has stopped; while it runs,
it may be open by what is in flight at this moment. ESTIMATE is what the weights of
the released events say that there was, with its 95 % interval: hold it against
SEEN, which is exact, less FILTERED. OFF BY is the difference.`,
		Example: `  ebpf-tracer get stats
  ebpf-tracer get stats -o json | jq .load
  ebpf-tracer get stats -o json | jq '.kernel[] | select(.lost > 0)'`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				s, err := c.GetStats(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					return writeJSON(cmd.OutOrStdout(), plain(s, true))
				}
				return showStats(cmd.OutOrStdout(), s.Stats, time.Now())
			})
		}),
	}
	a.flags(cmd, "table", "json")
	return cmd
}

// showStats writes the stats section by section.
func showStats(out io.Writer, s *protov1.Stats, now time.Time) error {
	d := s.GetDaemon()
	if _, err := fmt.Fprintf(out, "node %s, pid %d, up %s, cpu %s, rss %s\n\n", clean(s.GetNode()), d.GetPid(),
		cmp.Or(since(s.GetStartedUnixNano(), now), "-"), seconds(d.GetCpuSeconds()), size(d.GetMemoryBytes())); err != nil {
		return err
	}
	for _, section := range []func(io.Writer, *protov1.Stats, time.Time) error{
		showLedger, showLoad, showBalance, showExporters, showAttribution, showPolicy, showProbes, showQueues,
	} {
		if err := section(out, s, now); err != nil {
			return err
		}
	}
	return nil
}

func showLedger(out io.Writer, s *protov1.Stats, _ time.Time) error {
	t := newTable(out, "KIND", "PRIORITY", "GROUP", "SEEN", "KEPT", "SAMPLED OUT", "FILTERED", "LOST", "BYTES", "PROBABILITY", "ESTIMATE", "OFF BY")
	sum := &protov1.LedgerRow{}
	for _, r := range slices.Concat(s.GetKernel(), s.GetUser()) {
		estimate, off := estimated(r)
		t.row(r.GetKind(), r.GetPriority(), r.GetGroup(), count(r.GetSeen()), count(r.GetKept()), count(r.GetSampledOut()),
			count(r.GetFiltered()), count(r.GetLost()), size(r.GetBytes()), strconv.FormatFloat(r.GetProbability(), 'g', 4, 64), estimate, off)
		sum.Seen += r.GetSeen()
		sum.Kept += r.GetKept()
		sum.SampledOut += r.GetSampledOut()
		sum.Filtered += r.GetFiltered()
		sum.Lost += r.GetLost()
		sum.Bytes += r.GetBytes()
	}
	t.row("all", "", "", count(sum.Seen), count(sum.Kept), count(sum.SampledOut), count(sum.Filtered), count(sum.Lost), size(sum.Bytes), "", "", "")
	return t.flush()
}

// term is a part of an equation.
type term struct {
	name string
	n    uint64
}

// equation writes left = right and by how much it is open.
func equation(left, right []term) string {
	write := func(terms []term) (string, uint64) {
		parts := make([]string, len(terms))
		var sum uint64
		for i, t := range terms {
			parts[i] = fmt.Sprintf("%s %d", t.name, t.n)
			sum += t.n
		}
		return strings.Join(parts, " + "), sum
	}
	l, leftSum := write(left)
	r, rightSum := write(right)
	switch open := int64(leftSum - rightSum); {
	case open > 0:
		return fmt.Sprintf("%s = %s (%d in flight)", l, r, open)
	case open < 0:
		return fmt.Sprintf("%s = %s (OPEN by %d: please report this)", l, r, -open)
	}
	return fmt.Sprintf("%s = %s (closes)", l, r)
}

func showBalance(out io.Writer, s *protov1.Stats, _ time.Time) error {
	var seen, kept, sampledOut, filtered, lost uint64
	for _, r := range slices.Concat(s.GetKernel(), s.GetUser()) {
		seen += r.GetSeen()
		kept += r.GetKept()
		sampledOut += r.GetSampledOut()
		filtered += r.GetFiltered()
		lost += r.GetLost()
	}
	p := s.GetPipeline()
	went := []term{{"decoded", p.GetDecoded()}, {"injected", p.GetInjected()}, {"malformed", p.GetMalformed()}, {"in ring", p.GetInRing()}}
	if len(s.GetUser()) > 0 {
		var programs uint64
		for _, r := range s.GetUser() {
			programs += r.GetKept()
		}
		went = append(went, term{"by programs", programs})
	}
	lines := []string{
		equation([]term{{"seen", seen}}, []term{{"kept", kept}, {"sampled out", sampledOut}, {"filtered", filtered}, {"lost", lost}}),
		equation([]term{{"kept", kept}}, went),
		equation([]term{{"decoded", p.GetDecoded()}, {"injected", p.GetInjected()}}, []term{{"released", p.GetReleased()}, {"held", p.GetHeld()}}),
	}
	for _, x := range s.GetExporters() {
		lines = append(lines, clean(x.GetName())+": "+equation([]term{{"released", x.GetReleased()}}, []term{
			{"exported", x.GetExported()}, {"queue dropped", x.GetQueueDropped()}, {"failed", x.GetFailed()},
			{"scoped out", x.GetScopedOut()}, {"queued", x.GetQueued()}}))
	}
	lines = append(lines, fmt.Sprintf("runs that the kernel skipped: %d", p.GetSkippedRuns()))
	for _, fault := range slices.Sorted(maps.Keys(s.GetFaults())) {
		if n := s.GetFaults()[fault]; n > 0 {
			lines = append(lines, fmt.Sprintf("faults in the kernel's programs: %s %d", clean(fault), n))
		}
	}
	return block(out, "balance", lines)
}

func showExporters(out io.Writer, s *protov1.Stats, _ time.Time) error {
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	t := newTable(out, "EXPORTER", "RELEASED", "EXPORTED", "DROPPED", "FAILED", "SCOPED OUT", "QUEUED", "BYTES", "LAST ERROR")
	for _, x := range s.GetExporters() {
		t.row(x.GetName(), count(x.GetReleased()), count(x.GetExported()), count(x.GetQueueDropped()), count(x.GetFailed()),
			count(x.GetScopedOut()), count(x.GetQueued()), size(x.GetBytes()), x.GetLastError())
	}
	return t.flush()
}

func showAttribution(out io.Writer, s *protov1.Stats, _ time.Time) error {
	a := s.GetAttribution()
	all := a.GetHost() + a.GetContainer() + a.GetPending()
	share := func(n uint64) string {
		if all == 0 {
			return "0"
		}
		return fmt.Sprintf("%d (%.2f %%)", n, 100*float64(n)/float64(all))
	}
	d := s.GetDiscovered()
	return block(out, "attribution", []string{
		"by " + clean(a.GetKey()),
		fmt.Sprintf("container %s, host %s, pending %s", share(a.GetContainer()), share(a.GetHost()), share(a.GetPending())),
		fmt.Sprintf("by the pid namespace, the cgroup being the host's: %d", a.GetByPidNamespace()),
		fmt.Sprintf("held %d, in vain %d, no room %d, corrected later %d", a.GetHeldTotal(), a.GetHeldExpired(), a.GetHeldOverflow(), a.GetCorrected()),
		fmt.Sprintf("delay of those held: p50 %s, p99 %s", seconds(a.GetDelayP50Seconds()), seconds(a.GetDelayP99Seconds())),
		fmt.Sprintf("first execs of containers %d, %s", a.GetFirstExecs(), named(a)),
		fmt.Sprintf("containers %d, pods %d, services %d, namespaces %d, cgroups %d", a.GetContainers(), d.GetPods(), d.GetServices(), d.GetNamespaces(), a.GetCgroups()),
	})
}

// named is how many first execs could be told whose they are.
func named(a *protov1.Attribution) string {
	if a.GetFirstExecs() == 0 {
		return "named 0"
	}
	return fmt.Sprintf("named %d (%.2f %%)", a.GetFirstExecsNamed(), 100*float64(a.GetFirstExecsNamed())/float64(a.GetFirstExecs()))
}

func showPolicy(out io.Writer, s *protov1.Stats, now time.Time) error {
	p := s.GetPolicy()
	line := fmt.Sprintf("generation %d of %s", p.GetGeneration(), clean(p.GetSource()))
	if at := p.GetExpiresUnixNano(); at != 0 {
		line += ", for " + time.Unix(0, at).Sub(now).Round(100*time.Millisecond).String()
	}
	lines := []string{line, fmt.Sprintf("put into force %d, refused %d", p.GetSwaps(), p.GetRefused())}
	if p.GetReason() != "" {
		lines = append(lines, "reason: "+clean(p.GetReason()))
	}
	return block(out, "policy", lines)
}

func showProbes(out io.Writer, s *protov1.Stats, _ time.Time) error {
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	t := newTable(out, "PROBE", "STATE", "PROGRAMS", "REASON")
	for _, p := range s.GetProbes() {
		t.row(p.GetName(), p.GetState(), count(len(p.GetPrograms())), p.GetReason())
	}
	return t.flush()
}

func showQueues(out io.Writer, s *protov1.Stats, _ time.Time) error {
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	t := newTable(out, "QUEUE", "DEPTH", "CAPACITY")
	for _, q := range s.GetQueues() {
		t.row(q.GetQueue(), count(q.GetDepth()), count(q.GetCapacity()))
	}
	return t.flush()
}

// block writes a title and lines below it.
func block(out io.Writer, title string, lines []string) error {
	_, err := fmt.Fprintf(out, "\n%s\n  %s\n", title, strings.Join(lines, "\n  "))
	return err
}

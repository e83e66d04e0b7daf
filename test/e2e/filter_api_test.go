package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// processes are traced alone: whoever builds something on this machine opens thousands of
// files meanwhile.
const processes = "probe \"process\" {}\n"

// shownFilter is a line of get filters -o json.
type shownFilter struct {
	Source string
	Filter struct {
		Name, Action string
		Comm         []string
	}
	Events int64
	Until  int64 `json:"until_unix_nano"`
}

func filtersOf(t *testing.T, tr *harness.Tracer, source string) (found []shownFilter) {
	t.Helper()
	for _, f := range askJSON[[]shownFilter](t, tr, "get", "filters") {
		if f.Source == source {
			found = append(found, f)
		}
	}
	return found
}

// filteredNow is what the daemon has filtered so far, of some kinds. Its own events are
// among them, which no filter has counted: those of files while it runs, of processes only
// while it starts plugins.
func filteredNow(tr *harness.Tracer, kinds ...string) (sum int64) {
	for _, r := range tr.Stats().GetKernel() {
		if slices.Contains(kinds, r.GetKind()) {
			sum += int64(r.GetFiltered())
		}
	}
	return sum
}

// sequences are the numbers of the load's execs that were kept, in order.
func sequences(t *testing.T, tr *harness.Tracer, tag string) (out []int) {
	t.Helper()
	for _, e := range harness.Select(tr.Events(), "process.exec", having(tag)) {
		for _, a := range e.Process.Args {
			if digits, ok := strings.CutPrefix(a, tag); ok && digits != "" { // else it is the load's own
				n, err := strconv.Atoi(digits)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}

func TestAFilterThatIsAddedDuringALoadEndsWithItsTime(t *testing.T) {
	const execs, rate = 7000, 1000 // in a second
	const ttl = 2 * time.Second
	programs := load.Build(t)
	tr := harness.Start(t, processes)
	mine := tag()
	own, ownExits := filteredNow(tr, "process.exec"), filteredNow(tr, "process.exit")
	type result struct {
		counts load.ExecCounts
		err    error
	}
	done := make(chan result, 1)
	go func() {
		c, err := programs.RunExec(t.Context(), "-n", fmt.Sprint(execs), "-r", fmt.Sprint(rate), "-a", mine, programs.Noop)
		done <- result{c, err}
	}()
	tr.UntilCount(500, "process.exec", having(mine))
	added := time.Now()
	if out := tr.Ask("filter", "add", "quiet", "--comm", "noop", "--ttl", ttl.String()); !strings.Contains(out, `filter "quiet" is added: drop comm noop, for 2s, until `) {
		t.Errorf("it says %q", out)
	}
	counted := int64(0)
	for {
		there := filtersOf(t, tr, "api")
		if len(there) == 0 {
			break
		}
		if f := there[0]; len(there) != 1 || f.Filter.Name != "quiet" || f.Filter.Action != "drop" || !slices.Equal(f.Filter.Comm, []string{"noop"}) ||
			f.Until < added.UnixNano() || f.Events < counted {
			t.Fatalf("in force are %+v", there)
		}
		counted = there[0].Events
		if time.Since(added) > ttl+harness.Patience {
			t.Fatal("the filter does not end")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if passed := time.Since(added); passed < ttl {
		t.Errorf("the filter ended after %v", passed)
	}
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	filtered, exits := filteredNow(tr, "process.exec")-own, filteredNow(tr, "process.exit")-ownExits
	ledger := tr.Stop()

	// What is missing of the load is one stretch of it, and is what was filtered.
	kept := sequences(t, tr, mine)
	missing := r.counts.Execs - int64(len(kept))
	gaps := 0
	for i := 1; i < len(kept); i++ {
		if kept[i] != kept[i-1]+1 {
			gaps++
		}
	}
	t.Logf("of %d execs %d were kept; %d of them and %d exits were filtered, of which %d were told of before the end", r.counts.Execs, len(kept), filtered, exits, counted)
	if gaps != 1 || kept[0] != 0 || kept[len(kept)-1] != execs-1 {
		t.Errorf("%d stretches of the load are missing; kept are %d to %d of %d", gaps, kept[0], kept[len(kept)-1], execs)
	}
	if missing < rate || missing > 3*rate+rate/2 {
		t.Errorf("%d execs are missing, of %v at %d a second", missing, ttl, rate)
	}
	if filtered != missing {
		t.Errorf("%d execs were filtered, and %d of the load are missing", filtered, missing)
	}
	checkLedger(t, ledger, true, map[string]int64{"process.exec": r.counts.Execs, "process.exit": r.counts.Exits})
	if sum := ledger.Sum(); sum.SampledOut > 0 {
		t.Errorf("%d were sampled out", sum.SampledOut)
	}
	if all := filtered + exits; counted > all || counted < all/2 {
		t.Errorf("the filter counted %d, of %d in the end", counted, all)
	}
}

var removedAfter = regexp.MustCompile(`^filter "noop" is removed, after (\d+) events\n$`)

func TestAFilterIsInForceFromTheCallThatAddsItToTheOneThatRemovesIt(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, processes)
	for round, with := range [][]string{{"--comm", "noop"}, {"--comm", "noop,nobody", "--kind", "process.exec,process.exit"}, {"--comm", "noop", "--uid", "0"}} {
		mine := tag()
		run := func() load.ExecCounts {
			t.Helper()
			did, err := programs.RunExec(t.Context(), "-n", "300", "-a", mine, programs.Noop)
			if err != nil {
				t.Fatal(err)
			}
			return did
		}
		before := filteredNow(tr, "process.exec", "process.exit")
		tr.Ask(append([]string{"filter", "add", "noop"}, with...)...)
		did := run()
		out := tr.Ask("filter", "remove", "noop")
		m := removedAfter.FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("it says %q", out)
		}
		events, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if want := did.Execs + did.Exits; events != want {
			t.Errorf("round %d: the filter has counted %d, the load made %d", round, events, want)
		}
		if more := filteredNow(tr, "process.exec", "process.exit") - before; more != events {
			t.Errorf("round %d: the ledger has filtered %d more, the filter %d", round, more, events)
		}
		run()
		tr.UntilCount(300, "process.exec", having(mine+"0")) // not the load itself
		if kept := sequences(t, tr, mine); len(kept) != 300 {
			t.Errorf("round %d: %d execs are kept, want those of after it, 300", round, len(kept))
		}
	}
	tr.Stop()
}

func TestTheFileHasTheLastWordAboutWhatIsAdded(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, processes+`filter "mine" {
  action = "keep"
  comm   = ["noop"]
}
`)
	mine := tag()
	tr.Ask("filter", "add", "quiet", "--comm", "noop")
	if _, err := programs.RunExec(t.Context(), "-n", "300", "-a", mine, programs.Noop); err != nil {
		t.Fatal(err)
	}
	tr.UntilCount(300, "process.exec", having(mine+"0")) // not the load itself
	for command, has := range map[string]string{
		"filter remove mine":                     "of the configuration",
		"filter remove nothing":                  "get filters",
		"filter add a --comm sixteen-bytes-no":   "comm[0]: Malformed name",
		"filter add a --port 70000":              "port[0]: Value not allowed",
		"filter add a --comm a --ttl 1000h":      "ttl:",
		"filter add a --kind container.died":     "kinds[0]: Value not allowed",
		"filter add a --error ENOPE":             "error[0]: Unknown error",
		"filter add a! --comm a":                 "name: Malformed name",
		"filter add a --comm a --container web[": "container[0]: Malformed pattern",
	} {
		cmd := tr.Command(strings.Fields(command)...)
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), has) {
			t.Errorf("%s: %v: %s", command, err, out)
		}
	}
	// A filter that is not quick is one of 32, the file's among them.
	for i := range 31 {
		tr.Ask("filter", "add", fmt.Sprintf("two-%d", i), "--comm", "nobody,nothing")
	}
	cmd := tr.Command("filter", "add", "one-more", "--comm", "nobody,nothing")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "no room for more filters: 33") {
		t.Errorf("%v: %s", err, out)
	}
	if n := len(filtersOf(t, tr, "api")); n != 32 {
		t.Errorf("%d filters are listed", n)
	}
	tr.Stop()
}

func TestThousandsOfFiltersByOneValueFilterNothingElse(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, everything)
	const n = 4000
	var many []*protov1.Filter
	for i := range n {
		f := &protov1.Filter{Name: fmt.Sprintf("f%d", i)}
		switch i % 4 {
		case 0:
			f.Comm = []string{fmt.Sprintf("nobody-%d", i)}
		case 1:
			f.Peer = []string{fmt.Sprintf("198.18.%d.%d", i>>8, i&255)}
		case 2:
			f.Peer = []string{fmt.Sprintf("2001:db8:%x::/48", i)}
		default:
			f.Uid = []uint32{uint32(4_000_000_000 + i)}
		}
		many = append(many, f)
	}
	began := time.Now()
	if _, err := tr.API().AddFilters(t.Context(), &protov1.AddFiltersRequest{Filters: many}); err != nil {
		t.Fatal(err)
	}
	all := time.Since(began)
	began = time.Now()
	tr.Ask("filter", "add", "one-more", "--comm", "nobody")
	t.Logf("%d filters were added in %v, and one more in %v", n, all, time.Since(began))
	if got := len(filtersOf(t, tr, "api")); got != n+1 {
		t.Fatalf("%d are listed", got)
	}

	kinds := []string{"process.exec", "process.exit", "network.connect", "network.accept", "network.close"}
	before := filteredNow(tr, kinds...)
	did, err := programs.RunExec(t.Context(), "-n", "1000", programs.Noop)
	if err != nil {
		t.Fatal(err)
	}
	connections, err := programs.RunTCP(t.Context(), "pairs", "-n", "300")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	opens, err := programs.RunOpen(t.Context(), "-n", "1000", "-f", "50", file)
	if err != nil {
		t.Fatal(err)
	}
	if f := filteredNow(tr, kinds...) - before; f != 0 {
		t.Errorf("%d events were filtered", f)
	}
	for _, f := range filtersOf(t, tr, "api") {
		if f.Events > 0 {
			t.Errorf("filter %s has filtered %d", f.Filter.Name, f.Events)
		}
	}
	// One of a process that there is filters that alone.
	began = time.Now()
	tr.Ask("filter", "add", "real", "--comm", "openload")
	if _, err := programs.RunOpen(t.Context(), "-n", "1000", "-f", "50", file); err != nil {
		t.Fatal(err)
	}
	tr.Ask("filter", "remove", "f0")
	tr.Ask("filter", "remove", "real")
	t.Logf("three more changes took %v", time.Since(began))
	if got := len(filtersOf(t, tr, "api")); got != n {
		t.Errorf("%d are listed in the end", got)
	}
	ledger := tr.Stop()
	kept := map[string]int64{}
	for _, e := range tr.Events() {
		switch name := e.Process.Comm; {
		case name == "noop", name == "tcpload", e.Kind == "file.open" && strings.HasPrefix(e.File.Path, file):
			kept[e.Kind]++
		}
	}
	for kind, least := range map[string]int64{
		"process.exec": did.Execs, "process.exit": did.Exits, "file.open": opens.Opens,
		"network.connect": connections.Connects, "network.accept": connections.Accepts, "network.close": connections.Closes,
	} {
		if kept[kind] < least {
			t.Errorf("%s: %d are kept, of %d", kind, kept[kind], least)
		}
	}
	if kept["file.open"] != opens.Opens+1 { // by which the test made the file
		t.Errorf("%d opens are kept of twice %d, of which the second half was to be filtered", kept["file.open"], opens.Opens)
	}
	if f := ledger.Kind("file.open").Filtered; f < opens.Opens {
		t.Errorf("%d opens were filtered, of %d", f, opens.Opens)
	}
	if f := ledger.Kind("network.connect").Filtered; f != 0 {
		t.Errorf("%d connects were filtered", f)
	}
}

func TestMetricsAndOtherUsersOfFilters(t *testing.T) {
	programs := load.Build(t)
	address := freeAddress(t)
	tr := harness.Start(t, processes+fmt.Sprintf("filter \"mine\" { comm = [\"noop\"] }\nexporter \"prometheus\" { listen = %q }\n", address))
	tr.Ask("filter", "add", "added", "--comm", "openload")
	did, err := programs.RunExec(t.Context(), "-n", "200", programs.Noop)
	if err != nil {
		t.Fatal(err)
	}
	family := scrapeFamilies(t, address)["ebpf_tracer_filter_events_total"]
	got := map[string]float64{}
	for _, m := range family.GetMetric() {
		key := ""
		for _, l := range m.GetLabel() {
			key += l.GetName() + "=" + l.GetValue() + " "
		}
		got[key] = m.GetCounter().GetValue()
	}
	if want := float64(did.Execs + did.Exits); len(got) != 2 || got["source=config name=mine "] != want {
		t.Errorf("the metrics are %v, want %v of the file's", got, want)
	}
	// Another user has no say, even if somebody opens the socket.
	for _, at := range []struct {
		path string
		mode os.FileMode
	}{{tr.Dir, 0o755}, {tr.Socket, 0o666}} {
		if err := os.Chmod(at.path, at.mode); err != nil {
			t.Fatal(err)
		}
	}
	if nobody, err := exec.LookPath("setpriv"); err == nil {
		cmd := tr.Command("filter", "add", "theirs", "--comm", "sh")
		other := exec.CommandContext(t.Context(), nobody, append([]string{"--reuid=65534", "--clear-groups", cmd.Path}, cmd.Args[1:]...)...)
		if out, err := other.CombinedOutput(); err == nil || !strings.Contains(string(out), "may not ask the daemon: run as root") && !strings.Contains(string(out), "ermission") {
			t.Errorf("%v: %s", err, out)
		}
	}
	if n := len(filtersOf(t, tr, "api")); n != 1 {
		t.Errorf("%d filters of callers are in force", n)
	}
	tr.Stop()
}

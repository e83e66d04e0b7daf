package daemon

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// askedRules makes rules of filters that callers or samplers ask for. An error wraps a
// *diag.Refusal, and names the filter and its field.
func askedRules(filters []*protov1.Filter, until time.Time) ([]filter.Rule, error) {
	out := make([]filter.Rule, 0, len(filters))
	names := make(map[string]bool, len(filters))
	for _, f := range filters {
		r, ds := askedRule(f)
		if names[f.GetName()] {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("name")}, "Name used twice", "Two filters are named %q.", f.GetName()))
		}
		names[f.GetName()] = true
		if err := ds.Err(); err != nil {
			return nil, fmt.Errorf("filter %.80q: %w", f.GetName(), err)
		}
		r.Until = until
		out = append(out, r)
	}
	return out, nil
}

// askedRule makes a rule of a filter, with what is wrong with it.
func askedRule(f *protov1.Filter) (filter.Rule, diag.Diagnostics) {
	c := config.Filter{Name: f.GetName(), Action: f.GetAction(), Selector: config.Selector{
		Kinds: f.GetKinds(), Comm: f.GetComm(), PID: f.GetPid(), UID: f.GetUid(), Container: f.GetContainer(), Image: f.GetImage(),
		Namespace: f.GetNamespace(), Label: f.GetLabel(), Cgroup: f.GetCgroup(), Peer: f.GetPeer(), Error: f.GetError(), Syscall: f.GetSyscall(),
	}}
	var ds diag.Diagnostics
	for i, p := range f.GetPort() {
		if p > 65535 {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("port"), diag.Index(i)}, "Value not allowed", "%d is not allowed: it wants at most 65535.", p))
			break
		}
		c.Port = append(c.Port, uint16(p))
	}
	if ds = append(ds, config.CheckRule(c)...); ds.HasErrors() {
		return filter.Rule{}, ds
	}
	r := ruleOf(c.Name, c.Selector)
	switch c.Action {
	case "", "drop":
		r.Action = kernel.Drop
	case "keep":
		r.Action = kernel.Keep
	case "only":
		r.Action = kernel.Only
	default:
		r.Action = kernel.Rank
		r.Priority, _ = event.ParsePriority(c.Action)
	}
	return r, nil
}

// filterForSampler puts the filters of a sampler's policy into force.
func (d *daemon) filterForSampler(filters []*protov1.Filter) error {
	named := make([]*protov1.Filter, len(filters))
	for i, f := range filters {
		if named[i] = f; f.GetName() == "" {
			named[i] = proto.CloneOf(f)
			named[i].Name = strconv.Itoa(i)
		}
	}
	rules, err := askedRules(named, time.Time{})
	if err != nil {
		return err
	}
	return d.filters.Set(filter.Sampler, rules)
}

// Filters in force.
func (s source) Filters() ([]*protov1.FilterView, error) {
	all, err := s.filters.List()
	if err != nil {
		return nil, err
	}
	out := make([]*protov1.FilterView, len(all))
	for i := range all {
		out[i] = filterView(&all[i])
	}
	return out, nil
}

// AddFilters adds those of a caller.
func (s source) AddFilters(filters []*protov1.Filter, ttl time.Duration) (*protov1.AddFiltersResponse, error) {
	out := &protov1.AddFiltersResponse{}
	if len(filters) == 0 {
		return out, nil
	}
	var until time.Time
	if ttl > 0 {
		until = time.Now().Add(ttl)
		out.UntilUnixNano = until.UnixNano()
	}
	rules, err := askedRules(filters, until)
	if err != nil {
		return nil, err
	}
	if out.Replaced, err = s.filters.Put(filter.API, rules...); err != nil {
		return nil, err
	}
	s.log.Info("filters were added", "filters", len(rules), "first", rules[0].Name, "ttl", ttl)
	const told = 8 // of many, those of the first
	for i := range rules {
		for _, text := range s.unseenNow(&rules[i]) {
			if len(rules) > 1 {
				text = fmt.Sprintf("filter %q: %s", rules[i].Name, text)
			}
			if len(out.Unseen) < told {
				out.Unseen = append(out.Unseen, text)
			}
		}
	}
	return out, nil
}

// RemoveFilter takes out one of a caller.
func (s source) RemoveFilter(name string) (*protov1.RemoveFilterResponse, error) {
	n, found, err := s.filters.Remove(filter.API, name)
	if err != nil {
		return nil, err
	}
	out := &protov1.RemoveFilterResponse{Found: found, Events: n}
	if found {
		s.log.Info("a filter was removed", "filter", name, "events", n)
		return out, nil
	}
	for _, other := range []filter.Source{filter.Config, filter.Sampler} {
		if s.filters.Has(other, name) {
			out.Source = other.String()
			break
		}
	}
	return out, nil
}

// unseenNow says what a rule can't know, of what is traced now.
func (s source) unseenNow(r *filter.Rule) []string {
	var traced config.Probes
	for _, p := range s.kernel.Probes() {
		switch p.Name {
		case "process":
			traced.Process = &config.ProcessProbe{}
		case "network":
			traced.Network = &config.NetworkProbe{}
		case "file":
			traced.File = &config.FileProbe{}
		}
	}
	return planRule(config.Config{Probes: traced}, r.Name, "", *r).Unseen
}

func actionOf(r *filter.Rule) string {
	switch r.Action {
	case kernel.Keep:
		return "keep"
	case kernel.Only:
		return "only"
	case kernel.Rank:
		return r.Priority.String()
	}
	return "drop"
}

func filterView(f *filter.Status) *protov1.FilterView {
	r := &f.Rule
	out := &protov1.FilterView{Source: f.Source.String(), Events: f.Filtered, Filter: &protov1.Filter{
		Name: r.Name, Action: actionOf(r), Comm: r.Comms, Pid: r.PIDs, Uid: r.UIDs,
		Container: r.Containers, Namespace: r.Namespaces, Image: r.Images, Label: r.Labels, Cgroup: r.Cgroups,
	}}
	for _, k := range r.Kinds {
		out.Filter.Kinds = append(out.Filter.Kinds, k.String())
	}
	for _, p := range r.Peers {
		text := p.String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		out.Filter.Peer = append(out.Filter.Peer, text)
	}
	for _, p := range r.Ports {
		out.Filter.Port = append(out.Filter.Port, uint32(p))
	}
	for _, e := range r.Errors {
		out.Filter.Error = append(out.Filter.Error, unix.ErrnoName(unix.Errno(e)))
	}
	for _, c := range r.Calls {
		out.Filter.Syscall = append(out.Filter.Syscall, callName(c))
	}
	for _, p := range r.Priorities {
		out.Priorities = append(out.Priorities, p.String())
	}
	for _, k := range r.LooksAt() {
		out.LooksAt = append(out.LooksAt, k.String())
	}
	if r.Selects() {
		out.Cgroups = new(uint32(f.Cgroups))
	}
	if !r.Until.IsZero() {
		out.UntilUnixNano = r.Until.UnixNano()
	}
	return out
}

func callName(c kernel.Call) string {
	for _, name := range [...]string{"open", "openat", "openat2", "creat", "connect", "accept", "accept4"} {
		if of, ok := kernel.ParseCall(name); ok && of == c {
			return name
		}
	}
	return strconv.Itoa(int(c))
}

// writeFilterMetrics tells how many events filters have filtered.
func (d *daemon) writeFilterMetrics(w io.Writer, wanted func(name string) bool) error {
	const name = "ebpf_tracer_filter_events_total"
	if d.filters == nil || !wanted(name) {
		return nil
	}
	counts, err := d.filters.Counts()
	if err != nil {
		return err
	}
	return writeCounts(w, name, counts)
}

func writeCounts(w io.Writer, name string, counts []filter.Count) error {
	if len(counts) == 0 {
		return nil
	}
	b := fmt.Appendf(nil, "# HELP %s Events that a filter left out, or gave another priority. Without a name: of all others of the source.\n# TYPE %s counter\n", name, name)
	for _, c := range counts {
		b = fmt.Appendf(b, "%s{source=%q", name, c.Source)
		if c.Name != "" { // letters, digits and what needs no escape
			b = fmt.Appendf(b, ",name=%q", c.Name)
		}
		b = fmt.Appendf(b, "} %d\n", c.Filtered)
	}
	_, err := w.Write(b)
	return err
}

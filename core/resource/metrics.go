package resource

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// family is a metric that each container may have.
type family struct {
	name, kind, help string
	field            Field
	per              float64 // what the figure is divided by
	// needs another figure: without it there is no series, and with it one that is 0
	// where the figure itself is absent. The zero value needs nothing else.
	needs Field
	more  string // a further label, as it is written
}

const (
	counter = "counter"
	gauge   = "gauge"

	second = 1e9 // nanoseconds
	micro  = 1e3
)

// families are named as cAdvisor names them where they mean what its do, and
// ebpf_tracer_container_... where they mean something else.
var families = []family{
	{"container_cpu_usage_seconds_total", counter, "Cumulative CPU time consumed, in seconds.", CPU, second, CPU, `,cpu="total"`},
	{"container_cpu_user_seconds_total", counter, "Cumulative CPU time consumed in user mode, in seconds.", CPUUser, second, CPUUser, ""},
	{"container_cpu_system_seconds_total", counter, "Cumulative CPU time consumed in the kernel, in seconds.", CPUSystem, second, CPUSystem, ""},
	{"container_cpu_cfs_periods_total", counter, "Periods in which the CPU quota was in force.", Periods, 1, Quota, ""},
	{"container_cpu_cfs_throttled_periods_total", counter, "Periods in which the CPU quota was used up.", ThrottledPeriods, 1, Quota, ""},
	{"container_cpu_cfs_throttled_seconds_total", counter, "Time that tasks waited for the next period, of all CPUs together.", ThrottledTime, second, Quota, ""},
	{"container_spec_cpu_quota", gauge, "CPU time in each period, in microseconds.", Quota, micro, Quota, ""},
	{"container_spec_cpu_period", gauge, "Length of a period, in microseconds.", Period, micro, Period, ""},
	{"container_spec_cpu_shares", gauge, "Weight of the container against others, from 2 to 262144.", Shares, 1, Shares, ""},
	{"container_memory_usage_bytes", gauge, "Memory charged to the container, whenever it was used last.", Memory, 1, Memory, ""},
	{"container_memory_working_set_bytes", gauge, "Memory charged to the container without inactive pages of files.", WorkingSet, 1, WorkingSet, ""},
	{"container_memory_max_usage_bytes", gauge, "The most memory that was charged to the container.", MemoryPeak, 1, MemoryPeak, ""},
	{"container_memory_swap", gauge, "Bytes swapped out.", Swap, 1, Swap, ""},
	{"container_spec_memory_limit_bytes", gauge, "The most memory that the container may use; 0: there is no limit.", MemoryLimit, 1, Memory, ""},
	{"container_oom_events_total", counter, "Processes that were killed for want of memory.", OOMKills, 1, OOMKills, ""},
	{"container_threads", gauge, "Threads in the container.", Pids, 1, Pids, ""},
	{"container_threads_max", gauge, "The most threads that there may be; 0: there is no limit.", PidsLimit, 1, Pids, ""},
	{"container_pressure_cpu_waiting_seconds_total", counter, "Time in which some tasks waited for a CPU.", CPUSome, second, CPUSome, ""},
	{"container_pressure_cpu_stalled_seconds_total", counter, "Time in which all tasks waited for a CPU.", CPUFull, second, CPUFull, ""},
	{"container_pressure_memory_waiting_seconds_total", counter, "Time in which some tasks waited for memory.", MemorySome, second, MemorySome, ""},
	{"container_pressure_memory_stalled_seconds_total", counter, "Time in which all tasks waited for memory.", MemoryFull, second, MemoryFull, ""},
	{"container_pressure_io_waiting_seconds_total", counter, "Time in which some tasks waited for a block device.", IOSome, second, IOSome, ""},
	{"container_pressure_io_stalled_seconds_total", counter, "Time in which all tasks waited for a block device.", IOFull, second, IOFull, ""},
	{"ebpf_tracer_container_io_read_bytes_total", counter, "Bytes read from block devices, all of them together.", ReadBytes, 1, ReadBytes, ""},
	{"ebpf_tracer_container_io_written_bytes_total", counter, "Bytes written to block devices, all of them together.", WrittenBytes, 1, WrittenBytes, ""},
	{"ebpf_tracer_container_io_reads_total", counter, "Reads of block devices, all of them together.", Reads, 1, Reads, ""},
	{"ebpf_tracer_container_io_writes_total", counter, "Writes of block devices, all of them together.", Writes, 1, Writes, ""},
	{"ebpf_tracer_container_network_received_bytes_total", counter, "Bytes of IP packets that the container's sockets received, over the loopback too.", ReceivedBytes, 1, ReceivedBytes, ""},
	{"ebpf_tracer_container_network_received_packets_total", counter, "IP packets that the container's sockets received.", ReceivedPackets, 1, ReceivedPackets, ""},
	{"ebpf_tracer_container_network_sent_bytes_total", counter, "Bytes of IP packets that the container's sockets sent, over the loopback too.", SentBytes, 1, SentBytes, ""},
	{"ebpf_tracer_container_network_sent_packets_total", counter, "IP packets that the container's sockets sent.", SentPackets, 1, SentPackets, ""},
}

// row is one container of a scrape.
type row struct {
	labels  string
	usage   Usage
	started int64
	near    [Limits]bool
	share   [Limits]float64
}

// choose decides which containers WriteMetrics tells of: those that used the most CPU.
// One that is told of stays until another uses a quarter more, so that series do not
// come and go.
func (m *Monitor) choose() {
	rank := func(c *container) float64 {
		if c.exported {
			return c.cpuShare * 1.25
		}
		return c.cpuShare
	}
	all := slices.Clone(m.order)
	slices.SortStableFunc(all, func(a, b *container) int { return cmp.Compare(rank(b), rank(a)) })
	for i, c := range all {
		c.exported = i < m.options.Exported
	}
}

// path is what a container is told apart by in metrics: its group, as cAdvisor does.
func (c *container) path() string {
	return cmp.Or(c.main, c.groups.v1[memory], c.groups.v1[cpuacct], c.groups.v1[pids])
}

// WriteMetrics writes the last readings in the text format of Prometheus, with what
// there is to tell about the readings themselves: those metrics that are wanted. It
// reads nothing, and what it writes is bounded by Options.Exported.
func (m *Monitor) WriteMetrics(w io.Writer, wanted func(name string) bool) error {
	rows, stats, unexported, unplaced := m.snapshot()
	overflow := kernel.Traffic{}
	if m.options.Traffic != nil {
		var err error
		if overflow, err = m.options.Traffic.Overflow(); err != nil {
			m.fault("read the traffic without room", err)
		}
	}
	out := &text{w: w, wanted: wanted, b: make([]byte, 0, 2*flushAt)}
	for i := range families {
		out.family(&families[i], rows)
	}
	out.times(rows)
	out.near(rows)
	own := func(name, kind, help string, v float64, labels ...string) {
		out.head(name, kind, help)
		out.line(name, strings.Join(labels, ""), v)
	}
	own("ebpf_tracer_containers_measured", gauge, "Containers whose use of resources is read.", float64(stats.Containers))
	own("ebpf_tracer_containers_not_measured", gauge, "Containers whose use of resources is not read, for there are too many.", float64(stats.Left))
	own("ebpf_tracer_containers_not_exported", gauge, "Containers whose use of resources is read and is not among these metrics, for there are too many.", float64(unexported))
	out.head("ebpf_tracer_container_limit_warnings_total", counter, "How often a container came near to a limit.")
	for l := range Limits {
		out.line("ebpf_tracer_container_limit_warnings_total", `resource="`+l.String()+`"`, float64(stats.Warnings[l]))
	}
	own("ebpf_tracer_resource_readings_total", counter, "Readings of a container's control groups.", float64(stats.Readings))
	own("ebpf_tracer_resource_reading_seconds_total", counter, "Time that readings took.", stats.Reading.Seconds())
	own("ebpf_tracer_resource_readings_gone_total", counter, "Readings that found a container's control groups gone.", float64(stats.Gone))
	own("ebpf_tracer_resource_files_failed_total", counter, "Files of control groups that were there and could not be read.", float64(stats.Failed))
	own("ebpf_tracer_resource_open_files", gauge, "Files of control groups that are kept open.", float64(stats.Open))
	if m.options.Traffic != nil {
		own("ebpf_tracer_network_accounting_faults_total", counter, "How often the traffic of cgroups could not be read.", float64(stats.Faults))
		out.traffic("overflow", "that found no room in the accounting", overflow)
		out.traffic("unplaced", "that was gone before it was known whose it was", unplaced)
	}
	return out.flush()
}

// snapshot copies what there is to tell. Of containers that claim the same group one is
// told of: there can't be two series of the same labels.
func (m *Monitor) snapshot() (rows []row, stats Stats, unexported int, unplaced kernel.Traffic) {
	stats = m.Stats()
	m.mu.Lock()
	defer m.mu.Unlock()
	most := min(len(m.order), m.options.Exported)
	rows = make([]row, 0, most)
	told := make(map[string]struct{}, most)
	for _, c := range m.order {
		w, path := c.handle.Workload(), c.path()
		_, twice := told[path]
		switch {
		case c.usage.time == 0 || w == nil || path == "": // not read yet, or gone
		case !c.exported || twice:
			unexported++
		default:
			told[path] = struct{}{}
			rows = append(rows, row{
				labels: c.label.of(w, path), usage: c.usage, near: c.near, share: c.share,
				started: cmp.Or(c.started, w.Container.GetCreatedUnixNano()),
			})
		}
	}
	return rows, stats, unexported, m.unplaced
}

// text is the text format of Prometheus, version 0.0.4.
type text struct {
	w      io.Writer
	wanted func(string) bool
	skip   bool // the lines of a family that nobody wants
	b      []byte
	err    error
}

const flushAt = 32 << 10

func (t *text) flush() error {
	if t.err == nil && len(t.b) > 0 {
		_, t.err = t.w.Write(t.b)
	}
	t.b = t.b[:0]
	return t.err
}

// head begins a family.
func (t *text) head(name, kind, help string) {
	if t.skip = !t.wanted(name); t.skip {
		return
	}
	t.b = fmt.Appendf(t.b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (t *text) line(name, labels string, v float64) { t.lineOf(name, labels, "", v) }

func (t *text) lineOf(name, labels, more string, v float64) {
	if t.skip {
		return
	}
	if len(t.b) > flushAt {
		_ = t.flush() // the error stays
	}
	t.b = append(t.b, name...)
	if len(labels)+len(more) > 0 {
		t.b = append(t.b, '{')
		t.b = append(t.b, labels...)
		t.b = append(t.b, more...)
		t.b = append(t.b, '}')
	}
	t.b = append(t.b, ' ')
	t.b = strconv.AppendFloat(t.b, v, 'g', -1, 64)
	t.b = append(t.b, '\n')
}

// family writes a metric of the containers that have it.
func (t *text) family(f *family, rows []row) {
	first := true
	for i := range rows {
		u := &rows[i].usage
		if _, ok := u.Get(f.needs); !ok {
			continue
		}
		v, ok := u.Get(f.field)
		if !ok {
			v = 0
		}
		if first {
			t.head(f.name, f.kind, f.help)
			first = false
		}
		t.lineOf(f.name, rows[i].labels, f.more, float64(v)/f.per)
	}
}

// times writes when each container was started, and read.
func (t *text) times(rows []row) {
	const started, read = "container_start_time_seconds", "ebpf_tracer_container_read_timestamp_seconds"
	first := true
	for i := range rows {
		if rows[i].started == 0 {
			continue
		}
		if first {
			t.head(started, gauge, "When the container was started, in seconds since the Unix epoch.")
			first = false
		}
		t.line(started, rows[i].labels, float64(rows[i].started)/second)
	}
	for i := range rows {
		if i == 0 {
			t.head(read, gauge, "When the container's figures were read, in seconds since the Unix epoch.")
		}
		t.line(read, rows[i].labels, float64(rows[i].usage.time)/second)
	}
}

// near writes which containers are near to which limits.
func (t *text) near(rows []row) {
	const name = "ebpf_tracer_container_near_limit_ratio"
	first := true
	for i := range rows {
		for l := range Limits {
			if !rows[i].near[l] {
				continue
			}
			if first {
				t.head(name, gauge, "Share of the limit that the container is near to; absent: it is near to none.")
				first = false
			}
			t.lineOf(name, rows[i].labels, `,resource="`+l.String()+`"`, rows[i].share[l])
		}
	}
}

// traffic writes bytes and packets that no container has.
func (t *text) traffic(name, what string, of kernel.Traffic) {
	for _, x := range []struct {
		unit     string
		in, sent uint64
	}{{"bytes", of.ReceivedBytes, of.SentBytes}, {"packets", of.ReceivedPackets, of.SentPackets}} {
		full := "ebpf_tracer_network_" + name + "_" + x.unit + "_total"
		t.head(full, counter, "Traffic "+what+", in "+x.unit+".")
		t.line(full, `direction="received"`, float64(x.in))
		t.line(full, `direction="sent"`, float64(x.sent))
	}
}

// label is a container's labels as they are written, kept as long as they stay the same.
type label struct {
	workload *inventory.Workload
	path     string
	text     string
}

func (l *label) of(w *inventory.Workload, path string) string {
	if l.text == "" || l.workload != w || l.path != path {
		*l = label{w, path, labels(w, path)}
	}
	return l.text
}

const (
	mostLabel = 128 // bytes of a name
	mostPath  = 384 // and of a path: those of pods in systemd's slices have about 200
)

// labels are those of cAdvisor: of a path, unlike a name, no two may become the same by
// being cut.
func labels(w *inventory.Workload, path string) string {
	var b strings.Builder
	add := func(name, value string, most int) {
		if value == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name)
		b.WriteString(`="`)
		if _, err := escaper.WriteString(&b, cut(value, most)); err != nil {
			return // it can't fail
		}
		b.WriteByte('"')
	}
	id := cut(path, mostPath)
	if id != path {
		h := fnv.New64a()
		_, _ = h.Write([]byte(path)) // it can't fail
		id += fmt.Sprintf("#%016x", h.Sum64())
	}
	add("container", w.Container.GetKubernetesName(), mostLabel)
	add("id", id, mostPath+32)
	add("image", imageName(w.Container.GetImage()), 2*mostLabel)
	add("name", w.Container.GetName(), mostLabel)
	add("namespace", w.Pod.GetNamespace(), mostLabel)
	add("pod", w.Pod.GetName(), mostLabel)
	return b.String()
}

var escaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// imageName is an image as a user would write it.
func imageName(i *protov1.Image) string {
	switch name := i.GetName(); {
	case name == "":
		return i.GetId()
	case i.GetTag() != "":
		return name + ":" + i.GetTag()
	case i.GetDigest() != "":
		return name + "@" + i.GetDigest()
	default:
		return name
	}
}

// cut makes valid text of at most so many bytes of what came from outside.
func cut(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	const dots = "…"
	n := most - len(dots)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + dots
}

package describe

import (
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// FilterConfig is what an operator chooses of every description: the values of
// FilterAttributes. A discoverer embeds it in its own configuration.
type FilterConfig struct {
	FieldsInclude []string `json:"fields_include"`
	FieldsExclude []string `json:"fields_exclude"`
	LabelsInclude []string `json:"labels_include"`
	LabelsExclude []string `json:"labels_exclude"`
	LabelSize     int      `json:"label_size"`
	LabelsSize    int      `json:"labels_size"`
	Env           bool     `json:"env"`
	EnvInclude    []string `json:"env_include"`
	EnvExclude    []string `json:"env_exclude"`
}

// DefaultFilter is what holds where an operator writes nothing.
func DefaultFilter() FilterConfig {
	return FilterConfig{
		FieldsInclude: []string{"*"}, FieldsExclude: []string{},
		LabelsInclude: []string{"*"}, LabelsExclude: []string{}, LabelSize: 4 << 10, LabelsSize: 32 << 10,
		EnvInclude: []string{"*"},
		EnvExclude: []string{"*password*", "*passwd*", "*passphrase*", "?*pwd*", "*secret*", "*token*", "*key*", "*credential*", "*creds*", "*private*",
			"*auth*", "*cookie*", "*session*", "*jwt*", "*salt*", "*dsn*", "*conn*str*", "*webhook*"},
	}
}

// FilterAttributes are the arguments of a FilterConfig, for the schema of a
// discoverer.
func FilterAttributes() []schema.Attribute {
	const wildcards = "* stands for any characters, ? for one, [a-z] for one of a set."
	d := DefaultFilter()
	return []schema.Attribute{
		{Name: "fields_include", Type: schema.String, Shape: schema.List, Default: d.FieldsInclude,
			Doc: "Patterns of what to tell of a container, by the fields' names in the contract: args, mounts, limits, ... " + wildcards +
				" What says which container it is, as " + strings.Join(alwaysTold()[:4], ", ") + " and the like, is always told."},
		{Name: "fields_exclude", Type: schema.String, Shape: schema.List, Default: d.FieldsExclude,
			Doc: "Patterns of the fields to leave out, whatever fields_include says."},
		{Name: "labels_include", Type: schema.String, Shape: schema.List, Default: d.LabelsInclude,
			Doc: "Patterns of the keys of labels and annotations to keep. " + wildcards},
		{Name: "labels_exclude", Type: schema.String, Shape: schema.List, Default: d.LabelsExclude,
			Doc: "Patterns of the keys of labels and annotations to leave out, whatever labels_include says."},
		{Name: "label_size", Type: schema.Size, Default: int64(d.LabelSize), Min: schema.Bound(16), Max: schema.Bound(16 << 10),
			Doc: "A longer value of a label or annotation is cut, and ends in an ellipsis."},
		{Name: "labels_size", Type: schema.Size, Default: int64(d.LabelsSize), Min: schema.Bound(256), Max: schema.Bound(64 << 10),
			Doc: "What all labels and annotations of one container may take, keys and values. The labels of Kubernetes and Compose come first, " +
				"then the others by key; those beyond are left out."},
		{Name: "env", Type: schema.Bool, Default: d.Env,
			Doc: "Whether to tell the environment that containers are configured with. It often holds secrets."},
		{Name: "env_include", Type: schema.String, Shape: schema.List, Default: d.EnvInclude,
			Doc: "With env: patterns of the names of variables to keep, matched regardless of case. " + wildcards},
		{Name: "env_exclude", Type: schema.String, Shape: schema.List, Default: d.EnvExclude,
			Doc: "With env: patterns of the names of variables to leave out, whatever env_include says. " +
				"The default leaves out names that secrets usually have, not secrets in variables of other names; a list of your own stands in its place."},
	}
}

// ValidateFilter finds what the schema can't say: patterns that are none, and patterns
// of fields that no container has or that are always told.
func ValidateFilter(c FilterConfig) diag.Diagnostics {
	var ds diag.Diagnostics
	check := func(name string, patterns []string, also func(string) (summary, detail string)) {
		for i, p := range patterns {
			at := diag.Path{diag.Attr(name), diag.Index(i)}
			if _, err := path.Match(crossSlashes(p), ""); err != nil {
				ds = append(ds, diag.Errorf(at, "not a pattern", "%q cannot be read as a pattern; a bracket that is meant as such is written \\[.", p))
			} else if also != nil {
				if summary, detail := also(p); summary != "" {
					ds = append(ds, diag.Errorf(at, summary, "%q %s.", p, detail))
				}
			}
		}
	}
	known := func(p string) (string, string) {
		if !slices.ContainsFunc(fieldNames(), matcher{p}.any) {
			return "no such field", "is the name of none of a container's fields; they are " + strings.Join(optionalFields(), ", ")
		}
		return "", ""
	}
	check("fields_include", c.FieldsInclude, known)
	check("fields_exclude", c.FieldsExclude, func(p string) (string, string) {
		if slices.ContainsFunc(optionalFields(), matcher{p}.any) {
			return "", ""
		}
		if summary, detail := known(p); summary != "" {
			return summary, detail
		}
		return "a field that is always told", "says which container it is; fields that can be left out are " + strings.Join(optionalFields(), ", ")
	})
	check("labels_include", c.LabelsInclude, nil)
	check("labels_exclude", c.LabelsExclude, nil)
	check("env_include", c.EnvInclude, nil)
	check("env_exclude", c.EnvExclude, nil)
	return ds
}

// alwaysTold are the fields that say which container it is, and where: without them
// nothing can be joined.
func alwaysTold() []string {
	return []string{"id", "name", "image", "state", "scope", "runtime", "cgroup_path", "cgroup_id", "pid", "pod_uid", "sandbox_id", "type", "kubernetes_name", "truncated"}
}

func fieldNames() []string {
	fields := (*protov1.Container)(nil).ProtoReflect().Descriptor().Fields()
	var out []string
	for i := range fields.Len() {
		out = append(out, string(fields.Get(i).Name()))
	}
	return out
}

func optionalFields() []string {
	always := alwaysTold()
	return slices.DeleteFunc(fieldNames(), func(f string) bool { return slices.Contains(always, f) })
}

// Filter applies what an operator chose. It is safe for concurrent use.
type Filter struct {
	labels    labelRules
	env       bool
	variables choice
	dropped   []protoreflect.FieldDescriptor

	shortened atomic.Uint64
}

// NewFilter makes the filter of a configuration in which ValidateFilter found nothing.
func NewFilter(c FilterConfig) *Filter {
	f := &Filter{
		labels:    labelRules{keys: choice{newMatcher(c.LabelsInclude), newMatcher(c.LabelsExclude)}, value: c.LabelSize, all: c.LabelsSize},
		variables: choice{newMatcher(lower(c.EnvInclude)), newMatcher(lower(c.EnvExclude))},
	}
	told := choice{newMatcher(c.FieldsInclude), newMatcher(c.FieldsExclude)}
	fields := (*protov1.Container)(nil).ProtoReflect().Descriptor().Fields()
	for _, name := range optionalFields() {
		if !told.wants(name) {
			f.dropped = append(f.dropped, fields.ByName(protoreflect.Name(name)))
		}
	}
	f.env = c.Env && len(c.EnvInclude) > 0 && told.wants("env")
	return f
}

// Wants tells whether a field is told at all, so that a discoverer need not ask for
// what is left out.
func (f *Filter) Wants(field string) bool {
	if field == "env" {
		return f.env
	}
	return !slices.ContainsFunc(f.dropped, func(d protoreflect.FieldDescriptor) bool { return string(d.Name()) == field })
}

// Apply brings a container, in place, to what the operator chose, within the largest
// change that the contract allows. Labels, annotations and env may be as the runtime
// gave them: it bounds them, and replaces maps and lists instead of changing them. What
// it shortened it adds to truncated. A container may be given to it again.
func (f *Filter) Apply(c *protov1.Container) {
	clip := &Clip{fields: slices.Clone(c.Truncated)}
	m := c.ProtoReflect()
	for _, fd := range f.dropped {
		m.Clear(fd)
	}
	f.applyEnv(clip, c)
	room, cut := f.labels.all, false
	for _, l := range []struct {
		field string
		of    *map[string]string
	}{{"labels", &c.Labels}, {"annotations", &c.Annotations}} {
		var shortened bool
		if *l.of, room, shortened = f.labels.apply(*l.of, room); shortened {
			clip.Shortened(l.field)
			cut = true
		}
	}
	if cut {
		f.shortened.Add(1)
	}
	c.Truncated = clip.fields
	// It says what it shortens. What does not even then fit is refused, and told,
	// where it is sent.
	wire.Shorten(&protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}})
	c.Truncated = f.truncated(c.Truncated)
}

// truncated is the list without what stands there twice, or of what isn't told.
func (f *Filter) truncated(fields []string) []string {
	var out []string
	for _, field := range fields {
		if f.Wants(field) && !slices.Contains(out, field) {
			out = append(out, field)
		}
	}
	return out
}

func (f *Filter) applyEnv(clip *Clip, c *protov1.Container) {
	if !f.env || len(c.Env) == 0 {
		c.Env = nil
		return
	}
	kept := make([]string, 0, min(len(c.Env), 64))
	for _, v := range c.Env {
		name, _, _ := strings.Cut(v, "=")
		if f.variables.wants(strings.ToLower(name)) {
			kept = append(kept, v)
		}
	}
	c.Env = clip.Words("env", kept)
}

// LabelsShortened counts the descriptions whose labels or annotations were cut or left
// out for their size since it was last asked: for a line in the log that names
// label_size and labels_size.
func (f *Filter) LabelsShortened() uint64 { return f.shortened.Swap(0) }

func lower(patterns []string) []string {
	out := make([]string, len(patterns))
	for i, p := range patterns {
		out[i] = strings.ToLower(p)
	}
	return out
}

package describe_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

func TestAnImageReferenceIsSplit(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct{ ref, name, tag, digest, id string }{
		{"busybox", "busybox", "latest", "", ""},
		{"busybox:1.36", "busybox", "1.36", "", ""},
		{"registry.example:5000/team/app", "registry.example:5000/team/app", "latest", "", ""},
		{"registry.example:5000/team/app:v1", "registry.example:5000/team/app", "v1", "", ""},
		{"app@sha256:" + id, "app", "", "sha256:" + id, ""},
		{"registry.example:5000/app:v1@sha256:" + id, "registry.example:5000/app", "v1", "sha256:" + id, ""},
		{"sha256:" + id, "", "", "", "sha256:" + id},
		{id, "", "", "", "sha256:" + id},
		{"", "", "", "", ""},
		{"a\xffb:\xfe", "a\uFFFDb", "\uFFFD", "", ""},
	} {
		t.Run(tt.ref, func(t *testing.T) {
			want := &protov1.Image{Name: tt.name, Tag: tt.tag, Digest: tt.digest, Id: tt.id}
			if got := describe.ParseImage(tt.ref); !proto.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func FuzzAnImageReferenceIsSplitAndBounded(f *testing.F) {
	for _, s := range []string{"a", "a:b", "a/b:c@sha256:d", "r:1/a@", "@", ":", "\xff", strings.Repeat("a", 64), strings.Repeat("ä", 1024)} {
		f.Add(s, "sha256:"+s)
	}
	f.Fuzz(func(t *testing.T, ref, id string) {
		img := describe.ParseImage(ref)
		for _, s := range []string{img.Name, img.Tag, img.Digest, img.Id} {
			if len(s) > describe.MaxName+len("sha256:") || !utf8.ValidString(s) {
				t.Errorf("%q in the parts of %q", s, ref)
			}
		}
		if img.Name != "" && img.Tag == "" && img.Digest == "" {
			t.Errorf("%q has neither a tag nor a digest", ref)
		}
		if img.Id != "" && (img.Name != "" || img.Tag != "" || img.Digest != "") {
			t.Errorf("%q is an id and a name", ref)
		}
		describe.RepoNames{Tags: []string{id}, Digests: []string{id, ref}}.Complete(describe.WithID(img, id))
		if _, err := proto.Marshal(img); err != nil {
			t.Error(err)
		}
	})
}

func TestTheStoreCompletesAnImage(t *testing.T) {
	d := "sha256:" + strings.Repeat("d", 64)
	for _, tt := range []struct {
		name  string
		image *protov1.Image
		names describe.RepoNames
		want  string
	}{
		{"the digest of the name that was written", &protov1.Image{Name: "app", Tag: "1"}, describe.RepoNames{Digests: []string{"other@sha256:e", "app@" + d}}, "app:1@" + d},
		{"a short name for a long one", &protov1.Image{Name: "app", Tag: "1"}, describe.RepoNames{Digests: []string{"docker.io/library/app@" + d}}, "app:1@" + d},
		{"not the digest of another name", &protov1.Image{Name: "app", Tag: "1"}, describe.RepoNames{Digests: []string{"myapp@" + d}}, "app:1@"},
		{"a digest that was written stays", &protov1.Image{Name: "app", Digest: "sha256:x"}, describe.RepoNames{Digests: []string{"app@" + d}}, "app:@sha256:x"},
		{"a name for an id", &protov1.Image{Id: "sha256:1"}, describe.RepoNames{Tags: []string{"app:2"}, Digests: []string{"app@" + d}}, "app:2@" + d},
		{"nothing for an image without names", &protov1.Image{Id: "sha256:1"}, describe.RepoNames{}, ":@"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.names.Complete(tt.image)
			if got := tt.image.Name + ":" + tt.image.Tag + "@" + tt.image.Digest; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := describe.WithID(describe.ParseImage("deadbeef"), "sha256:deadbeef00"); got.Name != "" || got.Id != "sha256:deadbeef00" {
		t.Errorf("a short id is taken for a name: %v", got)
	}
}

func TestASliceIsExpandedToItsDirectory(t *testing.T) {
	for _, tt := range []struct {
		slice, want string
		ok          bool
	}{
		{"system.slice", "/system.slice", true},
		{"a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice", true},
		{"/x/a-b.slice", "/a.slice/a-b.slice", true},
		{"-.slice", "/", true},
		{"a--b.slice", "", false},
		{"-a.slice", "", false},
		{".slice", "", false},
		{"a.scope", "", false},
		{"", "", false},
		{strings.Repeat("a-", 200) + "a.slice", "", false},
	} {
		if got, ok := describe.ExpandSlice(tt.slice); got != tt.want || ok != tt.ok {
			t.Errorf("%q: got %q, %v", tt.slice, got, ok)
		}
	}
}

func TestLabelsAndAnnotationsAreChosenAndBounded(t *testing.T) {
	type m = map[string]string
	for _, tt := range []struct {
		name                string
		change              func(*describe.FilterConfig)
		labels, annotations m
		want, wanted        m
		truncated           []string
	}{
		{name: "all by default, across slashes", labels: m{"a": "1", "app.kubernetes.io/name": "x"}, want: m{"a": "1", "app.kubernetes.io/name": "x"}},
		{name: "a star crosses slashes", change: func(c *describe.FilterConfig) { c.LabelsInclude = []string{"app*"} },
			labels: m{"b": "1", "app.kubernetes.io/name": "x"}, want: m{"app.kubernetes.io/name": "x"}},
		{name: "excluded wins, of annotations too", change: func(c *describe.FilterConfig) { c.LabelsExclude = []string{"*secret*"} },
			labels: m{"my.secret/x": "1", "b": "2"}, want: m{"b": "2"}, annotations: m{"secret": "s", "c": "3"}, wanted: m{"c": "3"}},
		{name: "nothing included", change: func(c *describe.FilterConfig) { c.LabelsInclude = nil }, labels: m{"b": "2"}},
		{name: "a long value is cut at a character", change: func(c *describe.FilterConfig) { c.LabelSize = 16 },
			labels: m{"k": "1234567890123äöüß"}, want: m{"k": "1234567890123…"}, truncated: []string{"labels"}},
		{name: "an orchestrator's labels come first, then by key", change: func(c *describe.FilterConfig) { c.LabelsSize = 40 },
			labels: m{"a": "1", "z": strings.Repeat("z", 30), "io.kubernetes.pod.uid": "12345678"}, want: m{"a": "1", "io.kubernetes.pod.uid": "12345678"},
			truncated: []string{"labels"}},
		{name: "annotations have the room that labels leave", change: func(c *describe.FilterConfig) { c.LabelsSize = 8 },
			labels: m{"a": "12345"}, want: m{"a": "12345"}, annotations: m{"b": "1", "c": "1"}, wanted: m{"b": "1"}, truncated: []string{"annotations"}},
		{name: "bytes that are no text", labels: m{"\xff": "\xfe"}, want: m{"\uFFFD": "\uFFFD"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := describe.DefaultFilter()
			if tt.change != nil {
				tt.change(&c)
			}
			f := describe.NewFilter(c)
			before := fmt.Sprint(tt.labels)
			got := &protov1.Container{Labels: tt.labels, Annotations: tt.annotations}
			for range 2 { // it may be applied again
				f.Apply(got)
				if fmt.Sprint(got.Labels) != fmt.Sprint(tt.want) || fmt.Sprint(got.Annotations) != fmt.Sprint(tt.wanted) {
					t.Errorf("got %q, %q", got.Labels, got.Annotations)
				}
				if !slices.Equal(got.Truncated, tt.truncated) {
					t.Errorf("shortened: %q, want %q", got.Truncated, tt.truncated)
				}
			}
			if n := f.LabelsShortened(); (n > 0) != (len(tt.truncated) > 0) {
				t.Errorf("counted %d shortened descriptions", n)
			}
			if f.LabelsShortened() != 0 {
				t.Error("counted twice")
			}
			if fmt.Sprint(tt.labels) != before {
				t.Error("the runtime's map was changed")
			}
		})
	}
}

// full is a container with all fields set.
func full() *protov1.Container {
	n, ok := int32(1), true
	return &protov1.Container{Id: "id", Name: "name", Image: &protov1.Image{Name: "i"}, Runtime: "oci", State: 1, ExitCode: &n, OomKilled: &ok,
		CreatedUnixNano: 1, StartedUnixNano: 1, FinishedUnixNano: 1, Labels: map[string]string{"a": "b"}, Entrypoint: []string{"e"}, Args: []string{"a"},
		Env: []string{"A=1"}, Mounts: []*protov1.Mount{{}}, Ports: []*protov1.Port{{}}, Networks: []*protov1.Network{{}}, NetworkMode: "host", Hostname: "h",
		RestartCount: proto.Uint32(1), Limits: &protov1.Limits{}, Security: &protov1.Security{}, Pid: 1, CgroupPath: "/c", PodUid: "u", SandboxId: "s",
		Scope: "sc", CgroupId: 1, Truncated: []string{"mounts", "name", "mounts"}, Type: "app", KubernetesName: "k", Annotations: map[string]string{"a": "b"}}
}

func told(c *protov1.Container) []string {
	var out []string
	fields := c.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if c.ProtoReflect().Has(fields.Get(i)) {
			out = append(out, string(fields.Get(i).Name()))
		}
	}
	return out
}

func TestFieldsAreChosen(t *testing.T) {
	always := []string{"id", "name", "image", "runtime", "state", "pid", "cgroup_path", "pod_uid", "sandbox_id", "scope", "cgroup_id", "truncated", "type", "kubernetes_name"}
	for _, tt := range []struct {
		name             string
		include, exclude []string
		want             func(field string) bool
		truncated        []string
	}{
		{"all", []string{"*"}, nil, func(string) bool { return true }, []string{"mounts", "name"}},
		{"none but what says which it is", nil, nil, func(f string) bool { return slices.Contains(always, f) }, []string{"name"}},
		{"some of them", []string{"m*", "args", "id"}, []string{"*s"}, func(f string) bool { return slices.Contains(always, f) }, []string{"name"}},
		{"by their names", []string{"mounts", "args"}, []string{"args"}, func(f string) bool { return slices.Contains(always, f) || f == "mounts" }, []string{"mounts", "name"}},
		{"all but some", []string{"*"}, []string{"*_unix_nano", "env", "i*", "labels"}, func(f string) bool { return !strings.HasSuffix(f, "_unix_nano") && f != "env" && f != "labels" },
			[]string{"mounts", "name"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := describe.DefaultFilter()
			c.Env, c.FieldsInclude, c.FieldsExclude = true, tt.include, tt.exclude
			f, got := describe.NewFilter(c), full()
			var want []string
			for _, field := range told(got) {
				if tt.want(field) {
					want = append(want, field)
				}
				if f.Wants(field) != tt.want(field) {
					t.Errorf("it says of %s: %v", field, f.Wants(field))
				}
			}
			f.Apply(got)
			if !slices.Equal(told(got), want) {
				t.Errorf("told:\n%q\n%q", told(got), want)
			}
			if !slices.Equal(got.Truncated, tt.truncated) {
				t.Errorf("shortened: %q", got.Truncated)
			}
		})
	}
	if n := full().ProtoReflect().Descriptor().Fields().Len(); len(told(full())) != n {
		t.Errorf("the test's container has %d of %d fields", len(told(full())), n)
	}
}

func TestVariablesAreChosen(t *testing.T) {
	env := []string{"PATH=/bin", "DB_PASSWORD=x", "Api_Token=y", "aws_secret_access_KEY=z", "MYSQL_PWD=p", "PWD=/", "BARE", "EMPTY=", "=odd", "GOOGLE_APPLICATION_CREDENTIALS=/c", "AUTH_HEADER=h"}
	for _, tt := range []struct {
		name   string
		change func(*describe.FilterConfig)
		want   []string
	}{
		{"none by default", func(c *describe.FilterConfig) { c.Env = false }, nil},
		{"not those that are called like secrets", func(*describe.FilterConfig) {}, []string{"PATH=/bin", "PWD=/", "BARE", "EMPTY=", "=odd"}},
		{"all of them, for who says so", func(c *describe.FilterConfig) { c.EnvExclude = nil }, env},
		{"by name, regardless of case", func(c *describe.FilterConfig) {
			c.EnvInclude, c.EnvExclude = []string{"path", "db_*", "API*"}, []string{"*TOKEN"}
		}, []string{"PATH=/bin", "DB_PASSWORD=x"}},
		{"nothing is included", func(c *describe.FilterConfig) { c.EnvInclude = nil }, nil},
		{"the field is left out", func(c *describe.FilterConfig) { c.FieldsExclude = []string{"env"} }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := describe.DefaultFilter()
			c.Env = true
			tt.change(&c)
			f := describe.NewFilter(c)
			got := &protov1.Container{Env: slices.Clone(env)}
			f.Apply(got)
			if !slices.Equal(got.Env, tt.want) {
				t.Errorf("got %q", got.Env)
			}
			if f.Wants("env") != (tt.want != nil) {
				t.Error("it says of env:", f.Wants("env"))
			}
		})
	}
}

func TestWhatIsMoreThanAMessageHoldsIsShortened(t *testing.T) {
	long := strings.Repeat("ä", 1<<19)
	c := full()
	c.Truncated = nil
	c.Labels, c.Annotations = map[string]string{}, map[string]string{}
	for i := range 3000 {
		c.Labels[fmt.Sprint(i, long[:100])], c.Annotations[fmt.Sprint(i)] = long, long
		c.Env = append(c.Env, fmt.Sprint("V", i, "=", long[:8192]))
		c.Ports = append(c.Ports, &protov1.Port{HostIp: long[:4096]})
	}
	config := describe.DefaultFilter()
	config.Env, config.LabelSize, config.LabelsSize = true, 16<<10, 64<<10
	describe.NewFilter(config).Apply(c)
	change := &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
	if n := proto.Size(change); n > wire.MaxChange {
		t.Errorf("%d bytes", n)
	}
	slices.Sort(c.Truncated)
	if want := []string{"annotations", "args", "entrypoint", "env", "labels", "mounts", "ports"}; !slices.Equal(c.Truncated, want) {
		t.Errorf("shortened: %q", c.Truncated)
	}
	if c.Id != "id" || c.Limits == nil || c.Networks == nil {
		t.Error("more was left out than had to be:", told(c))
	}
	if _, err := proto.Marshal(c); err != nil {
		t.Error(err)
	}
}

func TestPatternsAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config describe.FilterConfig
		want   string
	}{
		{"the defaults", describe.DefaultFilter(), "[]"},
		{"nothing at all", describe.FilterConfig{}, "[]"},
		{"broken ones", describe.FilterConfig{LabelsInclude: []string{"a", "["}, LabelsExclude: []string{"[a-"}, EnvInclude: []string{"[b"}, EnvExclude: []string{"x", "y", "\\"}, FieldsInclude: []string{"["}},
			"[fields_include[0]: not a pattern labels_include[1]: not a pattern labels_exclude[0]: not a pattern env_include[0]: not a pattern env_exclude[2]: not a pattern]"},
		{"fields that don't exist", describe.FilterConfig{FieldsInclude: []string{"mount", "*"}, FieldsExclude: []string{"mounts", "Env", "a/b"}},
			"[fields_include[0]: no such field fields_exclude[1]: no such field fields_exclude[2]: no such field]"},
		{"fields that can't be left out", describe.FilterConfig{FieldsInclude: []string{"id"}, FieldsExclude: []string{"id", "*_id", "n*"}},
			"[fields_exclude[0]: a field that is always told fields_exclude[1]: a field that is always told]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := []string{}
			for _, d := range describe.ValidateFilter(tt.config) {
				got = append(got, d.Path.String()+": "+d.Summary)
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestTheArgumentsAreThoseOfTheConfiguration(t *testing.T) {
	attributes := describe.FilterAttributes()
	if err := schema.Check(schema.Block{Attributes: attributes}); err != nil {
		t.Error(err)
	}
	defaults := map[string]any{}
	for _, a := range attributes {
		defaults[a.Name] = a.Default
		if a.Doc == "" {
			t.Errorf("%s has no documentation", a.Name)
		}
	}
	raw, err := json.Marshal(defaults)
	if err != nil {
		t.Fatal(err)
	}
	var embedded struct{ describe.FilterConfig }
	if err := json.Unmarshal(raw, &embedded); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%#v", embedded.FilterConfig), fmt.Sprintf("%#v", describe.DefaultFilter()); got != want {
		t.Errorf("the schema's defaults are\n%s, not\n%s", got, want)
	}
}

func FuzzAFilterTakesAnyPatternAndText(f *testing.F) {
	f.Add("*", "a/b", "A=1")
	f.Add("[", "\xff", "=")
	f.Add("*a*a*a*a*b", strings.Repeat("a", 2000), "a")
	f.Add("[^a-z]\\*?", "K", "ſecret")
	f.Fuzz(func(t *testing.T, pattern, label, variable string) {
		config := describe.FilterConfig{Env: true, LabelSize: 16, LabelsSize: 256, EnvInclude: []string{pattern}, LabelsInclude: []string{pattern}, FieldsInclude: []string{"*"}}
		bad := describe.ValidateFilter(config).HasErrors()
		c := &protov1.Container{Labels: map[string]string{label: variable}, Env: []string{variable}}
		describe.NewFilter(config).Apply(c)
		if bad && (len(c.Labels) > 0 || len(c.Env) > 0) {
			t.Errorf("the broken pattern %q matches", pattern)
		}
		if _, err := proto.Marshal(c); err != nil {
			t.Errorf("%q, %q, %q: %v", pattern, label, variable, err)
		}
		if pattern == "*" && len(c.Env) != 1 {
			t.Errorf("* does not match the name of %q", variable)
		}
		config.LabelsExclude, config.EnvExclude, config.LabelsInclude, config.EnvInclude = config.LabelsInclude, config.EnvInclude, []string{"*"}, []string{"*"}
		none := &protov1.Container{Labels: map[string]string{label: variable}, Env: []string{variable}}
		describe.NewFilter(config).Apply(none)
		if len(c.Env)+len(none.Env) != 1 {
			t.Errorf("%q is both told and left out, or neither, by %q", variable, pattern)
		}
	})
}

func FuzzCutGivesShortText(f *testing.F) {
	f.Add("äöü", 3)
	f.Add("\xff\xfe", 1)
	f.Add("", 0)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(16, limit%4096)
		got := describe.Cut(s, limit)
		if !utf8.ValidString(got) || len(got) > limit {
			t.Errorf("Cut(%q, %d) = %q", s, limit, got)
		}
		if utf8.ValidString(s) && len(s) <= limit && got != s {
			t.Errorf("Cut(%q, %d) = %q", s, limit, got)
		}
	})
}

func TestAClipRemembersWhatItShortened(t *testing.T) {
	clip := &describe.Clip{}
	long := strings.Repeat("x", describe.MaxWord+1)
	if clip.Text("name", "short") != "short" || clip.Words("args", []string{"a", "b"})[1] != "b" || !clip.Room("ports", 0, 1) || len(clip.Fields()) != 0 {
		t.Error("what fits is shortened:", clip.Fields())
	}
	if clip.Words("args", nil) != nil {
		t.Error("nothing became something")
	}
	if got := clip.Text("name", long); len(got) != describe.MaxName {
		t.Errorf("a name of %d bytes", len(got))
	}
	words := clip.Words("args", slices.Repeat([]string{long}, 10))
	if words[len(words)-1] != describe.Ellipsis || len(strings.Join(words, " ")) > describe.MaxWords+len(describe.Ellipsis) {
		t.Errorf("%d words", len(words))
	}
	if clip.Room("ports", 1, 1) {
		t.Error("a full list has room")
	}
	clip.Shortened("name")
	if want := []string{"name", "args", "ports"}; !slices.Equal(clip.Fields(), want) {
		t.Errorf("got %q", clip.Fields())
	}
}

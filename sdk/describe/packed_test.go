package describe

import (
	"testing"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestWhatIsPackedIsTheSameAgain(t *testing.T) {
	c := &protov1.Container{
		Id: "a", Name: "web", ExitCode: proto.Int32(0), OomKilled: proto.Bool(false),
		Labels: map[string]string{"c": "3", "a": "1", "b": "2", "e": "", "d": "4"},
		Image:  &protov1.Image{Name: "shop", Tag: "1"},
		Mounts: []*protov1.Mount{{Type: "bind", Source: "/a", Destination: "/b"}},
	}
	p := Pack(c)
	for range 20 { // the order of labels is another each time
		got := p.Container()
		if !proto.Equal(got, c) || !p.Is(got) || !p.Is(c) {
			t.Fatalf("it is %v", got)
		}
		got.Labels["a"] = "another"
		if p.Is(got) || p.Container().Labels["a"] != "1" {
			t.Fatal("what is changed is still the same")
		}
	}
	var none Packed
	if none.Container() != nil || none.Is(c) || none.Is(&protov1.Container{}) {
		t.Error("nothing is something")
	}
	bad := Pack(&protov1.Container{Id: "b\xff", Scope: "s", Name: "x\xff"})
	if got := bad.Container(); got.GetId() != "b\uFFFD" || got.GetScope() != "s" || got.GetName() != "" {
		t.Errorf("a text that is not UTF-8 is kept as %v", got)
	}
}

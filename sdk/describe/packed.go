package describe

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Packed is the description of a container as it goes over the wire, which takes a third
// of the memory: for who remembers what was said of ten thousand and looks at few of them
// at a time. nil holds none. It is not changed once it is made.
type Packed []byte

// Pack keeps a description. One that can't be sent, for a text that is not UTF-8, is kept
// by its id and scope alone; Clip leaves no such text.
func Pack(c *protov1.Container) Packed {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		b, _ = proto.Marshal(&protov1.Container{Id: Cut(c.GetId(), MaxName), Scope: Cut(c.GetScope(), MaxName)})
	}
	return b
}

// Container is a copy of the description, the caller's; nil: none is held.
func (p Packed) Container() *protov1.Container {
	if p == nil {
		return nil
	}
	c := &protov1.Container{}
	if err := proto.Unmarshal(p, c); err != nil {
		return &protov1.Container{} // never: it is what Pack made
	}
	return c
}

// Is tells whether a description is the one that is held.
func (p Packed) Is(c *protov1.Container) bool { return p != nil && bytes.Equal(p, Pack(c)) }

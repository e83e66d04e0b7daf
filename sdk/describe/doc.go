// Package describe is for discoverers of containers: what every one of them does with
// what its runtime says, so that the same container is described alike whoever found
// it, in bounded memory, and so that an operator filters all of them with the same
// arguments.
//
// A discoverer builds a container with texts that a Clip bounds, sets labels,
// annotations and the environment as the runtime gave them, and has a Filter apply
// what the operator chose:
//
//	type Config struct {
//		Socket string `json:"socket"`
//		describe.FilterConfig
//	}
//
//	clip := &describe.Clip{}
//	c := &protov1.Container{Id: clip.Text("id", in.ID), Image: describe.ParseImage(in.Image)}
//	c.Labels, c.Env = in.Labels, in.Env
//	c.Truncated = clip.Fields()
//	filter.Apply(c)
//
// It does no I/O and owns nothing: what a container is called, and which of a
// runtime's words mean what, is the discoverer's to know.
package describe

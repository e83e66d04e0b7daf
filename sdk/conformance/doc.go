// Package conformance has the suites that every plugin passes, one for each kind:
//
//	func TestItKeepsTheContract(t *testing.T) {
//		conformance.Discoverer(t, definition(), conformance.Options{
//			Config: map[string]any{"socket": fake.Path},
//		})
//	}
//
// They run the plugin in memory (package sdktest), well and ill treated, and fail
// with sentences. What only a process shows (its handshake, its exit, what it does
// when its daemon is gone) is tested by `ebpf-tracer plugin test`, for plugins in any
// language.
//
// A suite must never ask for more than the contract does, and never test what the
// plugin is good for: that is the author's.
package conformance

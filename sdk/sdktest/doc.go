// Package sdktest runs an author's plugin inside a Go test, without a process: over
// gRPC in memory, through the SDK's own servers, as the daemon would.
//
//	func TestItTellsEveryContainer(t *testing.T) {
//		p := sdktest.Start(t, definition())
//		p.Configure(map[string]any{"socket": fake.Path})
//		d := p.Discover()
//		d.AwaitSynced()
//		fake.Run("web")
//		d.Await("the container web", func(v *sdktest.Inventory) bool {
//			return v.ContainerNamed("web") != nil
//		})
//	}
//
// Everything that comes out of the plugin is held against the contract on its way,
// and what breaks it fails the test with a sentence. Package conformance has whole
// suites made of this.
//
// What a harness starts belongs to the test, and ends with it. It must never serve a
// plugin by any code but that of a real process.
package sdktest

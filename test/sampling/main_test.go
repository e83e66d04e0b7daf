package sampling

import (
	"os"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
)

func TestMain(m *testing.M) {
	if sandbox.Called() { // this program is the host of plugins too
		sandbox.Main()
	}
	os.Exit(m.Run())
}

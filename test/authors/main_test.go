package authors

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root: the daemon loads programs into the kernel")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

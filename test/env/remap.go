package env

import (
	_ "embed"
	"fmt"
	"os"
	"strings"
)

//go:embed runc-remap.sh
var runcRemapScript string

// RemappedRuntime is a runtime of [Docker], as docker run --runtime takes it, whose
// containers have a user namespace: user ids inside are the host's from 100000 on, group
// ids those from 200000 on, 65536 of each.
const RemappedRuntime = "remapped"

// remapped writes the command of RemappedRuntime, around another.
func (s *state) remapped(runtime string) (string, error) {
	path := s.path("runc-remap.sh")
	script := strings.NewReplacer("@RUNTIME@", runtime, "@DIR@", s.dir).Replace(runcRemapScript)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		return "", fmt.Errorf("write the runtime %s: %w", RemappedRuntime, err)
	}
	return path, nil
}

package kernel

import (
	"os"
	"strings"
	"testing"
)

func TestWhatProbesDoNotSeeStandsInTheDocuments(t *testing.T) {
	raw, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(raw)), " ")
	for _, probe := range ProbeNames() {
		all := Unseen(probe)
		if len(all) == 0 {
			t.Errorf("nothing is said of probe %q", probe)
		}
		for _, s := range all {
			if !strings.Contains(text, s) {
				t.Errorf("docs/events.md does not say of probe %q: %s", probe, s)
			}
		}
	}
}

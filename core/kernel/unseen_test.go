package kernel

import (
	"os"
	"strings"
	"testing"
)

func TestWhatProbesDoNotSeeStandsInTheDocuments(t *testing.T) {
	for _, probe := range append(ProbeNames(), AccountName) {
		page := "events.md"
		if probe == AccountName {
			page = "metrics.md"
		}
		raw, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(strings.Fields(string(raw)), " ")
		all := Unseen(probe)
		if len(all) == 0 {
			t.Errorf("nothing is said of probe %q", probe)
		}
		for _, s := range all {
			if !strings.Contains(text, s) {
				t.Errorf("docs/%s does not say of probe %q: %s", page, probe, s)
			}
		}
	}
}
